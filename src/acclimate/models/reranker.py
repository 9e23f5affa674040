"""Reranker: a cross-encoder reads query and text together and gives one score.

Shapes: N pairs, L tokens of the longest in a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification

from acclimate.core.batching import chunks_by_tokens
from acclimate.errors import ModelError, UsageError
from acclimate.models.devices import CHUNK_TOKENS, choose_device, choose_dtype
from acclimate.models.folders import position_limit, read_model_config
from acclimate.models.loading import freeze, load_tokenizer, model_errors, quiet_transformers, zero_dropout
from acclimate.models.sources import hash_weights, locate
from acclimate.progress import progress


class Reranker:
    """A sequence-classification model with one label.

    Attributes:
        model: the classifier, frozen, without dropout.
        tokenizer: its fast tokenizer.
        id: the hub id, or the folder's name.
        sha256: of the weights.
        max_tokens: query, text and special tokens together; the longer of the two is cut first.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, model_id: str, sha256: str, max_tokens: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.id = model_id
        self.sha256 = sha256
        self.max_tokens = max_tokens
        self.device = next(model.parameters()).device

    @classmethod
    def load(cls, name: str, *, max_tokens: int | None = None, device: str = "auto", dtype: str = "auto") -> Reranker:
        """Load a reranker by folder or hub id.

        Raises:
            ModelError: not found, damaged, an embedding model, or a classifier of several labels.
            UsageError: a limit, device or dtype that cannot be.
        """
        place = choose_device(device)
        number_format = choose_dtype(dtype, place)
        folder, hub_id = locate(name)
        settings = read_model_config(folder, folder)
        kinds = [str(kind) for kind in settings.get("architectures") or []]
        if (folder / "1_Pooling").exists() or not any(kind.endswith("ForSequenceClassification") for kind in kinds):
            raise ModelError(
                f"{name} is no reranker ({', '.join(kinds) or settings.get('model_type')})",
                possible="a cross-encoder: a sequence-classification model with one label",
            )
        with quiet_transformers(), model_errors(folder):
            config = AutoConfig.from_pretrained(folder)
            if config.num_labels != 1:
                raise ModelError(f"{name} has {config.num_labels} labels", possible="a reranker has one")
            zero_dropout(config)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder, config=config, dtype=number_format, use_safetensors=True, output_loading_info=True
            )
        tokenizer = load_tokenizer(folder)
        limit = position_limit(settings)
        if max_tokens is not None and not 4 <= max_tokens <= limit:
            raise UsageError(f"max_tokens = {max_tokens} with {name}", possible=f"4 to {limit}")
        return cls(
            freeze(model, info, folder, place),
            tokenizer,
            hub_id or folder.resolve().name,
            hash_weights(folder),
            max_tokens or min(limit, tokenizer.model_max_length),
        )

    def score(self, query: str, texts: Sequence[str], *, label: str = "") -> NDArray[np.float32]:
        """How well each text answers the query: raw logits, float32 [N]; higher is better, any real number."""
        return self.score_pairs(list(repeat(query, len(texts))), texts, label=label)

    def score_pairs(self, queries: Sequence[str], texts: Sequence[str], *, label: str = "") -> NDArray[np.float32]:
        """How well each text answers the query beside it.

        Args:
            queries: N queries.
            texts: N texts.
            label: shown with a progress bar; silent if empty.

        Returns:
            Raw logits, float32 [N], before any sigmoid: its order is the same, and training needs them raw.
        """
        if len(queries) != len(texts):
            raise UsageError(f"{len(queries)} queries with {len(texts)} texts", possible="one query per text")
        place_of = {pair: place for place, pair in enumerate(dict.fromkeys(zip(queries, texts, strict=True)))}
        pairs = list(place_of)
        scores = np.empty(len(pairs), np.float32)
        rough = [len(query) + len(text) for query, text in pairs]
        order = np.argsort(rough, kind="stable")[::-1]
        with progress(label, len(pairs), "pairs") as advance, torch.inference_mode():
            for block in np.array_split(order, -(-len(order) // 4096)) if len(order) else []:
                for chunk, inputs in self._chunks(pairs, block):
                    scores[chunk] = self.model(**inputs.to(self.device)).logits[:, 0].float().cpu().numpy()
                    advance(len(chunk))
        return scores[[place_of[pair] for pair in zip(queries, texts, strict=True)]]

    def _chunks(self, pairs: list[tuple[str, str]], block: NDArray[np.int64]) -> Any:
        """(indices, padded inputs) of a block of pairs, by length."""
        encoded = self.tokenizer(
            [pairs[index][0] for index in block],
            [pairs[index][1] for index in block],
            truncation="longest_first",
            max_length=self.max_tokens,
        )
        lengths = [len(ids) for ids in encoded["input_ids"]]
        for chunk in chunks_by_tokens(lengths, CHUNK_TOKENS[self.device.type]):
            rows = {name: [values[row] for row in chunk] for name, values in encoded.items()}
            yield block[chunk], self.tokenizer.pad(rows, return_tensors="pt")
