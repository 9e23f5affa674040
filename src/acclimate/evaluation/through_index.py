"""What an index finds: the fusion of its two rankings chosen on dev, every mode measured on test.

Where an index holds chunks, the best chunk of a document stands for it.

Shapes: N queries, M documents or chunks of the index, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from acclimate.configs import EvaluateConfig
from acclimate.core.fusion import CONSTANT, reciprocal_rank_fusion
from acclimate.data.dataset import Dataset
from acclimate.data.facts import evenly
from acclimate.evaluation.clusters import query_clusters
from acclimate.evaluation.measures import evaluate_run
from acclimate.evaluation.refusal import choose_refusal
from acclimate.evaluation.reports import ThroughIndex
from acclimate.evaluation.significance import Delta, compare_means
from acclimate.retrieval.index.feeding import chunk_id
from acclimate.retrieval.index.pictures import among_texts, is_picture
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.records import MODES, Fusion, Hit, Mode, Query, Vectors
from acclimate.retrieval.index.reports import FusionChoice, RefusalChoice
from acclimate.retrieval.top_k import top_k
from acclimate.types import Qrels, Queries, Run

MEASURE = "ndcg@10"
MEASURES = ("ndcg@10", "mrr@10", "recall@100")
DEPTH = 100
"""Documents, or chunks, per query and mode: recall@100 needs them."""
EXACT_DEPTH = 10
TIE = 1e-6
"""Two cosines no further apart are equal: an index keeps float16 and adds in another order."""
ENOUGH, FEWEST = 500, 20
"""Dev queries to choose on, at most; and at least, to choose at all."""
LOOKED_UP = 512
CONSTANTS = (float(CONSTANT), 20.0, 5.0)
LEXICAL_WEIGHTS = (1.0, 0.5, 0.25, 0.1, 0.0, 2.0)
"""Weights of the lexical ranking that are tried; the dense one has 1. Of equally good settings the first is taken."""


class Asked(NamedTuple):
    """Queries with their vectors."""

    texts: Queries
    vectors: Vectors
    """[N, D], in the order of `texts`."""
    model: str
    """What encoded them: see `of_run.query_model`."""


Found = dict[str, list[Hit]]
"""Query id -> what an index gave for it, best first."""


def dev_queries(data: Dataset) -> tuple[Queries, Qrels]:
    """Take at most `ENOUGH` dev queries that have a relevant document, and their judgements."""
    judged = {query: grades for query, grades in data.qrels.get("dev", {}).items() if max(grades.values()) > 0}
    qrels = {query: judged[query] for query in evenly(list(judged), ENOUGH)}
    return {query: data.queries[query] for query in qrels}, qrels


def documents_missing(index: Index, data: Dataset) -> list[str]:
    """Return the ids of documents that are judged relevant on dev or test, and are not in the index."""
    judged = [data.qrels.get(split, {}) for split in ("dev", "test")]
    wanted = sorted(
        {name for qrels in judged for grades in qrels.values() for name, grade in grades.items() if grade > 0}
    )
    missing = []
    for start in range(0, len(wanted), LOOKED_UP):
        some = wanted[start : start + LOOKED_UP]
        there = index.get([*some, *(chunk_id(name, 0) for name in some)])
        missing += [name for name in some if name not in there and chunk_id(name, 0) not in there]
    return missing


def choose_fusion(index: Index, dev: Asked, qrels: Qrels, refuse: float) -> FusionChoice:
    """Choose constant and weights of the fusion by NDCG@10 on dev queries; and which questions are not answered.

    Args:
        index: holds the documents of `qrels`.
        dev: queries outside the test split.
        qrels: their judgements.
        refuse: the share of the questions without an answer that shall be refused.
    """
    best = Fusion(depth=DEPTH)
    if len(dev.texts) < FEWEST:
        why = f"the default, as there are {len(dev.texts)} dev queries, and {FEWEST} are needed to choose"
        return _choice(index, best, why, {}, choose_refusal({}, qrels, dev.model, refuse))
    dense, lexical = (search_all(index, dev, mode, best) for mode in ("dense", "lexical"))
    tried: dict[str, float] = {}
    for constant in CONSTANTS:
        for weight in LEXICAL_WEIGHTS:
            run = {query: _fused(dense[query], lexical[query], weight, constant) for query in dev.texts}
            score = evaluate_run(run, qrels)[0][MEASURE]
            if score > max(tried.values(), default=-1.0):
                best = Fusion(constant, 1.0, weight, DEPTH)
            tried[f"constant {constant:g}, lexical weight {weight:g}"] = score
    refusal = choose_refusal(dense, qrels, dev.model, refuse)
    return _choice(index, best, f"best NDCG@10 of {len(dev.texts):,} dev queries", tried, refusal)


def measure(
    index: Index, test: Asked, qrels: Qrels, data: Dataset, fusion: Fusion, config: EvaluateConfig, seed: int
) -> tuple[ThroughIndex, dict[Mode, Run]]:
    """Search for the test queries in every mode, and measure what comes.

    Args:
        index: what is measured.
        test: the queries.
        qrels: their judgements.
        data: gives texts, by which queries depend on each other.
        fusion: of the mode hybrid.
        config: `sign_flips` and `confidence`.
        seed: fixes the sign flips.

    Returns:
        The measures, and each mode's run of documents.
    """
    found: dict[Mode, Found] = {mode: search_all(index, test, mode, fusion) for mode in MODES}
    runs = {mode: {query: documents(hits) for query, hits in hits_of.items()} for mode, hits_of in found.items()}
    scored = {mode: evaluate_run(run, qrels) for mode, run in runs.items()}
    clusters = query_clusters({query: qrels[query] for query in test.texts}, data.queries, data.corpus)

    def delta(mode: Mode, name: str) -> Delta:
        columns = [np.array([scored[one][1][query][name] for query in test.texts]) for one in ("dense", mode)]
        return compare_means(
            *columns, flips=config.sign_flips, confidence=config.confidence, seed=seed, clusters=clusters
        )

    report: ThroughIndex = {
        "queries": len(test.texts),
        "documents": index.count(),
        "modes": {mode: {name: scored[mode][0][name] for name in MEASURES} for mode in MODES},
        "delta": {mode: {name: delta(mode, name) for name in MEASURES} for mode in MODES if mode != "dense"},
        "exact_recall": recall_against_exact(index, test, found["dense"]),
        "confidence": config.confidence,
    }
    return report, runs


def search_all(index: Index, asked: Asked, mode: Mode, fusion: Fusion) -> Found:
    """Ask an index for texts, one query after the other."""
    passed = among_texts(index, None)
    return {
        name: index.search(Query(text, vector, mode, DEPTH, passed, fusion))
        for (name, text), vector in zip(asked.texts.items(), asked.vectors, strict=True)
    }


def documents(hits: Iterable[Hit]) -> dict[str, float]:
    """Whole documents in the order of their best chunks, with the scores of these."""
    ranked: dict[str, float] = {}
    for hit in hits:
        ranked.setdefault(_document_of(hit), hit.score)
    return ranked


def recall_against_exact(index: Index, asked: Asked, found: Mapping[str, Sequence[Hit]]) -> float:
    """Measure which share of the exact first `EXACT_DEPTH` dense results an index finds; equal cosines are as good."""
    ids, vectors = [], []
    for stored in index.iterate():
        if not is_picture(stored.document):
            ids.append(stored.document.id)
            vectors.append(stored.vector)
    stored_MD = np.stack(vectors)
    place = {name: row for row, name in enumerate(ids)}
    k = min(EXACT_DEPTH, len(ids))
    exact_Nk, _ = top_k(asked.vectors, stored_MD, k)
    hits = 0
    for query_D, least, ranked in zip(asked.vectors, exact_Nk[:, -1], found.values(), strict=True):
        rows = [place[hit.id] for hit in ranked[:k]]
        hits += int(np.count_nonzero(stored_MD[rows] @ query_D >= least - TIE))
    return hits / (k * len(asked.texts))


def _fused(dense: Sequence[Hit], lexical: Sequence[Hit], weight: float, constant: float) -> dict[str, float]:
    fused = reciprocal_rank_fusion([[hit.id for hit in hits] for hits in (dense, lexical)], [1.0, weight], constant)
    by_id = {hit.id: hit for hit in (*dense, *lexical)}
    ranked: dict[str, float] = {}
    for name, score in fused.items():
        ranked.setdefault(_document_of(by_id[name]), score)
    return ranked


def _document_of(hit: Hit) -> str:
    return hit.document.parent or hit.id


def _choice(index: Index, fusion: Fusion, chosen: str, tried: dict[str, float], refusal: RefusalChoice) -> FusionChoice:
    return {
        "constant": fusion.constant,
        "dense_weight": fusion.dense_weight,
        "lexical_weight": fusion.lexical_weight,
        "depth": fusion.depth,
        "space": index.space.digest,
        "chosen": chosen,
        "tried": tried,
        "refusal": refusal,
    }
