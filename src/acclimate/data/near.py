"""Near-duplicates between held-out texts and training texts: short of the same text, and close enough to tell about it.

Legend: N held-out texts, M training texts, G n-grams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

NGRAM = 4
"""Characters of an n-gram; of a text's key, so case, white space and punctuation play no part."""
THRESHOLD = 0.7
"""Jaccard similarity of the sets of n-grams from which two texts are near-duplicates. A letter changed in a text of 40
leaves 0.80, one of eight words changed about 0.75."""
FEATURES = 2**22
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""Multiplier of the hash of an n-gram: 2^64 over the golden ratio (Knuth, multiplicative hashing)."""
BLOCK = 20_000
"""Training texts compared at a time."""


def hashed_ngrams(keys: Sequence[str]) -> list[NDArray[np.uint32]]:
    """Hash the n-grams of texts, all texts in one pass.

    Args:
        keys: of the texts (`core.same_text`).

    Returns:
        for each text its n-grams' hashes, each once, in ascending order; none for a text shorter than an n-gram.
    """
    codes = np.frombuffer("".join(keys).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    hashed = np.zeros(max(0, len(codes) - NGRAM + 1), np.uint64)
    for place in range(NGRAM):
        hashed = hashed * MULTIPLIER + codes[place : place + len(hashed)]
    short = (hashed * MULTIPLIER >> np.uint64(32)).astype(np.uint32)
    found, start = [], 0
    for length in map(len, keys):
        own = np.sort(short[start : start + max(0, length - NGRAM + 1)])
        found.append(own[np.append(True, own[1:] != own[:-1])] if len(own) else own)
        start += length
    return found


def are_near(one: NDArray[np.uint32], others: Sequence[NDArray[np.uint32]]) -> NDArray[np.bool_]:
    """Tell which of M texts are near-duplicates of one, all given by their hashed n-grams.

    Exact, up to collisions of 32-bit hashes; a text without n-grams is near to none.

    Returns:
        bool [M].
    """
    near_M = np.zeros(len(others), np.bool_)
    size_M = np.array([len(other) for other in others], np.int64)
    small_M, large_M = np.minimum(size_M, len(one)), np.maximum(size_M, len(one))
    possible = np.flatnonzero((small_M > 0) & (small_M >= THRESHOLD * large_M))
    if not len(possible):
        return near_M
    ngrams = np.concatenate([others[place] for place in possible.tolist()])
    is_shared = np.zeros(2**16, np.bool_)
    is_shared[one & 0xFFFF] = True
    is_shared = is_shared[ngrams & 0xFFFF]  # sorts out nearly all that are not shared
    likely = np.flatnonzero(is_shared)
    is_shared[likely] = one[np.minimum(np.searchsorted(one, ngrams[likely]), len(one) - 1)] == ngrams[likely]
    ends = size_M[possible].cumsum()
    shared = np.add.reduceat(is_shared, ends - size_M[possible], dtype=np.int64)
    near_M[possible] = shared >= THRESHOLD * (small_M[possible] + large_M[possible] - shared)
    return near_M


def near_duplicates(held: Sequence[str], others: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find all pairs of a held-out text and a training text that are near-duplicates.

    Exact, up to collisions of hashed n-grams (4 million values): no sketch, no candidates that are missed.

    Args:
        held: keys of N held-out texts (`core.same_text`).
        others: keys of M training texts.

    Returns:
        The places among `held` and those among `others`, of equal length. Texts shorter than an n-gram have none.
    """
    from sklearn.feature_extraction.text import HashingVectorizer  # takes a second to import

    sizes = [len(key) - NGRAM + 1 for key in held if len(key) >= NGRAM]
    if not sizes:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    low, high = THRESHOLD * 0.5 * min(sizes), max(sizes) / (THRESHOLD * 0.5)  # repeated n-grams count once
    candidates = [place for place, key in enumerate(others) if low <= len(key) - NGRAM + 1 <= high]
    grams = HashingVectorizer(
        analyzer="char",
        ngram_range=(NGRAM, NGRAM),
        n_features=FEATURES,
        binary=True,
        norm=None,
        alternate_sign=False,
        lowercase=False,
        dtype=np.float32,
    )
    held_NG: Any = grams.transform(held)
    count_N = np.asarray(held_NG.sum(axis=1)).ravel()
    found: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for start in range(0, len(candidates), BLOCK):
        block = np.array(candidates[start : start + BLOCK])
        other_MG: Any = grams.transform([others[place] for place in block])
        count_M = np.asarray(other_MG.sum(axis=1)).ravel()
        shared = (held_NG @ other_MG.T).tocoo()
        union = count_N[shared.row] + count_M[shared.col] - shared.data
        near = shared.data >= THRESHOLD * union
        found.append((shared.row[near].astype(np.int64), block[shared.col[near]]))
    rows, columns = zip(*found, strict=True) if found else ((), ())
    return np.concatenate([np.empty(0, np.int64), *rows]), np.concatenate([np.empty(0, np.int64), *columns])
