"""The command `answer`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from acclimate.cli.options import Command, Given, Json


def answer(
    run: Path,
    question: str,
    /,
    *,
    top: int = 8,
    filter: str | None = None,
    rerank: int | None = None,
    reranker: str | None = None,
    json_output: Json = False,
    settings: Given,
) -> None:
    """An answer out of RUN's index, with citations, by a language model behind any OpenAI-compatible endpoint.

    Args:
        run: the run's folder; it needs an index.
        question: in any language; the answer is in the same.
        top: how many documents the language model may read.
        filter: on metadata, such as 'year >= 2020 and crop in ("rice", "maize")'.
        rerank: let a reranker put the first so many in order.
        reranker: a run with a reranker, a folder, or a hub id; RUN's own if not given.
        json_output: print one JSON object and nothing else.
        settings: of the language model and the others.
    """
    from acclimate.cli import index_tables
    from acclimate.flows import index_verbs as verbs

    show = None if json_output else index_tables.Telling()
    found = verbs.answer(
        run,
        question,
        top=top,
        filter=filter,
        rerank=rerank,
        reranker=reranker,
        on_text=None if show is None else show.text,
        **settings,
    )
    if show is None:
        sys.stdout.write(json.dumps(found, ensure_ascii=False) + "\n")
    else:
        show.end(found)


COMMAND = Command(
    "answer",
    answer,
    example='acclimate answer runs/farm "when do I sow wheat" --llm http://localhost:8001/v1 --llm-model Qwen3-8B',
    first=(
        "llm",
        "llm_model",
        "context_tokens",
        "answer_tokens",
        "index_at",
        "model",
        "task",
        "pair_tokens",
        "device",
        "dtype",
    ),
)
