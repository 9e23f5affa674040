"""Which candidates of a contrastive step are no negatives: every block against its definition, text by text."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.configs import ObjectiveConfig
from acclimate.core.losses import BLOCKS
from acclimate.training.contrast import Candidates, Relations
from acclimate.types import Example

texts = st.sampled_from("abcdefg")
examples = st.builds(Example, texts, texts, st.lists(texts, max_size=2, unique=True).map(tuple))


def belongs(first: str, second: str, pairs: set[tuple[str, str]], kinds: tuple[str, str]) -> bool:
    """Whether two texts, each in the role of a query or a document, belong together."""
    if first == second:
        return True
    answers = {(query, document) for query, document in pairs}
    documents_of = {text: {d for q, d in answers if q == text} for pair in pairs for text in pair}
    queries_of = {text: {q for q, d in answers if d == text} for pair in pairs for text in pair}
    nothing: set[str] = set()
    if kinds == ("query", "query"):
        one, other = documents_of.get(first, nothing), documents_of.get(second, nothing)
        return bool(one & other) or second in one or first in other
    if kinds == ("document", "document"):
        one, other = queries_of.get(first, nothing), queries_of.get(second, nothing)
        return bool(one & other) or second in one or first in other
    query, document = (first, second) if kinds == ("query", "document") else (second, first)
    return (query, document) in answers


@settings(deadline=None, max_examples=80)
@given(training=st.lists(examples, min_size=1, max_size=7), size=st.integers(1, 7))
def test_masks_equal_their_definition(training: list[Example], size: int) -> None:
    pairs = {(example.anchor, example.positive) for example in training}
    batch = training[:size]
    found = Candidates.of(batch, Relations(training), BLOCKS)
    assert len(set(found.queries)) == len(found.queries)
    assert len(set(found.documents)) == len(found.documents)
    sides = {"query": found.queries, "document": found.documents}
    for row, example in enumerate(batch):
        assert found.queries[found.anchor_N[row]] == example.anchor
        assert found.documents[found.target_N[row]] == example.positive
        own = {"query": example.anchor, "document": example.positive}
        for block, mask in found.excluded.items():
            kinds = block.split("-")
            for column, text in enumerate(sides[kinds[1]]):
                expected = belongs(own[kinds[0]], text, pairs, (kinds[0], kinds[1]))
                if block == "query-document" and text == example.positive:
                    expected = False  # the target
                if block == "document-document":
                    expected |= text in example.negatives
                if not (block == "document-query" and text == example.anchor):  # the target: the loss spares it
                    assert mask[row, column].item() == expected, (block, own, text)


def test_each_judge_adds_its_own_and_a_rows_own_negatives_are_spared() -> None:
    batch = [Example("q1", "d1", ("n1",)), Example("q2", "d2")]
    found = Candidates.of(batch, Relations(batch), ("query-document",))
    assert found.documents == ["d1", "d2", "n1"]
    cosine = {"query-document": torch.tensor([[0.5, 0.7, 0.9], [0.3, 0.5, 0.5]])}
    guide = {"query-document": torch.tensor([[0.5, 0.4, 0.4], [0.2, 0.5, 0.9]])}
    positive = torch.tensor([0.5, 0.5])

    def masked(with_guide: bool, **changes: object) -> list[list[bool]]:
        config = ObjectiveConfig(**changes)  # type: ignore[arg-type]
        judged = (guide, positive) if with_guide else None
        return found.all_excluded(cosine, positive, judged, config)["query-document"].tolist()  # type: ignore[arg-type]

    assert masked(False) == [[False] * 3] * 2
    own = masked(False, false_negative_margin=0.1)
    assert own == [[False, True, False], [False, False, False]]  # 0.7 > 0.5 + 0.1; n1 is the row's own
    assert masked(False, false_negative_margin=0.1, mask_mined=True) == [[False, True, True], [False, False, False]]
    assert masked(False, false_negative_relative_margin=0.5)[0] == [False] * 3
    assert masked(True) == [[False] * 3, [False, False, True]]
    assert masked(True, false_negative_margin=0.1) == [[False, True, False], [False, False, True]]


@pytest.mark.parametrize("block", BLOCKS)
def test_only_the_blocks_in_use_are_there(block: str) -> None:
    batch = [Example("q1", "d1", ("n1",)), Example("q2", "d2")]
    found = Candidates.of(batch, Relations(batch), (block,))  # type: ignore[arg-type]
    cosine, positive = found.cosines(torch.eye(2, 4), torch.eye(3, 4))
    assert set(cosine) == set(found.excluded) == {block}
    assert positive.tolist() == [1.0, 1.0]


def test_a_positive_in_other_dress_is_no_negative() -> None:
    """And nothing else is masked for it: the target itself stays."""
    training = [Example("q one", "The answer."), Example("Q one?", "the answer"), Example("q two", "another")]
    found = Candidates.of(training, Relations(training), ("query-document", "query-query"))
    assert found.documents == ["The answer.", "the answer", "another"]
    assert found.excluded["query-document"].tolist() == [
        [False, True, False],
        [True, False, False],
        [False, False, False],
    ]
    assert found.excluded["query-query"][0].tolist() == [True, True, False]


def test_the_document_that_is_the_query_is_no_negative() -> None:
    """ArguAna: each argument is a query, and a document with a title, which is another one's answer."""
    training = [Example("a", "title b"), Example("b", "title a"), Example("c", "title d")]
    own = [("a", "title a"), ("b", "title b")]
    found = Candidates.of(training, Relations(training, own), BLOCKS)
    assert found.documents == ["title b", "title a", "title d"]
    assert found.excluded["query-document"].tolist() == [
        [False, True, False],  # the answer, the query itself, any other
        [True, False, False],
        [False, False, False],
    ]
    assert not Candidates.of(training, Relations(training), BLOCKS).excluded["query-document"].any()
    assert found.excluded["document-query"][0, 1], "title b is the query b"
    assert found.excluded["query-query"][0, 1], "b is what answers a"
