"""Hard negatives: for every training query, documents that a teacher ranks high and that are not known to be relevant.

Shapes: N queries of a block, M documents, D dimensions, C candidates per query. Queries are taken block by block and
documents lie in a memory map, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from acclimate import processes
from acclimate.configs import MineConfig
from acclimate.core.selection import fill, give, select_negatives
from acclimate.mining.mining_input import MiningInput
from acclimate.mining.near_copies import NearCopies
from acclimate.progress import progress
from acclimate.retrieval.top_k import Indices, Vectors, top_k
from acclimate.retrieval.vector_cache import encode_corpus

if TYPE_CHECKING:
    import torch

    from acclimate.models.encoder import Encoder
    from acclimate.models.reranker import Reranker

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
    """Loosened filter -> number of queries that got their negatives by loosening it: `range_max` by looking deeper, the
    others as in `core.selection.fill`."""
    examples: int
    """Training examples of the queries."""
    with_negatives: int
    """Those of them that have a hard negative, mined or given."""


@dataclass(slots=True)
class _Pool:
    """Training examples so far, and those of them that have a hard negative."""

    examples: int = 0
    with_negatives: int = 0


@dataclass(frozen=True, slots=True)
class _Block:
    """Some queries while they are mined: their ranked candidates, and their positives with scores."""

    source: MiningInput
    queries: list[str]
    index: Indices
    """[N, C] documents, best first."""
    score: Vectors
    """[N, C]"""
    usable: NDArray[np.bool_]
    """[N, C] False where a document is already known for the query, or nearly one of its positives: never mined."""
    near_N: Indices
    """[N] how many of the candidates are nearly a positive."""
    known_scores: list[list[float]]
    """Scores of each query's positives, then of its given negatives."""


def mine_negatives(
    source: MiningInput,
    teacher: Encoder,
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
    pool = _Pool()
    queries = list(source.positives)
    query_ND = encode_corpus(teacher, queries, cache, "encode queries", role="query")
    search = _Search(source, doc_MD, config, teacher.device, reranker, NearCopies(source))
    with progress("mine", len(queries), "queries") as advance:
        for start in range(0, len(queries), QUERY_BLOCK):
            texts = queries[start : start + QUERY_BLOCK]
            vectors = np.asarray(query_ND[start : start + QUERY_BLOCK])
            yield _choose(search, search.ranked(texts, vectors, config.range_max), vectors, seed, pool)
            advance(len(texts))


@dataclass(frozen=True, slots=True)
class _Search:
    """Ranks the documents for some queries; several processes share them, and each gets the whole."""

    source: MiningInput
    doc_MD: Vectors
    config: MineConfig
    device: torch.device
    reranker: Reranker | None
    near_copies: NearCopies

    def ranked(self, queries: list[str], query_ND: Vectors, wanted: int) -> _Block:
        """Rank until each query has that many usable candidates, where there are so many in reach."""
        part = processes.shard(len(queries))
        block = self._usable(queries[part], query_ND[part], wanted)
        if self.reranker is not None:
            block = _rescore(self.reranker, block, wanted)
        return _whole(block, queries)

    @property
    def minable(self) -> int:
        """How many documents can be mined at all."""
        return int((~self.source.excluded).sum())

    def _usable(self, queries: list[str], query_ND: Vectors, wanted: int) -> _Block:
        """The ranking by the teacher, first of `wanted` documents and what is known; then deeper, for those queries
        whose candidates are near-copies of a positive."""
        width = wanted + max((len(_never(self.source, query)) for query in queries), default=0)
        block = self._retrieved(queries, query_ND, width)
        deepest = min(self.minable, DEEPEST * width)
        while width < deepest:
            width = min(deepest, DEEPER * width)
            rows = np.flatnonzero(block.usable.sum(axis=1) < wanted)
            if not rows.size:
                break
            block = _with_rows(block, rows, self._retrieved([queries[row] for row in rows], query_ND[rows], width))
        return block

    def _retrieved(self, queries: list[str], query_ND: Vectors, width: int) -> _Block:
        source, known = self.source, [_never(self.source, query) for query in queries]
        score_NC, index_NC = top_k(query_ND, self.doc_MD, width, exclude=source.excluded, device=self.device)
        count = len(source.documents)
        known_keys = np.array([row * count + index for row, indices in enumerate(known) for index in indices], np.int64)
        usable_NC = ~np.isin(index_NC + count * np.arange(len(queries))[:, None], known_keys)
        near_NC = self.near_copies.of(queries, index_NC, usable_NC)
        row_P, index_P = _known_pairs(source, queries)
        cosines = np.einsum("pd,pd->p", query_ND[row_P], self.doc_MD[index_P])
        known_scores = _split(cosines, row_P, len(queries))
        return _Block(source, queries, index_NC, score_NC, usable_NC & ~near_NC, near_NC.sum(axis=1), known_scores)


def _with_rows(block: _Block, rows: Indices, deeper: _Block) -> _Block:
    """The block with some of its queries ranked deeper."""
    (index, score, usable), new = _equally_wide([block, deeper])
    near_N, known = block.near_N.copy(), list(block.known_scores)
    index[rows], score[rows], usable[rows] = new
    near_N[rows] = deeper.near_N
    for row, scores in zip(rows.tolist(), deeper.known_scores, strict=True):
        known[row] = scores
    return replace(block, index=index, score=score, usable=usable, near_N=near_N, known_scores=known)


def _whole(block: _Block, queries: list[str]) -> _Block:
    """Put the processes' parts of a block together."""
    fields = ("index", "score", "usable", "near_N", "known_scores")
    gathered = processes.gather(tuple(getattr(block, name) for name in fields))
    parts = [replace(block, **dict(zip(fields, part, strict=True))) for part in gathered]
    index, score, usable = (np.concatenate(columns) for columns in zip(*_equally_wide(parts), strict=True))
    return replace(
        block,
        queries=queries,
        index=index,
        score=score,
        usable=usable,
        near_N=np.concatenate([part.near_N for part in parts]),
        known_scores=[scores for part in parts for scores in part.known_scores],
    )


def _equally_wide(blocks: Sequence[_Block]) -> list[tuple[Indices, Vectors, NDArray[np.bool_]]]:
    """Each block's candidates, their scores and whether they are usable; narrower ones end in places that are not."""
    width = max(block.index.shape[1] for block in blocks)

    def padded(values: NDArray[Any], nothing: float) -> NDArray[Any]:
        return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=nothing)

    return [(padded(one.index, 0), padded(one.score, -np.inf), padded(one.usable, False)) for one in blocks]


def _never(source: MiningInput, query: str) -> set[int]:
    """Documents that are never mined for a query: its positives, itself (by its text or its id), and negatives that it
    already has; of documents that are the same text the first, since the others are never mined."""
    known = source.first[[*source.positives[query], *source.given[query], *source.own.get(query, ())]].tolist()
    return {*known, *([source.same_as[query]] if query in source.same_as else [])}


def _known_pairs(source: MiningInput, queries: list[str]) -> tuple[Indices, Indices]:
    """Row of the query and index of the document, for every positive and then every given negative of every query."""
    pairs = [
        (row, index) for row, query in enumerate(queries) for index in (*source.positives[query], *source.given[query])
    ]
    row_P, index_P = np.array(pairs, np.int64).reshape(-1, 2).T
    return row_P, index_P


def _rescore(reranker: Reranker, block: _Block, wanted: int) -> _Block:
    """Give the first usable candidates of each query the reranker's scores and order; the others come last."""
    usable_NC = block.usable & (np.cumsum(block.usable, axis=1) <= wanted)
    row_P, index_P = _known_pairs(block.source, block.queries)
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
        known_scores=_split(scores[: len(row_P)], row_P, len(block.queries)),
    )


def _choose(search: _Search, block: _Block, query_ND: Vectors, seed: int, pool: _Pool) -> MinedBlock:
    """Filter, take the best or draw, fill up to `hard_negative_share`, and turn indices into texts.

    The share is that of all examples so far, so it holds in the end, and no block has to be kept in memory for it.
    Queries without a negative are first ranked deeper: no filter that keeps false negatives out is loosened while one
    that satisfies all of them may be there.
    """
    config, lowest_N = search.config, _lowest(block)
    priority_NC = _draws(block.queries, block.score.shape[1], seed) if config.sampling == "random" else None
    selection = select_negatives(block.score, block.usable, lowest_N, config, priority_NC)
    rows = [block.source.examples[query] for query in block.queries]
    without_N = np.array([sum(not example.negatives for example in examples) for examples in rows], np.int64)
    total = sum(map(len, rows))
    covered = total - int(without_N[selection.columns[:, 0] < 0].sum())
    needed = math.ceil(config.hard_negative_share * (pool.examples + total) - pool.with_negatives - covered)
    block, columns, deeper = _look_deeper(search, block, query_ND, selection.columns, without_N, needed)
    needed -= int(without_N[deeper].sum())
    found = replace(selection, columns=columns)
    columns, loosened = fill(found, block.score, block.usable, lowest_N, config, without_N, needed)
    covered = total - int(without_N[columns[:, 0] < 0].sum())
    pool.examples, pool.with_negatives = pool.examples + total, pool.with_negatives + covered
    filled = ({"range_max": len(deeper)} if deeper else {}) | loosened
    near, mined = int(block.near_N.sum()), _in_words(block, columns, config)
    return MinedBlock(mined, selection.candidates, selection.removed, near, filled, total, covered)


def _lowest(block: _Block) -> Vectors:
    """[N] the score of each query's lowest positive."""
    counts = [len(block.source.positives[query]) for query in block.queries]
    return np.array([min(found[:count]) for found, count in zip(block.known_scores, counts, strict=True)], np.float32)


def _look_deeper(
    search: _Search, block: _Block, query_ND: Vectors, columns_Nn: Indices, without_N: Indices, needed: int
) -> tuple[_Block, Indices, list[int]]:
    """Rank beyond `range_max` for queries without a negative, until the filters, all as they are, leave some.

    Returns:
        The block with these queries ranked deeper, the columns, and the queries that got negatives.
    """
    columns, depth, found = columns_Nn.copy(), search.config.range_max, list[int]()
    deepest = min(search.minable, DEEPEST * depth)
    while needed > 0 and depth < deepest:
        depth = min(deepest, DEEPER * depth)
        rows = np.flatnonzero((columns[:, 0] < 0) & (without_N > 0))
        if not rows.size:
            break
        block = _with_rows(block, rows, search.ranked([block.queries[row] for row in rows], query_ND[rows], depth))
        some = block.score[rows], block.usable[rows], _lowest(block)[rows]
        allowed = select_negatives(*some, replace(search.config, range_max=depth)).columns
        given = give(columns, rows, allowed, some[0], some[2], without_N, needed)
        needed -= int(without_N[given].sum())
        found += given
    return block, columns, found


def _in_words(block: _Block, columns_Nn: Indices, config: MineConfig) -> list[MinedQuery]:
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


def _split(scores: Vectors, row_P: Indices, count: int) -> list[list[float]]:
    """Scores of (query, positive) pairs, by query."""
    parts: list[list[float]] = [[] for _ in range(count)]
    for row, score in zip(row_P.tolist(), scores.tolist(), strict=True):
        parts[row].append(score)
    return parts
