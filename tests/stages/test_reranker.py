"""From a run to a trained reranker, its evaluation, and its use in mining and on texts: both kinds, end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.cli.main import main
from acclimate.configs import EvaluateConfig, MineConfig, RerankConfig, RunConfig, TrainConfig
from acclimate.data.dataset import EXAMPLES_FILE, load_dataset, read_examples
from acclimate.errors import DataError, StorageError, UsageError
from acclimate.files import hash_folder, read_json
from acclimate.flows.reranker import evaluate_reranker, train_reranker
from acclimate.runs.resolve import load_reranker
from acclimate.stages.mine import mine
from acclimate.stages.rerank import rerank_run, rerank_texts
from tests.conftest import shared_data
from tests.models import tiny
from tests.tiny_run import write_tiny_bert, write_tiny_pairs, write_tiny_retrieval

RERANK = RerankConfig(rerank_batch_size=8, rerank_epochs=2, rerank_group_size=3, rerank_depth=20)


def config_for(folder: Path, **rerank: Any) -> RunConfig:
    return RunConfig(
        model=str(write_tiny_bert(folder / "embedder")),
        pooling="mean",
        device="cpu",
        dtype="float32",
        train=TrainConfig(rank=4, eval_steps=3),
        evaluate=EvaluateConfig(sign_flips=200),
        mine=MineConfig(num_negatives=3, range_max=10),
        rerank=replace(RERANK, **rerank),
    )


@pytest.fixture(scope="module", params=["bert", "qwen3", "new head"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, RunConfig, dict[str, Any]]:
    """A run with a trained reranker, its settings, and the training's report."""
    run = tmp_path_factory.mktemp("run")
    write_tiny_retrieval(run / "dataset")
    config = config_for(run, rerank_learning_rate=3e-3)
    if request.param == "qwen3":
        bpe = shared_data("tokenizers", "qwen_bpe")
        base = tiny.tiny_qwen3_reranker(run / "base", bpe)
        config = replace(config, rerank=replace(config.rerank, rerank_instruction="Find w words", pair_tokens=150))
    else:
        base = tiny.tiny_reranker(run / "base") if request.param == "bert" else tiny.tiny_bert(run / "base")
    mine(run / "dataset", run / "negatives", config)
    return run, config, train_reranker(run, str(base), config)


def test_training_is_reported_and_written(trained: tuple[Path, RunConfig, dict[str, Any]]) -> None:
    run, config, report = trained
    numbers = report["train"]
    assert numbers["examples"] == 24 and numbers["steps"] == 6 and numbers["loss"] == "listwise"
    log = [json.loads(line) for line in (run / "reranker_metrics.jsonl").read_text().splitlines()]
    dev = {row["step"]: row["dev"]["ndcg@10"] for row in log if "dev" in row}
    assert list(dev) == [0, 3, 6] and numbers["retrieval_score"] == dev[0]
    assert numbers["best_score"] == max(dev[3], dev[6])
    facts = read_json(run / "reranker" / "acclimate.json")
    assert facts["kind"] == "reranker" and facts["metrics"]["best_step"] == numbers["best_step"]
    is_adapter = (run / "reranker" / "adapter_config.json").exists()
    assert is_adapter == (read_json(run / "base" / "config.json")["architectures"] != ["BertModel"])
    assert numbers["trainable"] < numbers["total"] or not is_adapter
    before = hash_folder(run / "reranker")
    assert train_reranker(run, str(run / "base"), config) == report  # nothing to do
    assert hash_folder(run / "reranker") == before


def test_evaluation_before_and_after(trained: tuple[Path, RunConfig, dict[str, Any]]) -> None:
    run, config, _ = trained
    report = evaluate_reranker(run, str(run), config)
    assert report["retriever"] == "base" and report["queries"] == 8 and report["depth"] == 20
    for measure in ("ndcg@10", "mrr@10"):
        change = report["reranked"][measure] - report["retrieved"][measure]
        assert report["delta"][measure]["value"] == pytest.approx(change)
        assert report["delta"][measure]["low"] <= change <= report["delta"][measure]["high"]
    data = load_dataset(run / "dataset")
    reranker = load_reranker(str(run), config.rerank, device=config.device, dtype=config.dtype)
    lines = [line.split() for line in (run / "reranking" / "runs" / "reranked.trec").read_text().splitlines()]
    assert len(lines) == 8 * 20
    for query, _, document, _, score, _ in lines[:5]:
        expected = reranker.score(data.queries[query], [data.corpus[document]])[0]
        assert float(score) == pytest.approx(float(expected), abs=1e-4)
    rows = [json.loads(line) for line in (run / "reranking" / "per_query.jsonl").read_text().splitlines()]
    assert np.mean([row["reranked"]["ndcg@10"] for row in rows]) == pytest.approx(report["reranked"]["ndcg@10"])
    assert evaluate_reranker(run, str(run), config) == report  # kept


def test_its_scores_are_mined_with(trained: tuple[Path, RunConfig, dict[str, Any]], tmp_path: Path) -> None:
    run, config, _ = trained
    mine(run / "dataset", tmp_path / "negatives", replace(config, mine=replace(config.mine, reranker=str(run))))
    reranker = load_reranker(str(run), config.rerank, device=config.device, dtype=config.dtype)
    examples = read_examples(tmp_path / "negatives" / EXAMPLES_FILE)
    assert len(examples) == 24
    for example in examples[:4]:
        assert example.scores is not None and len(example.scores) == 1 + len(example.negatives)
        expected = reranker.score(example.anchor, [example.positive, *example.negatives])
        assert np.abs(np.array(example.scores) - expected).max() < 1e-4


def test_texts_and_runs_are_reranked(
    trained: tuple[Path, RunConfig, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, config, _ = trained
    texts = ["w1 w2 w3", "w4", "w1 w9 w10"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    result = rerank_texts("w1 w2", tmp_path / "texts.txt", str(run), 2, config)
    scores = load_reranker(str(run), config.rerank, device=config.device, dtype=config.dtype).score("w1 w2", texts)
    best = np.argsort(-scores)[:2]
    assert [found["row"] for found in result["results"]] == (best + 1).tolist()
    assert result["results"][0]["probability"] == pytest.approx(1 / (1 + np.exp(-scores.max())), abs=1e-5)

    evaluate_reranker(run, str(run), config)
    dataset, runs = run / "dataset", run / "reranking" / "runs"
    files = (runs / "retrieved.trec", dataset / "queries.jsonl", dataset / "corpus.jsonl")
    rerank_run(*files, str(run), tmp_path / "again.trec", config)
    ours = [line.split()[:4] for line in (tmp_path / "again.trec").read_text().splitlines()]
    assert ours == [line.split()[:4] for line in (runs / "reranked.trec").read_text().splitlines()]

    flags = ["--reranker", str(run), "--device", "cpu", "--dtype", "float32", "--json"]
    main(["rerank", "w1 w2", "--texts", str(tmp_path / "texts.txt"), *flags])
    assert json.loads(capsys.readouterr().out)["results"][0]["text"] == texts[best[0]]


def test_the_same_seed_gives_the_same_reranker(tmp_path: Path) -> None:
    base, hashes = tiny.tiny_bert(tmp_path / "base"), []
    for name in ("a", "b"):
        write_tiny_retrieval(tmp_path / name / "dataset")
        train_reranker(tmp_path / name, str(base), config_for(tmp_path))
        hashes.append(hash_folder(tmp_path / name / "reranker"))
    assert hashes[0] == hashes[1]


def test_it_learns(tmp_path: Path) -> None:
    """A query and its document share a word: a random reranker comes to see it."""
    write_tiny_retrieval(tmp_path / "dataset", queries=60)
    config = config_for(
        tmp_path, rerank_epochs=12, rerank_learning_rate=3e-3, rerank_full=True, rerank_loss="pointwise"
    )
    train_reranker(tmp_path, str(write_tiny_bert(tmp_path / "base")), config)
    rows = [json.loads(line) for line in (tmp_path / "reranker_metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


def test_what_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_for(tmp_path)
    base = str(tiny.tiny_reranker(tmp_path / "base"))
    write_tiny_pairs(tmp_path / "pairs" / "dataset")
    with pytest.raises(UsageError, match="labelled pairs"):
        train_reranker(tmp_path / "pairs", base, config)
    write_tiny_retrieval(tmp_path / "run" / "dataset")
    with pytest.raises(StorageError, match="holds no reranker"):
        evaluate_reranker(tmp_path / "run", str(tmp_path / "run"), config)
    with pytest.raises(StorageError, match="holds no adapter"):
        evaluate_reranker(tmp_path / "run", base, replace(config, rerank=replace(RERANK, retriever="adapted")))
    examples = (tmp_path / "run" / "dataset" / EXAMPLES_FILE).read_text().splitlines()
    bare = [
        json.dumps({key: value for key, value in json.loads(row).items() if key != "negatives"}) for row in examples
    ]
    (tmp_path / "run" / "dataset" / EXAMPLES_FILE).write_text("\n".join(bare) + "\n")
    with pytest.raises(DataError, match="no training example has a negative"):
        train_reranker(tmp_path / "run", base, config)
    with pytest.raises(SystemExit):
        main(["rerank", "a query", "--reranker", base])
    assert "QUERY --texts FILE" in capsys.readouterr().err
