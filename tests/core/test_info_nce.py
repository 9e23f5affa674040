"""InfoNCE with blocks: against a loop over the rows, and against sentence-transformers' losses."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from acclimate.core.losses import BLOCKS, block_cosines, info_nce, info_nce_blocks, learned_temperature, over_dims
from acclimate.core.losses.temperature import adaptive_temperature, log_excess
from acclimate.core.negatives import margin_mask
from acclimate.types import Block

ROWS, SIZE = 4, 6
ANCHORS = torch.tensor([0, 1, 0, 2])
"""The first and the third row have the same query: 3 queries in all."""
TARGETS = torch.tensor([0, 2, 3, 1])
"""Among 6 documents."""


def unit_rows(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, SIZE, generator=generator, dtype=torch.float64), dim=-1)


def plain(
    query: Tensor,
    document: Tensor,
    excluded: dict[Block, Tensor],
    temperature: list[float],
    partition: str,
    hardness: float,
) -> float:
    """The docstring's formula, row by row."""
    total = 0.0
    for row in range(ROWS):
        q, p = query[ANCHORS[row]], document[TARGETS[row]]
        sides = {"query": (q, query, int(ANCHORS[row])), "document": (p, document, int(TARGETS[row]))}

        def exponentials(block: Block, row: int = row, sides: Any = sides) -> float:
            first, second = block.split("-")
            target = sides[second][2] if first != second else None
            found = 0.0
            for column, candidate in enumerate(sides[second][1]):
                cosine = float(sides[first][0] @ candidate)
                logit = cosine / temperature[row]
                if block == "query-document" and column != target:
                    logit += hardness * cosine
                if column == target or not excluded[block][row, column]:
                    found += math.exp(logit)
            return found

        positive = math.exp(float(q @ p) / temperature[row])
        joined = [block for block in excluded if partition == "joint" or block != "document-query"]
        losses = []
        if joined:
            below = sum(exponentials(block) for block in joined)
            losses.append(-math.log(positive / (below + (0 if "query-document" in joined else positive))))
        if partition == "per-direction" and "document-query" in excluded:
            losses.append(-math.log(positive / exponentials("document-query")))
        total += sum(losses) / len(losses)
    return total / ROWS


@settings(deadline=None, max_examples=60)
@given(
    blocks=st.sets(st.sampled_from(BLOCKS), min_size=1),
    partition=st.sampled_from(["per-direction", "joint"]),
    hardness=st.sampled_from([0.0, 3.0]),
    by_anchor=st.booleans(),
    seed=st.integers(0, 100),
)
def test_blocks_equal_a_loop_over_rows(
    blocks: set[Block], partition: Any, hardness: float, by_anchor: bool, seed: int
) -> None:
    query, document = unit_rows(3, seed), unit_rows(6, seed + 1)
    cosine = block_cosines(blocks, query, document, ANCHORS, TARGETS)
    generator = torch.Generator().manual_seed(seed)
    excluded: dict[Block, Tensor] = {name: torch.rand(c.shape, generator=generator) < 0.3 for name, c in cosine.items()}
    temperature = [0.1, 0.2, 0.3, 0.4] if by_anchor else [0.1] * ROWS
    loss = info_nce_blocks(
        cosine,
        excluded,
        ANCHORS,
        TARGETS,
        (query[ANCHORS] * document[TARGETS]).sum(1),
        torch.tensor(temperature, dtype=torch.float64) if by_anchor else 0.1,
        partition=partition,
        hardness_strength=hardness,
    )
    assert loss.item() == pytest.approx(plain(query, document, excluded, temperature, partition, hardness), abs=1e-9)


def test_one_block_is_plain_info_nce() -> None:
    query, document = unit_rows(3, 0), unit_rows(6, 1)
    cosine = block_cosines(["query-document"], query, document, ANCHORS, TARGETS)
    loss = info_nce_blocks(cosine, {}, ANCHORS, TARGETS, torch.zeros(ROWS), 0.05)
    assert loss.item() == info_nce(query[ANCHORS], document, TARGETS, None, 0.05).item()


def ours(query: Tensor, documents: list[Tensor], blocks: tuple[Block, ...], **options: Any) -> float:
    """All texts distinct; a row's own documents are no candidates of its positive."""
    count = len(query)
    document, rows = torch.cat(documents), torch.arange(count)
    cosine = block_cosines(blocks, query, document, rows, rows)
    own = torch.eye(count, dtype=torch.bool)
    excluded: dict[Block, Tensor] = {"query-query": own, "document-document": own.repeat(1, len(documents))}
    positive = (query * documents[0]).sum(1)
    return info_nce_blocks(cosine, excluded, rows, rows, positive, 0.05, **options).item()


def test_it_is_sentence_transformers_loss() -> None:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    query, documents = unit_rows(5, 0), [unit_rows(5, 1), unit_rows(5, 2)]
    model: Any = nn.Identity()
    names = {"query-document": "query_to_doc", "query-query": "query_to_query"}
    names |= {"document-document": "doc_to_doc", "document-query": "doc_to_query"}

    def theirs(blocks: tuple[Block, ...], **options: Any) -> float:
        loss = MultipleNegativesRankingLoss(model, directions=tuple(names[block] for block in blocks), **options)
        return loss.compute_loss_from_embeddings([query, *documents], torch.empty(0)).item()

    for blocks in (BLOCKS, BLOCKS[:1], BLOCKS[:2], BLOCKS[:3]):  # GTE's loss is all of them
        assert ours(query, documents, blocks, partition="joint") == pytest.approx(theirs(blocks), abs=1e-9)
    symmetric: tuple[Block, ...] = ("query-document", "document-query")
    assert ours(query, documents, symmetric) == pytest.approx(
        theirs(symmetric, partition_mode="per_direction"), abs=1e-9
    )
    assert ours(query, documents, BLOCKS, partition="joint", hardness_strength=9.0) == pytest.approx(
        theirs(BLOCKS, hardness_mode="all_negatives", hardness_strength=9.0), abs=1e-9
    )


@pytest.mark.parametrize(("absolute", "relative"), [(-0.1, None), (0.0, None), (None, -0.2)])
def test_guide_masks_are_gist_embeds(absolute: float | None, relative: float | None) -> None:
    from sentence_transformers.sentence_transformer.losses import GISTEmbedLoss

    query, positive, negative, *guide = (unit_rows(6, seed) for seed in range(6))
    rows = torch.arange(6)
    blocks: tuple[Block, ...] = ("query-document", "query-query", "document-document")
    guide_document = torch.cat(guide[1:])
    guide_cosine = block_cosines(blocks, guide[0], guide_document, rows, rows)
    guide_positive = (guide[0] * guide[1]).sum(1)
    excluded = {name: margin_mask(c, guide_positive, absolute, relative) for name, c in guide_cosine.items()}
    cosine = block_cosines(blocks, query, torch.cat([positive, negative]), rows, rows)
    # GISTEmbed compares positives with positives only, and leaves a text itself to the margin.
    cosine["document-document"] = cosine["document-document"][:, :6]
    excluded["document-document"] = excluded["document-document"][:, :6]
    loss = info_nce_blocks(cosine, excluded, rows, rows, (query * positive).sum(1), 0.05)

    theirs = GISTEmbedLoss.__new__(GISTEmbedLoss)  # its constructor wants tokenizers of real models
    nn.Module.__init__(theirs)
    margin = -(absolute if absolute is not None else relative or 0.0)
    strategy = "absolute" if absolute is not None else "relative"
    settings = {"temperature": 0.05, "margin": margin, "margin_strategy": strategy, "must_retokenize": False}
    settings |= {"contrast_anchors": True, "contrast_positives": True, "gather_across_devices": False}
    settings |= {"similarity_fct": nn.CosineSimilarity(dim=-1), "cross_entropy_loss": nn.CrossEntropyLoss()}
    for name, value in settings.items():
        setattr(theirs, name, value)
    pairs = zip((query, positive, negative), guide, strict=True)
    features = [{"own": own, "guide": other} for own, other in pairs]
    theirs.model, theirs.guide = _Side("own"), _Side("guide")
    assert loss.item() == pytest.approx(theirs(features, torch.empty(0)).item(), abs=1e-9)


class _Side(nn.Module):
    """A model whose texts are their vectors."""

    def __init__(self, side: str) -> None:
        super().__init__()
        self.side = side

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """The vectors of one side."""
        return {"sentence_embedding": features[self.side]}


def test_temperatures_by_hand() -> None:
    found = [adaptive_temperature(terms, base=0.08, step=0.01, floor=0.03) for terms in (0, 1, 4, 5, 9)]
    assert found == pytest.approx([0.08, 0.07, 0.04, 0.03, 0.03])
    parameter = torch.tensor(log_excess(0.05, 0.01))
    assert learned_temperature(parameter, 0.01).item() == pytest.approx(0.05)
    assert learned_temperature(torch.tensor(-100.0), 0.01).item() == pytest.approx(0.01)


def test_dimensions_by_hand() -> None:
    vectors = torch.tensor([[0.6, 0.0, 0.8], [0.0, 0.6, 0.8]])

    def cosine(rows: Tensor) -> Tensor:
        return (rows[0] * rows[1]).sum()

    # all three dimensions: 0.64; the first two, renormalised: (1, 0) and (0, 1)
    assert over_dims(cosine, {3: 1.0, 2: 5.0})(vectors).item() == pytest.approx(0.64)
    assert over_dims(lambda rows: 1 - cosine(rows), {3: 1.0, 2: 5.0})(vectors).item() == pytest.approx(0.36 + 5)
