"""`rerank`: some texts put in order for one query, or the candidates of a TREC run for many."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig
from acclimate.counting import are, counted
from acclimate.data.beir import TextsById
from acclimate.data.texts import read_texts, typed_text
from acclimate.errors import UsageError
from acclimate.files import iter_lines
from acclimate.ownership import check_replaceable, no_objection
from acclimate.progress import say
from acclimate.retrieval.rerank import rerank
from acclimate.retrieval.trec import read_trec, write_trec
from acclimate.runs.resolve import load_reranker

TAG = "acclimate-rerank"
"""The last column of a run that was reranked."""


def rerank_texts(query: str, source: Path, name: str, top: int | None, config: RunConfig) -> dict[str, Any]:
    """Put the texts of a file in order for one query.

    Args:
        query: what is asked.
        source: any table with a field "text" (or "contents", "content", "sentence", "passage"), or plain text, one per
            line.
        name: a reranker: a run with one, a folder, or a hub id.
        top: how many to return; all if None.
        config: device, dtype, `rerank`.

    Returns:
        {"query", "reranker", "results": [{"row", "score", "probability", "text"}]}, best first; `row` is the text's
        place in the file, from 1, `score` a raw logit and `probability` its sigmoid.

    Raises:
        UsageError: the query is empty, or `top` below 1.
        DataError: the file cannot be read.
        ModelError: the reranker cannot be used.
    """
    if not query.strip():
        raise UsageError("the query is empty", fix="Give some words to look for.")
    if top is not None and top < 1:
        raise UsageError(f"top = {top}", possible="1 or more")
    query, texts = typed_text(query), read_texts(source)
    reranker = load_reranker(name, config.rerank, device=config.device, dtype=config.dtype)
    scores = reranker.score(query, texts, label="rerank").tolist()
    order = sorted(range(len(texts)), key=lambda row: (-scores[row], row))
    results = [
        {"row": row + 1, "score": scores[row], "probability": sigmoid(scores[row]), "text": texts[row]}
        for row in order[:top]
    ]
    return {"query": query, "reranker": reranker.source.id, "results": results}


def rerank_run(
    candidates: Path, queries: Path, corpus: Path, name: str, out: Path, config: RunConfig, *, replace: bool = False
) -> dict[str, Any]:
    """Put the first `rerank_depth` candidates of every query of a TREC run in order anew.

    Args:
        candidates: a run file: query Q0 document rank score tag.
        queries: JSONL (or any table) with `_id` and `text`.
        corpus: the same for documents, maybe with `title`.
        name: a reranker: a run with one, a folder, or a hub id.
        out: the run file to write.
        config: device, dtype, `rerank`.
        replace: a file at `out` goes, whoever wrote it; else only a run of this function, known by its tag.

    Returns:
        {"queries", "pairs", "reranker", "out"}.

    Raises:
        DataError: a file cannot be read, or an id of the run is unknown.
        UsageError: a file at `out` stays.
        ModelError: the reranker cannot be used.
    """
    objection = no_objection if replace and not out.is_dir() else _not_reranked
    check_replaceable(out, objection, [candidates, queries, corpus])
    sides = TextsById(), TextsById()
    for side, path in zip(sides, (queries, corpus), strict=True):
        side.read(path)
        for note in side.notes:
            say(note)
    query_texts, document_texts = (side.texts for side in sides)
    if rejected := [row for side in sides for row in side.rejected]:
        count, first = len(rejected), rejected[0]
        say(f"{counted(count, 'rows')} {are(count)} not used, the first: {first.source} row {first.row}")
    run = read_trec(candidates, query_texts, document_texts)
    reranker = load_reranker(name, config.rerank, device=config.device, dtype=config.dtype)
    depth = config.rerank.rerank_depth
    reranked = rerank(reranker, run, query_texts, document_texts, depth, label="rerank")
    write_trec(out, reranked, TAG, depth)
    pairs = sum(map(len, reranked.values()))
    return {"queries": len(reranked), "pairs": pairs, "reranker": reranker.source.id, "out": str(out)}


def _not_reranked(out: Path) -> str:
    """The objection to replacing a run file: its lines do not end with our tag."""
    if out.is_file() and all(text.split()[-1:] == [TAG] and not error for _, text, error in iter_lines(out)):
        return ""
    return f"{out} is there already, and acclimate did not write it (--replace takes its place)"


def sigmoid(score: float) -> float:
    """1 / (1 + exp(-score)), for any score."""
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))
