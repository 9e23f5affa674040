"""The losses as `loss_fn`s for `fit`: which texts a step needs, and what is computed from their vectors.

No text is computed twice in a step: a batch's queries and documents are looked at as one set of texts.

Legend: N training rows of the step, M candidate documents, U unique texts, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from acclimate.configs import RunConfig, TrainConfig
from acclimate.core.batching import chunks_by_tokens, step_seed
from acclimate.core.losses import cosine_mse, cosines, info_nce
from acclimate.core.negatives import identity_mask, margin_mask, own_mask
from acclimate.engine.fit import LossFn, StepResult
from acclimate.engine.gradcache import Processes, activation_bytes_per_token, chunked_backward, kept_chunks
from acclimate.engine.schedule import Schedule
from acclimate.models.devices import CHUNK_TOKENS
from acclimate.models.encoder import Encoder
from acclimate.models.tokens import Tokens
from acclimate.types import Example, Role

PAIR_ROLE: Role = "query"
"""Both sentences of a labelled pair are encoded as queries: the side that every adapter adapts."""


class StepTexts:
    """The texts of a training, tokenised once, and the way of a step's gradient into the model.

    Args:
        encoder: its trainable parameters get the gradient.
        texts: (role, text); repeated ones are kept once, also across roles where their prompts are the same.
        config: memory, gradient checkpointing.
        seed: of the dropout.
        processes: what shares each step.
        autocast: entered around every forward pass (bf16 over float32 weights).
    """

    def __init__(
        self,
        encoder: Encoder,
        texts: Iterable[tuple[Role, str]],
        config: TrainConfig,
        seed: int,
        processes: Processes | None = None,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self.encoder, self.seed, self.processes, self.autocast = encoder, seed, processes, autocast
        role_of: dict[tuple[str, str], Role] = {}
        for role, text in texts:
            role_of.setdefault(self._key(role, text), role)
        by_role: dict[Role, list[str]] = {"query": [], "document": []}
        for (_, text), role in role_of.items():
            by_role[role].append(text)
        ordered = [self._key(role, text) for role in by_role for text in by_role[role]]
        self._number = {key: number for number, key in enumerate(ordered)}
        self.tokens = _concatenate([encoder.tokenise(found, role) for role, found in by_role.items() if found])
        self.lengths_N = self.tokens.lengths
        parameter = next(encoder.model.parameters())
        self._dtype = torch.promote_types(parameter.dtype, torch.float32)
        itemsize = parameter.element_size()
        per_token = activation_bytes_per_token(encoder.model.config, itemsize, config.gradient_checkpointing)
        self.max_tokens = config.activation_memory_gb * 1e9 / per_token
        self.chunk_tokens = int(min(CHUNK_TOKENS[encoder.device.type], max(1.0, self.max_tokens)))

    def numbers(self, role: Role, texts: Sequence[str]) -> np.ndarray:
        """The texts' rows in `tokens`."""
        return np.fromiter((self._number[self._key(role, text)] for text in texts), dtype=np.int64, count=len(texts))

    def backward(self, step: int, numbers_U: np.ndarray, loss_of: Callable[[Tensor], Tensor]) -> StepResult:
        """Gradient of `loss_of(vectors [U, D] of the texts)` into the trainable parameters.

        Args:
            step: seeds the dropout.
            numbers_U: unique rows of `tokens`.
            loss_of: called once.
        """
        lengths_U = self.lengths_N[numbers_U]
        chunks = chunks_by_tokens(lengths_U, self.chunk_tokens)
        self.encoder.model.train()

        def encode(chunk: np.ndarray) -> Tensor:
            with self.autocast():
                return self.encoder.forward_tokens(self.tokens, numbers_U[chunk])

        loss = chunked_backward(
            encode,
            chunks,
            loss_of,
            torch.zeros(len(numbers_U), self.encoder.dim, dtype=self._dtype, device=self.encoder.device),
            kept=kept_chunks([int(lengths_U[chunk].sum()) for chunk in chunks], self.max_tokens),
            seed_of=lambda chunk: step_seed(self.seed, step, chunk),
            processes=self.processes,
        )
        return StepResult(loss, int(lengths_U.sum()))

    def _key(self, role: Role, text: str) -> tuple[str, str]:
        return self.encoder.prompts.prompt(role), text


def contrastive(
    encoder: Encoder,
    examples: Sequence[Example],
    schedule: Schedule,
    config: RunConfig,
    *,
    document_vectors: Mapping[str, np.ndarray] | None = None,
    processes: Processes | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> LossFn:
    """InfoNCE over in-batch and drawn negatives, with the identity and the margin mask.

    Args:
        encoder: being trained.
        examples: all training rows, with their negatives.
        schedule: which rows a step has.
        config: objective (temperature, masks), group size, memory.
        document_vectors: the documents' vectors where they do not change (`sides="query"`). They cost nothing then, so
            all negatives of an example are candidates instead of a few.
        processes: what shares each step.
        autocast: entered around every forward pass.
    """
    positives: dict[str, set[str]] = {}
    for example in examples:
        positives.setdefault(example.anchor, set()).add(example.positive)
    fixed = None if document_vectors is None else FixedVectors(document_vectors, encoder.device)
    bank = StepTexts(
        encoder, _texts(examples, with_documents=fixed is None), config.train, schedule.seed, processes, autocast
    )
    drawn = config.train.group_size - 1 if fixed is None else None

    def loss_fn(step: int) -> StepResult:
        rows = [int(row) for row in schedule.batch(step)]
        batch = [examples[row] for row in rows]
        negatives = [draw_negatives(examples[row], drawn, schedule.seed, schedule.epoch(step), row) for row in rows]
        documents = list(dict.fromkeys([e.positive for e in batch] + [text for texts in negatives for text in texts]))
        column = {text: index for index, text in enumerate(documents)}
        target_N = torch.tensor([column[example.positive] for example in batch])
        mask_NM = identity_mask([example.anchor for example in batch], documents, target_N, positives)
        own_NM = own_mask([[column[text] for text in texts] for texts in negatives], len(documents))
        target_N, mask_NM, own_NM = (value.to(encoder.device) for value in (target_N, mask_NM, own_NM))
        query_numbers = bank.numbers("query", [example.anchor for example in batch])
        document_numbers = bank.numbers("document", documents) if fixed is None else np.empty(0, np.int64)
        numbers_U, place = _unique(np.concatenate([query_numbers, document_numbers]), encoder.device)

        def loss_of(vectors_UD: Tensor) -> Tensor:
            query_ND = vectors_UD[place[: len(batch)]]
            document_MD = vectors_UD[place[len(batch) :]] if fixed is None else fixed(documents)
            excluded_NM = mask_NM
            if config.objective.false_negative_margin is not None:
                cosine_NM = cosines(query_ND.detach(), document_MD.detach())
                likely_NM = margin_mask(cosine_NM, target_N, config.objective.false_negative_margin)
                excluded_NM = mask_NM | (likely_NM if config.objective.mask_mined else likely_NM & ~own_NM)
            return info_nce(query_ND, document_MD, target_N, excluded_NM, config.objective.temperature)

        return bank.backward(step, numbers_U, loss_of)

    return loss_fn


def similarity(
    encoder: Encoder,
    examples: Sequence[Example],
    schedule: Schedule,
    config: RunConfig,
    *,
    processes: Processes | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> LossFn:
    """Cosine-MSE against the labels of sentence pairs; arguments as `contrastive`."""
    texts: list[tuple[Role, str]] = [(PAIR_ROLE, text) for e in examples for text in (e.anchor, e.positive)]
    bank = StepTexts(encoder, texts, config.train, schedule.seed, processes, autocast)

    def loss_fn(step: int) -> StepResult:
        batch = [examples[row] for row in schedule.batch(step)]
        pairs = [example.anchor for example in batch] + [example.positive for example in batch]
        numbers_U, place = _unique(bank.numbers(PAIR_ROLE, pairs), encoder.device)
        score_N = torch.tensor([example.label or 0.0 for example in batch], device=encoder.device)

        def loss_of(vectors_UD: Tensor) -> Tensor:
            return cosine_mse(vectors_UD[place[: len(batch)]], vectors_UD[place[len(batch) :]], score_N)

        return bank.backward(step, numbers_U, loss_of)

    return loss_fn


def draw_negatives(example: Example, count: int | None, seed: int, epoch: int, number: int) -> tuple[str, ...]:
    """`count` of an example's negatives (all of them if None): a function of (seed, pass, number of the example)."""
    if count is None or len(example.negatives) <= count:
        return example.negatives
    chosen = np.random.default_rng([seed, epoch, number]).choice(len(example.negatives), size=count, replace=False)
    return tuple(example.negatives[index] for index in chosen)


class FixedVectors:
    """Documents whose vectors do not change: looked up, never computed.

    Args:
        vectors: text -> [D].
        device: where the loss is computed.
    """

    def __init__(self, vectors: Mapping[str, np.ndarray], device: torch.device) -> None:
        self._vectors, self._device = vectors, device

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Unit rows [M, D]."""
        return torch.from_numpy(np.stack([self._vectors[text] for text in texts])).to(self._device)


def _unique(numbers: np.ndarray, device: torch.device) -> tuple[np.ndarray, Tensor]:
    """The numbers once each, and where each of the given ones is among them."""
    numbers_U, place = np.unique(numbers, return_inverse=True)
    return numbers_U, torch.from_numpy(place).to(device)


def _texts(examples: Sequence[Example], with_documents: bool) -> Iterable[tuple[Role, str]]:
    for example in examples:
        yield "query", example.anchor
        if with_documents:
            yield "document", example.positive
            for text in example.negatives:
                yield "document", text


def _concatenate(parts: Sequence[Tokens]) -> Tokens:
    flat = np.concatenate([part.flat for part in parts])
    starts = np.cumsum([0, *(len(part.flat) for part in parts[:-1])])
    offsets = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=True)]
    return Tokens(flat, np.concatenate([np.zeros(1, np.int64), *offsets]))
