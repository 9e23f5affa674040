"""The command `search`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from acclimate.cli.options import Command, Given, Json


def search(
    run: Path,
    query: str,
    /,
    *,
    top: int = 5,
    mode: Literal["dense", "lexical", "hybrid"] | None = None,
    filter: str | None = None,
    rerank: int | None = None,
    reranker: str | None = None,
    compare: Annotated[bool, Parameter(negative=())] = False,
    adapter: Literal["auto", "mix", "fuse"] | None = None,
    json_output: Json = False,
    settings: Given,
) -> None:
    """Top documents of RUN's index; without an index, of RUN's corpus by base and adapted, side by side.

    Args:
        run: the run's folder.
        query: what to search for.
        top: how many documents to show.
        mode: by meaning, by words, or by both (hybrid, which is the default).
        filter: on metadata, such as 'year >= 2020 and crop in ("rice", "maize")'.
        rerank: let a reranker put the first so many in order.
        reranker: a run with a reranker, a folder, or a hub id; RUN's own if not given.
        compare: search RUN's corpus by base and adapted, side by side, even where there is an index.
        adapter: with --experts, what answers: the nearest adapter (auto), several mixed (the default), or fused.
        json_output: print one JSON object and nothing else.
        settings: of the models.
    """
    from acclimate.cli import index_tables, tables
    from acclimate.flows import index_verbs as verbs

    found = verbs.search(
        run,
        query,
        top=top,
        mode=mode,
        filter=filter,
        rerank=rerank,
        reranker=reranker,
        compare=compare,
        adapter=adapter,
        **settings,
    )
    if json_output:
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    elif "hits" in found:
        index_tables.show_hits(found)
    else:
        tables.show_search(found)


COMMAND = Command(
    "search",
    search,
    example='acclimate search runs/farm "when do I sow winter wheat" --top 3',
    first=(
        "index_at",
        "experts",
        "model",
        "query_prompt",
        "instruction",
        "task",
        "max_tokens",
        "rerank_instruction",
        "pair_tokens",
        "device",
    ),
)
