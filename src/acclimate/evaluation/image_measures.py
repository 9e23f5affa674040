"""What a projection is measured by: text -> image, image -> text, image -> image, and the class of an image.

Shapes: N images, T texts, C classes, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from acclimate.evaluation.measures import evaluate_run
from acclimate.evaluation.significance import mean_interval
from acclimate.types import Qrels, Run

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
DEPTH = 100
"""Results ranked for each query."""
AT = 10
OFFSETS = np.arange(0, 1, 0.02)
"""Offsets that are tried."""
MOST_LOST = 0.02
"""Accuracy on trained classes that the mild offset may cost on dev."""


class Measured(TypedDict):
    """A mean with its interval; clusters are classes, because images of one class depend on each other."""

    value: float
    low: float
    high: float
    queries: int
    chance: float
    """What a random order would give."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """How intervals are computed."""

    flips: int
    confidence: float
    seed: int

    def measured(self, values: Sequence[float], clusters: Sequence[int], chance: float) -> Measured:
        """The mean of values in [0, 1], with an interval over clusters."""
        array = np.asarray(values, np.float64)
        low, high = mean_interval(
            array, flips=self.flips, confidence=self.confidence, seed=self.seed, clusters=list(clusters)
        )
        return {
            "value": float(array.mean()),
            "low": float(low),
            "high": float(high),
            "queries": len(array),
            "chance": float(chance),
        }


def class_accuracy(
    image_ND: Floats, class_CD: Floats, own_N: Ints, doubt: Doubt, bias_C: Floats | None = None
) -> Measured:
    """Share of images whose nearest class vector is that of their class.

    Args:
        image_ND: unit rows.
        class_CD: unit rows: of each class, the mean of its texts' vectors.
        own_N: each image's class, as a row of `class_CD`.
        doubt: of the interval.
        bias_C: taken off each class's cosines.
    """
    score_NC = image_ND @ class_CD.T
    if bias_C is not None:
        score_NC = score_NC - bias_C
    right = score_NC.argmax(1) == own_N
    return doubt.measured(right.astype(float).tolist(), own_N.tolist(), 1 / len(class_CD))


def class_vectors(text_TD: Floats, class_T: Ints, classes: Sequence[int]) -> Floats:
    """Unit vectors [C, D]: of each class, the mean of its texts' (Radford et al. 2021, "CLIP", section 3.1.4)."""
    means = np.stack([text_TD[class_T == one].mean(0) for one in classes])
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12), np.float32)


def retrieval(
    query_ND: Floats,
    document_MD: Floats,
    relevant_NM: NDArray[np.bool_],
    clusters: Sequence[int],
    doubt: Doubt,
    *,
    among_themselves: bool = False,
) -> dict[str, Measured]:
    """Measure a ranking of all documents for every query: precision@10, recall@5, NDCG@10, MRR@10.

    Args:
        query_ND: unit rows.
        document_MD: unit rows.
        relevant_NM: what is relevant to what; a query without a relevant document is left out.
        clusters: of the queries.
        doubt: of the intervals.
        among_themselves: queries and documents are the same images: none finds itself.
    """
    kept = np.flatnonzero(relevant_NM.any(1))
    names = [f"d{number:08d}" for number in range(len(document_MD))]
    run, qrels = Run(), Qrels()
    precision = per_query_precision(query_ND, document_MD, relevant_NM, among_themselves=among_themselves)[
        kept
    ].tolist()
    for number in kept:
        score_M = document_MD @ query_ND[number]
        if among_themselves:
            score_M[number] = -np.inf
        order = np.argsort(-score_M, kind="stable")[:DEPTH]
        run[str(number)] = {names[place]: float(score_M[place]) for place in order}
        qrels[str(number)] = {names[place]: 1 for place in np.flatnonzero(relevant_NM[number])}
    _, per_query = evaluate_run(run, qrels)
    own = [clusters[int(number)] for number in kept]
    share = float(relevant_NM[kept].mean()) if len(kept) else 0.0
    found = {"precision@10": doubt.measured(precision, own, share)} if len(kept) else {}
    for name in ("recall@5", "ndcg@10", "mrr@10"):
        values = [per_query[str(number)][name] for number in kept]
        if values:
            chance = expected_by_chance(name, relevant_NM[kept], doubt.seed)
            found[name] = doubt.measured(values, own, chance)
    return found


def expected_by_chance(name: str, relevant_NM: NDArray[np.bool_], seed: int, draws: int = 20) -> float:
    """What random orders score on a measure, by drawing some for a sample of the queries."""
    draw = np.random.default_rng(seed)
    rows = draw.permutation(len(relevant_NM))[:50]
    run, qrels = Run(), Qrels()
    for row in rows:
        relevant = {f"d{place}": 1 for place in np.flatnonzero(relevant_NM[row])}
        for turn in range(draws):
            order = draw.permutation(relevant_NM.shape[1])[:DEPTH]
            run[f"{row} {turn}"] = {f"d{place}": float(-rank) for rank, place in enumerate(order)}
            qrels[f"{row} {turn}"] = relevant
    return float(evaluate_run(run, qrels)[0][name])


class Offsets(NamedTuple):
    """What is taken off the cosines of classes that were trained on, so that others have a chance among all."""

    balanced: float
    """With the highest harmonic mean of both accuracies (Chao et al. 2016, "calibrated stacking")."""
    mild: float
    """With the highest accuracy on other classes among those that cost at most `MOST_LOST` on trained ones."""


def trained_offsets(image_ND: Floats, class_CD: Floats, own_N: Ints, trained_C: NDArray[np.bool_]) -> Offsets:
    """Choose offsets. The images must be none that the head was trained on, and their classes partly ones that it
    never saw.

    Args:
        image_ND: unit rows.
        class_CD: unit rows.
        own_N: each image's class.
        trained_C: which classes the head was trained on.
    """
    score_NC, trained_N = image_ND @ class_CD.T, trained_C[own_N]
    right_KN = np.stack([(score_NC - offset * trained_C).argmax(1) == own_N for offset in OFFSETS])
    of_trained, of_others = right_KN[:, trained_N].mean(1), right_KN[:, ~trained_N].mean(1)
    balance = [harmonic(*pair) for pair in zip(of_trained, of_others, strict=True)]
    cheap = np.where(of_trained >= of_trained[0] - MOST_LOST, of_others, -1.0)
    return Offsets(float(OFFSETS[np.argmax(balance)]), float(OFFSETS[np.argmax(cheap)]))


def harmonic(first: float, second: float) -> float:
    """The harmonic mean of two accuracies: of seen and unseen classes, both among all (Xian et al. 2018)."""
    return 2 * first * second / (first + second) if first + second > 0 else 0.0


def by_gain(base: ArrayLike, own: ArrayLike, count: int) -> tuple[list[int], list[int]]:
    """Numbers of the queries most won and most lost, the largest difference first."""
    delta = np.asarray(own) - np.asarray(base)
    order = np.argsort(-delta, kind="stable")
    won = [int(number) for number in order[:count] if delta[number] > 0]
    lost = [int(number) for number in order[::-1][:count] if delta[number] < 0]
    return won, lost


def per_query_precision(
    query_ND: Floats, document_MD: Floats, relevant_NM: NDArray[np.bool_], *, among_themselves: bool = False
) -> NDArray[np.float64]:
    """Precision@10 of every query [N]; arguments as of `retrieval`."""
    found = np.zeros(len(query_ND))
    for number in range(len(query_ND)):
        score_M = document_MD @ query_ND[number]
        if among_themselves:
            score_M[number] = -np.inf
        top = np.argsort(-score_M, kind="stable")[:AT]
        found[number] = relevant_NM[number, top].sum() / min(AT, len(document_MD))
    return found
