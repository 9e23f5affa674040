"""`search`: the first documents of a run's corpus for one query, by base and adapted side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig
from acclimate.data.dataset import Dataset
from acclimate.data.texts import typed_text
from acclimate.errors import UsageError
from acclimate.models.encoder import Encoder
from acclimate.models.reading import reading_warnings
from acclimate.progress import say
from acclimate.retrieval.rank import rank
from acclimate.runs.opening import open_dataset
from acclimate.runs.resolve import load_pair, trained_folder
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task


def search(run: Path, query: str, top: int, config: RunConfig) -> dict[str, Any]:
    """Search a run's corpus with the base and with the adapted model.

    The documents' vectors are kept in `RUN/.work/cache`, where `evaluate` puts them too.

    Args:
        run: the run's folder.
        query: what to search for.
        top: documents to return.
        config: the run's model, device and dtype; `task`: the one of several tasks whose corpus is searched.

    Returns:
        {"query", "base": [{"id", "text", "score"}], "adapted": [the same]}, best first.

    Raises:
        UsageError: the query is empty, the run holds labelled pairs, or `top` is below 1.
        StorageError: the run holds no dataset or no adapter.
    """
    if not query.strip():
        raise UsageError("the query is empty", fix="Give some words to search for.")
    if top < 1:
        raise UsageError(f"top = {top}", possible="1 or more")
    task = one_task(run, config)
    data = open_dataset(task.dataset)
    adapter = trained_folder(RunFolder(run).adapter)
    if data.kind == "pairs":
        raise UsageError(
            f"{run} holds labelled pairs, no documents to search", fix=f"Compare two texts: acclimate similarity {run}"
        )
    query, cache = typed_text(query), task.folder.cache
    base, adapted = load_pair(adapter, base=config.model, **task.config.loading)
    for note in reading_warnings({"words": adapted.reading([query], "query")}):
        say(f"warning: {note}")
    return {
        "query": query,
        "base": _hits(base, data, query, cache, top, "base"),
        "adapted": _hits(adapted, data, query, cache, top, "adapted"),
    }


def _hits(encoder: Encoder, data: Dataset, query: str, cache: Path, top: int, label: str) -> list[dict[str, Any]]:
    run = rank(encoder, {"query": query}, data.corpus, top, cache=cache, label=label)
    return [{"id": name, "text": data.corpus[name], "score": score} for name, score in run["query"].items()]
