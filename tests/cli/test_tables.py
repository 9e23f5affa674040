"""What the terminal says of a comparison: how many clusters it rests on, and how BM25 was set up."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.cli import tables
from acclimate.cli.main import main
from acclimate.cli.tables import show_evaluation, show_reranking
from acclimate.progress import progress
from tests.models.tiny import as_sentence_transformer, tiny_bert
from tests.report.sample_run import delta, retrieval_evaluation


def test_an_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    show_evaluation(retrieval_evaluation("better"))
    words = " ".join(capsys.readouterr().out.split())
    assert "test split: 606 queries, 10,347 documents, 571 clusters" in words
    assert "BM25: English, stop words left out (best NDCG@10 of 500 dev queries)." in words


def test_a_reranking(capsys: pytest.CaptureFixture[str]) -> None:
    report = {"queries": 606, "retriever": "base", "depth": 50, "confidence": 0.95, "verdict": "better"}
    scores = {"retrieved": {"ndcg@10": 0.5}, "reranked": {"ndcg@10": 0.6}, "delta": {"ndcg@10": delta(0.1)}}
    show_reranking(report | scores)
    assert "606 queries, 571 clusters; base model, top 50 reranked" in " ".join(capsys.readouterr().out.split())


ODD = "x [bold] [/v2] :warning:"
"""A name that a terminal's mark-up would change, or break over."""


def test_names_and_paths_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(ODD)
    training = {"train": {"loss": ODD, "tasks": {ODD: {"loss": ODD}}, "trainable": 1, "total": 2, "tokens": 3}}
    training["train"]["tokens_per_s"] = 4
    evaluation = retrieval_evaluation("better") | {
        "guard": [{"name": ODD, "base": {"ndcg@10": 0.5}, "adapted": {"ndcg@10": 0.4}, "warn": True}],
        "domain": {"term_accuracy": {"skipped": ODD}},
    }
    measured = {"measures": {"ndcg@10": 0.5}, "tested": 3}
    merged = {"method": ODD, "models": [{"name": ODD, "weight": 1.0}]}
    merged["soup"] = {"measure": ODD, "base": 0.5, "tried": [{"model": ODD, "alone": 1.0, "soup": 1.0, "kept": True}]}
    point = {"share": 1.0, "domain": 0.5, "guard": {ODD: 0.5}}
    merged["curve"] = {"measure": ODD, "guards": {ODD: {"measure": ODD}}, "points": [point], "chosen": 1.0, "rule": ODD}
    hit = {"id": ODD, "text": ODD, "score": 0.5}
    ranked = {"row": 1, "score": 0.5, "probability": 0.5, "text": ODD}
    shown = {
        "dataset": lambda: tables.show_dataset({"source": ODD}, folder),
        "mining": lambda: tables.show_mining({ODD: 1}, folder),
        "training": lambda: tables.show_training(training, folder),
        "merge": lambda: tables.show_merge(merged, folder),
        "search": lambda: tables.show_search({"query": ODD, "base": [hit], "adapted": [hit]}),
        "ranked": lambda: tables.show_ranked({"query": ODD, "results": [ranked]}),
        "metrics": lambda: tables.show_metrics({ODD: ODD}),
        "comparison": lambda: tables.show_comparison(
            {
                "measure": "ndcg@10",
                "kind": "retrieval",
                "shared": 3,
                "confidence": 0.95,
                "runs": [{"run": ODD, **measured}],
                "warnings": [ODD],
            }
        ),
        "doctor": lambda: tables.show_doctor({"part": {ODD: ODD}, "advice": [ODD]}),
        "plan": lambda: tables.show_plan({ODD: ODD}),
        "evaluation": lambda: tables.show_evaluation(evaluation, ODD),
        "run": lambda: tables.show_run({**evaluation, **training, "timings": {"train_s": 1.0}}, folder),
    }
    for name, show in shown.items():
        show()
        words = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert ODD in words.replace("\n", " "), name


def test_a_bar_shows_its_texts_as_they_are(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "200")
    with progress(ODD, 2, "texts") as advance:
        advance(1, f"note {ODD}")
    assert f"note {ODD}" in (said := capsys.readouterr().err) and said.count(ODD) > 1


def test_a_run_whose_path_has_brackets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    as_sentence_transformer(tiny_bert(tmp_path / "tiny"))
    source = tmp_path / "q[" / "v2].jsonl"
    source.parent.mkdir()
    source.write_text("".join(f'{{"query": "a{n} b", "response": "c{n} d"}}\n' for n in range(12)))
    flags = ("--model", "tiny", "--test-fraction", "0", "--dev-fraction", "0")
    main(["prepare", "q[/v2].jsonl", "--out", ODD, *flags])
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == f"dataset: {ODD}/dataset"
    assert "q[/v2].jsonl" in out
    main(["report", ODD])
    assert capsys.readouterr().out == f"{ODD}/report.html\n"
