"""Reranker: reads query and text together and gives one score. The one way to do it, as `Encoder` is for vectors.

Unique pairs only, sorted by length, cut into chunks by a token budget, packed without padding, scattered back. The
same chunk runs with or without gradient.

Shapes: N pairs, T tokens of all of them, D hidden width.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from acclimate.core import lora
from acclimate.core.batching import chunks_by_tokens
from acclimate.core.int8_linear import INT8
from acclimate.counting import counted
from acclimate.errors import ModelError, UsageError
from acclimate.formats import peft
from acclimate.formats.folders import position_limit
from acclimate.formats.reranker_folder import POSSIBLE, RerankerKind, RerankerSource, resolve_reranker
from acclimate.formats.transformers_io import model_errors, quiet_transformers
from acclimate.models.attention import PACKED_ATTENTION
from acclimate.models.backends.pair_graph import ScoringGraph
from acclimate.models.backends.sessions import check_settings
from acclimate.models.chunked import fill, unique_rows
from acclimate.models.devices import CHUNK_TOKENS, choose_device
from acclimate.models.dtypes import choose_dtype
from acclimate.models.inputs import device_of, packed_inputs, padded_inputs
from acclimate.models.loading import freeze, load_tokenizer, zero_dropout
from acclimate.models.reranker_kinds import YES_NO_MAX_TOKENS, CrossEncoder, Kind, Pairs, YesNo
from acclimate.progress import progress

LOADERS: dict[RerankerKind, Any] = {
    "cross-encoder": AutoModelForSequenceClassification,
    "yes-no": AutoModelForCausalLM,
}
BLOCK_PAIRS = 4096
"""Pairs tokenised at a time: what bounds memory, whatever the number of pairs."""


class Reranker:
    """A frozen reranker, maybe with an adapter.

    Attributes:
        model: the transformer with its head, without dropout; of an export its graph.
        tokenizer: its fast tokenizer.
        source: where it comes from.
        kind: how pairs become tokens, and hidden states a score.
        max_tokens: query, text and what is put around them.
        device: where it runs.
        packed: whether chunks are packed; else they are padded, for architectures whose attention we cannot replace.
    """

    def __init__(self, model: nn.Module, tokenizer: Any, source: RerankerSource, kind: Kind, max_tokens: int) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.source = source
        self.kind = kind
        self.max_tokens = max_tokens
        self.device = device_of(model)
        config: Any = getattr(model, "config", None)
        self.packed: bool = config is not None and config._attn_implementation == PACKED_ATTENTION

    @classmethod
    def load(
        cls,
        name: str,
        *,
        instruction: str | None = None,
        max_tokens: int | None = None,
        base: str | None = None,
        head_seed: int | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> Reranker:
        """Load a reranker.

        Args:
            name: a folder (a model's, an adapter's, or what `export` wrote), or a hub id; `runs.resolve.load_reranker`
                also takes runs.
            instruction: what makes a text relevant (Qwen3-Reranker only); the folder's own, else the model card's.
            max_tokens: query, text and what is put around them; the folder's own, else the model's limit.
            base: where an adapter's base is, if its own record does not lead there.
            head_seed: give an encoder without a classification head a new, random one. Only training wants that.
            device: auto, cpu, cuda, cuda:1 or mps.
            dtype: auto, float32 or bfloat16; of an export its own.

        Raises:
            ModelError: not found, damaged, an embedding model, a classifier of several labels, or a causal model whose
                tokenizer has no yes and no.
            UsageError: a limit, device, dtype or instruction that cannot be.
            MissingExtraError: an export whose engine is not installed.
        """
        return cls.open(
            resolve_reranker(name, base=base),
            instruction=instruction,
            max_tokens=max_tokens,
            head_seed=head_seed,
            device=device,
            dtype=dtype,
        )

    @classmethod
    def open(
        cls,
        source: RerankerSource,
        *,
        instruction: str | None = None,
        max_tokens: int | None = None,
        head_seed: int | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> Reranker:
        """Load a reranker that was found; arguments and errors are those of `load`."""
        if source.headless and head_seed is None:
            raise ModelError(f"{source.id} is an embedding model, no reranker: it has no head", possible=POSSIBLE)
        tokenizer = load_tokenizer(source.folder)
        kind = _kind(source, tokenizer, instruction, max_tokens)
        if (graph := source.graph) is not None:
            check_settings(source.id, graph.engine, graph.precision, device, dtype)
            return cls(ScoringGraph.open(graph.engine, graph.path), tokenizer, source, kind, kind.max_tokens)
        if dtype == INT8:
            raise UsageError(
                f"dtype = 'int8' with the reranker {source.id}",
                possible="auto, float32, bfloat16",
                fix="Export it in INT8: acclimate export RERANKER --format onnx --int8",
            )
        torch_device = choose_device(device)
        model = _load_model(source, kind, choose_dtype(dtype, torch_device, source.folder), torch_device, head_seed)
        if source.adapter is not None:
            weights = peft.read(source.adapter, with_head=True)
            lora.attach_weights(model, weights.modules)
            model.load_state_dict(weights.head, strict=False)
        return cls(model, tokenizer, source, kind, kind.max_tokens)

    def score(self, query: str, texts: Sequence[str], *, label: str = "") -> NDArray[np.float32]:
        """How well each text answers the query: raw logits, float32 [N]; higher is better, any real number."""
        return self.score_pairs([query] * len(texts), texts, label=label)

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
            raise UsageError(
                f"{counted(len(queries), 'queries')} with {counted(len(texts), 'texts')}", possible="one query per text"
            )
        pairs, places = unique_rows(zip(queries, texts, strict=True))
        scores = np.empty(len(pairs), np.float32)
        order = np.argsort([-len(query) - len(text) for query, text in pairs], kind="stable")
        with progress(label, len(pairs), "pairs") as advance:
            for start in range(0, len(pairs), BLOCK_PAIRS):
                block = order[start : start + BLOCK_PAIRS]
                tokens = self.tokenise([pairs[place][0] for place in block], [pairs[place][1] for place in block])
                scores[block] = self.score_tokens(tokens, advance)
        return scores[places]

    def score_tokens(self, pairs: Pairs, advance: Callable[[int], None] = lambda _: None) -> NDArray[np.float32]:
        """Raw logits of pairs that are tokens already, float32 [N], without gradient.

        Args:
            pairs: as `tokenise` gives them; each is computed, equal ones too.
            advance: told how many more pairs are done.
        """
        scores = np.empty(len(pairs.tokens), np.float32)
        self.model.eval()
        with torch.inference_mode():
            fill(
                scores,
                chunks_by_tokens(pairs.tokens.lengths, CHUNK_TOKENS[self.device.type]),
                functools.partial(self.forward_tokens, pairs),
                lambda chunk: advance(len(chunk)),
            )
        return scores

    def tokenise(self, queries: Sequence[str], texts: Sequence[str]) -> Pairs:
        """Tokens of N pairs, cut to `max_tokens`."""
        return self.kind.tokenise(queries, texts)

    def forward_tokens(self, pairs: Pairs, indices: NDArray[np.int64]) -> Tensor:
        """Raw logits, float32 [len(indices)], of one chunk in the order of `indices`, under whatever grad mode is on.

        The pairs are packed in that order; those of one length should be neighbours, as `chunks_by_tokens` has them.
        """
        ids, positions, lengths = pairs.tokens.pack(np.asarray(indices, np.int64))
        segments = (positions >= np.repeat(pairs.first[indices], lengths)).astype(np.int64)
        model: Any = self.model
        with lora.held(model):
            if not self.packed:
                pad_id = self.tokenizer.pad_token_id or 0
                inputs = padded_inputs(model, ids, positions, lengths, pad_id, segments)
                return model(**inputs) if self.source.graph else self.kind.score_padded(model, inputs)
            body = model.base_model
            hidden_TD = body(**packed_inputs(body, ids, positions, lengths, segments)).last_hidden_state[0]
            return self.kind.score_packed(model, hidden_TD, torch.from_numpy(lengths).to(self.device))


def _kind(
    source: RerankerSource, tokenizer: Any, instruction: str | None, max_tokens: int | None
) -> CrossEncoder | YesNo:
    limit = position_limit(source.config)
    if max_tokens is not None and max_tokens > limit:
        raise UsageError(f"{max_tokens} tokens for a pair with {source.id}", possible=f"up to {limit}")
    own = min(limit, tokenizer.model_max_length)
    if source.kind == "yes-no":
        tokens = max_tokens or source.max_tokens or min(own, YES_NO_MAX_TOKENS)
        return YesNo(tokenizer, tokens, instruction or source.instruction)
    if instruction is not None:
        raise UsageError(f"{source.id} takes no instruction", possible="one only for Qwen3-Reranker")
    return CrossEncoder(tokenizer, max_tokens or source.max_tokens or own)


def _load_model(
    source: RerankerSource, kind: Kind, dtype: torch.dtype, device: torch.device, head_seed: int | None
) -> nn.Module:
    with quiet_transformers(), model_errors(source.folder):
        config = AutoConfig.from_pretrained(source.folder)
        if source.headless:
            config.num_labels = 1
        if source.kind == "cross-encoder" and config.num_labels != 1:
            raise ModelError(f"{source.id} has {config.num_labels} labels", possible="a reranker has one")
        zero_dropout(config)
        arguments: dict[str, Any] = {"attn_implementation": PACKED_ATTENTION} if kind.packs(source.config) else {}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(head_seed or 0)
            model, info = LOADERS[source.kind].from_pretrained(
                source.folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                output_loading_info=True,
                **arguments,
            )
    if source.headless:
        body = f"{model.base_model_prefix}."
        info["missing_keys"] = {
            name for name in info["missing_keys"] if name.startswith(body) and ".pooler." not in name
        }
    return freeze(model, info, source.folder, device)
