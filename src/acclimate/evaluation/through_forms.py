"""What is found in stored vectors of every form: recall against float32, NDCG@10 with its interval, bytes, time.

Shapes: N queries, M documents, D dimensions.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np

from acclimate.configs import EvaluateConfig, VectorsConfig
from acclimate.data.dataset import Dataset
from acclimate.data.facts import evenly
from acclimate.errors import UsageError
from acclimate.evaluation.clusters import query_clusters
from acclimate.evaluation.compare import MAIN_MEASURE, judged_queries
from acclimate.evaluation.measures import evaluate_run
from acclimate.evaluation.reports import FormRow
from acclimate.evaluation.significance import compare_means
from acclimate.retrieval.own_documents import own_documents, without_own
from acclimate.retrieval.top_k import Vectors
from acclimate.retrieval.vector_forms import FORMS, Form, Stored, one_thread, store
from acclimate.types import Run

FIRST = 10
TIMED = 200
"""Queries that are searched one at a time."""


def asked_dims(config: VectorsConfig, dim: int) -> list[int]:
    """Dimensions that are measured, the model's own first.

    Raises:
        UsageError: more than the model has.
    """
    if wrong := [wanted for wanted in config.cut_dims if wanted > dim]:
        raise UsageError(f"cut_dims = {wrong[0]}, and the model's vectors have {dim}", possible=f"1 to {dim}")
    return list(dict.fromkeys([dim, *(config.cut_dims or (dim // 2, dim // 4))]))


def measure_forms(
    query_ND: Vectors, document_MD: Vectors, data: Dataset, config: VectorsConfig, evaluate: EvaluateConfig, seed: int
) -> list[FormRow]:
    """Search for the test queries in every form, in all dimensions and in fewer.

    Args:
        query_ND: of `judged_queries(data)`, in their order; unit rows.
        document_MD: of the corpus; unit rows.
        data: judgements, and texts by which queries depend on each other.
        config: which dimensions.
        evaluate: `sign_flips` and `confidence`.
        seed: fixes the sign flips.

    Returns:
        A row for each form; the first one is float32 in all dimensions, which the others are compared with.
    """
    searched = _Searched(query_ND, data, evaluate, seed)
    rows: list[FormRow] = []
    for dim in asked_dims(config, document_MD.shape[1]):
        forms = _forms(dim, document_MD.shape[1])
        rows += [searched.row(store(document_MD, form, dim, config.oversampling)) for form in forms]
    return rows


def _forms(dim: int, whole: int) -> Sequence[Form]:
    """The forms to measure: float16 of cut vectors says nothing new beside float32 and the whole ones in float16."""
    return FORMS if dim == whole else [form for form in FORMS if form != "float16"]


class _Searched:
    """The test queries, and what float32 finds for them."""

    def __init__(self, query_ND: Vectors, data: Dataset, config: EvaluateConfig, seed: int) -> None:
        self.query_ND, self.config, self.seed = query_ND, config, seed
        queries, self.qrels = judged_queries(data)
        self.queries, self.documents = list(queries), list(data.corpus)
        self.own = own_documents(queries, data.corpus, self.qrels)
        self.clusters = query_clusters(self.qrels, queries, data.corpus)
        self.reference: tuple[list[set[str]], Vectors] | None = None

    def row(self, stored: Stored) -> FormRow:
        found = self._run(stored)
        per_query = evaluate_run(found, self.qrels)[1]
        score_N = np.array([per_query[query][MAIN_MEASURE["retrieval"]] for query in self.queries])
        first_N = [set(found[query]) for query in self.queries]
        self.reference = self.reference or (first_N, score_N)
        exact_N, before_N = self.reference
        shares = [len(mine & exact) / len(exact) for mine, exact in zip(first_N, exact_N, strict=True) if exact]
        return {
            "form": stored.form,
            "dim": stored.dim,
            "bytes": stored.bytes,
            "searched_bytes": stored.searched_bytes,
            "recall@10": float(np.mean(shares)),
            "ndcg@10": float(score_N.mean()),
            "delta": compare_means(
                before_N,
                score_N,
                flips=self.config.sign_flips,
                confidence=self.config.confidence,
                seed=self.seed,
                clusters=self.clusters,
            ),
            "ms": self._ms(stored),
        }

    def _run(self, stored: Stored) -> Run:
        scores, rows = stored.search(self.query_ND, min(FIRST + bool(self.own), len(self.documents)))
        run = {
            query: {self.documents[row]: score for row, score in zip(found, scored, strict=True) if row >= 0}
            for query, found, scored in zip(self.queries, rows.tolist(), scores.tolist(), strict=True)
        }
        return without_own(run, self.own, FIRST)

    def _ms(self, stored: Stored) -> float:
        """Milliseconds of a search for one query, the median."""
        seconds = []
        with one_thread():
            for row in evenly(range(len(self.query_ND)), TIMED):
                started = time.perf_counter()
                stored.search(self.query_ND[row : row + 1], FIRST)
                seconds.append(time.perf_counter() - started)
        return 1000 * statistics.median(seconds)
