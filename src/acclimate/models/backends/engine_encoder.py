"""EngineEncoder: an exported model, with the same tokens, prompts and chunks as `Encoder` has.

Shapes: N texts, L tokens of the longest, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from acclimate.core.batching import chunks_by_tokens
from acclimate.core.pooling import truncate_dim
from acclimate.errors import UsageError
from acclimate.files import hash_config
from acclimate.formats.engine_folder import EngineFolder, read_engine
from acclimate.formats.sources import ModelSource
from acclimate.models.backends.sessions import Session, check_settings, open_session
from acclimate.models.chunked import fill, unique_rows
from acclimate.models.loading import load_tokenizer
from acclimate.models.reading import check_prompts
from acclimate.models.text_user import TextUser
from acclimate.models.tokens import Tokens, tokenizer_fingerprint
from acclimate.progress import progress
from acclimate.text_use import LoadSettings, SpaceId, TextUse, text_settings
from acclimate.types import ROLES, Role

CHUNK_TOKENS = 512
"""Most tokens of one call of a graph. On one thread ONNX Runtime encodes texts of 12 tokens 2.3 times as fast with 512
as with 4,096, whose activations do not fit into the cache, and texts of 200 tokens a tenth faster."""


class EngineEncoder(TextUser):
    """A `TextEncoder` over a graph of onnxruntime or openvino, on the CPU.

    Attributes:
        folder: the export.
        use: how texts become vectors.
        task: see `Encoder.task`.
        tokenizer: its fast tokenizer.
    """

    def __init__(self, folder: EngineFolder, use: TextUse, tokenizer: Any, sessions: Mapping[Role, Session]) -> None:
        super().__init__(tokenizer, use)
        self.folder = folder
        self._sessions = sessions

    @classmethod
    def open(cls, path: Path, *, threads: int | None = None, **settings: Unpack[LoadSettings]) -> EngineEncoder:
        """Load an exported folder.

        Args:
            path: the folder.
            threads: on which it runs; as many as torch has now if None.
            settings: see `LoadSettings`; pooling, number format and device are the export's own.

        Raises:
            ModelError: it is damaged.
            MissingExtraError: its engine is not installed.
            UsageError: a setting that the graph cannot have.
        """
        folder = read_engine(path)
        _check(folder, settings)
        use = folder.source.adjusted(folder.use, **text_settings(settings))
        tokenizer = load_tokenizer(folder.source.files.transformer, lowercase=use.lowercase)
        check_prompts(tokenizer, use.prompts, use.max_tokens)
        documents = open_session(folder.engine, folder.graph("document"), threads)
        own = folder.source.files.query_transformer is not None
        queries = open_session(folder.engine, folder.graph("query"), threads) if own else documents
        sessions: dict[Role, Session] = {"document": documents, "query": queries}
        return cls(folder, use, tokenizer, sessions).for_task(settings.get("task"))

    @property
    def source(self) -> ModelSource:
        """Its files."""
        return self.folder.source

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def encode(
        self, texts: Sequence[str], role: Role = "document", task: str | None = None, *, label: str = ""
    ) -> NDArray[np.float32]:
        """Vectors of texts; see `Encoder.encode`.

        In dynamic INT8 a batch shares the scales of its activations, so that a text's vector depends a little on its
        neighbours.
        """
        unique, places = unique_rows(texts)
        vectors = self.encode_tokens(self.tokenise(unique, role, task), role, label=label)
        return vectors if len(unique) == len(texts) else vectors[places]

    def encode_tokens(self, tokens: Tokens, role: Role = "document", *, label: str = "") -> NDArray[np.float32]:
        """Vectors of texts that are tokens already, with their prompts, cut; each is computed, equal ones too."""
        vectors = np.empty((len(tokens), self.use.dim), np.float32)
        lengths = tokens.lengths
        with progress(label, int(lengths.sum()), "tokens") as advance:
            fill(
                vectors,
                chunks_by_tokens(lengths, CHUNK_TOKENS),
                lambda chunk: self._forward(tokens, chunk, role),
                lambda chunk: advance(int(lengths[chunk].sum())),
            )
        return vectors

    def encode_alone(self, texts: Sequence[str], role: Role = "document") -> NDArray[np.float32]:
        """Vectors of texts of which none depends on another, each in a batch of its own."""
        return np.concatenate([self.encode([text], role) for text in texts])

    @property
    def space(self) -> SpaceId:
        """The space of the model that it was made from, where the export has shown that both may be mixed; else its
        own."""
        shared = self.folder.space
        return SpaceId(
            base_sha256=self.source.sha256 if shared is None else shared.base_sha256,
            document_adapter=None if shared is None else shared.document_adapter,
            document_prompt=self.use.prompts.prompt("document", self.task),
            pooling=self.use.pooling,
            dim=self.use.dim,
            lowercase=self.use.lowercase,
            base_config=self.source.computation if shared is None else shared.base_config,
        )

    @property
    def fingerprint(self) -> str:
        """sha256 over all that decides the vectors of both roles."""
        parts = [self._identity(role, task) for role in ROLES for task in (None, *self.use.prompts.tasks)]
        return hash_config({"parts": parts, "prompts": self.use.prompts.to_json()})

    def role_fingerprint(self, role: Role, task: str | None = None) -> str:
        """sha256 over what decides the vectors of one role and task: the key of stored vectors."""
        return hash_config(self._identity(role, task or self.task))

    def _identity(self, role: Role, task: str | None) -> dict[str, Any]:
        own = self.source.query_sha256 if role == "query" else None
        return {
            "engine": self.folder.engine,
            "graph": own or self.source.sha256,
            "prompt": self.use.prompts.prompt(role, task),
            "tokenizer": tokenizer_fingerprint(self.tokenizer),
            "dim": self.use.dim,
            "max_tokens": self.use.max_tokens,
        }

    def _forward(self, tokens: Tokens, chunk: NDArray[np.int64], role: Role) -> Tensor:
        ids_T, position_T, length_N = tokens.pack(chunk)
        row_T = np.repeat(np.arange(len(length_N)), length_N)
        ids_NL = np.full((len(length_N), int(length_N.max())), self.tokenizer.pad_token_id or 0, np.int64)
        mask_NL = np.zeros_like(ids_NL)
        ids_NL[row_T, position_T], mask_NL[row_T, position_T] = ids_T, 1
        vectors_ND = torch.from_numpy(self._sessions[role](ids_NL, mask_NL))
        return truncate_dim(vectors_ND, self.use.dim) if self.use.dim < vectors_ND.shape[1] else vectors_ND


def _check(folder: EngineFolder, settings: LoadSettings) -> None:
    """Refuse what a graph cannot be changed to."""
    where, pooling = folder.source.id, settings.get("pooling")
    if pooling not in (None, folder.use.pooling):
        raise UsageError(f"pooling = {pooling!r}, and the graph of {where} pools by {folder.use.pooling!r}")
    if (dim := settings.get("dim") or 0) > folder.use.dim:
        raise UsageError(f"dim = {dim} with {where}", possible=f"1 to {folder.use.dim}")
    if settings.get("quantise_base"):
        raise UsageError(f"a quantised base with {where}", fix="An export has its number format already.")
    device, dtype = settings.get("device", "auto"), settings.get("dtype", "auto")
    check_settings(where, folder.engine, folder.precision, device, dtype)
