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
from acclimate.core.same_text import text_id
from acclimate.core.selection import fill, select_negatives
from acclimate.data.dataset import Dataset, held_out
from acclimate.data.held_out import HeldOut
from acclimate.progress import progress
from acclimate.retrieval.top_k import Indices, Vectors, top_k
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.types import Example

if TYPE_CHECKING:
    import torch

    from acclimate.models.encoder import Encoder
    from acclimate.models.reranker import Reranker

QUERY_BLOCK = 2048
"""Queries searched at a time; each block reads the documents' vectors once."""


@dataclass(frozen=True, slots=True)
class MiningInput:
    """Queries, documents and what is known about them; a text is named by its place in `documents`."""

    documents: list[str]
    """The corpus in its own order, then positives that it lacks, then given negatives that it lacks."""
    positives: dict[str, list[int]]
    """Training query (text) -> its positives."""
    given: dict[str, list[int]]
    """Training query (text) -> negatives that the data brought."""
    held_out: HeldOut
    """Dev and test queries, and documents judged for them, whatever the grade: as negatives they would be a leak."""
    excluded: NDArray[np.bool_]
    """[M] True for documents that are never mined: held out, the same as an earlier one, or known as given negatives
    only."""
    first: NDArray[np.int64]
    """[M] place of the first document that is the same text."""
    same_as: dict[str, int]
    """Training query (text) -> place of the first document that is the same text, if there is one."""
    held_out_documents: dict[str, int]
    """How many documents are never mined because they are dev or test queries ("queries"), or only judged for them
    ("judged")."""
    examples: dict[str, list[Example]]
    """Training query (text) -> its rows, without those given negatives that are positives or held out."""
    dropped: int
    """How many given negatives were left out of `examples`."""


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
    filled: dict[str, int]
    """Loosened filter -> number of queries that got their negatives by loosening it (`core.selection.fill`)."""
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
    """[N, C] False where a document is already known for the query, and so never mined."""
    known_scores: list[list[float]]
    """Scores of each query's positives, then of its given negatives."""


def mining_input(dataset: Dataset, *, exclude_judged: bool = True) -> MiningInput:
    """Take what mining needs from a retrieval dataset.

    Queries with equal texts are one query, with the positives of all. Positives come from the training rows and
    from the training judgements.

    Args:
        dataset: what `prepare` wrote.
        exclude_judged: whether documents judged for dev and test queries are never mined. False serves to measure what
            that does to the proof.
    """
    documents = list(dataset.corpus.values())
    index_of: dict[str, int] = {}
    for index, text in enumerate(documents):
        index_of.setdefault(text, index)
    positives: dict[str, dict[int, None]] = {}
    given: dict[str, list[int]] = {}
    for example in dataset.examples:
        if example.positive not in index_of:
            index_of[example.positive] = len(documents)
            documents.append(example.positive)
        positives.setdefault(example.anchor, {})[index_of[example.positive]] = None
    for query_id, grades in dataset.qrels.get("train", {}).items():
        if (known := positives.get(dataset.queries[query_id])) is not None:
            known.update((index_of[dataset.corpus[document]], None) for document, grade in grades.items() if grade > 0)
    minable = len(documents)
    for text in dict.fromkeys(
        text for example in dataset.examples for text in example.negatives if text not in index_of
    ):
        index_of[text] = len(documents)
        documents.append(text)
    for example in dataset.examples:
        given.setdefault(example.anchor, []).extend(index_of[text] for text in dict.fromkeys(example.negatives))
    keys = [text_id(text) for text in documents]
    first_of = {key: place for place, key in reversed(list(enumerate(keys)))}
    first = np.array([first_of[key] for key in keys], np.int64)
    held = held_out(dataset)
    is_query = np.array([held.excludes(text, "mined", judged=False) for text in documents], np.bool_)
    is_held = np.array([held.excludes(text, "mined", judged=exclude_judged) for text in documents], np.bool_)
    place = np.arange(len(documents))
    counts = {"queries": int(is_query[:minable].sum()), "judged": int((is_held & ~is_query)[:minable].sum())}
    known_lists = {query: list(known) for query, known in positives.items()}
    examples, dropped = _examples_by_query(dataset.examples, documents, known_lists, held)
    return MiningInput(
        documents=documents,
        positives=known_lists,
        given=given,
        held_out=held,
        excluded=(place >= minable) | (first != place) | is_held,
        first=first,
        same_as={query: first_of[key] for query in known_lists if (key := text_id(query)) in first_of},
        held_out_documents=counts,
        examples=examples,
        dropped=dropped,
    )


def _examples_by_query(
    examples: Iterable[Example], documents: list[str], positives: dict[str, list[int]], held: HeldOut
) -> tuple[dict[str, list[Example]], int]:
    """Group training examples by query, without given negatives that are positives or held out, and count these."""
    by_query: dict[str, list[Example]] = {}
    dropped = 0
    for example in examples:
        never = {text_id(documents[index]) for index in positives[example.anchor]} | {text_id(example.anchor)}
        negatives = tuple(
            text for text in example.negatives if text_id(text) not in never and not held.excludes(text, "negative")
        )
        dropped += len(example.negatives) - len(negatives)
        by_query.setdefault(example.anchor, []).append(replace(example, negatives=negatives, scores=None))
    return by_query, dropped


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
    with progress("mine", len(queries), "queries") as advance:
        for start in range(0, len(queries), QUERY_BLOCK):
            texts = queries[start : start + QUERY_BLOCK]
            vectors = np.asarray(query_ND[start : start + QUERY_BLOCK])
            width = config.range_max + max(len(_never(source, query)) for query in texts)
            part = processes.shard(len(texts))
            block = _retrieve(source, texts[part], vectors[part], doc_MD, width, teacher.device)
            if reranker is not None:
                block = _rescore(reranker, block, config)
            yield _choose(_whole(block, texts), config, seed, pool)
            advance(len(texts))


def _whole(block: _Block, queries: list[str]) -> _Block:
    """Put the processes' parts of a block together."""
    parts = processes.gather((block.index, block.score, block.usable, block.known_scores))
    index, score, usable, known_scores = zip(*parts, strict=True)
    return replace(
        block,
        queries=queries,
        index=np.concatenate(index),
        score=np.concatenate(score),
        usable=np.concatenate(usable),
        known_scores=[scores for part in known_scores for scores in part],
    )


def _retrieve(
    source: MiningInput,
    queries: list[str],
    query_ND: Vectors,
    doc_MD: Vectors,
    width: int,
    device: torch.device,
) -> _Block:
    """Rank by the teacher: enough candidates for `range_max` of them to remain without the known documents."""
    known = [_never(source, query) for query in queries]
    score_NC, index_NC = top_k(query_ND, doc_MD, width, exclude=source.excluded, device=device)
    count = len(source.documents)
    known_keys = np.array([row * count + index for row, indices in enumerate(known) for index in indices], np.int64)
    usable_NC = ~np.isin(index_NC + count * np.arange(len(queries))[:, None], known_keys)
    row_P, index_P = _known_pairs(source, queries)
    cosines = np.einsum("pd,pd->p", query_ND[row_P], doc_MD[index_P])
    return _Block(source, queries, index_NC, score_NC, usable_NC, _split(cosines, row_P, len(queries)))


def _never(source: MiningInput, query: str) -> set[int]:
    """Documents that are never mined for a query: its positives, its own text, and negatives that it already has; of
    documents that are the same text the first, since the others are never mined."""
    known = source.first[[*source.positives[query], *source.given[query]]].tolist()
    return {*known, *([source.same_as[query]] if query in source.same_as else [])}


def _known_pairs(source: MiningInput, queries: list[str]) -> tuple[Indices, Indices]:
    """Row of the query and index of the document, for every positive and then every given negative of every query."""
    pairs = [
        (row, index) for row, query in enumerate(queries) for index in (*source.positives[query], *source.given[query])
    ]
    row_P, index_P = np.array(pairs, np.int64).reshape(-1, 2).T
    return row_P, index_P


def _rescore(reranker: Reranker, block: _Block, config: MineConfig) -> _Block:
    """Give the usable candidates within `range_max` the reranker's scores and order; the others come last."""
    usable_NC = block.usable & (np.cumsum(block.usable, axis=1) <= config.range_max)
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


def _choose(block: _Block, config: MineConfig, seed: int, pool: _Pool) -> MinedBlock:
    """Filter, take the best or draw, fill up to `hard_negative_share`, and turn indices into texts.

    The share is that of all examples so far, so it holds in the end, and no block has to be kept in memory for it.
    """
    counts = [len(block.source.positives[query]) for query in block.queries]
    lowest_N = np.array(
        [min(scores[:count]) for scores, count in zip(block.known_scores, counts, strict=True)], np.float32
    )
    priority_NC = _draws(block.queries, block.score.shape[1], seed) if config.sampling == "random" else None
    selection = select_negatives(block.score, block.usable, lowest_N, config, priority_NC)
    rows = [block.source.examples[query] for query in block.queries]
    without_N = np.array([sum(not example.negatives for example in examples) for examples in rows], np.int64)
    total = sum(map(len, rows))
    covered = total - int(without_N[selection.columns[:, 0] < 0].sum())
    needed = math.ceil(config.hard_negative_share * (pool.examples + total) - pool.with_negatives - covered)
    filled_columns, filled = fill(selection, block.score, block.usable, lowest_N, config, without_N, needed)
    covered = total - int(without_N[filled_columns[:, 0] < 0].sum())
    pool.examples, pool.with_negatives = pool.examples + total, pool.with_negatives + covered
    indices, scores, columns = block.index.tolist(), block.score.tolist(), filled_columns.tolist()
    documents = block.source.documents

    def scored(row: int, among: Iterable[int]) -> list[Scored]:
        return [Scored(documents[indices[row][column]], scores[row][column]) for column in among]

    mined = []
    for row, query in enumerate(block.queries):
        known = (*block.source.positives[query], *block.source.given[query])
        known_scored = [
            Scored(documents[index], score) for index, score in zip(known, block.known_scores[row], strict=True)
        ]
        considered = np.flatnonzero(block.usable[row])[: config.range_max] if config.include_positives else ()
        mined.append(
            MinedQuery(
                query,
                positives=known_scored[: counts[row]],
                given=known_scored[counts[row] :],
                negatives=scored(row, (column for column in columns[row] if column >= 0)),
                ranked=scored(row, considered),
            )
        )
    return MinedBlock(mined, selection.candidates, selection.removed, filled, total, covered)


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
