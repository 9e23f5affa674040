"""The losses as `loss_fn`s for `fit`: which texts a step needs, and what is computed from their vectors.

No text is computed twice in a step: a batch's queries and documents are looked at as one set of texts.

Legend: N training rows of the step, M candidate documents, U unique texts, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor

from acclimate.configs import RunConfig
from acclimate.core.losses import cosine_mse, cosines, info_nce
from acclimate.core.negatives import identity_mask, margin_mask, own_mask
from acclimate.engine.fit import LossFn, StepResult
from acclimate.engine.schedule import Schedule
from acclimate.engine.step_texts import StepTexts, unique
from acclimate.models.devices import to_device
from acclimate.models.encoder import Encoder
from acclimate.types import Example, Role

PAIR_ROLE: Role = "query"
"""Both sentences of a labelled pair are encoded as queries: the side that every adapter adapts."""


def contrastive(
    encoder: Encoder,
    examples: Sequence[Example],
    schedule: Schedule,
    config: RunConfig,
    *,
    task: str | None = None,
    weight: float = 1.0,
    document_vectors: Mapping[str, np.ndarray] | None = None,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> LossFn:
    """InfoNCE over in-batch and drawn negatives, with the identity and the margin mask.

    Args:
        encoder: being trained.
        examples: all training rows, with their negatives.
        schedule: which rows a step has.
        config: objective (temperature, masks), group size, memory.
        task: whose prompts are put before the texts; the model's default ones if not given.
        weight: the gradient is that of so many times the loss; the loss is reported without it.
        document_vectors: the documents' vectors where they do not change (`sides="query"`). They cost nothing then, so
            all negatives of an example are candidates instead of a few.
        autocast: entered around every forward pass.
    """
    positives: dict[str, set[str]] = {}
    for example in examples:
        positives.setdefault(example.anchor, set()).add(example.positive)
    fixed = None if document_vectors is None else FixedVectors(document_vectors, encoder.device)
    texts = _texts(examples, with_documents=fixed is None)
    bank = StepTexts(encoder, texts, config.train, schedule.seed, task=task, weight=weight, autocast=autocast)
    drawn = config.train.group_size - 1 if fixed is None else None

    def loss_fn(step: int) -> StepResult:
        rows = [int(row) for row in schedule.batch(step)]
        batch = [examples[row] for row in rows]
        negatives = [draw_negatives(examples[row], drawn, schedule.seed, schedule.epoch(step), row) for row in rows]
        documents, target_N, mask_NM, own_NM = _candidates(batch, negatives, positives)
        target_N, mask_NM, own_NM = (to_device(value, encoder.device) for value in (target_N, mask_NM, own_NM))
        query_numbers = bank.numbers("query", [example.anchor for example in batch])
        document_numbers = bank.numbers("document", documents) if fixed is None else np.empty(0, np.int64)
        numbers_U, place = unique(np.concatenate([query_numbers, document_numbers]), encoder.device)

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
    task: str | None = None,
    weight: float = 1.0,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> LossFn:
    """Cosine-MSE against the labels of sentence pairs; arguments as `contrastive`."""
    texts: list[tuple[Role, str]] = [(PAIR_ROLE, text) for e in examples for text in (e.anchor, e.positive)]
    bank = StepTexts(encoder, texts, config.train, schedule.seed, task=task, weight=weight, autocast=autocast)

    def loss_fn(step: int) -> StepResult:
        batch = [examples[row] for row in schedule.batch(step)]
        pairs = [example.anchor for example in batch] + [example.positive for example in batch]
        numbers_U, place = unique(bank.numbers(PAIR_ROLE, pairs), encoder.device)
        score_N = to_device(torch.tensor([example.label or 0.0 for example in batch]), encoder.device)

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


def _candidates(
    batch: Sequence[Example], negatives: Sequence[Sequence[str]], positives: Mapping[str, Collection[str]]
) -> tuple[list[str], Tensor, Tensor, Tensor]:
    """The batch's documents, each once; each row's target [N]; its identity mask, its own negatives [N, M]."""
    documents = list(dict.fromkeys([e.positive for e in batch] + [text for texts in negatives for text in texts]))
    column = {text: index for index, text in enumerate(documents)}
    target_N = torch.tensor([column[example.positive] for example in batch])
    mask_NM = identity_mask([example.anchor for example in batch], documents, target_N, positives)
    own_NM = own_mask([[column[text] for text in texts] for texts in negatives], len(documents))
    return documents, target_N, mask_NM, own_NM


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
        return to_device(torch.from_numpy(np.stack([self._vectors[text] for text in texts])), self._device)


def _texts(examples: Sequence[Example], with_documents: bool) -> Iterable[tuple[Role, str]]:
    for example in examples:
        yield "query", example.anchor
        if with_documents:
            yield "document", example.positive
            for text in example.negatives:
                yield "document", text
