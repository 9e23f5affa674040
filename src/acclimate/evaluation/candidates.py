"""Comparison of merged models on dev, never on the test split: greedy soup, and interpolation with the base.

A `Score` measures one encoder; the functions here decide what is tried, in which order, and what is kept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from acclimate.data.dataset import Dataset
from acclimate.data.facts import evenly
from acclimate.errors import DataError
from acclimate.evaluation.compare import MAIN_MEASURE
from acclimate.evaluation.dev import dev_set, retrieval_scores, similarity_scores
from acclimate.models.encoder import Encoder
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.types import Split

MAX_GUARD_PAIRS = 2000
"""Largest number of a guard's labelled pairs that are used."""

Score: TypeAlias = Callable[[Encoder], float]
"""Encoder -> its main measure on some data; higher is better."""


def score_on(
    dataset: Dataset, split: Split, reference: Encoder, *, documents: int, seed: int, cache: Path | None = None
) -> Score:
    """Make a score on one split: NDCG@10 of its queries against a pool, or Spearman of its pairs.

    The pool is that of training (`evaluation.dev`): the relevant documents, what the reference ranks highest, and a
    sample, `documents` in all; at most 500 queries. It is the same for every encoder.

    Args:
        dataset: retrieval data or pairs.
        split: dev, or the split that takes its place.
        reference: the model before merging; also gives the documents' vectors of encoders for the query side.
        documents: in the pool.
        seed: of the samples.
        cache: keeps the reference's vectors of the corpus.

    Raises:
        DataError: the split is empty.
    """
    if dataset.kind == "pairs":
        pairs = dataset.pairs.get(split, [])
        _require(bool(pairs), split, "labelled pair")
        return lambda encoder: similarity_scores(encoder, pairs)(1)[MAIN_MEASURE["pairs"]]
    qrels = dataset.qrels.get(split, {})
    _require(any(grade > 0 for grades in qrels.values() for grade in grades.values()), split, "query with an answer")
    corpus_MD = encode_corpus(reference, list(dataset.corpus.values()), cache, "base documents")
    dev = dev_set(reference, dataset.corpus, corpus_MD, dataset.queries, qrels, documents, seed)

    def score(encoder: Encoder) -> float:
        sides = encoder.adapter.sides if encoder.adapter else "both"
        return retrieval_scores(encoder, dev, sides=sides)(1)[MAIN_MEASURE["retrieval"]]

    return score


def guard_score(
    dataset: Dataset, reference: Encoder, *, documents: int, seed: int, cache: Path | None = None
) -> tuple[str, Score]:
    """Make a score on guard data: on all of it but the test split, which is possible because none of it is trained on.

    Args:
        dataset: retrieval data or pairs.
        reference: the model before merging.
        documents: in the pool.
        seed: of the samples.
        cache: keeps the reference's vectors of the corpus.

    Returns:
        The name of the splits used ("train and dev"; "test" where there is nothing else), and the score.
    """
    qrels = dataset.qrels.get("train", {}) | dataset.qrels.get("dev", {})
    pairs = [*dataset.pairs.get("train", []), *dataset.pairs.get("dev", [])]
    if not (qrels or pairs):
        return "test", score_on(dataset, "test", reference, documents=documents, seed=seed, cache=cache)
    without_test = dataclasses.replace(dataset, qrels={"dev": qrels}, pairs={"dev": evenly(pairs, MAX_GUARD_PAIRS)})
    return "train and dev", score_on(without_test, "dev", reference, documents=documents, seed=seed, cache=cache)


def greedy_soup(count: int, score: Callable[[Sequence[float]], float], alone: Sequence[float]) -> dict[str, Any]:
    """Add models one by one, best first, and keep each that does not make the average worse on dev.

    Wortsman et al. 2022, "Model soups", recipe 1.

    Args:
        count: number of models.
        score: weights of all models -> dev score of their average.
        alone: dev score of each.

    Returns:
        "kept" (indices, in the order in which they came in), "weights", "score", and "tried": per model, best first,
        its "model" (index), "alone", "soup" (the score with it) and whether it is "kept".
    """
    order = sorted(range(count), key=lambda index: (-alone[index], index))
    kept, best = [order[0]], alone[order[0]]
    tried = [{"model": order[0], "alone": best, "soup": best, "kept": True}]
    for index in order[1:]:
        with_it = score(_shares(count, [*kept, index]))
        if with_it >= best:
            kept, best = [*kept, index], with_it
        tried.append({"model": index, "alone": alone[index], "soup": with_it, "kept": index in kept})
    return {"kept": kept, "weights": _shares(count, kept), "score": best, "tried": tried}


def choose_share(points: Sequence[Mapping[str, Any]], bound: float) -> tuple[float, str]:
    """Choose the share of the model, between the base and all of it, that is best in the domain and forgets little
    enough.

    Args:
        points: per share its "share", its "domain" score, and "guard": name -> relative loss against the base.
        bound: the largest relative loss on guard data that is accepted.

    Returns:
        The share, and the rule in words. Of equally good shares, the smallest one, which is nearest to the base.
    """
    allowed = [point for point in points if all(loss <= bound for loss in point["loss"].values())]
    best = max(allowed, key=lambda point: (point["domain"], -point["share"]))
    guarded = f" among the shares whose loss on every guard is at most {100 * bound:g} %" if points[0]["loss"] else ""
    return float(
        best["share"]
    ), f"the best score on the domain's dev split{guarded}; of equal scores, the nearest to the base"


def _shares(count: int, kept: Sequence[int]) -> list[float]:
    return [1 / len(kept) if index in kept else 0.0 for index in range(count)]


def _require(there: bool, split: Split, what: str) -> None:
    if not there:
        raise DataError(f"the {split} split holds no {what}", fix="Prepare data with a dev split (dev_fraction).")
