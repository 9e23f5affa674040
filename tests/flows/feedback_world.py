"""A tiny run with an adapter of queries, and searchers who mark what answers their queries, or anything else."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from acclimate.cli.main import main
from acclimate.data.dataset import Dataset, load_dataset
from acclimate.feedback.records import Mark
from acclimate.feedback.store import FeedbackStore
from acclimate.runs.run_folder import RunFolder
from tests.models.tiny import as_sentence_transformer
from tests.tiny_run import WORDS, write_tiny_bert, write_tiny_retrieval

QUICK = ("--rank", "2", "--epochs", "1", "--batch-size", "20", "--dev-documents", "10", "--sides", "query")
REFRESH: dict[str, Any] = {
    "refresh_steps": 6,
    "least_later": 4,
    "least_users": 2,
    "user_share": 0.25,
    "gate_margin": 0.9,
    "sign_flips": 100,
}
"""Settings with which so small a run has enough to be decided about."""
QUERIES = 100


def make_run(folder: Path) -> RunFolder:
    """A trained run with `QUERIES` queries, and its tiny base beside it."""
    model = as_sentence_transformer(write_tiny_bert(folder / "tiny"))
    run = RunFolder(folder / "run")
    write_tiny_retrieval(run.dataset, 60)
    cpu = ("--device", "cpu", "--dtype", "float32")
    main(["train", str(run.path), "--model", str(model), *cpu, *QUICK])
    return run


def queries_to_come(data: Dataset, count: int, seed: int = 0) -> dict[str, str]:
    """Query -> a document that answers it: both share a word that names the document."""
    draw = random.Random(seed)
    found = {}
    for number in range(count):
        name = f"d{number % len(data.corpus)}"
        found[" ".join([data.corpus[name].split()[0], *draw.choices(WORDS, k=3)])] = name
    return found


def mark(
    run: RunFolder,
    count: int = 40,
    *,
    users: int = 10,
    seed: int = 0,
    answer: Callable[[str, random.Random, list[str]], str] = lambda right, _draw, _all: right,
) -> None:
    """Let searchers judge one document for each of some queries to come."""
    data, draw = load_dataset(run.dataset), random.Random(seed)
    names = list(data.corpus)
    marks = [
        Mark(answer(right, draw, names), "relevant", query, user=f"user {number % users}")
        for number, (query, right) in enumerate(queries_to_come(data, count, seed).items())
    ]
    with closing(FeedbackStore(run.feedback, create=True)) as store:
        assert store.add_marks(marks).refused == []
