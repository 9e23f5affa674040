"""Two datasets of different kinds in one run: own prompts, own losses, one adapter."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.cli.main import main
from acclimate.configs import RunConfig, load_config
from acclimate.data.dataset import load_dataset
from acclimate.errors import UsageError
from acclimate.files import read_json
from acclimate.flows.adapt import adapt
from acclimate.flows.plan import plan
from acclimate.runs.resolve import load as load_encoder
from acclimate.runs.tasks import tasks_of
from acclimate.stages.train import train_tasks
from tests.tiny_run import WORDS, write_tiny_bert

PROMPT = "w50 w51 "


def write_sources(folder: Path) -> None:
    """Question and answer that share a word, twice with the same answer; sentence pairs, labelled by shared words."""
    draw = random.Random(0)
    rows = [
        {"query": f"{word} {draw.choice(WORDS)}", "document": f"{word} {' '.join(draw.choices(WORDS, k=4))}"}
        for word in WORDS[:48] * 5
    ]
    rows[7]["document"] = rows[5]["document"]
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    lines = ["sentence1\tsentence2\tlabel"]
    for number in range(240):
        first, shared = draw.sample(WORDS, 5), number % 6
        lines.append(
            "\t".join([" ".join(first), " ".join(first[:shared] + draw.sample(WORDS, 5 - shared)), str(shared)])
        )
    (folder / "similar.tsv").write_text("\n".join(lines) + "\n")


def write_config(folder: Path, model: Path, weight: float = 0.5, prompt: str = PROMPT) -> Path:
    path = folder / "run.toml"
    path.write_text(
        f"""
        model = "{model}"
        pooling = "mean"
        device = "cpu"
        dtype = "float32"

        [train]
        batch_size = 16
        epochs = 1
        rank = 2
        dev_documents = 40
        eval_steps = 6

        [evaluate]
        sign_flips = 100

        [[datasets]]
        source = "{folder / "answers.jsonl"}"
        anchor_column = "query"
        positive_column = "document"
        query_prompt = "{prompt}"

        [[datasets]]
        source = "{folder / "similar.tsv"}"
        name = "alike"
        weight = {weight}
        """
    )
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two tasks; the folder that it is in."""
    folder = tmp_path_factory.mktemp("tasks")
    write_sources(folder)
    model = write_tiny_bert(folder / "tiny-bert")
    main(["adapt", "--config", str(write_config(folder, model)), "--out", str(folder / "run")])
    return folder


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_task_has_its_folders_and_its_row_in_the_report(finished: Path) -> None:
    run = finished / "run"
    assert {path.name for path in (run / "tasks").iterdir()} == {"answers", "alike"}
    assert (run / "tasks" / "answers" / "negatives" / "examples.jsonl").exists()
    assert not (run / "tasks" / "alike" / "negatives").exists()
    assert not (run / "dataset").exists()
    report = read_json(run / "report.json")
    assert {name: part["kind"] for name, part in report["tasks"].items()} == {"answers": "retrieval", "alike": "pairs"}
    trained = report["train"]["tasks"]
    assert (trained["answers"]["loss"], trained["alike"]["loss"]) == ("info-nce", "cosine-mse")
    assert (trained["answers"]["weight"], trained["alike"]["weight"]) == (1.0, 0.5)
    assert (
        trained["answers"]["hard_negative_share"] == report["tasks"]["answers"]["mining"]["hard_negative_share"] > 0.3
    )
    steps = [row["task"] for row in rows_of(run) if "loss" in row]
    assert {name: steps.count(name) for name in trained} == {name: row["steps"] for name, row in trained.items()}
    dev = [row["dev"] for row in rows_of(run) if "dev" in row]
    for scores in dev:
        assert scores["mean"] == pytest.approx((scores["answers/ndcg@10"] + scores["alike/spearman"]) / 2)
    assert report["train"]["base_score"] == dev[0]["mean"]
    assert report["train"]["best_score"] == max(scores["mean"] for scores in dev[1:])
    assert trained["answers"]["base_score"] == dev[0]["answers/ndcg@10"]


def test_a_task_s_prompts_are_saved_and_used(finished: Path) -> None:
    """The rankings that were evaluated are those of the prompt that the task was trained with, and no other."""
    run = finished / "run"
    encoder = load_encoder(run, base=str(finished / "tiny-bert"), device="cpu", dtype="float32")
    assert encoder.use.prompts.tasks == ("alike", "answers")
    assert [encoder.use.prompts.prompt("query", task) for task in (None, "answers", "alike")] == ["", PROMPT, ""]
    query = json.loads((run / "tasks/answers/dataset/queries.jsonl").read_text().splitlines()[-1])
    own = encoder.for_task("answers").encode([query["text"]], "query")
    np.testing.assert_array_equal(own, encoder.encode([PROMPT + query["text"]], "query"))
    corpus = [json.loads(line) for line in (run / "tasks/answers/dataset/corpus.jsonl").read_text().splitlines()]
    cosine = (encoder.for_task("answers").encode([row["text"] for row in corpus]) @ own[0]).max()
    ranked = [line.split() for line in (run / "tasks/answers/evaluation/runs/adapted.trec").read_text().splitlines()]
    best = next(row for row in ranked if row[0] == query["_id"])
    assert float(best[4]) == pytest.approx(float(cosine), abs=1e-5)
    with pytest.raises(UsageError, match=r"Unknown task 'answer'.*alike, answers"):
        encoder.for_task("answer")


def test_search_and_similarity_ask_which_task(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = finished / "run"
    with pytest.raises(SystemExit):
        main(["search", str(run), "w1 w2"])
    assert "has several tasks" in capsys.readouterr().err
    main(["search", str(run), "w1 w2", "--task", "answers"])
    assert "w1" in capsys.readouterr().out
    main(["similarity", str(run), "w1 w2", "w1 w3", "--task", "alike", "--json"])
    assert set(json.loads(capsys.readouterr().out)) == {"base", "adapted"}
    main(["evaluate", str(run), "--json"])
    assert set(json.loads(capsys.readouterr().out)) == {"answers", "alike"}


def test_only_what_changed_runs_again(finished: Path) -> None:
    run = finished / "run"
    parts = ["adapter", *(f"tasks/{name}" for name in ("answers/dataset", "answers/negatives", "alike/dataset"))]
    made = {name: (run / name).stat().st_ino for name in parts}

    def again(**changes: Any) -> set[str]:
        before = dict(made)
        adapt(None, run, load_config(write_config(finished, finished / "tiny-bert", **changes)))
        made.update({name: (run / name).stat().st_ino for name in parts})
        return {name for name in parts if made[name] != before[name]}

    assert again() == set()
    assert again(weight=0.7) == {"adapter"}
    assert again(weight=0.7, prompt="w52 ") == {"adapter", "tasks/answers/negatives"}


def test_the_page_shows_all_tasks_and_links_to_each(finished: Path) -> None:
    run = finished / "run"
    page = (run / "report.html").read_text()
    for name in ("answers", "alike"):
        assert f'href="tasks/{name}/report.html"' in page
        own = (run / "tasks" / name / "report.html").read_text()
        measure = "NDCG@10" if name == "answers" else "Spearman"
        assert f"{name}: {measure}" in page
        adapted = read_json(run / "report.json")["tasks"][name]["test"]["adapted"][measure.lower()]
        assert f"{adapted:.4f}".replace("-", "−") in page
        assert f"{adapted:.4f}".replace("-", "−") in own
        assert "Loss" in own and "Metrics on dev" in own
        assert "acclimate adapt --config config.toml --out RUN" in own


def test_no_task_retains_what_another_is_proven_with(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers, alike = (load_dataset(finished / "run" / "tasks" / name / "dataset") for name in ("answers", "alike"))
    proof = [answers.queries[query] for query in answers.qrels["test"]] + [alike.pairs["test"][0].sentence1]
    (tmp_path / "other.txt").write_text("\n".join(["w40 w41 w42 w43 w44 w45", *proof]), encoding="utf-8")
    config = load_config(finished / "run.toml")
    objective = replace(config.objective, retain_data=str(tmp_path / "other.txt"))
    config = replace(config, train=replace(config.train, epochs=0.2), objective=objective)
    tasks = [replace(task, mined=task.kind == "retrieval") for task in tasks_of(finished / "run", config)]
    train_tasks(tasks, tmp_path / "adapter", config)
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("retaining")]
    assert len(said) == 2 and all(line.startswith("retaining 1 text of") and line.endswith("of 1") for line in said)


def test_all_weights_can_be_trained_on_several_tasks(finished: Path, tmp_path: Path) -> None:
    config = load_config(finished / "run.toml")
    config = replace(config, train=replace(config.train, full=True, epochs=0.2, task_sampling="round-robin"))
    tasks = [replace(task, mined=task.kind == "retrieval") for task in tasks_of(finished / "run", config)]
    report = train_tasks(tasks, tmp_path / "adapter", config)
    assert report["train"]["trainable"] == report["train"]["total"]
    assert [row["task"] for row in rows_of(tmp_path) if "loss" in row] == ["answers", "alike", "answers", "alike"]
    encoder = load_encoder(tmp_path, device="cpu", dtype="float32")
    assert encoder.use.prompts.tasks == ("alike", "answers")
    assert encoder.use.prompts.prompt("query", "answers") == config.datasets[0].query_prompt


def test_a_dry_run_adds_the_tasks_up(finished: Path) -> None:
    found = plan(None, load_config(finished / "run.toml"))
    assert found["steps"] == found["answers"]["steps"] + found["alike"]["steps"] > 10
    assert found["answers"]["kind"] == "retrieval"


def test_data_is_said_once(finished: Path) -> None:
    config = load_config(finished / "run.toml")
    with pytest.raises(UsageError, match=r"answers\.jsonl is given, and so are \[\[datasets\]\]"):
        adapt(str(finished / "answers.jsonl"), finished / "run", config)
    with pytest.raises(UsageError, match=r"no data is given"):
        adapt(None, finished / "empty", RunConfig())
