"""The commands as a person types them: which flags they take and refuse, what their help shows, what they print."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from acclimate.cli.main import COMMANDS, main
from acclimate.configs import RunConfig, dump_config, settings_of
from tests.models import tiny
from tests.tiny_run import write_tiny_bert, write_tiny_pairs, write_tiny_retrieval

FEW = ("--rerank-group-size", "3", "--sign-flips", "100")


def failing(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on standard error of a command that is used in a wrong way."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1, error
    return error


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(list(arguments))
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared run over a tiny model, and a tiny reranker beside its dataset."""
    folder = tmp_path_factory.mktemp("run")
    write_tiny_retrieval(folder / "dataset")
    model = tiny.as_sentence_transformer(write_tiny_bert(folder / "model"))
    (folder / "config.toml").write_text(dump_config(RunConfig(model=str(model), device="cpu", dtype="float32")))
    tiny.tiny_reranker(folder / "base")
    return folder


@pytest.mark.parametrize(
    ("arguments", "flag", "reader"),
    [
        (("similarity", "RUN", "a", "b"), "--limit=3", "prepare"),
        (("similarity", "RUN", "a", "b"), "--seed=3", "train"),
        (("search", "RUN", "a"), "--seed=3", "train"),
        (("train-reranker", "RUN", "MODEL"), "--temperature=3", "train"),
        (("mine", "RUN"), "--rank=3", "train"),
        (("prepare", "DATA", "--out", "RUN"), "--no-full", "train"),
        (("evaluate-reranker", "RUN", "NAME"), "--rerank-epochs=2", "train-reranker"),
    ],
)
def test_a_flag_that_would_be_ignored_is_refused(
    arguments: tuple[str, ...], flag: str, reader: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error = failing(
        capsys, *arguments, flag, *(["3"] if flag in ("--limit", "--seed", "--rank", "--temperature") else [])
    )
    plain = flag.replace("--no-", "--").partition("=")[0]
    assert f"acclimate: {arguments[0]} does not read {plain}. Possible: --" in error
    assert reader in error.partition("It is a setting of:")[2]


def test_a_flag_that_nobody_reads_is_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Unknown option: --epocs. Did you mean --epochs?" in failing(capsys, "train", "RUN", "--epocs", "3")


def test_settings_that_do_not_count_for_what_is_asked_are_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A command that does several things reads other settings for each."""
    texts = run / "texts.txt"
    texts.write_text("w1\nw2\n")
    rerank = ("rerank", "w1", "--texts", texts, "--reranker", run / "base")
    assert "rerank QUERY --texts FILE does not read rerank_depth" in failing(capsys, *rerank, "--rerank-depth", 20)
    for setting, value in (("guard", run), ("label_column", "score")):
        flag = "--" + setting.replace("_", "-")
        error = failing(capsys, "evaluate", run, flag, value)
        assert f"evaluate of one model on RUN does not read {setting}" in error


def test_a_reranker_is_trained_as_asked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The flags by their short names count, and `settings.json` holds what was used and nothing else."""
    asked = ("--epochs", "3", "--batch-size", "5", "--learning-rate", "0.01", "--group-size", "2", "--loss", "pairwise")
    main(["train-reranker", str(run), str(run / "base"), *asked, "--eval-steps", "9"])
    report = json.loads((run / "reranker" / "report.json").read_text())["train"]
    assert report["loss"] == "pairwise" and report["batch_size"] == 5
    assert report["steps"] == 3 * -(-report["examples"] // 5)
    settings = json.loads((run / "reranker" / "settings.json").read_text())
    rerank = settings["rerank"]
    assert (rerank["rerank_epochs"], rerank["rerank_batch_size"], rerank["rerank_group_size"]) == (3.0, 5, 2)
    assert (rerank["rerank_learning_rate"], rerank["rerank_loss"]) == (0.01, "pairwise")
    assert not {"epochs", "batch_size", "learning_rate", "group_size"} & set(settings["train"])
    assert settings["objective"] == {"teacher_temperature": 1.0} and "limit" not in settings
    capsys.readouterr()


def test_the_older_spelling_does_the_same_with_a_hint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also `--epochs`, which once was taken, and ignored; and the settings' own names as flags."""
    base, few = str(run / "base"), ("--epochs", "1", "--rerank-batch-size", "7", "--eval-steps", "9")
    main(["train", str(run), "--targets", "query,key", "--reranker", base, *few])
    assert (
        "hint: acclimate train RUN --reranker NAME is now: acclimate train-reranker RUN NAME" in capsys.readouterr().err
    )
    report = json.loads((run / "reranker" / "report.json").read_text())["train"]
    assert report["batch_size"] == 7 and report["steps"] == -(-report["examples"] // 7)
    main(["evaluate", str(run), f"--reranker={run}", "--sign-flips", "100", "--json"])
    output = capsys.readouterr()
    assert "acclimate evaluate-reranker RUN NAME" in output.err and "ndcg@10" in json.loads(output.out)


def test_mining_takes_a_reranker_without_a_hint(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["mine", str(run), "--reranker", str(run / "base")])
    assert "hint" not in capsys.readouterr().err


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_what_matters_and_an_example(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In terminals of any width: no flag is broken over two lines."""
    monkeypatch.setenv("COLUMNS", str(width))
    command = COMMANDS[name]
    short, whole = shown(capsys, name, "--help"), shown(capsys, name, "--help-all")
    assert command.summary in " ".join(short.replace("│", " ").split())
    assert f"Example: {command.example}" in " ".join(short.split())
    flags = {command.flag(setting) for setting in settings_of(name)}
    assert flags <= listed(whole)
    if command.shows_all:
        assert flags <= listed(short)
    else:
        assert listed(short) & flags == {command.flag(setting) for setting in command.first}
        assert f"All settings: acclimate {name} --help-all" in short
    assert "Settings of" not in whole


def listed(text: str) -> set[str]:
    """The flags at the beginning of the lines of a help page."""
    return set(re.findall(r"^│ [* ]*(?:[A-Z-]+ )?(--[\w-]+)", text, re.M)) | set(
        re.findall(r"^│ +(--[\w-]+) ", text, re.M)
    )


def test_compare_of_runs_on_the_queries_they_share(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    write_tiny_retrieval(other / "dataset")
    (other / "config.toml").write_text((run / "config.toml").read_text())
    # One test query is judged differently there, one is asked in other words: eight less two are shared.
    change_line(other / "dataset" / "qrels" / "test.tsv", "q32\td32\t1", "q32\td33\t1")
    change_line(other / "dataset" / "queries.jsonl", '"_id": "q33", "text": "', '"_id": "q33", "text": "w59 ')
    for folder, seed in ((run, "1"), (other, "2")):
        main(["train", str(folder), "--epochs", "1", "--rank", "2", "--batch-size", "8", "--seed", seed])
        main(["evaluate", str(folder), "--sign-flips", "100"])
    capsys.readouterr()
    main(["compare", str(run), str(other), str(run), "--sign-flips", "100", "--json"])
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (result["shared"], result["measure"], result["kind"]) == (6, "ndcg@10", "retrieval")
    assert [row["tested"] for row in result["runs"]] == [8, 8, 8]
    scores = [per_query(folder) for folder in (run, other)]
    common = [query for query in scores[0] if query not in ("q32", "q33")]
    means = [sum(part[query]["ndcg@10"] for query in common) / 6 for part in scores]
    assert [row["measures"]["ndcg@10"] for row in result["runs"][:2]] == pytest.approx(means)
    delta = result["runs"][1]["delta"]["ndcg@10"]
    assert delta["value"] == pytest.approx(means[1] - means[0]) and delta["low"] <= delta["value"] <= delta["high"]
    assert result["runs"][2]["delta"]["ndcg@10"]["value"] == 0 and result["runs"][2]["verdict"] == "no evidence"
    assert result["warnings"] == []
    assert "on the 6 test queries that all runs share" in shown(capsys, "compare", str(run), str(other))


def per_query(folder: Path) -> dict[str, dict[str, float]]:
    """The adapted model's scores by query id."""
    lines = (folder / "evaluation" / "per_query.jsonl").read_text().splitlines()
    return {row["query_id"]: row["adapted"] for row in map(json.loads, lines)}


def change_line(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_compare_of_labelled_pairs_and_what_cannot_be_compared(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = tmp_path / "pairs"
    write_tiny_pairs(pairs / "dataset")
    (pairs / "config.toml").write_text((run / "config.toml").read_text())
    assert "two runs or more" in failing(capsys, "compare", pairs)
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(pairs), str(pairs)])
    assert stop.value.code == 5 and "acclimate evaluate" in capsys.readouterr().err
    main(["train", str(pairs), "--epochs", "1", "--rank", "2", "--batch-size", "8"])
    main(["evaluate", str(pairs), "--sign-flips", "100"])
    capsys.readouterr()
    main(["compare", str(pairs), str(pairs), "--sign-flips", "100", "--json"])
    result = json.loads(capsys.readouterr().out)
    report = json.loads((pairs / "evaluation" / "report.json").read_text())
    assert (result["kind"], result["shared"]) == ("pairs", report["test"]["pairs"])
    assert result["runs"][0]["measures"]["spearman"] == pytest.approx(report["test"]["adapted"]["spearman"])
    main(["train", str(run), "--epochs", "1", "--rank", "2", "--batch-size", "8"])
    main(["evaluate", str(run), "--sign-flips", "100"])
    capsys.readouterr()
    assert "labelled pairs" in failing(capsys, "compare", run, pairs)
    other = tmp_path / "other"
    write_tiny_retrieval(other / "dataset", queries=20)
    (other / "config.toml").write_text((run / "config.toml").read_text())
    main(["evaluate", str(other), "--json", "--adapter", str(run)])
    main(["train", str(other), "--epochs", "1", "--rank", "2", "--batch-size", "8"])
    main(["evaluate", str(other), "--sign-flips", "100"])
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["compare", str(run), str(other)])
    assert stop.value.code == 3 and "no test query is the same in" in capsys.readouterr().err


def test_doctor_says_what_is_here_and_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["devices"]["cpu"] in ("float32", "bfloat16") and found["cpu"]["cores"] >= 1
    assert set(found["extras"]) == {"tensorboard", "qlora"} and found["libraries"]["torch"] != "missing"
    assert found["hub"]["state"].startswith("offline") and found["hub"]["cache"]
    page = shown(capsys, "doctor")
    for word in ("python", "cpu", "memory", "devices", "extras", "model", "hub"):
        assert re.search(rf"^{word}\b", page, re.M), word
    # Of an extra that is not there it says, in words that can be typed, how to get it.
    monkeypatch.setattr("acclimate.stages.doctor._version", lambda name: "" if name == "tensorboard" else "1.0")
    assert "pip install 'acclimate[tensorboard]'" in shown(capsys, "doctor")


def test_versions_are_listed_promoted_and_rolled_back(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    trained = []
    for rank in ("2", "3"):
        main(["train", str(folder), "--rank", rank, "--epochs", "1", "--batch-size", "8"])
        trained.append((folder / "adapter").resolve().name)
    first, second = trained
    assert first != second
    assert "by promotion" in shown(capsys, "versions", str(folder), "--promote", first[:6])
    assert (folder / "adapter").resolve().name == first
    shown(capsys, "versions", str(folder), "--rollback")
    assert (folder / "adapter").resolve().name == second
    assert "no version 'zz'" in failing(capsys, "versions", folder, "--promote", "zz")
    assert "exclude each other" in failing(capsys, "versions", folder, "--promote", first, "--rollback")


def test_a_run_without_an_adapter_has_no_versions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["versions", str(tmp_path)])
    assert stop.value.code == 5 and "holds no adapter" in capsys.readouterr().err
