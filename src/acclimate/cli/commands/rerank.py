"""The command `rerank`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from acclimate.cli.options import Command, Given, Json
from acclimate.configs import check_settings
from acclimate.errors import UsageError


def rerank(
    query: str = "",
    /,
    *,
    reranker: str,
    texts: Path | None = None,
    candidates: Path | None = None,
    queries: Path | None = None,
    corpus: Path | None = None,
    out: Path | None = None,
    replace: Annotated[bool, Parameter(negative=())] = False,
    top: int | None = None,
    json_output: Json = False,
    settings: Given,
) -> None:
    """Put texts in order for a query (QUERY --texts FILE), or the candidates of a TREC run for many queries.

    Args:
        query: what is asked.
        reranker: a run with a reranker, a model's folder, or a hub id.
        texts: a text file with one text per line, or JSONL with a "text" field.
        candidates: a TREC run file (query Q0 document rank score tag); needs --queries, --corpus and --out.
        queries: JSONL with "_id" and "text".
        corpus: JSONL with "_id", "text" and maybe "title".
        out: the run file to write.
        replace: write over a file at --out, whoever wrote it.
        top: how many texts to show; all if not given.
        json_output: print one JSON object and nothing else.
        settings: of the reranker.
    """
    from acclimate.cli import tables
    from acclimate.flows.settings import configured

    files = (candidates, queries, corpus, out)
    config = configured("rerank", settings)
    if texts is not None and not any(files):
        check_settings("rerank QUERY --texts FILE", settings)
        from acclimate.stages import rerank as stage

        result = stage.rerank_texts(query, texts, reranker, top, config)
    elif candidates and queries and corpus and out and not query and texts is None:
        from acclimate.stages import rerank as stage

        result = stage.rerank_run(candidates, queries, corpus, reranker, out, config, replace=replace)
    else:
        possible = "QUERY --texts FILE, or --candidates RUN.trec --queries FILE --corpus FILE --out FILE"
        raise UsageError("rerank needs texts to put in order", possible=possible)
    if json_output:
        sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    elif "results" in result:
        tables.show_ranked(result)
    else:
        tables.show_metrics(result)


COMMAND = Command(
    "rerank", rerank, example='acclimate rerank "when do I sow wheat" --texts answers.txt --reranker runs/farm'
)
