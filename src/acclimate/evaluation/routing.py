"""Routing measured on one pooled corpus: the base, every expert, what routers choose, mixtures, fusion, and oracles.

NDCG@10 over the whole pool. Differences are tested as those of two models are (`evaluation.significance`).

Shapes: N queries, D dimensions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from acclimate.configs import EvaluateConfig
from acclimate.evaluation.clusters import query_clusters
from acclimate.evaluation.measures import evaluate_run
from acclimate.evaluation.pooled_sets import AskedSet, Pool
from acclimate.evaluation.reports import RoutedSet, RoutingReport
from acclimate.evaluation.significance import compare_means, verdict
from acclimate.progress import say
from acclimate.retrieval.experts import Experts
from acclimate.retrieval.own_documents import own_documents
from acclimate.retrieval.rank import rank_vectors
from acclimate.retrieval.routing import BASE, Route, RouteMode, fuse_rankings
from acclimate.retrieval.token_router import TokenRouter
from acclimate.retrieval.top_k import Vectors
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.types import Qrels, Queries, Run

Scores = npt.NDArray[np.float64]

MEASURE = "ndcg@10"
DEPTH = 100
"""Documents per query and ranking: fusion looks deeper than the measure."""
AUTO, BY_TOKENS, MIX, FUSE = "auto", "auto by tokens", "mix", "fuse"
UNIFORM, RANDOM = "uniform mix", "random expert"
ORACLE_SET, ORACLE_QUERY = "oracle of the set", "oracle of each query"


class RoutingTest:
    """All rankings of a pool, and what they score.

    Args:
        experts: adapters of one base.
        pool: what is asked, of which documents.
        tokens: a router by tokens to measure beside that by centroids.
        multi: name of an adapter in `experts` that was trained on all domains: measured alone, never chosen.
        most: experts that share a query.
        cache: folder in which documents' vectors are kept.
    """

    def __init__(
        self,
        experts: Experts,
        pool: Pool,
        *,
        tokens: TokenRouter | None = None,
        multi: str | None = None,
        most: int,
        cache: Path | None = None,
    ) -> None:
        self.experts, self.pool, self.most, self.multi = experts, pool, most, multi
        self.names = [name for name in experts.router.domains if name != multi]
        self.queries: Queries = {key: text for one in pool.sets for key, text in one.queries.items()}
        self.qrels: Qrels = {key: grades for one in pool.sets for key, grades in one.qrels.items()}
        self._own = own_documents(self.queries, pool.corpus, self.qrels)
        self._texts, self._row = list(self.queries.values()), {key: row for row, key in enumerate(self.queries)}
        self._document_MD = encode_corpus(experts.base, list(pool.corpus.values()), cache, "documents (base)")
        base_ND = experts.base.encode(self._texts, "query", label="queries (base)")
        distances = experts.router.distances(base_ND)
        self.routes: dict[str, list[Route]] = {AUTO: self._routes("auto", distances, experts.router.radii)}
        if tokens is not None:
            self.routes[BY_TOKENS] = self._routes("auto", tokens.distances(self._texts), tokens.radii)
        runs = {BASE: self._ranked(base_ND)}
        runs |= {name: self._of_expert(name, cache) for name in [*self.names, *([multi] if multi else [])]}
        self.scores = {name: self._scored(run) for name, run in runs.items()}
        self._add_chosen()
        self._add_mixed(distances, runs)

    def scores_of(self, one: AskedSet) -> dict[str, Scores]:
        """NDCG@10 of each query of a set [n], by what answers it."""
        rows = [self._row[key] for key in one.queries]
        return {name: scores[rows] for name, scores in self.scores.items()}

    def accuracy(self, one: AskedSet) -> dict[str, float]:
        """Router -> the share of a set's queries that it sends where they belong; to the base, where no expert was
        trained for them."""
        truth, rows = one.expert or BASE, [self._row[key] for key in one.queries]
        return {
            name: float(np.mean([next(iter(self.routes[name][row].weights), BASE) == truth for row in rows]))
            for name in (AUTO, BY_TOKENS)
            if name in self.routes
        }

    def report(self, config: EvaluateConfig, seed: int) -> RoutingReport:
        """Sum up, for every set and for all experts' own sets together.

        Args:
            config: `sign_flips` and `confidence`.
            seed: fixes the flips.
        """
        own = [one for one in self.pool.sets if one.kind == "own"]
        together = AskedSet(
            "all own sets",
            "own",
            None,
            {key: text for one in own for key, text in one.queries.items()},
            {key: grades for one in own for key, grades in one.qrels.items()},
        )
        sets = [*self.pool.sets, *([together] if len(own) > 1 else [])]
        rows = [self._row_of(one, config, seed, accuracy=one is not together) for one in sets if one.queries]
        spanning = next((row for row in rows if row["kind"] == "spanning"), None)
        return {
            "measure": MEASURE,
            "documents": len(self.pool.corpus),
            "experts": self.names,
            "radii": dict(self.experts.router.radii),
            "confidence": config.confidence,
            "sets": rows,
            "mix_on_spanning": verdict(spanning["from_auto"][MIX]) if spanning and MIX in self.scores else None,
        }

    def _routes(
        self, mode: RouteMode, distances: Sequence[Mapping[str, float]], radii: Mapping[str, float]
    ) -> list[Route]:
        return [self.experts.route(mode, one, radii, self.most) for one in distances]

    def _of_expert(self, name: str, cache: Path | None) -> Run:
        """The ranking by one adapter; over its own document vectors, where it has such."""
        say(f"rank by {name}")
        adapter = self.experts.set.adapters[name]
        query_ND = self.experts.encode(self._texts, [{name: 1.0}] * len(self._texts))
        if self.experts.searches_base(adapter):
            return self._ranked(query_ND)
        encoder = self.experts.base.with_adapter(adapter)
        own_MD = encode_corpus(encoder, list(self.pool.corpus.values()), cache, f"documents ({name})")
        return self._ranked(query_ND, own_MD)

    def _ranked(self, query_ND: Vectors, document_MD: Vectors | None = None) -> Run:
        documents = self._document_MD if document_MD is None else document_MD
        ids, device = list(self.pool.corpus), self.experts.base.device
        return rank_vectors(list(self.queries), query_ND, ids, documents, DEPTH, own=self._own, device=device)

    def _scored(self, run: Run) -> Scores:
        """NDCG@10 of every query [N]."""
        per_query = evaluate_run(run, self.qrels)[1]
        return np.array([per_query[key][MEASURE] for key in self.queries])

    def _add_chosen(self) -> None:
        """What one of the rankings answers: routers and oracles."""
        alone = [BASE, *self.names]
        table_AN = np.stack([self.scores[name] for name in alone])
        for name, routes in self.routes.items():
            chosen = [next(iter(found.weights), BASE) for found in routes]
            self.scores[name] = np.array([self.scores[arm][row] for row, arm in enumerate(chosen)])
        best_N = np.empty(len(self.queries))
        for one in self.pool.sets:
            rows = [self._row[key] for key in one.queries]
            best_N[rows] = table_AN[int(np.argmax(table_AN[:, rows].mean(axis=1)))][rows] if rows else 0.0
        self.scores[ORACLE_SET] = best_N
        self.scores[ORACLE_QUERY] = table_AN.max(axis=0)
        self.scores[RANDOM] = table_AN[1:].mean(axis=0)

    def _add_mixed(self, distances: Sequence[Mapping[str, float]], runs: Mapping[str, Run]) -> None:
        """What several adapters answer together."""
        mixable = [name for name in self.names if name in self.experts.one_sided]
        shared = [{name: row[name] for name in mixable} for row in distances]
        if mixable:
            self.routes[MIX] = self._routes("mix", shared, self.experts.router.radii)
            mixed_ND = self.experts.encode(self._texts, [found.weights for found in self.routes[MIX]])
            self.scores[MIX] = self._scored(self._ranked(mixed_ND))
            even = dict.fromkeys(mixable, 1.0 / len(mixable))
            even_ND = self.experts.encode(self._texts, [even] * len(self._texts))
            self.scores[UNIFORM] = self._scored(self._ranked(even_ND))
        self.routes[FUSE] = self._routes("fuse", distances, self.experts.router.radii)
        fused = {
            key: fuse_rankings({name: list(runs[name][key]) for name in found.shares}, found.shares)
            for key, found in zip(self.queries, self.routes[FUSE], strict=True)
        }
        self.scores[FUSE] = self._scored(fused)

    def _row_of(self, one: AskedSet, config: EvaluateConfig, seed: int, *, accuracy: bool) -> RoutedSet:
        scores = self.scores_of(one)
        clusters = query_clusters(one.qrels, one.queries, self.pool.corpus)

        def delta(before: str, after: str) -> dict[str, float]:
            return compare_means(
                scores[before],
                scores[after],
                flips=config.sign_flips,
                confidence=config.confidence,
                seed=seed,
                clusters=clusters,
            )

        arms = [name for name in scores if name != BASE]
        found: RoutedSet = {
            "set": one.name,
            "kind": one.kind,
            "expert": one.expert,
            "queries": len(one.queries),
            "scores": {name: float(of.mean()) for name, of in scores.items()},
            "from_base": {name: delta(BASE, name) for name in arms},
            "from_auto": {name: delta(AUTO, name) for name in arms if name != AUTO},
        }
        if accuracy and one.kind != "spanning":
            found["accuracy"] = self.accuracy(one)
        return found
