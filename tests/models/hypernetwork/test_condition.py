"""Conditions: sets without order, masks for what is missing, statistics of the training tasks, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from acclimate.errors import UsageError
from acclimate.models.hypernetwork.condition import PARTS, Condition, ConditionVectors, Part, batch_of
from acclimate.models.hypernetwork.condition_net import ConditionNet, PairAgreement, Whitening

DIM = 10


def rows(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def vectors(pairs: int = 5, texts: int = 6, seed: int = 0) -> ConditionVectors:
    return ConditionVectors(
        description_D=rows(1, seed)[0],
        query_PD=rows(pairs, seed + 1),
        document_PD=rows(pairs, seed + 2),
        text_SD=rows(texts, seed + 3),
    )


def network() -> ConditionNet:
    torch.manual_seed(0)
    made = ConditionNet(DIM, 16, 8)
    for whitening in (made.described, made.texts, made.pairs.query, made.pairs.document):
        whitening.learn(torch.from_numpy(rows(40, 9)))
    with torch.no_grad():
        for pool in (made.pairs.pool, made.texts_pool):  # a trained pool weighs its rows
            torch.nn.init.normal_(pool.score.weight)
    return made


def test_the_order_of_pairs_and_texts_does_not_matter() -> None:
    one = vectors()
    assert one.query_PD is not None and one.document_PD is not None and one.text_SD is not None
    order, other = np.random.default_rng(1).permutation(5), np.random.default_rng(2).permutation(6)
    turned = ConditionVectors(
        description_D=one.description_D,
        query_PD=one.query_PD[order],
        document_PD=one.document_PD[order],
        text_SD=one.text_SD[other],
    )
    made = network()
    assert torch.allclose(made(batch_of([one], DIM)), made(batch_of([turned], DIM)), atol=1e-5)
    assert one.query_PD is not None
    crossed = ConditionVectors(query_PD=one.query_PD[order], document_PD=one.document_PD)  # which pair is which does
    straight = ConditionVectors(query_PD=one.query_PD, document_PD=one.document_PD)
    assert (made(batch_of([crossed], DIM)) - made(batch_of([straight], DIM))).abs().max() > 1e-3


def test_a_condition_is_the_same_beside_larger_ones() -> None:
    """Padding changes nothing, and neither does a neighbour."""
    made, few = network(), vectors(pairs=2, texts=1)
    alone = made(batch_of([few], DIM))
    beside = made(batch_of([few, vectors(pairs=30, texts=40, seed=20)], DIM))
    assert torch.allclose(alone[0], beside[0], atol=1e-5)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_as_if_it_had_not_been_given(part: Part) -> None:
    names: dict[Part, tuple[str, ...]] = {
        "description": ("description_D",),
        "pairs": ("query_PD", "document_PD"),
        "texts": ("text_SD",),
    }
    made, whole = network(), vectors()
    only = ConditionVectors(**{name: getattr(whole, name) for name in names[part]})
    masked = made(batch_of([whole], DIM).only(part))
    assert torch.allclose(masked, made(batch_of([only], DIM)), atol=1e-5)
    assert (masked - made(batch_of([whole], DIM))).abs().max() > 1e-3
    assert torch.isfinite(made(batch_of([whole], DIM).only())).all()  # nothing at all: what a bias says


def test_whitening_by_hand() -> None:
    """Variances 4 and 1 come closer, as far as the shrinkage lets them; a third, constant direction is dropped."""
    sample = torch.tensor([[2.0, 1.0, 7.0], [-2.0, 1.0, 7.0], [2.0, -1.0, 7.0], [-2.0, -1.0, 7.0]])
    whitening = Whitening(3)
    whitening.learn(sample)
    assert torch.allclose(whitening.mean_D, torch.tensor([0.0, 0.0, 7.0]))
    white = whitening(sample)
    # Variances over 3 degrees of freedom: 16/3 and 4/3; their mean 10/3, which is added.
    assert torch.allclose(white[:, 0].abs(), torch.full((4,), 2 / (16 / 3 + 10 / 3) ** 0.5))
    assert torch.allclose(white[:, 1].abs(), torch.full((4,), 1 / (4 / 3 + 10 / 3) ** 0.5))
    assert white[:, 2].abs().max() < 1e-6
    assert (whitening(torch.tensor([[0.0, 0.0, 99.0]]))).abs().max() < 1e-4


def test_whitening_of_one_vector_only_centres() -> None:
    whitening = Whitening(3)
    whitening.learn(torch.ones(1, 3))
    assert torch.allclose(whitening(torch.tensor([[1.0, 1.0, 2.0]])), torch.tensor([[0.0, 0.0, 1.0]]))


def test_pairs_that_agree_in_a_direction_say_so() -> None:
    """Queries and documents share their first coordinate and nothing else: agreement 1 there, about 0 elsewhere."""
    generator = torch.Generator().manual_seed(0)
    query, document = torch.randn(1, 400, DIM, generator=generator), torch.randn(1, 400, DIM, generator=generator)
    document[..., 0] = query[..., 0]
    agreement = PairAgreement(DIM, 4, DIM)
    with torch.no_grad():
        agreement.project.weight.copy_(torch.eye(DIM))
    seen: list[torch.Tensor] = []
    agreement.read.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    agreement(query, document, torch.ones(1, 400, dtype=torch.bool))
    assert seen[0][0, 0] > 0.99
    assert seen[0][0, 1:DIM].abs().max() < 0.2
    agreement(query + 5, document - 3, torch.ones(1, 400, dtype=torch.bool))  # a domain's means say nothing
    assert torch.allclose(seen[1], seen[0], atol=1e-3)


@pytest.mark.parametrize("count", [1, 1000])
def test_one_pair_and_a_thousand(count: int) -> None:
    one = ConditionVectors(query_PD=rows(count, 1), document_PD=rows(count, 2))
    assert torch.isfinite(network()(batch_of([one], DIM))).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing says what the adapter is for"),
        ({"description": "  "}, "the description is empty"),
        ({"pairs": (("a", "b"), ("c", ""))}, "example pair 2 has an empty text"),
        ({"texts": ("a", " ")}, "a sample text is empty"),
    ],
)
def test_a_condition_that_says_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Condition(**given)


def test_whitening_within_kinds_shortens_what_only_wordings_differ_in() -> None:
    """Two tasks apart by 2 along the first axis, their wordings by 2 along the second: variance within is (0, 1, 0)."""
    sample = torch.tensor([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]])
    whitening = Whitening(3)
    whitening.learn_within(sample, torch.tensor([0, 0, 1, 1]))
    mean = 1 / 3  # of the three variances, which shrinkage adds to each
    scales = torch.tensor([mean**-0.5, (1 + mean) ** -0.5, mean**-0.5])
    assert torch.allclose(whitening(sample), sample * scales, atol=1e-5)
    alone = Whitening(3)
    alone.learn_within(sample, torch.arange(4))  # one wording each: centred only
    assert torch.allclose(alone(sample), sample, atol=1e-6)
