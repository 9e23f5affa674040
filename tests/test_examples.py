"""The examples' data are what they say, and go through `prepare`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from acclimate.configs import RunConfig, load_config
from acclimate.data.build import build_dataset
from acclimate.files import iter_jsonl
from acclimate.runs.tasks import tasks_of

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PAIRS = EXAMPLES / "agriculture" / "pairs.jsonl"


def bigrams(text: str) -> set[str]:
    return {text[start : start + 2] for start in range(len(text) - 1)}


def similar(texts: list[str], bound: float) -> list[tuple[str, str]]:
    """Pairs of texts that share more than `bound` of their bigrams (Jaccard)."""
    grams = [bigrams(text) for text in texts]
    return [
        (texts[left], texts[right])
        for right in range(len(texts))
        for left in range(right)
        if len(grams[left] & grams[right]) > bound * len(grams[left] | grams[right])
    ]


def test_the_agriculture_pairs_are_many_balanced_and_different() -> None:
    rows = [line.value or {} for line in iter_jsonl(PAIRS)]
    assert len(rows) >= 220
    assert all(set(row) == {"query", "response", "topic"} for row in rows)
    assert all(30 <= len(row["response"]) <= 120 for row in rows)
    topics = Counter(row["topic"] for row in rows)
    assert len(topics) >= 10
    assert max(topics.values()) <= 1.5 * min(topics.values())
    assert similar([row["query"] for row in rows], 0.5) == []
    assert similar([row["response"] for row in rows], 0.3) == []


def test_the_agriculture_settings_leave_a_hundred_test_queries() -> None:
    config = load_config(EXAMPLES / "agriculture" / "run.toml")
    dataset, rejected = build_dataset(str(PAIRS), config.prepare, seed=config.seed, limit=config.limit)
    assert rejected == []
    assert len(dataset.qrels["test"]) >= 100
    assert len(dataset.qrels["dev"]) >= 15
    assert len(dataset.examples) >= 150
    assert len(dataset.corpus) == 300


def test_the_tasks_have_prompts_of_their_own() -> None:
    config = load_config(EXAMPLES / "tasks.toml")
    agriculture, docstrings = tasks_of(Path("run"), config)
    assert (EXAMPLES.parent / agriculture.source).resolve() == PAIRS
    assert agriculture.config.datasets[0].query_prompt == "为这个句子生成表示以用于检索相关文章："
    assert (docstrings.name, docstrings.weight, docstrings.config.limit) == ("docstrings", 0.5, 4000)
    assert docstrings.dataset == Path("run/tasks/docstrings/dataset")


def test_docstrings_become_pairs_without_names(tmp_path: Path) -> None:
    """The demo's data, small: always the same, cut as stated, through `prepare` with the demo's settings."""
    outs = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for out in outs:
        command = [sys.executable, str(EXAMPLES / "docstrings.py"), "--limit", "240", "--out", str(out)]
        subprocess.run(command, check=True, capture_output=True)
    assert outs[0].read_bytes() == outs[1].read_bytes()
    rows = [json.loads(line) for line in outs[0].read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 240
    assert all(4 <= len(row["query"].split()) <= 30 and 8 <= len(row["response"].split()) <= 40 for row in rows)
    config = load_config(EXAMPLES / "docstrings.toml")
    dataset, _ = build_dataset(str(outs[0]), config.prepare, seed=1, limit=config.limit)
    assert len(dataset.qrels["test"]) >= 100
    assert config != RunConfig()


def test_docstrings_of_named_packages_alone(tmp_path: Path) -> None:
    out, script = tmp_path / "numpy.jsonl", EXAMPLES / "docstrings.py"
    subprocess.run([sys.executable, script, "--packages", "numpy", "--limit", "50", "--out", out], check=True)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 50 and all(row["module"].startswith("numpy.") for row in rows)
    asked = [sys.executable, script, "--packages", "numpy", "no_such_package", "--out", tmp_path / "none"]
    refused = subprocess.run(asked, capture_output=True, text=True)
    assert refused.returncode == 2 and "not installed as a folder of Python files: no_such_package" in refused.stderr


def test_a_docstring_loses_the_names_of_its_object(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    from docstrings import split_docstring  # type: ignore[import-not-found]

    text = "Remove the whitespace at both ends.\n\nstrip() of Text keeps what is inside; see also rstrip and lstrip."
    pair = split_docstring(text, ("Text", "strip"))
    assert pair == ("Remove the whitespace at both ends.", "() of keeps what is inside; see also rstrip and lstrip.")
    assert split_docstring("Too short.\n\n" + "word " * 20, ("f",)) is None
    assert split_docstring("Long enough to be a query.\n\nToo little here.", ("f",)) is None
