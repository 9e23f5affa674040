"""What a run says of itself, step by step: its settings, its summary, and who made what."""

from __future__ import annotations

from pathlib import Path

import pytest

import acclimate
from acclimate.cli.main import main
from acclimate.configs import SETTINGS_MARK, DomainConfig, RunConfig, dump_config, load_config
from acclimate.errors import UsageError
from acclimate.files import read_json
from acclimate.flows import verbs
from acclimate.flows.settings import configured
from acclimate.runs.records import PAGE_MARK
from acclimate.runs.run_folder import RunFolder
from tests.models.tiny import as_sentence_transformer
from tests.tiny_run import write_tiny_bert, write_tiny_retrieval

QUICK = ("--rank", "1", "--epochs", "1", "--batch-size", "8", "--dev-documents", "5")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run in the current folder with a dataset, but with nothing said of it, and a tiny model beside it."""
    as_sentence_transformer(write_tiny_bert(tmp_path / "tiny"))
    write_tiny_retrieval(tmp_path / "run" / "dataset")
    monkeypatch.chdir(tmp_path)
    return RunFolder(Path("run"))


def test_terms_come_from_what_was_given_last(run: RunFolder) -> None:
    """A background that is given counts, although the run remembers a lexicon; both at once are refused."""
    run.config.write_text(dump_config(RunConfig(domain=DomainConfig(lexicon="terms.txt"))))
    domain = configured("evaluate", {"background": "texts.txt"}, run=run.path).domain
    assert (domain.lexicon, domain.background) == (None, "texts.txt")
    run.config.write_text(dump_config(RunConfig(domain=domain)))
    domain = configured("evaluate", {"lexicon": "terms.txt"}, run=run.path).domain
    assert (domain.lexicon, domain.background) == ("terms.txt", None)
    with pytest.raises(UsageError, match=r"terms are those of the lexicon terms.txt: nothing is compared"):
        configured("evaluate", {"lexicon": "terms.txt", "background": "texts.txt"}, run=run.path)


@pytest.mark.usefixtures("run")
def test_what_one_step_is_told_the_next_ones_know(tmp_path: Path) -> None:
    rows = "".join(f'{{"query": "w{n} w{n + 1}", "response": "w{n + 2} w9"}}\n' for n in range(12))
    (tmp_path / "p.jsonl").write_text(rows)
    flags = ("--model", "tiny", "--seed", "7", "--test-fraction", "0", "--dev-fraction", "0")
    main(["prepare", "p.jsonl", "--out", "new", *flags])
    new = RunFolder(Path("new"))
    config = load_config(new.config)
    assert (config.model, config.seed, config.prepare.test_fraction) == ("tiny", 7, 0.0)
    assert new.config.read_text().startswith(SETTINGS_MARK)
    main(["mine", "new", "--num-negatives", "2"])
    assert read_json(new.negatives / "settings.json")["seed"] == 7
    (tmp_path / "more.toml").write_text("[mine]\nrange_min = 1\n")
    main(["mine", "new", "--config", "more.toml", "--seed", "8"])
    settings = read_json(new.negatives / "settings.json")
    assert (settings["seed"], settings["mine"]["num_negatives"], settings["mine"]["range_min"]) == (8, 2, 1)
    assert settings["model"] == "tiny"


def test_a_step_by_step_run_says_who_made_what(run: RunFolder) -> None:
    main(["train", "run", "--model", "tiny", *QUICK])
    main(["evaluate", "run", "--bootstrap", "100"])
    main(["report", "run"])
    summary = read_json(run.report)
    assert summary["made"]["adapter"]["command"] == "acclimate train run --model tiny " + " ".join(QUICK)
    assert summary["made"]["evaluation"]["command"] == "acclimate evaluate run --bootstrap 100"
    assert "command" not in summary, "no single command made it"
    assert summary["verdict"] == read_json(run.evaluation / "report.json")["verdict"]
    assert summary["train"]["steps"] and summary["config"]["train"]["rank"] == 1 and summary["timings"]["train_s"]
    page = run.page.read_text()
    assert PAGE_MARK in page
    assert "acclimate evaluate run --bootstrap 100  # evaluation, " in page
    assert "another one is in use" not in page

    acclimate.train("run", epochs=3, seed=5)  # from Python: no command line is made up
    summary, page = read_json(run.report), run.page.read_text()
    assert summary["made"]["adapter"]["command"] == "acclimate.train('run', epochs=3, seed=5)"
    assert "another one is in use" in page, "the scores are still those of the version before"
    versions = verbs.versions("run")["versions"]
    verbs.versions("run", promote=next(row["name"] for row in versions if row["set_by"] is None))
    assert "another one is in use" not in run.page.read_text()
    assert summary["train"]["steps"] != read_json(run.report)["train"]["steps"]


def test_a_failing_step_is_not_remembered(run: RunFolder) -> None:
    with pytest.raises(SystemExit):
        main(["train", "run", "--model", "tiny", "--targets", "nothing"])
    assert not run.config.exists() and not run.report.exists()


def test_what_belongs_to_another_loss_is_forgotten(run: RunFolder) -> None:
    main(["train", "run", "--model", "tiny", "--loss", "info-nce", "--temperature-kind", "learned", *QUICK])
    main(["train", "run", "--loss", "triplet"])
    config = load_config(run.config)
    assert (config.objective.loss, config.objective.temperature_kind, config.train.rank) == ("triplet", "fixed", 1)
