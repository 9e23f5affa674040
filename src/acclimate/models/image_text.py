"""ImageTexts: texts -> unit vectors by the text tower of a CLIP or a SigLIP, beside its own image vectors.

Shapes: N texts, L tokens, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.core.pooling import unit
from acclimate.errors import ModelError
from acclimate.files import hash_file, hash_text
from acclimate.formats.sources import TOKENIZER_FILES
from acclimate.formats.transformers_io import model_errors, quiet_transformers
from acclimate.models.image_towers import ImageTower, TransformersTower
from acclimate.progress import progress
from acclimate.text_use import SpaceId
from acclimate.types import Role

BATCH_TEXTS = 64
PADDED_TO_THE_END = ("siglip", "siglip2")
"""Architectures that read texts as they were trained: all of one length, padding and all, without a mask."""


class ImageTexts:
    """The text tower of a model of images and texts. It has no prompts: queries and documents have the same vectors.

    Attributes:
        tower: the model, maybe with LoRA on either side.
        tokenizer: the model's.
        adapter_sha256: of the LoRA matrices on the text side, if there are some: they make another space.
    """

    def __init__(self, tower: TransformersTower, adapter_sha256: str | None = None) -> None:
        model: Any = tower.model
        if not hasattr(model, "get_text_features"):
            raise ModelError(
                f"{tower.folder} has no text tower, so that it cannot be --model, too",
                possible="a CLIP or a SigLIP with both towers",
                fix="Give another --model for the texts.",
            )
        from transformers import AutoTokenizer

        with quiet_transformers(), model_errors(tower.folder):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(tower.folder, local_files_only=True)
        self.tower, self.adapter_sha256 = tower, adapter_sha256
        config = model.config.text_config
        self.max_tokens = int(config.max_position_embeddings)
        self._to_the_end = model.config.model_type in PADDED_TO_THE_END

    @classmethod
    def of(cls, tower: ImageTower) -> ImageTexts:
        """The texts of an image tower's own model.

        Raises:
            ModelError: it has no text tower.
        """
        if not isinstance(tower, TransformersTower):
            raise ModelError(
                f"{tower.id} is an ONNX graph of images, so that it cannot be --model, too",
                fix="Give another --model for the texts.",
            )
        return cls(tower)

    def tokenise(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """Token ids [N, L] of texts, cut to the model's limit, and what else its text tower takes."""
        padding = "max_length" if self._to_the_end else "longest"
        found = self.tokenizer(
            list(texts), padding=padding, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        names = ("input_ids",) if self._to_the_end else ("input_ids", "attention_mask")
        return {name: found[name].to(self.tower.device) for name in names}

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, D] of one chunk of texts, under whatever grad mode is on."""
        model: Any = self.tower.model
        found = model.get_text_features(**self.tokenise(texts))
        return unit((found if isinstance(found, Tensor) else found.pooler_output).float())

    def encode(
        self,
        texts: Sequence[str],
        role: Role = "document",  # noqa: ARG002
        task: str | None = None,  # noqa: ARG002
        *,
        label: str = "",
    ) -> NDArray[np.float32]:
        """Unit vectors [N, D] of texts, in their order; role and task change nothing."""
        found = []
        with progress(label, len(texts), "texts") as advance, torch.inference_mode():
            for start in range(0, len(texts), BATCH_TEXTS):
                part = texts[start : start + BATCH_TEXTS]
                found.append(self.forward(part).cpu().numpy())
                advance(len(part))
        return np.concatenate(found) if found else np.empty((0, self.tower.features), np.float32)

    @property
    def space(self) -> SpaceId:
        """The space of images and texts."""
        return SpaceId(
            base_sha256=self.tower.sha256,
            document_adapter=self.adapter_sha256,
            document_prompt="",
            pooling="last",
            dim=self.tower.features,
            lowercase=False,
            base_config=hash_file(self.tower.folder / "config.json"),
        )

    @property
    def fingerprint(self) -> str:
        """sha256 over all that decides the vectors."""
        files = sorted({path for pattern in TOKENIZER_FILES for path in self.tower.folder.glob(pattern)})
        return hash_text(self.space.digest, *(hash_file(path) for path in files))

    def role_fingerprint(self, role: Role, task: str | None = None) -> str:  # noqa: ARG002
        """sha256 over all that decides the vectors: the same for both roles."""
        return self.fingerprint
