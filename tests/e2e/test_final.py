"""Training on everything: refused where nothing could be proven in the end, allowed with settings proven before."""

from __future__ import annotations

import json
import random
from itertools import permutations
from pathlib import Path

import pytest

from acclimate import adapt
from acclimate.cli.main import main
from acclimate.configs import load_config
from acclimate.data.dataset import load_dataset
from acclimate.errors import DataError, StorageError, UsageError
from acclimate.files import read_json
from acclimate.formats.trained_on import read_trained_on
from acclimate.stages.evaluate import evaluate_model
from tests.models.tiny import as_sentence_transformer
from tests.tiny_run import write_tiny_bert

TRAINING = {"full": True, "epochs": 30, "batch_size": 64, "learning_rate": 0.01, "group_size": 1, "eval_steps": 20}
SETTINGS = {**TRAINING, "patience": 20, "sign_flips": 200, "device": "cpu"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Queries in words w0 to w29, answers in w30 to w59: no word is shared, and the translation can be learned."""
    folder = tmp_path_factory.mktemp("final")
    as_sentence_transformer(write_tiny_bert(folder / "model"))
    pairs = random.Random(0).sample(list(permutations(range(30), 2)), 400)
    rows = [{"query": f"w{one} w{two}", "positive": f"w{one + 30} w{two + 30}"} for one, two in pairs]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_run_that_could_prove_nothing_is_refused_before_it_trains(world: Path, tmp_path: Path, dry_run: bool) -> None:
    with pytest.raises(UsageError, match=r"no test split, and test_fraction = 0 cuts none.*--final RUN"):
        adapt(world / "pairs.jsonl", out=tmp_path, model=world / "model", test_fraction=0.0, dry_run=dry_run)
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def proven(world: Path) -> Path:
    run = world / "proven"
    assert adapt(world / "pairs.jsonl", out=run, model=world / "model", **SETTINGS)["verdict"] == "better"
    return run


@pytest.mark.slow
def test_a_final_training_takes_all_data_and_says_that_it_proves_nothing(
    world: Path, proven: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = world / "final"
    main(["adapt", str(world / "pairs.jsonl"), "--out", str(final), "--final", str(proven), "--device", "cpu"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "This model has no proof of its own." in shown and "NDCG@10 went from" in shown
    data, before = load_dataset(final / "dataset"), load_dataset(proven / "dataset")
    assert len(data.qrels["train"]) == len(data.examples) == 400 and set(data.qrels) == {"train"}
    tested = [before.queries[query] for query in before.qrels["test"]]
    assert all(read_trained_on(final / "adapter").has_text(text) for text in tested)
    train = read_json(proven / "adapter" / "report.json")["train"]
    epochs = load_config(final / "config.toml").train.epochs
    assert epochs == pytest.approx(30 * train["best_step"] / train["steps"])
    summary, evaluation = read_json(final / "report.json"), read_json(proven / "evaluation" / "report.json")
    assert "test" not in summary and "verdict" not in summary
    assert (summary["final"]["run"], summary["final"]["same_data"]) == ("proven", True)
    assert summary["final"]["test"] == evaluation["test"]
    page = (final / "report.html").read_text()
    assert "This model has no proof of its own." in page and 'href="proof/report.html"' in page
    assert "--final proven" in page
    assert (final / "proof" / "report.html").read_bytes() == (proven / "report.html").read_bytes()
    main(["merge", str(final), "--out", str(world / "merged")])
    card = (world / "merged" / "README.md").read_text()
    assert "## No proof of its own" in card and f"{evaluation['test']['adapted']['ndcg@10']:.4f}" in card
    for evaluated in (str(final), str(world / "pairs.jsonl")):
        with pytest.raises(DataError, match=r"all of the data was trained on. The proof of its settings is"):
            evaluate_model(evaluated, final, load_config(final / "config.toml"))
    with pytest.raises(SystemExit):
        main(["evaluate", str(final)])
    assert "all of the data was trained on" in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_final_training_refuses(world: Path, proven: Path, tmp_path: Path) -> None:
    data = world / "pairs.jsonl"
    with pytest.raises(UsageError, match=r"rank with --final.*which were proven"):
        adapt(data, out=tmp_path / "a", final=proven, rank=3)
    with pytest.raises(UsageError, match="--dry-run with --final"):
        adapt(data, out=tmp_path / "a", final=proven, dry_run=True)
    with pytest.raises(UsageError, match="a proof of its own"):
        adapt(data, out=proven, final=proven)
    with pytest.raises(StorageError, match="no finished run"):
        adapt(data, out=tmp_path / "a", final=world / "model")
    report = proven / "evaluation" / "report.json"
    found = report.read_text()
    report.write_text(found.replace('"verdict": "better"', '"verdict": "no evidence"'))
    try:
        with pytest.raises(UsageError, match="'no evidence': its settings are not proven"):
            adapt(data, out=tmp_path / "a", final=proven)
    finally:
        report.write_text(found)
    assert not (tmp_path / "a").exists()
