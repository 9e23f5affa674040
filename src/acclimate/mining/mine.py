"""Hard negatives: for every training query, documents that a teacher ranks high and that are not known to be relevant.

Shapes: N queries of a block, M documents, D dimensions, C candidates per query. Queries are taken block by block and
documents lie in a memory map, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from acclimate import processes
from acclimate.configs import MineConfig
from acclimate.core.selection import Selection, fill, select_negatives
from acclimate.core.spread import DOCUMENTS, QUERIES, sampled, spread
from acclimate.mining.mining_input import MiningInput
from acclimate.mining.near_copies import NearCopies
from acclimate.mining.ranked_block import RankedBlock, known_pairs, never_mined, split_by_query, whole, with_rows
from acclimate.progress import progress
from acclimate.retrieval.top_k import Indices, Vectors, top_k
from acclimate.retrieval.vector_cache import encode_corpus

if TYPE_CHECKING:
    import torch

    from acclimate.models.reranker import Reranker
    from acclimate.models.text_encoder import TextEncoder

QUERY_BLOCK = 2048
"""Queries searched at a time; each block reads the documents' vectors once."""
DEEPER = 4
"""How much deeper each further look into the ranking goes, where the one before has not found enough."""
DEEPEST = 20
"""Times `range_max` that the deepest look goes."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A document and its score for a query: the teacher's cosine, or the reranker's score where there is one."""

    document: str
    score: float


@dataclass(frozen=True, slots=True)
class MinedQuery:
    """A training query with everything known about it."""

    query: str
    positives: list[Scored]
    given: list[Scored]
    """The negatives that the data brought."""
    negatives: list[Scored]
    """The chosen ones, best-ranked first."""
    ranked: list[Scored]
    """The candidates that they were chosen from, best first; empty unless `include_positives` asks for the list."""


@dataclass(frozen=True, slots=True)
class MinedBlock:
    """Some queries, and how many candidates each filter removed for them."""

    queries: list[MinedQuery]
    candidates: int
    removed: dict[str, int]
    near_copies: int
    """Candidates that are nearly a positive of their query, and so never its negatives."""
    filled: dict[str, int]
    """Loosened filter -> number of queries that got their negatives by loosening it: `range_max` by looking deeper (for
    some or for all of them), the others as in `core.selection.fill`."""
    examples: int
    """Training examples of the queries."""
    with_negatives: int
    """Those of them that have a hard negative, mined or given."""
    spread: float
    """The spread of the scores, the unit of `spread_margin`; the same for all blocks."""


def mine_negatives(
    source: MiningInput,
    teacher: TextEncoder,
    config: MineConfig,
    seed: int,
    *,
    reranker: Reranker | None = None,
    document_vectors: Vectors | None = None,
    cache: Path | None = None,
) -> Iterator[MinedBlock]:
    """Mine every query, block by block. Several processes share the work: all have to take every block.

    Args:
        source: queries, positives and documents.
        teacher: the encoder that ranks the documents.
        config: how many, from which ranks, and the filters.
        seed: with the query's text it fixes the draws of `sampling = "random"`.
        reranker: rescores and reorders the candidates, the positives and the given negatives before the filters.
        document_vectors: [M, D], where they do not change while the teacher does; else the teacher's own.
        cache: folder in which the teacher's vectors are kept and memory-mapped.
    """
    doc_MD = document_vectors
    if doc_MD is None:
        doc_MD = encode_corpus(teacher, source.documents, cache, "encode documents")
    queries = list(source.positives)
    query_ND = encode_corpus(teacher, queries, cache, "encode queries", role="query")
    search = _Search(source, doc_MD, config, seed, teacher.device, reranker, NearCopies(source))
    unit = _cosine_spread(search, queries, query_ND) if reranker is None else None
    with progress("mine", len(queries), "queries") as advance:
        for start in range(0, len(queries), QUERY_BLOCK):
            texts = queries[start : start + QUERY_BLOCK]
            vectors = np.asarray(query_ND[start : start + QUERY_BLOCK])
            block = search.ranked(texts, vectors, config.range_max)
            unit = spread(block.score, block.usable) if unit is None else unit
            yield _choose(search, block, vectors, unit)
            advance(len(texts))


def _cosine_spread(search: _Search, queries: list[str], query_ND: Vectors) -> float:
    """The spread of the teacher's cosines of some queries and random documents.

    A reranker's scores of random documents all lie at its lower end, and would have to be computed for this alone. Its
    unit is the spread of its scores of the candidates, of which it has those of the first block.
    """
    places = np.flatnonzero(~search.source.excluded)
    places = places[sampled(len(places), DOCUMENTS, search.seed)]
    rows = sampled(len(queries), QUERIES, search.seed)
    known = [never_mined(search.source, queries[row]) for row in rows.tolist()]
    usable = np.array([[place not in never for place in places.tolist()] for never in known], np.bool_)
    return spread(np.asarray(query_ND[rows]) @ np.asarray(search.doc_MD[places]).T, usable)


@dataclass(slots=True)
class _Search:
    """Ranks the documents for some queries; several processes share them, and each gets the whole."""

    source: MiningInput
    doc_MD: Vectors
    config: MineConfig
    seed: int
    device: torch.device
    reranker: Reranker | None
    near_copies: NearCopies
    examples: int = 0
    """Those of all blocks so far."""
    with_negatives: int = 0
    """Those of them that have a hard negative."""

    def ranked(self, queries: list[str], query_ND: Vectors, wanted: int) -> RankedBlock:
        """Rank until each query has that many usable candidates, where there are so many in reach."""
        part = processes.shard(len(queries))
        block = self._usable(queries[part], query_ND[part], wanted)
        if self.reranker is not None:
            block = _rescore(self.reranker, block, wanted)
        return whole(block, queries)

    @property
    def minable(self) -> int:
        """How many documents can be mined at all."""
        return int((~self.source.excluded).sum())

    def _usable(self, queries: list[str], query_ND: Vectors, wanted: int) -> RankedBlock:
        """The ranking by the teacher, first of `wanted` documents and what is known; then deeper, for those queries
        whose candidates are near-copies of a positive."""
        width = wanted + max((len(never_mined(self.source, query)) for query in queries), default=0)
        block = self._retrieved(queries, query_ND, width)
        deepest = min(self.minable, DEEPEST * width)
        while width < deepest:
            width = min(deepest, DEEPER * width)
            rows = np.flatnonzero(block.usable.sum(axis=1) < wanted)
            if not rows.size:
                break
            block = with_rows(block, rows, self._retrieved([queries[row] for row in rows], query_ND[rows], width))
        return block

    def _retrieved(self, queries: list[str], query_ND: Vectors, width: int) -> RankedBlock:
        source, known = self.source, [never_mined(self.source, query) for query in queries]
        score_NC, index_NC = top_k(query_ND, self.doc_MD, width, exclude=source.excluded, device=self.device)
        count = len(source.documents)
        known_keys = np.array([row * count + index for row, indices in enumerate(known) for index in indices], np.int64)
        usable_NC = ~np.isin(index_NC + count * np.arange(len(queries))[:, None], known_keys)
        near_NC = self.near_copies.of(queries, index_NC, usable_NC)
        row_P, index_P = known_pairs(source, queries)
        cosines = np.einsum("pd,pd->p", query_ND[row_P], self.doc_MD[index_P])
        known_scores = split_by_query(cosines, row_P, len(queries))
        return RankedBlock(source, queries, index_NC, score_NC, usable_NC & ~near_NC, near_NC.sum(axis=1), known_scores)


def _rescore(reranker: Reranker, block: RankedBlock, wanted: int) -> RankedBlock:
    """Give the first usable candidates of each query the reranker's scores and order; the others come last."""
    usable_NC = block.usable & (np.cumsum(block.usable, axis=1) <= wanted)
    row_P, index_P = known_pairs(block.source, block.queries)
    row_C, column_C = np.nonzero(usable_NC)
    rows = np.concatenate([row_P, row_C]).tolist()
    indices = np.concatenate([index_P, block.index[row_C, column_C]]).tolist()
    scores = reranker.score_pairs(
        [block.queries[row] for row in rows], [block.source.documents[index] for index in indices]
    )
    score_NC = np.full(usable_NC.shape, -np.inf, np.float32)
    score_NC[row_C, column_C] = scores[len(row_P) :]
    order = np.argsort(-score_NC, axis=1, kind="stable")
    return replace(
        block,
        index=np.take_along_axis(block.index, order, axis=1),
        score=np.take_along_axis(score_NC, order, axis=1),
        usable=np.take_along_axis(usable_NC, order, axis=1),
        known_scores=split_by_query(scores[: len(row_P)], row_P, len(block.queries)),
    )


def _choose(search: _Search, block: RankedBlock, query_ND: Vectors, unit: float) -> MinedBlock:
    """Filter, take the best or draw, look deeper, fill up to `hard_negative_share`, and turn indices into texts.

    The share is that of all examples so far, so it holds in the end, and no block has to be kept in memory for it.
    Queries with too few negatives are first ranked deeper: no filter that keeps false negatives out is loosened while
    one that satisfies all of them may be there.
    """
    config = search.config
    selection = _select(search, block, config.range_max, unit)
    rows = [block.source.examples[query] for query in block.queries]
    without_N = np.array([sum(not example.negatives for example in examples) for examples in rows], np.int64)
    total = sum(map(len, rows))
    spare = total + search.with_negatives - math.ceil(config.effective_hard_negative_share * (search.examples + total))
    block, columns, deeper = _look_deeper(search, block, query_ND, selection.columns, without_N, spare, unit)
    needed = _uncovered(columns, without_N) - spare
    found = replace(selection, columns=columns)
    columns, loosened = fill(found, block.score, block.usable, block.lowest, config, without_N, needed, spread=unit)
    covered = total - _uncovered(columns, without_N)
    search.examples, search.with_negatives = search.examples + total, search.with_negatives + covered
    filled = ({"range_max": deeper} if deeper else {}) | loosened
    near, mined = int(block.near_N.sum()), _in_words(block, columns, config)
    return MinedBlock(mined, selection.candidates, selection.removed, near, filled, total, covered, unit)


def _select(search: _Search, block: RankedBlock, range_max: int, unit: float) -> Selection:
    """What the filters leave of a block's first candidates."""
    config = replace(search.config, range_max=range_max)
    priority_NC = _draws(block.queries, block.score.shape[1], search.seed) if config.sampling == "random" else None
    return select_negatives(block.score, block.usable, block.lowest, config, priority_NC, spread=unit)


def _uncovered(columns_Nn: Indices, without_N: Indices) -> int:
    """How many examples have no hard negative, given or mined."""
    return int(without_N[columns_Nn[:, 0] < 0].sum())


def _look_deeper(
    search: _Search,
    block: RankedBlock,
    query_ND: Vectors,
    columns_Nn: Indices,
    without_N: Indices,
    spare: int,
    unit: float,
) -> tuple[RankedBlock, Indices, int]:
    """Rank beyond `range_max` for queries with too few negatives, until the filters, all as they are, leave enough.

    A reranker's look at one query costs as much as mining many, so with one only queries without any are ranked deeper,
    and only while more than `spare` examples are left without.

    Returns:
        The block with these queries ranked deeper, the columns, and how many queries got (more) negatives.
    """
    config, columns, gained = search.config, columns_Nn.copy(), set[int]()
    depth, deepest = config.range_max, min(search.minable, DEEPEST * config.range_max)
    while depth < deepest and config.effective_hard_negative_share:
        depth = min(deepest, DEEPER * depth)
        lacking_N = columns[:, -1] < 0
        if search.reranker is not None:
            lacking_N = (columns[:, 0] < 0) & (without_N > 0) & (_uncovered(columns, without_N) > spare)
        rows = np.flatnonzero(lacking_N)
        if not rows.size:
            break
        deeper = search.ranked([block.queries[row] for row in rows], query_ND[rows], depth)
        block = with_rows(block, rows, deeper)
        found = _select(search, deeper, depth, unit).columns
        gained.update(rows[(found >= 0).sum(axis=1) > (columns[rows] >= 0).sum(axis=1)].tolist())
        columns[rows] = found
    return block, columns, len(gained)


def _in_words(block: RankedBlock, columns_Nn: Indices, config: MineConfig) -> list[MinedQuery]:
    """The chosen documents' texts, with their scores."""
    indices, scores, columns = block.index.tolist(), block.score.tolist(), columns_Nn.tolist()
    documents = block.source.documents

    def scored(row: int, among: Iterable[int]) -> list[Scored]:
        return [Scored(documents[indices[row][column]], scores[row][column]) for column in among]

    mined = []
    for row, query in enumerate(block.queries):
        positives, given = block.source.positives[query], block.source.given[query]
        known_scored = [
            Scored(documents[index], score)
            for index, score in zip((*positives, *given), block.known_scores[row], strict=True)
        ]
        considered = np.flatnonzero(block.usable[row])[: config.range_max] if config.include_positives else ()
        mined.append(
            MinedQuery(
                query,
                positives=known_scored[: len(positives)],
                given=known_scored[len(positives) :],
                negatives=scored(row, (column for column in columns[row] if column >= 0)),
                ranked=scored(row, considered),
            )
        )
    return mined


def _draws(queries: list[str], width: int, seed: int) -> NDArray[np.float64]:
    """[N, C] random numbers, a function of (seed, query) only: the other queries of the block do not matter."""
    rows = []
    for query in queries:
        digest = hashlib.sha256(query.encode("utf-8", "surrogatepass")).digest()
        rows.append(np.random.default_rng([seed, int.from_bytes(digest[:8], "little")]).random(width))
    return np.stack(rows)
