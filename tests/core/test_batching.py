"""Chunks and orders, by law."""

from __future__ import annotations

from collections import Counter
from itertools import groupby, pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acclimate.core.batching import chunks_by_tokens, deal, epoch_order, even_chunks, grouped, spread, step_seed


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 80))
def test_chunks_cover_all_within_the_budget_longest_first(lengths: list[int], budget: int) -> None:
    chunks = chunks_by_tokens(lengths, budget)
    order = [int(index) for chunk in chunks for index in chunk]
    assert sorted(order) == list(range(len(lengths)))
    assert all(lengths[first] >= lengths[second] for first, second in pairwise(order))
    assert all(len(chunk) and (len(chunk) == 1 or sum(lengths[i] for i in chunk) <= budget) for chunk in chunks)
    for chunk, following in pairwise(chunks):  # greedy: the next text would not have fitted
        assert sum(lengths[i] for i in chunk) + lengths[following[0]] > budget


def test_chunks_by_hand() -> None:
    assert [chunk.tolist() for chunk in chunks_by_tokens([3, 5, 3, 20, 2], 8)] == [[3], [1, 0], [2, 4]]
    assert chunks_by_tokens([], 8) == []


@given(st.lists(st.tuples(st.integers(1, 9), st.sampled_from("abc")), min_size=1, max_size=20))
def test_grouped_keeps_groups_together_and_lengths_in_order(texts: list[tuple[int, str]]) -> None:
    (chunk,) = chunks_by_tokens([length for length, _ in texts], 1000)
    order = grouped(chunk, [texts[text][1] for text in chunk]).tolist()
    assert sorted(order) == list(range(len(texts)))
    parts = [list(members) for _, members in groupby(order, key=lambda text: texts[text][1])]
    assert len(parts) == len({group for _, group in texts})
    for number, part in enumerate(parts):
        lengths = [texts[text][0] for text in part]
        assert lengths == sorted(lengths, reverse=number % 2 == 0)


def test_grouped_by_hand() -> None:
    # Longest first: b9 a7 b5 a3 a1. The group of the longest comes first, the second one is turned.
    assert grouped(np.array([4, 1, 0, 3, 2]), "babaa").tolist() == [4, 0, 2, 3, 1]


def test_epoch_order_is_a_function_of_seed_and_epoch() -> None:
    first = epoch_order(100, 42, 0)
    assert sorted(first.tolist()) == list(range(100))
    assert np.array_equal(first, epoch_order(100, 42, 0))
    assert not np.array_equal(first, epoch_order(100, 42, 1))
    assert not np.array_equal(first, epoch_order(100, -42, 0))


def dealt(texts: list[list[int]], size: int, seed: int) -> list[list[int]]:
    """`spread` over batches of at most `size`."""
    order = epoch_order(len(texts), seed, 0)
    sizes = [len(part) for part in np.array_split(order, -(-len(texts) // size))]
    batches = spread(order, np.array(texts), sizes)
    assert [len(batch) for batch in batches] == sizes
    return [batch.tolist() for batch in batches]


def repeats(batches: list[list[int]], texts: list[list[int]]) -> int:
    """Pairs of examples of one batch with a text in common."""
    return sum(
        bool(set(texts[first]) & set(texts[second]))
        for batch in batches
        for place, first in enumerate(batch)
        for second in batch[:place]
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(10, 19)), min_size=1, max_size=60), st.integers(1, 9))
def test_every_example_is_dealt_once(pairs: list[tuple[int, int]], size: int) -> None:
    texts = [list(pair) for pair in pairs]
    batches = dealt(texts, size, 7)
    assert sorted(row for batch in batches for row in batch) == list(range(len(texts)))
    assert batches == dealt(texts, size, 7)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(1, 9), st.integers(0, 99))
def test_no_text_is_twice_in_a_batch_where_that_can_be(numbers: list[int], size: int, seed: int) -> None:
    """With one text per example it can be, if and only if no text has more examples than there are batches."""
    texts = [[number] for number in numbers]
    batches = dealt(texts, size, seed)
    most = max(Counter(numbers).values())
    assert (repeats(batches, texts) == 0) == (most <= len(batches))


def test_repeats_by_hand() -> None:
    # Two batches of three. In order: 2 has 0's text and is deferred, 3 and 4 fill the first batch.
    texts = [[0, 10], [1, 11], [0, 12], [3, 13], [4, 14], [5, 15]]
    assert [batch.tolist() for batch in spread(np.arange(6), np.array(texts), [3, 3])] == [[0, 1, 3], [2, 4, 5]]
    # The text 0 is in the last two: one changes places with the first example whose texts the second batch lacks.
    texts = [[1, 11], [2, 12], [3, 13], [4, 14], [0, 15], [0, 16]]
    assert [batch.tolist() for batch in spread(np.arange(6), np.array(texts), [3, 3])] == [[1, 2, 5], [3, 4, 0]]
    # Three examples with one text and two batches: one batch has to hold two of them.
    texts = [[0, 10], [0, 11], [0, 12], [3, 13]]
    assert [batch.tolist() for batch in spread(np.arange(4), np.array(texts), [2, 2])] == [[0, 3], [1, 2]]


@given(st.integers(0, 50))
def test_few_repeats_in_pairs_of_texts_are_avoided(seed: int) -> None:
    """Anchors that repeat and positives that repeat, as in question/answer data: 100 examples, 10 batches."""
    draw = np.random.default_rng(seed)
    texts = [[int(anchor), 100 + int(positive)] for anchor, positive in draw.integers(0, 60, (100, 2))]
    assert repeats(dealt(texts, 10, seed), texts) == 0


def test_step_seeds_differ() -> None:
    seeds = {step_seed(seed, step, chunk) for seed in (-1, 0, 1) for step in range(30) for chunk in range(5)}
    assert len(seeds) == 3 * 30 * 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert step_seed(1, 2, 3) == step_seed(1, 2, 3)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=80),
    max_tokens=st.integers(1, 300),
    shares=st.integers(2, 5),
)
def test_even_chunks_share_the_tokens_evenly(lengths: list[int], max_tokens: int, shares: int) -> None:
    chunks = even_chunks(lengths, max_tokens, shares)
    assert sorted(np.concatenate(chunks).tolist()) == list(range(len(lengths)))
    tokens = [sum(lengths[text] for text in chunk) for chunk in chunks]
    assert all(size <= max_tokens or len(chunk) == 1 for size, chunk in zip(tokens, chunks, strict=True))
    assert lengths[chunks[-1][-1]] == min(lengths)
    held = [sum(tokens[number] for number in share) for share in deal(tokens, shares)]
    assert max(held) - min(held) <= 2 * max(lengths) + sum(lengths) // len(chunks)


def test_one_process_has_the_chunks_by_tokens() -> None:
    lengths = [5, 3, 9, 1, 4]
    for even, plain in zip(even_chunks(lengths, 10, 1), chunks_by_tokens(lengths, 10), strict=True):
        assert np.array_equal(even, plain)


def test_dealing_by_hand() -> None:
    assert even_chunks([4, 4, 4, 4], 100, 2)[0].tolist() == [0, 1]  # one chunk would do: two, so that both have work
    assert deal([7, 5, 4, 3], 2) == [[0, 3], [1, 2]]
    assert deal([2], 3) == [[0], [], []]
