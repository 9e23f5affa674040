"""Two experts trained on two vocabularies: what their training leaves, how they are routed, searched and measured."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import PeftModel
from transformers import AutoModel

from acclimate.cli.main import main
from acclimate.configs import EvaluateConfig, RouteConfig, RunConfig, TrainConfig, dump_config
from acclimate.core.fusion import reciprocal_rank_fusion
from acclimate.data.dataset import Dataset, write_dataset
from acclimate.errors import UsageError
from acclimate.evaluation.pooled_sets import NamedData, pool_sets
from acclimate.formats.query_domain import QUERY_DOMAIN_FILE, read_query_domain
from acclimate.models.adapter import load_adapter
from acclimate.models.encoder import Encoder
from acclimate.retrieval.centroids import query_space
from acclimate.retrieval.experts import Experts, load_experts, names_of
from acclimate.runs.run_folder import RunFolder
from acclimate.stages.index import index
from acclimate.stages.route import route
from acclimate.stages.search import search_index
from acclimate.stages.train import train
from acclimate.types import Example, Qrels, Sides, Split
from tests.models.tiny import as_sentence_transformer
from tests.tiny_run import WORDS, write_tiny_bert

HALVES = {"low": WORDS[:30], "high": WORDS[30:]}
SETTINGS = TrainConfig(batch_size=8, epochs=2, rank=4, learning_rate=0.02, dev_documents=20, sides="query")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    model = as_sentence_transformer(write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert"))
    evaluate = EvaluateConfig(sign_flips=100)
    return RunConfig(model=str(model), device="cpu", dtype="float32", train=SETTINGS, evaluate=evaluate)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, config: RunConfig) -> dict[str, Path]:
    """Three runs: two for queries alone, one for both sides on the first one's data."""
    folder = tmp_path_factory.mktemp("runs")
    sides: dict[str, Sides] = {"low": "query", "high": "query", "both": "both"}
    for name, one in sides.items():
        write_half(folder / name, HALVES[name if name in HALVES else "low"])
        of_run = replace(config, train=replace(SETTINGS, sides=one))
        (folder / name / "config.toml").write_text(dump_config(of_run))
        train(folder / name / "dataset", None, folder / name / "adapter", of_run)
        index(folder / name, [], None, of_run)
    return {name: folder / name for name in sides}


def write_half(run: Path, words: list[str], count: int = 60) -> Dataset:
    """A query shares a word with its document; all words are of one half of the vocabulary."""
    draw = random.Random(words[0])
    corpus = {f"d{n}": " ".join([words[n % 30], *draw.choices(words, k=4)]) for n in range(count)}
    queries = {f"q{n}": " ".join([words[n % 30], *draw.choices(words, k=2)]) for n in range(count)}
    splits: dict[Split, range] = {"train": range(40), "dev": range(40, 50), "test": range(50, count)}
    qrels: dict[Split, Qrels] = {split: {f"q{n}": {f"d{n}": 1} for n in numbers} for split, numbers in splits.items()}
    examples = [Example(queries[f"q{n}"], corpus[f"d{n}"]) for n in splits["train"]]
    dataset = Dataset("retrieval", corpus, queries, qrels, examples)
    (run / "dataset").mkdir(parents=True)
    write_dataset(run / "dataset", dataset, [])
    return dataset


def test_training_leaves_centroids_that_other_tools_pass_over(runs: dict[str, Path], config: RunConfig) -> None:
    base = Encoder.load(str(config.model), device="cpu", dtype="float32")
    domain = load_adapter(runs["low"] / "adapter").domain
    assert domain is not None and domain.query_space == query_space(base)
    assert (len(domain.centroids), domain.queries, domain.measured_on) == (8, 40, 10)
    texts = [row["text"] for row in map(json.loads, (runs["low"] / "dataset" / "queries.jsonl").open())]
    distances = domain.distances(base.encode(texts[40:50], "query"))
    assert domain.radius == pytest.approx(float(np.quantile(distances, 0.95)), abs=1e-5)
    PeftModel.from_pretrained(AutoModel.from_pretrained(config.model), runs["low"] / "adapter")


def test_a_route_over_the_pool(runs: dict[str, Path], config: RunConfig, tmp_path: Path) -> None:
    """Half of the vocabulary is foreign to each expert, so the routers cannot err much; and the oracles bound them."""
    outside = tmp_path / "outside"
    data = write_half(outside, WORDS[15:45])
    settings = RouteConfig(outside=(str(outside / "dataset"),), multi_domain=str(runs["low"]), spanning=8)
    report = route([runs["low"], runs["high"]], replace(config, route=settings))
    rows = {row["set"]: row for row in report["sets"]}
    assert set(rows) == {"low", "high", "outside (outside)", "spanning two", "all own sets"}
    assert report["documents"] == 120 + len(set(data.corpus.values()))
    assert [rows[name]["queries"] for name in ("low", "high", "all own sets", "spanning two")] == [10, 10, 20, 8]
    for name in ("low", "high"):
        assert rows[name]["accuracy"]["auto by tokens"] >= 0.7
    for row in report["sets"]:
        scores = row["scores"]
        alone = [scores[name] for name in ("base", "low", "high")]
        assert scores["oracle of each query"] >= scores["oracle of the set"] - 1e-9
        assert scores["oracle of each query"] >= scores["auto"] - 1e-9
        assert scores["random expert"] == pytest.approx((scores["low"] + scores["high"]) / 2)
        assert scores["multi-domain low"] == scores["low"]
        assert set(row["from_auto"]) == set(scores) - {"base", "auto"}
        if row["set"] != "all own sets":
            assert scores["oracle of the set"] == pytest.approx(max(alone))
        delta = row["from_base"]["mix"]
        assert delta["low"] <= delta["value"] <= delta["high"]
    assert report["mix_on_spanning"] in ("better", "no evidence", "worse")


def test_an_adapter_of_both_sides_has_its_own_documents_and_is_only_fused(
    runs: dict[str, Path], config: RunConfig
) -> None:
    report = route([runs["high"], runs["both"]], replace(config, route=RouteConfig(spanning=0)))
    for row in report["sets"]:
        assert row["scores"]["uniform mix"] == pytest.approx(row["scores"]["high"])  # the only one that can be mixed
    own = next(row for row in report["sets"] if row["set"] == "both")
    assert own["accuracy"]["auto"] == 0.0
    assert report["mix_on_spanning"] is None


def test_what_cannot_be_routed_is_refused_by_name(runs: dict[str, Path], config: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two runs or more"):
        route([runs["low"]], config)
    with pytest.raises(UsageError, match="both called low"):
        names_of([runs["low"], tmp_path / "low"])
    experts = load_experts(dict(runs), config.model, device="cpu", dtype="float32")
    with pytest.raises(UsageError, match="both cannot be mixed"):
        experts.check_mixable(["low", "both"])
    for name in ("auto", "base"):
        with pytest.raises(UsageError, match=f"called '{name}'"):
            load_experts({name: runs["low"]}, config.model)
    bare = tmp_path / "bare"
    shutil.copytree(runs["low"] / "adapter", bare / "adapter")
    (bare / "adapter" / QUERY_DOMAIN_FILE).unlink()
    with pytest.raises(UsageError, match="no centroids"):
        load_experts({"bare": bare}, config.model)
    assert load_experts({"bare": bare}, config.model, unrouted=["bare"], device="cpu").router.domains == {}
    domain = read_query_domain(runs["low"] / "adapter")
    assert domain is not None
    other = replace(load_adapter(runs["low"] / "adapter"), domain=replace(domain, query_space="another"))
    with pytest.raises(UsageError, match="another prompt or pooling"):
        Experts(experts.base, {"other": other})


def found(runs: dict[str, Path], config: RunConfig, first: str, *others: str, **asked: Any) -> dict[str, Any]:
    names = tuple(str(runs[name]) for name in others)
    own = replace(config, route=RouteConfig(experts=names))
    return search_index(runs[first], asked.pop("query", "w1 w2 w3"), 5, own, **{"mode": "dense", **asked})


def test_search_over_several_runs(runs: dict[str, Path], config: RunConfig) -> None:
    """auto and mix give what the vector of the route gives; fuse gives the fusion of each one's own search."""
    experts = load_experts({name: runs[name] for name in ("low", "high")}, config.model, device="cpu", dtype="float32")
    documents = experts.base.encode(list(corpus_of(runs["low"]).values()), "document")
    for mode in ("auto", "mix"):
        answer = found(runs, config, "low", "high", adapter=mode)
        chosen = experts.routes(["w1 w2 w3"], mode)[0]
        assert answer["route"] == chosen.to_json()
        scores = np.sort(documents @ experts.encode(["w1 w2 w3"], [chosen.weights])[0])[::-1]
        np.testing.assert_allclose([hit["score"] for hit in answer["hits"]], scores[:5], atol=2e-3)
    fused = found(runs, config, "low", "high", adapter="fuse")
    shares = experts.routes(["w1 w2 w3"], "fuse")[0].shares
    lists = []
    for name in shares:
        vector = experts.encode(["w1 w2 w3"], [{} if name == "base" else {name: 1.0}])[0]
        order = np.argsort(-(documents @ vector), kind="stable")[:5]
        lists.append([list(corpus_of(runs["low"]))[row] for row in order])
    assert {hit["id"] for hit in fused["hits"]} <= set(reciprocal_rank_fusion(lists, list(shares.values())))


def test_search_with_an_adapter_of_both_sides(runs: dict[str, Path], config: RunConfig) -> None:
    with pytest.raises(UsageError, match="both cannot be mixed"):
        found(runs, config, "both", "high", adapter="auto")
    with pytest.raises(UsageError, match="lexical search encodes nothing"):
        found(runs, config, "low", "high", mode="lexical")
    near = json.loads((runs["low"] / "dataset" / "queries.jsonl").read_text().splitlines()[0])["text"]
    fused = found(runs, config, "both", "low", "high", query=near, adapter="fuse")
    assert set(fused["route"]["weights"]) >= {"both", "low"} and len(fused["hits"]) == 5


def corpus_of(run: Path) -> dict[str, str]:
    rows = map(json.loads, (RunFolder(run).dataset / "corpus.jsonl").open())
    return {row["_id"]: row["text"] for row in rows}


def test_a_pool_has_each_text_once_and_spanning_queries_ask_for_both(tmp_path: Path) -> None:
    low, high = (write_half(tmp_path / name, words) for name, words in HALVES.items())
    high.corpus["copy"] = low.corpus["d50"]
    high.qrels["test"]["q50"]["copy"] = 2
    sets = [NamedData("low", low, "low"), NamedData("high", high, "high")]
    pool = pool_sets(sets, limit=4, spanning=3, seed=0)
    assert len(pool.corpus) == len(set(low.corpus.values()) | set(high.corpus.values()))
    assert [(one.name, one.kind, len(one.queries)) for one in pool.sets] == [
        ("low", "own", 4),
        ("high", "own", 4),
        ("spanning two", "spanning", 3),
    ]
    judged = pool.sets[1].qrels["high/q50"]
    assert judged["low/d50"] == 2 and judged["high/d50"] == 1
    for key, text in pool.sets[2].queries.items():
        one, other = key.split("+")
        assert sorted(text.split()) == sorted((pool.sets[0].queries[one] + " " + pool.sets[1].queries[other]).split())
        assert pool.sets[2].qrels[key] == {**pool.sets[0].qrels[one], **pool.sets[1].qrels[other]}
    assert pool_sets(sets, limit=4, spanning=3, seed=0) == pool
    pairs = Dataset("pairs", pairs={"test": []})
    with pytest.raises(UsageError, match="labelled pairs"):
        pool_sets([NamedData("pairs", pairs, None)], limit=None, spanning=0, seed=0)


def test_the_commands(runs: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    machine = ("--device", "cpu", "--dtype", "float32")
    main(["route", str(runs["low"]), str(runs["high"]), "--spanning", "4", "--sign-flips", "100", *machine])
    shown = capsys.readouterr().out
    assert "low: 10 queries; the expert low should answer" in shown
    assert "oracle of each query" in shown and "spanning two: 4 queries" in shown
    search = ("search", str(runs["low"]), "w1 w2", "--experts", str(runs["high"]), *machine)
    main([*search, "--adapter", "mix", "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert answer["route"]["mode"] == "mix" and set(answer["route"]["distances"]) == {"low", "high"}
    main([*search])
    assert "is nearest" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        main(["search", str(runs["low"]), "w1", "--adapter", "mix"])
    assert "no experts are named" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*search, "--query-prompt", "find: "])
    assert "does not read" in capsys.readouterr().err
