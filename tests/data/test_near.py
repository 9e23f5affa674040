"""Near-duplicates, against sets of n-grams compared one by one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.data.near import NGRAM, THRESHOLD, near_duplicates

keys = st.lists(st.text("ab", max_size=12), max_size=6)


@settings(max_examples=60, deadline=None)
@given(keys, keys)
def test_they_are_the_pairs_of_similar_sets_of_ngrams(held: list[str], others: list[str]) -> None:
    def grams(key: str) -> set[str]:
        return {key[start : start + NGRAM] for start in range(len(key) - NGRAM + 1)}

    expected = {
        (one, other)
        for one, left in enumerate(map(grams, held))
        for other, right in enumerate(map(grams, others))
        if left and right and len(left & right) >= THRESHOLD * len(left | right)
    }
    found_held, found_others = near_duplicates(held, others)
    found = set(zip(found_held.tolist(), found_others.tolist(), strict=True))
    assert found <= expected
    # Texts that say the same many times over are passed over: their length says they cannot be near.
    lengths = [sorted((len(held[one]), len(others[other]))) for one, other in expected - found]
    assert all(longer > 2 * shorter for shorter, longer in lengths)
