"""The masks, by hand and against loops."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.core.negatives import identity_mask, margin_mask, own_mask, related_mask


def test_identity_mask_by_hand() -> None:
    anchors = ["list files", "list files", "ls"]
    documents = ["ls", "ls -a", "rm", "list files"]
    positives = {"list files": {"ls", "ls -a", "not in this batch"}, "ls": {"rm"}}
    mask = identity_mask(anchors, documents, torch.tensor([0, 1, 2]), positives)
    assert mask.tolist() == [
        [False, True, False, True],  # ls is the target, ls -a another positive, the last is the anchor itself
        [True, False, False, True],  # the other way round
        [True, False, False, False],  # the document "ls" is the anchor
    ]


def test_identity_mask_never_masks_a_target_that_equals_its_anchor() -> None:
    mask = identity_mask(["same"], ["same", "other"], torch.tensor([0]), {"same": ["same"]})
    assert mask.tolist() == [[False, False]]


texts = st.sampled_from("abcdef")


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.tuples(texts, texts), min_size=1, max_size=6),
    others=st.lists(texts, max_size=4),
)
def test_identity_mask_equals_a_loop(rows: list[tuple[str, str]], others: list[str]) -> None:
    documents = list(dict.fromkeys([positive for _, positive in rows] + others))
    positives: dict[str, set[str]] = {}
    for anchor, positive in rows:
        positives.setdefault(anchor, set()).add(positive)
    target = torch.tensor([documents.index(positive) for _, positive in rows])
    mask = identity_mask([anchor for anchor, _ in rows], documents, target, positives)
    for row, (anchor, positive) in enumerate(rows):
        for column, document in enumerate(documents):
            excluded = document != positive and (document in positives[anchor] or document == anchor)
            assert mask[row, column].item() == excluded


def test_margin_mask_by_hand() -> None:
    cosine = torch.tensor([[0.5, 0.61, 0.59, 0.9], [0.2, 0.9, 0.95, 1.0]], requires_grad=True)
    mask = margin_mask(cosine, torch.tensor([0.5, 0.9]), 0.1)
    assert mask.tolist() == [[False, True, False, True], [False, False, False, False]]
    assert not mask.requires_grad


def test_margins_by_hand() -> None:
    cosine, positive = torch.tensor([[0.5, 0.45, 0.3], [-0.5, -0.45, -0.3]]), torch.tensor([0.4, -0.4])
    # thresholds 0.4 - 0.1 and -0.4 - 0.1; 0.4 + 0.25 * 0.4 and -0.4 + 0.25 * 0.4
    assert margin_mask(cosine, positive, -0.1001).tolist() == [[True, True, True], [True, True, True]]
    assert margin_mask(cosine, positive, None, 0.25).tolist() == [[False, False, False], [False, False, False]]
    assert margin_mask(cosine, positive, None, 0.1).tolist() == [[True, True, False], [False, False, True]]
    either = margin_mask(cosine, positive, 0.02, 0.1) == (
        margin_mask(cosine, positive, 0.02) | margin_mask(cosine, positive, None, 0.1)
    )
    assert either.all()
    assert not margin_mask(cosine, positive, None).any()


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(st.sets(texts), min_size=1, max_size=5),
    candidates=st.lists(st.sets(texts), min_size=1, max_size=5),
)
def test_related_mask_equals_a_loop(rows: list[set[str]], candidates: list[set[str]]) -> None:
    mask = related_mask(rows, candidates)
    assert mask.tolist() == [[bool(row & candidate) for candidate in candidates] for row in rows]


def test_own_mask_by_hand() -> None:
    assert own_mask([[1], [], [0, 2]], 3).tolist() == [
        [False, True, False],
        [False, False, False],
        [True, False, True],
    ]
