"""Encoder: texts -> unit vectors. The one way to do it, in mining, training, evaluation and serving.

Unique texts only, tokenised once, sorted by length, cut into chunks by a token budget, packed without padding,
scattered back. The same chunk runs with or without gradient. Any number of threads may encode at once: nothing of an
encoder changes by its use, and a model that carries LoRA belongs to one thread for the length of a chunk (`core.gate`).

Shapes: N texts, T packed tokens, D dimensions.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate import processes
from acclimate.configs import DEFAULT_MODEL
from acclimate.core import lora
from acclimate.core.batching import chunks_by_tokens
from acclimate.core.gate import NO_ADAPTER
from acclimate.core.int8_linear import INT8, int8_numbers, is_int8
from acclimate.core.pooling import pool_packed, truncate_dim, unit
from acclimate.core.sharding import forget_gathered, shard
from acclimate.errors import ModelError
from acclimate.files import hash_config
from acclimate.formats.folders import read_model_config
from acclimate.formats.sources import ModelSource, resolve_model
from acclimate.models.attention import PACKED_ATTENTION
from acclimate.models.chunked import fill, unique_rows
from acclimate.models.devices import CHUNK_TOKENS, INT8_CHUNK_TOKENS, choose_device, to_device
from acclimate.models.dtypes import check_dtype, choose_dtype
from acclimate.models.heads import load_heads
from acclimate.models.inputs import can_pack, packed_inputs, padded_inputs
from acclimate.models.loading import TransformerSize, load_base, load_tokenizer, shared_copy, transformer_size
from acclimate.models.reading import check_prompts
from acclimate.models.text_user import TextUser
from acclimate.models.tokens import TokenCache, Tokens, tokenizer_fingerprint
from acclimate.progress import progress
from acclimate.text_use import LoadSettings, SpaceId, TextUse, text_settings
from acclimate.types import ROLES, Pooling, Role, WeightFormat

if TYPE_CHECKING:
    from acclimate.models.adapter import Adapter
    from acclimate.models.query_map import QueryMap


ONE_TOKEN = Tokens(np.zeros(1, np.int32), np.array([0, 1]))
"""What a process computes that has no text left, where the others need it for theirs."""


class Encoder(TextUser):
    """A frozen embedding model, maybe with an adapter.

    Attributes:
        model: the base transformer; its weights need no gradient, its dropout probabilities are 0.
        tokenizer: its fast tokenizer.
        source: where it comes from.
        use: how texts become vectors: prompts, pooling, dimensions, limit.
        task: whose prompts are used where no other task is named; None is the default one. See `for_task`.
        device: where it runs.
        dtype: of the base weights, or of what is not in INT8 of them; vectors are always float32.
        adapter: what is attached, or None.
        query_map: what query vectors go through in the end, or None.
        heads: the base's Dense layers behind the pooling, frozen, or None.
        query_model: the queries' own transformer, in models that have two; `model` is the documents' then.
        sharded: whether the weights are spread over several processes, which then have to encode together.
        int8: whether the weights of linear layers are in INT8.
        packed: whether chunks are packed; else they are padded, for architectures whose attention we cannot replace.
        token_cache: keeps the tokens of large inputs on disk; None keeps them in memory.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        source: ModelSource,
        use: TextUse,
        *,
        token_cache: TokenCache | None = None,
    ) -> None:
        super().__init__(tokenizer, use, token_cache)
        self.model = model
        self.source = source
        self.adapter: Adapter | None = None
        self.query_map: QueryMap | None = None
        self.query_model: nn.Module | None = None
        self.heads = load_heads(source.files.heads, next(model.parameters()).device)
        self.sharded = False
        parameter = next(model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        self.int8 = is_int8(model)
        config: Any = model.config
        self.packed: bool = config._attn_implementation == PACKED_ATTENTION

    @classmethod
    def load(cls, name: str = DEFAULT_MODEL, **settings: Unpack[LoadSettings]) -> Encoder:
        """Load a model by folder, hub id, or the packaged default's name; `runs.resolve.load` also takes runs.

        Args:
            name: see `resolve_model`.
            settings: what is changed of the model's own use of texts, and where it runs: see `LoadSettings`.

        Raises:
            ModelError: the model cannot be found or used.
            UsageError: an option that this model or machine cannot have; no such task.
            MissingExtraError: a 4-bit base without bitsandbytes.
        """
        return cls.open(*_found(name, settings), **settings)

    @classmethod
    def check(cls, name: str, **settings: Unpack[LoadSettings]) -> None:
        """Refuse what `load` would refuse, without reading any weights.

        Args:
            name: see `load`; so are the errors.
            settings: see `load`.
        """
        source, use = _found(name, settings)
        check_prompts(load_tokenizer(source.files.transformer, lowercase=use.lowercase), use.prompts, use.max_tokens)

    @classmethod
    def open(cls, source: ModelSource, use: TextUse, **settings: Unpack[LoadSettings]) -> Encoder:
        """Load a model that was found.

        Args:
            source: where it lies.
            use: how texts become vectors, settled.
            settings: only task, device, dtype and quantise_base are read.

        Raises:
            ModelError: the model is damaged.
            UsageError: a device or dtype that this machine cannot have; no such task; a prompt that fills `max_tokens`.
            MissingExtraError: a 4-bit base without bitsandbytes.
        """
        device = choose_device(settings.get("device", "auto"))
        files = source.files
        dtype = choose_dtype(settings.get("dtype", "auto"), device, files.transformer)
        packed = can_pack(read_model_config(files.transformer, files.folder))
        weights: WeightFormat | None = "int8" if settings.get("dtype") == INT8 else settings.get("quantise_base")

        def loaded(folder: Path) -> nn.Module:
            attention = PACKED_ATTENTION if packed else None
            return load_base(folder, dtype, device, attention, weights)

        tokenizer = load_tokenizer(files.transformer, lowercase=use.lowercase)
        check_prompts(tokenizer, use.prompts, use.max_tokens)
        encoder = cls(loaded(files.transformer), tokenizer, source, use)
        encoder.query_model = loaded(files.query_transformer) if files.query_transformer else None
        return encoder.for_task(settings.get("task"))

    def encode(
        self, texts: Sequence[str], role: Role = "document", task: str | None = None, *, label: str = ""
    ) -> NDArray[np.float32]:
        """Vectors of texts, without gradient.

        Args:
            texts: texts without prompts; repeated ones are computed once.
            role: query or document: decides the prompt, and whether a query-side adapter is active.
            task: a task of the model's prompts; `self.task` if None.
            label: shown with a progress bar; silent if empty.

        Returns:
            float32 [N, D], rows of length 1, in the order of the texts.
        """
        unique, places = unique_rows(texts)
        tokens = self.tokenise(unique, role, task)
        vectors = np.empty((len(unique), self.use.dim), np.float32)
        lengths = tokens.lengths
        chunks = chunks_by_tokens(lengths, self.chunk_tokens)
        idle = max(processes.gather(len(chunks))) - len(chunks) if self.sharded else 0
        # Weights gathered in inference mode could never take part in a backward pass.
        gradient_off = torch.no_grad if self.sharded else torch.inference_mode
        with progress(label, int(lengths.sum()), "tokens") as advance, gradient_off():
            fill(
                vectors,
                chunks,
                lambda chunk: self.forward_tokens(tokens, chunk, role),
                lambda chunk: advance(int(lengths[chunk].sum())),
            )
            for _ in range(idle):
                self.forward_tokens(ONE_TOKEN, np.zeros(1, np.int64), role)
        if self.sharded:
            forget_gathered(self.model)
        return vectors if len(unique) == len(texts) else vectors[places]

    def forward_tokens(self, tokens: Tokens, indices: NDArray[np.int64], role: Role = "document") -> Tensor:
        """Unit vectors [len(indices), D] of one chunk, in the order of `indices`, under whatever grad mode is on.

        The texts are packed in that order; those of one length should be neighbours, as `chunks_by_tokens` has them.

        Args:
            tokens: of the texts, with their prompts.
            indices: which of them.
            role: queries may have their own transformer, and an adapter for queries is off for documents.
        """
        model = self.query_model if self.query_model is not None and role == "query" else self.model
        with self._adapter_open(model, role):
            hidden_TD, lengths = self.hidden_states(tokens, indices, model)
        vectors_ND = self.pooled(hidden_TD, lengths, self.use.pooling, self.use.dim)
        return self.query_map.mapped(vectors_ND) if self.query_map is not None and role == "query" else vectors_ND

    def hidden_states(
        self, tokens: Tokens, indices: NDArray[np.int64], model: nn.Module
    ) -> tuple[Tensor, NDArray[np.int64]]:
        """Last hidden states [T, D] of one chunk's texts one after the other, and the tokens of each, int64 [N].

        Args:
            tokens: of the texts, with their prompts.
            indices: which of them.
            model: a transformer of this encoder.
        """
        ids, positions, lengths = tokens.pack(np.asarray(indices, np.int64))
        if self.packed:
            return model(**packed_inputs(model, ids, positions, lengths)).last_hidden_state[0], lengths
        inputs = padded_inputs(model, ids, positions, lengths, self.tokenizer.pad_token_id or 0)
        return model(**inputs).last_hidden_state[inputs["attention_mask"].bool()], lengths

    def pooled(self, hidden_TD: Tensor, lengths: NDArray[np.int64], pooling: Pooling, dim: int) -> Tensor:
        """Unit vectors [N, dim] out of what `hidden_states` gives."""
        pooled_ND = pool_packed(hidden_TD, to_device(torch.from_numpy(lengths), self.device), pooling)
        if self.heads is not None:
            pooled_ND = self.heads(pooled_ND)
        return truncate_dim(pooled_ND, dim) if dim < self.source.files.dim else unit(pooled_ND)

    def with_own_use(self) -> Encoder:
        """The same encoder, weights and all, that uses texts as the model's own files say, without a task."""
        view = copy.copy(self)
        view.use, view.task = self.source.use, None
        return view

    def shard(self, device: torch.device) -> None:
        """Spread the weights over all processes' devices (FSDP2); see `core.sharding.shard`."""
        shard(self.model, device)
        self.device, self.sharded = device, True

    def with_adapter(self, adapter: Adapter) -> Encoder:
        """Another Encoder with this adapter, over the same base weights; this one stays as it is.

        The adapter's use of texts holds: it was trained with it.

        Raises:
            ModelError: the adapter belongs to another base, or this model has two transformers.
        """
        self.require_one_transformer()
        adapter.check_base(self.source)
        adapted = self.fork()
        lora.attach_set(adapted.model, [adapter.modules], self.dtype)
        adapted.adapter, adapted.use = adapter, adapter.use
        return adapted

    def with_query_map(self, query_map: QueryMap) -> Encoder:
        """Another Encoder whose query vectors go through this map; documents and weights are this one's.

        The map's use of texts holds: it was made for it.

        Raises:
            ModelError: the map belongs to another base.
        """
        query_map.check_base(self.source)
        mapped = copy.copy(self)
        mapped.query_map, mapped.use = query_map, query_map.use
        return mapped

    def fork(self) -> Encoder:
        """Another Encoder over the same weights (shared, not copied): LoRA attached to it leaves this one alone."""
        twin = copy.copy(self)
        twin.model = shared_copy(self.model)
        return twin

    def _adapter_open(self, model: nn.Module, role: Role) -> AbstractContextManager[None]:
        """The model is this thread's within it, and an adapter for queries is off for documents."""
        slot = lora.gate_slot(model)
        if slot is None:
            return nullcontext()
        if self.adapter is not None and self.adapter.sides == "query" and role == "document":
            return slot.open(NO_ADAPTER)
        return slot.held()

    def require_one_transformer(self) -> None:
        """Raise a `ModelError` if queries have a transformer of their own: an adapter would change documents only."""
        if self.query_model is not None:
            raise ModelError(
                f"{self.source.files.folder} has another transformer for queries than for documents",
                fix="Use the model that it was made from, and its adapter.",
            )

    @property
    def parameters(self) -> int:
        """Parameters of the base and of what is attached to it; a byte of a 4-bit weight holds two."""
        model: Any = self.model
        return int(model.num_parameters()) + int8_numbers(model)

    @property
    def chunk_tokens(self) -> int:
        """Tokens computed at once."""
        return INT8_CHUNK_TOKENS if self.int8 else CHUNK_TOKENS[self.device.type]

    @property
    def number_format(self) -> str:
        """What the weights are kept in and what is computed in: part of the key of stored vectors."""
        if getattr(self.model, "is_quantized", False):
            return f"{self.dtype}, 4 bits"
        return f"{self.dtype}, weights in 8 bits" if self.int8 else str(self.dtype)

    @property
    def transformer_size(self) -> TransformerSize:
        """Parameters and layers of the base's transformer, which a learning rate acts on: no embeddings, no adapter."""
        return transformer_size(self.model)

    @property
    def space(self) -> SpaceId:
        """The space of its document vectors; queries of this encoder search it."""
        return SpaceId(
            base_sha256=self.source.sha256,
            document_adapter=self._adapter_of("document"),
            document_prompt=self.use.prompts.prompt("document", self.task),
            pooling=self.use.pooling,
            dim=self.use.dim,
            lowercase=self.use.lowercase,
            base_config=self.source.computation,
        )

    @property
    def fingerprint(self) -> str:
        """sha256 over all that decides the vectors of both roles."""
        prompts = self.use.prompts.to_json()
        parts = [self._identity(role, task) for role in ROLES for task in (None, *self.use.prompts.tasks)]
        return hash_config({"parts": parts, "prompts": prompts})

    def role_fingerprint(self, role: Role, task: str | None = None) -> str:
        """sha256 over what decides the vectors of one role and task: the key of stored vectors.

        Documents beside a query-side adapter have the base's, so that their vectors are found again.
        """
        return hash_config(self._identity(role, task or self.task))

    def _identity(self, role: Role, task: str | None) -> dict[str, Any]:
        """Unlike `space`, also of queries, and with limit, tokenizer and number format."""
        queries_alone = role == "query" and self.source.query_sha256
        return {
            "weights": self.source.query_sha256 if queries_alone else self.source.sha256,
            "architecture": self.source.architecture,
            "adapter": self._adapter_of(role),
            "prompt": self.use.prompts.prompt(role, task),
            "tokenizer": tokenizer_fingerprint(self.tokenizer),
            "pooling": self.use.pooling,
            "dim": self.use.dim,
            "max_tokens": self.use.max_tokens,
            "dtype": self.number_format,
        }

    def _adapter_of(self, role: Role) -> str | None:
        """Hash of the adapter, or the map on query vectors, that a role's vectors depend on."""
        if self.query_map is not None and role == "query":
            return self.query_map.sha256
        if self.adapter is None or (self.adapter.sides == "query" and role == "document"):
            return None
        return self.adapter.sha256


def _found(name: str, settings: LoadSettings) -> tuple[ModelSource, TextUse]:
    """Where a model lies, and how it shall use texts."""
    choose_device(settings.get("device", "auto"))  # refused before anything is looked for
    check_dtype(settings.get("dtype", "auto"))
    source = resolve_model(name, pooling=settings.get("pooling"))
    return source, source.adjusted(source.use, **text_settings(settings))
