"""`adapt` on documents alone: pairs first, a proof that says on what it rests, real queries for the proof only."""

from __future__ import annotations

import html
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from acclimate.cli import tables
from acclimate.configs import EvaluateConfig, PairsConfig, PrepareConfig, RunConfig, StagesConfig, TrainConfig
from acclimate.data.recognising import is_documents
from acclimate.errors import UsageError
from acclimate.evaluation.recommend import recommended
from acclimate.evaluation.reports import EvaluationReport
from acclimate.flows import verbs
from acclimate.flows.adapt import adapt
from acclimate.flows.plan import plan
from acclimate.report.words import ASK_USERS, verdict
from tests.tiny_run import WORDS, write_tiny_bert

DOCUMENTS = 220


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    model = write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert")
    return RunConfig(
        model=str(model),
        pooling="mean",
        device="cpu",
        dtype="float32",
        train=TrainConfig(batch_size=32, epochs=1, rank=2, dev_documents=20),
        evaluate=EvaluateConfig(sign_flips=100),
        pairs=PairsConfig(passage_words=32, pair_sources=("title", "crop")),
    )


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    draw = random.Random(5)
    for number in range(DOCUMENTS):
        words = draw.choices(WORDS, k=20)
        (folder / f"{number}.md").write_text(f"# {' '.join(draw.sample(words, 3))} n{number}\n\n{' '.join(words)}.\n")
    return folder


@pytest.fixture(scope="module")
def finished(config: RunConfig, docs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    run = tmp_path_factory.mktemp("run") / "run"
    with_headings = replace(config, pairs=replace(config.pairs, pair_sources=("heading", "crop")))
    return run, dict(adapt(str(docs), run, with_headings))


def test_the_proof_says_on_what_it_rests(
    finished: tuple[Path, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    run, summary = finished
    assert summary["made_by"] == {"heading": 100} and summary["recommend"] in ("base", "adapted", "bm25")
    kept = json.loads((run / "report.json").read_text())
    assert kept["made_by"] == summary["made_by"] and kept["pairs"]["sources"]["heading"]["made"] == DOCUMENTS
    assert next(iter(kept["made"])) == "pairs" and kept["timings"]["pairs_s"] > 0
    page = (run / "report.html").read_text()
    assert "made queries (100 heading)" in page and "Pairs made out of documents, split by document" in page
    tables.show_run(summary, run)
    shown = " ".join(capsys.readouterr().out.split())
    assert "made queries (100 heading)" in shown


@pytest.mark.parametrize(
    ("found", "label"), [("better", "proven on made queries"), ("worse", "tested on made queries")]
)
def test_the_label_is_in_the_verdict(found: str, label: str) -> None:
    scores = {"base": {"ndcg@10": 0.1}, "adapted": {"ndcg@10": 0.2}, "delta": {}, "queries": 100}
    words = verdict(found, scores, 0.95, {"made_by": {"title": 60, "written": 40}})
    assert label in words.claim and "made queries (60 title, 40 written)" in words.reason
    assert label not in verdict(found, scores, 0.95, {"made_by": {"real": 100}}).claim
    assert label not in verdict(found, scores, 0.95, {}).claim


def test_words_of_the_texts_recommend_no_model(
    config: RunConfig, docs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    summary = dict(adapt(str(docs), run, replace(config, pairs=replace(config.pairs, pair_sources=("crop",)))))
    assert list(summary["made_by"]) == ["crop"] and summary["recommend"] == "base"
    tables.show_run(summary, run)
    shown = " ".join(capsys.readouterr().out.split())
    assert "recommended: the base model" in shown and ASK_USERS in shown
    verbs.merge(run, out=tmp_path / "merged")
    for written in (run / "report.html", tmp_path / "merged" / "README.md"):
        assert ASK_USERS in html.unescape(written.read_text()), written


def test_only_a_test_of_words_of_the_texts_recommends_nothing() -> None:
    better = {"value": 0.2, "low": 0.1, "high": 0.3, "p": 0.001}
    worse = {"value": -0.2, "low": -0.3, "high": -0.1, "p": 0.001}

    def found(made_by: dict[str, int], lexical: dict[str, float] = better) -> str:
        report = {"made_by": made_by, "against_bm25": lexical, "unsuited": "", "recommend": "adapted"}
        return recommended(cast(EvaluationReport, report))

    assert found({}) == found({"title": 60, "crop": 60}) == found({"real": 9}) == "adapted"
    assert found({"title": 60, "crop": 40, "cluster": 21}) == found({"crop": 9}, worse) == "base"
    assert found({"title": 60, "crop": 60}, worse) == "bm25"


def test_a_second_start_keeps_the_pairs(
    finished: tuple[Path, dict[str, Any]], config: RunConfig, docs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = finished
    adapt(str(docs), run, replace(config, pairs=replace(config.pairs, pair_sources=("heading", "crop"))))
    said = capsys.readouterr().err
    assert "holds documents and no queries: pairs are made of them first" in said
    assert f"pairs: {run / 'pairs'} is kept" in said and "prepare: " in said and "runs again" not in said


def test_a_dataset_read_again_is_still_of_made_queries(
    finished: tuple[Path, dict[str, Any]], config: RunConfig
) -> None:
    from acclimate.data.build import build_dataset

    dataset, _ = build_dataset(str(finished[0] / "dataset"), config.prepare, seed=1)
    assert dataset.info["made_by"]["test"] == {"heading": 100}


def test_real_queries_are_the_proof(config: RunConfig, docs: Path, tmp_path: Path) -> None:
    texts = {number: (docs / f"{number}.md").read_text().split() for number in range(40)}
    rows = [{"query": f"{' '.join(words[-4:-1])} asked", "document": f"{n}.md"} for n, words in texts.items()]
    rows.append({"query": "nobody has judged this one"})
    real = tmp_path / "real.jsonl"
    real.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = replace(config.pairs, pair_sources=("heading",), queries=str(real))
    summary = adapt(str(docs), tmp_path / "run", replace(config, pairs=settings))
    assert summary["made_by"] == {"real": 40} and summary["test"]["queries"] == 40
    assert summary["unjudged"]["queries"] == 1 and 0 <= summary["unjudged"]["shared"] <= 1
    [row] = [json.loads(line) for line in (tmp_path / "run" / "unjudged" / "results.jsonl").read_text().splitlines()]
    assert row["query"] == "nobody has judged this one" and len(row["base"]) == len(row["adapted"]) == 3
    assert "made queries" not in (tmp_path / "run" / "report.html").read_text()


def test_what_a_source_holds_is_told_by_names(tmp_path: Path, docs: Path) -> None:
    def wrote(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    prepare = PrepareConfig()
    assert is_documents(str(docs), prepare) and is_documents(str(docs / "0.md"), prepare)
    assert is_documents(wrote("corpus.csv", "id,title,text\n1,a,b c\n"), prepare)
    assert is_documents(wrote("corpus.jsonl", '{"_id": "1", "text": "b c"}\n'), prepare)
    assert is_documents(wrote("prose.txt", "A text of\nseveral lines.\n"), prepare)
    pairs = wrote("pairs.jsonl", '{"query": "a", "positive": "b"}\n')
    assert not is_documents(pairs, prepare) and not is_documents("owner/name", prepare)
    assert not is_documents(wrote("pairs.txt", "query\tresponse\na b\tc d\n"), prepare)
    assert not is_documents(wrote("labelled.tsv", "sentence1\tsentence2\tlabel\na\tb\t1\n"), prepare)
    named = PrepareConfig(anchor_column="title", positive_column="text")
    assert not is_documents(str(tmp_path / "corpus.csv"), named), "the columns of pairs are named"
    (tmp_path / "beir").mkdir()
    (tmp_path / "beir" / "corpus.jsonl").write_text('{"_id": "1", "text": "b c"}\n')
    assert is_documents(str(tmp_path / "beir"), prepare)
    (tmp_path / "beir" / "queries.jsonl").write_text('{"_id": "q", "text": "b"}\n')
    assert not is_documents(str(tmp_path / "beir"), prepare)


def test_what_documents_cannot_be_used_for_is_said(config: RunConfig, docs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"acclimate pairs .* --out pairs\.jsonl"):
        plan(str(docs), config)
    from acclimate.flows.folds import adapt_in_folds

    with pytest.raises(UsageError, match="--folds cuts pairs"):
        adapt_in_folds(str(docs), tmp_path / "run", replace(config, stages=StagesConfig(folds=3)))
