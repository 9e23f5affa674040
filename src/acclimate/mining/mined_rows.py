"""Mined negatives as files: the training rows in three forms, and the audit. Written by `mine` and by re-mining."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeAlias, cast

from acclimate.configs import MineConfig
from acclimate.data.dataset import EXAMPLES_FILE
from acclimate.files import storage_errors, write_json
from acclimate.mining.audit import Audit
from acclimate.mining.mine import MinedBlock, MinedQuery
from acclimate.mining.mining_input import MiningInput
from acclimate.mining.reports import MineReport
from acclimate.runs.run_folder import AUDIT_FILE
from acclimate.runs.step import Work
from acclimate.types import Example, Queries

Row: TypeAlias = dict[str, Any]
ToRows: TypeAlias = Callable[[MinedQuery, list[Example]], Iterable[Row]]
"""(a mined query, its training examples with the negatives that the data brought) -> rows of one file."""


def mined_work(
    source: MiningInput, queries: Queries, blocks: Iterable[MinedBlock], config: MineConfig
) -> Work[MineReport]:
    """Make the work of a step out of mining: the first process writes, all take every block.

    Args:
        source: what was mined.
        queries: id -> text, for the list of queries with too few negatives.
        blocks: from `mine_negatives`.
        config: how many negatives were wanted, and in which form they are written.
    """
    return Work(
        lambda folder: _write_negatives(folder, source, queries, blocks, config),
        meanwhile=lambda: deque(blocks, maxlen=0).clear(),
    )


def _write_negatives(
    folder: Path, source: MiningInput, queries: Queries, blocks: Iterable[MinedBlock], config: MineConfig
) -> MineReport:
    """Write everything into an artifact in the making, block by block, and return the counts."""
    audit = Audit(config, {text: query_id for query_id, text in queries.items()})
    files = {
        EXAMPLES_FILE: OUTPUTS[config.output],
        "rejected_response.jsonl": _rejected_responses,
        "query_pos_neg.jsonl": _query_pos_neg,
    }
    if config.include_positives:
        files["ranked.jsonl"] = _ranked_lists
    rows = _write_files(folder, files, source.examples, _watched(blocks, audit))
    summary = audit.summary()
    write_json(folder / AUDIT_FILE, summary)
    counts = {name: value for name, value in summary.items() if isinstance(value, int | float | None)}
    nested = {"removed": dict(audit.removed), "filled": dict(audit.filled)}
    held = {"given_negatives_dropped": source.dropped, "never_mined": {"queries": source.held_out_documents}}
    return cast(MineReport, {**counts, **nested, **held, "warnings": summary["warnings"], "rows": rows})


def _watched(blocks: Iterable[MinedBlock], audit: Audit) -> Iterator[MinedQuery]:
    for block in blocks:
        audit.add(block)
        yield from block.queries


def _write_files(
    folder: Path, files: Mapping[str, ToRows], examples: Mapping[str, list[Example]], mined: Iterable[MinedQuery]
) -> dict[str, int]:
    """Write all files side by side, one query at a time; returns the rows of each."""
    counts = dict.fromkeys(files, 0)
    with storage_errors(folder), ExitStack() as stack:
        streams = {name: stack.enter_context((folder / name).open("w", encoding="utf-8")) for name in files}
        for query in mined:
            for name, to_rows in files.items():
                for row in to_rows(query, examples[query.query]):
                    streams[name].write(json.dumps(row, ensure_ascii=False) + "\n")
                    counts[name] += 1
    return counts


def _n_tuples(mined: MinedQuery, examples: list[Example]) -> Iterator[Row]:
    """One row per positive with all negatives, and the teacher's (or the reranker's) scores of all of them."""
    scores = {one.document: one.score for one in (*mined.positives, *mined.given, *mined.negatives)}
    for example in examples:
        negatives = _negatives(mined, example)
        row: Row = {"anchor": example.anchor, "positive": example.positive, "negatives": negatives}
        if negatives:
            row["scores"] = [scores[text] for text in (example.positive, *negatives)]
        yield row


def _triplets(mined: MinedQuery, examples: list[Example]) -> Iterator[Row]:
    """One row per positive and negative."""
    for row in _n_tuples(mined, examples):
        scores = row.get("scores", [])
        for place, negative in enumerate(row["negatives"], start=1):
            yield row | {"negatives": [negative], "scores": [scores[0], scores[place]]}


def _labelled(mined: MinedQuery, examples: list[Example]) -> Iterator[Row]:
    """One row per document: label 1 for the positives, 0 for the negatives."""
    for one in mined.positives:
        yield {"anchor": mined.query, "positive": one.document, "label": 1.0}
    for text in _all_negatives(mined, examples):
        yield {"anchor": mined.query, "positive": text, "label": 0.0}


OUTPUTS: dict[str, ToRows] = {"n-tuple": _n_tuples, "triplet": _triplets, "labelled": _labelled}


def _rejected_responses(mined: MinedQuery, examples: list[Example]) -> Iterator[Row]:
    for example in examples:
        rejected = _negatives(mined, example)
        yield {"query": example.anchor, "response": example.positive, "rejected_response": rejected}


def _query_pos_neg(mined: MinedQuery, examples: list[Example]) -> Iterator[Row]:
    positives = [one.document for one in mined.positives]
    yield {"query": mined.query, "pos": positives, "neg": _all_negatives(mined, examples)}


def _ranked_lists(mined: MinedQuery, _examples: list[Example]) -> Iterator[Row]:
    """The query's candidates with its positives in place, best first: for inspection, or to test rerankers."""
    both = [(one, True) for one in mined.positives] + [(one, False) for one in mined.ranked]
    both.sort(key=lambda entry: -entry[0].score)
    documents = [{"text": one.document, "score": one.score, "positive": positive} for one, positive in both]
    yield {"query": mined.query, "documents": documents}


def _negatives(mined: MinedQuery, example: Example) -> list[str]:
    """The negatives that the data brought, then the mined ones; each text once."""
    return list(dict.fromkeys([*example.negatives, *(one.document for one in mined.negatives)]))


def _all_negatives(mined: MinedQuery, examples: list[Example]) -> list[str]:
    """The same over all of a query's examples."""
    return list(dict.fromkeys(text for example in examples for text in _negatives(mined, example)))
