"""Topics of texts by their words alone, so that the models that are measured have no part in them."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence

from acclimate.core.analyser import words

MAX_TOPICS = 50
DIMENSIONS = 100
FEW_WORDS = 20


@functools.lru_cache(maxsize=1)
def lexical_topics(texts: tuple[str, ...], seed: int, clusters: int | None = None) -> list[int]:
    """The topic of every text: clusters of TF-IDF vectors.

    The words of `core.analyser.words` (for Chinese, bigrams of characters), weighted by sublinear TF-IDF, reduced to
    `DIMENSIONS` at most by latent semantic analysis (Deerwester et al. 1990), rows of length 1, k-means with
    k = sqrt(texts / 2), at most `MAX_TOPICS`. The last result is kept, because two metrics need the same.

    Args:
        texts: to be clustered.
        seed: of the reduction and the clustering.
        clusters: k, where it is given.

    Returns:
        A number per text; empty where the texts share too few words to be clustered.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    shared = _shared_words(texts)
    if len(shared) < FEW_WORDS:
        return []
    weights = TfidfVectorizer(analyzer=words, vocabulary=shared, sublinear_tf=True).fit_transform(texts)
    reduced = normalize(TruncatedSVD(min(DIMENSIONS, len(shared) - 1), random_state=seed).fit_transform(weights))
    clusters = clusters or min(MAX_TOPICS, max(2, round((len(texts) / 2) ** 0.5)))
    return [int(topic) for topic in KMeans(clusters, n_init=1, random_state=seed).fit_predict(reduced)]


def _shared_words(texts: Sequence[str]) -> list[str]:
    """The words that occur in at least two texts and at most half of them: others say nothing about similarity."""
    holding = Counter(word for text in texts for word in set(words(text)))
    return sorted(word for word, number in holding.items() if 2 <= number <= len(texts) / 2)
