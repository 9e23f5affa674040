"""The command `search`."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from acclimate.cli.options import Command, Given, Json
from acclimate.errors import UsageError

Switch = Annotated[bool, Parameter(negative=())]


def search(
    run: Path,
    query: str | None = None,
    /,
    *,
    image: Path | None = None,
    images: Switch = False,
    top: int = 5,
    mode: Literal["dense", "lexical", "hybrid"] | None = None,
    filter: str | None = None,
    rerank: int | None = None,
    reranker: str | None = None,
    compare: Switch = False,
    adapter: Literal["auto", "mix", "fuse"] | None = None,
    json_output: Json = False,
    settings: Given,
) -> None:
    """Top texts of RUN's index; without an index, of RUN's corpus by base and adapted, side by side.

    Args:
        run: the run's folder.
        query: what to search for.
        image: a picture to search with instead, where RUN has a projection of images.
        images: find pictures: those of RUN's index, or RUN's own where it holds none.
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
    from acclimate.cli import image_tables, index_tables, tables
    from acclimate.flows import index_verbs as verbs

    choices: dict[str, Any] = {"mode": mode, "rerank": rerank, "reranker": reranker, "adapter": adapter}
    if image is not None or images or query is None:
        found = _pictures(run, query, image, top, filter, settings, {**choices, "compare": compare or None})
    else:
        found = verbs.search(run, query, top=top, filter=filter, compare=compare, **choices, **settings)
    if json_output:
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    elif "images" in found:
        image_tables.show_pictures(found)
    elif "hits" in found or "pictures" in found:
        index_tables.show_hits(found)
    else:
        tables.show_search(found)


def _pictures(
    run: Path,
    query: str | None,
    image: Path | None,
    top: int,
    filter: str | None,
    settings: Mapping[str, Any],
    given: Mapping[str, Any],
) -> Mapping[str, Any]:
    """Search by a picture, or for RUN's own pictures; what only a search for texts reads is refused."""
    from acclimate.flows import image_verbs as verbs

    if (query is None) == (image is None):
        raise UsageError(
            "a search has a query or a picture", possible=f'acclimate search {run} "words", or --image FILE'
        )
    if others := [name for name, value in given.items() if value is not None]:
        raise UsageError(f"--{others[0]} in a search by or for pictures", fix="Leave it out.")
    if image is not None:
        return verbs.search_by_picture(run, image, top=top, filter=filter, **settings)
    return verbs.search_pictures(run, str(query), top=top, filter=filter, **settings)


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
