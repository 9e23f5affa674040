"""From corpora to a hypernetwork, its evaluation and an adapter: every stage on tiny models, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.cli.main import main
from acclimate.configs import RunConfig
from acclimate.configs.hypernetwork import NetworkConfig
from acclimate.errors import DataError, Interrupted, ModelError, UsageError
from acclimate.evaluation.own_check import own_check
from acclimate.models.adapter import load_adapter
from acclimate.models.hypernetwork.saving import load_network
from acclimate.models.query_map import load_query_map
from acclimate.report.hypernetwork_page import render
from acclimate.runs.resolve import load
from acclimate.stages.generate import Asked, generate
from acclimate.stages.hypernetwork_evaluate import hypernetwork_evaluate
from acclimate.stages.hypernetwork_tasks import hypernetwork_tasks
from acclimate.stages.hypernetwork_train import hypernetwork_train
from acclimate.training.held_out_tasks import HeldOutTasks
from tests.data.test_definitions import write_corpus
from tests.few_references import measure_few
from tests.models.adapted import write_model

WORDS: dict[str, Any] = {
    "asking": ("find", "grows", "in", "the"),
    "things": ("wheat", "rice", "water", "soil", "field", "seed"),
    "endings": ("rain", "sun", "leaf"),
}
CANDIDATES = ("multi-task", "generated", "closed-form map")
TINY = NetworkConfig(steps=20, shared_steps=10, shared_rank=4, own_rank=4, learning_rate=1e-2)


class World:
    """A library over two corpora, a base, and a hypernetwork for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = RunConfig(model=str(write_model(folder / "base", "bert")), device="cpu", dtype="float32")
        self.corpora = [str(write_corpus(folder, name, **WORDS)) for name in ("farm", "garden", "pond")]
        self.library = folder / "tasks"
        self.tasks = hypernetwork_tasks(self.corpora[:2], self.library, self.config, held_out=self.corpora[2:])
        self.network = folder / "hyper"
        hypernetwork_train(self.library, self.network, TINY, self.config)

    def pairs(self, rows: Sequence[tuple[str, str]], name: str = "few") -> Path:
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"query": q, "response": d}) + "\n" for q, d in rows))
        return path

    def generate(self, out: str, **asked: Any) -> dict[str, Any]:
        return generate(str(self.network), Asked(**asked), self.folder / out, self.config)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def test_the_library_and_its_hypernetwork(world: World) -> None:
    groups = world.tasks["groups"]
    assert {"train", "known-definition", "new-attribute", "new-data"} <= set(groups) and groups["train"] >= 15
    trained = load_network(world.network)
    assert trained.metrics["tasks"] == groups["train"] and trained.metrics["scripts"] == {"Latin": 1.0}
    assert trained.shared["query_vector"][0].shape == (4, 32)
    assert set(trained.known.parts) == {"description", "pairs", "texts"}
    assert all(trained.known.unit(part) > 0 for part in trained.known.parts)
    assert "core-modulation" in (world.network / "README.md").read_text()


def test_a_training_goes_on_and_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stopped in the generator's training, it does not train the multi-task adapter again."""
    from acclimate.training import hypernetwork

    out, taken = world.folder / "again", []
    loss = hypernetwork.relevance_loss

    def stopping(*arguments: Any) -> Any:
        taken.append(1)
        if len(taken) == TINY.shared_steps + 15:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(hypernetwork, "relevance_loss", stopping)
    with pytest.raises(Interrupted, match="stopped at step 14 of 20"):
        hypernetwork_train(world.library, out, TINY, world.config)
    before = len(taken)
    hypernetwork_train(world.library, out, TINY, world.config)
    assert len(taken) - before == 6
    straight, resumed = load_network(world.network).network, load_network(out).network
    assert all(
        np.array_equal(a, b) for a, b in zip(straight.state_dict().values(), resumed.state_dict().values(), strict=True)
    )
    capsys.readouterr()
    hypernetwork_train(world.library, out, TINY, world.config)
    assert "is kept: it is up to date" in capsys.readouterr().err


def test_the_evaluation_has_headroom_controls_and_a_page(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    out, prefix = world.folder / "measured", world.folder / "prefix"
    few = replace(TINY, generator="instruction-prefix", steps=5, shared_steps=2)
    hypernetwork_train(world.library, prefix, few, world.config)
    capsys.readouterr()
    report = hypernetwork_evaluate([world.network, prefix], world.library, out, world.config, references=False)
    said = capsys.readouterr().err
    assert said.index("headroom: base") < said.index("headroom: multi-task") < said.index("headroom: closed-form")
    assert "headroom: prefix: NDCG@10" in said and "headroom: prefix, shuffled" in said
    arms = report["arms"]["known attributes"]
    for arm in ("description", "8 pairs", "32 pairs", "16 texts", "description + 8 pairs", "shuffled", "mean"):
        assert 0 < arms[f"hyper, {arm}"]["ndcg"] < 1, arm
    gains = report["gains"]["known attributes"]["hyper, description + 8 pairs"]
    assert {"base", "multi-task", "prefix", "hyper, shuffled", "hyper, mean"} <= set(gains)
    assert arms["centred on 16 texts"] != arms["base"]
    assert arms["prefix"] != arms["prefix, shuffled"] and "prefix, mean" not in arms
    delta = arms["hyper, description + 8 pairs"]["ndcg"] - arms["base"]["ndcg"]
    assert gains["base"]["value"] == pytest.approx(delta, abs=1e-3)
    assert gains["base"]["low"] <= gains["base"]["value"] <= gains["base"]["high"]
    assert -1 <= report["collapse"]["hyper"]["cosine"] <= 1
    page = (out / "report.html").read_text()
    assert "less multi-task" in page and page.count("<svg") == len(report["groups"])
    rows = [json.loads(line) for line in (out / "per_task.jsonl").read_text().splitlines()]
    assert len(rows) == sum(report["groups"].values()) - report["groups"]["known attributes"]
    assert f"<dt><bdi>held-out tasks</bdi></dt><dd><bdi>{len(rows)}</bdi></dd>" in page
    again = rows[0]["scores"]["base"]
    assert set(again) == {"ndcg", "recall", "mrr"}

    better, perhaps = {"value": 0.1, "low": 0.05, "high": 0.2}, {"value": 0.1, "low": -0.05, "high": 0.2}
    for proven, claim in ((("a",), "a is better"), (("a", "c"), "a; c: each is better"), ((), "No hypernetwork is")):
        deltas = {arm: {"base": better, "mean": better if arm in proven else perhaps} for arm in ("a", "b", "c")}
        assert claim in render("measured", report | {"gains": {"known attributes": deltas}})


def test_a_stopped_evaluation_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was measured is not measured again, and the end is that of an evaluation in one go."""
    out, straight = world.folder / "stopped", world.folder / "straight"
    measure_few(monkeypatch)
    score, taken, most = HeldOutTasks.score, list[int](), 9

    def stopping(*arguments: Any) -> Any:
        if len(taken) == most:
            raise KeyboardInterrupt
        taken.append(1)
        return score(*arguments)

    monkeypatch.setattr(HeldOutTasks, "score", stopping)
    with pytest.raises(KeyboardInterrupt):
        hypernetwork_evaluate([world.network], world.library, out, world.config, references=False)
    assert not out.exists()
    most, before = 100, len(taken)
    report = hypernetwork_evaluate([world.network], world.library, out, world.config, references=False)
    assert len(taken) - before < before
    whole = hypernetwork_evaluate([world.network], world.library, straight, world.config, references=False)
    assert (report["arms"], report["gains"]) == (whole["arms"], whole["gains"])


@pytest.mark.slow
def test_references_are_oracles_mixtures_and_choices_by_pairs(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    measure_few(monkeypatch)
    out, other = world.folder / "oracles", world.folder / "rows"
    hypernetwork_train(world.library, other, replace(TINY, generator="text-to-lora", steps=5), world.config)
    report = hypernetwork_evaluate([world.network, other], world.library, out, world.config)
    arms = report["arms"]["new-attribute"]
    assert arms["own adapter"]["ndcg"] > arms["base"]["ndcg"]
    assert {"nearest of adapters", "softmax of adapters", "ridge of adapters"} <= set(arms)
    assert set(report["chart"]["means"]) == {"base", "own adapter", "hyper", "rows"}
    own = [found["own adapter"]["tasks"] for group, found in report["arms"].items() if group != "known attributes"]
    assert report["chart"]["tasks"] == sum(own) and max(own) == 2
    chosen = report["chosen"]["hyper"]
    assert set(chosen) == {*report["groups"], "pond"} and set(chosen["pond"]) == {"8", "16", "32"}
    one = chosen["known attributes"]["8"]
    assert sum(one["chosen"].values()) == one["tasks"] == report["groups"]["known attributes"]
    assert one["gain"]["value"] <= one["best_gain"]
    starts = {(row["start"], row["steps"]) for row in report["curve"]["hyper"]["known attributes"]}
    assert starts == {(start, steps) for start in ("from scratch", "from the generated one") for steps in (0, 5)}
    page = (out / "report.html").read_text()
    assert "Trained on labelled pairs instead: hyper, known attributes" in page
    assert "Text-to-LoRA is 5.2 % better than LoRA" in page and "Chosen by a user" in page
    assert page.count("<svg") == len(report["groups"]) + 1


def test_a_map_is_generated_from_a_description(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    report = world.generate("described", describe="Find the text that begins with the same word.")
    assert (report["kept"], report["check"], report["kind"]) == ("generated", None, "map")
    assert report["distance"]["description"] < 2
    assert "no pairs given, so nothing can be checked" in capsys.readouterr().err
    base = load(str(world.folder / "base"), device="cpu", dtype="float32")
    made = load(world.folder / "described", base=str(world.folder / "base"), device="cpu", dtype="float32")
    texts = ["wheat in the rain", "soil"]
    assert np.array_equal(base.encode(texts, "document"), made.encode(texts, "document"))
    assert np.abs(base.encode(texts, "query") - made.encode(texts, "query")).max() > 1e-4
    assert load_query_map(world.folder / "described").metrics["kept"] == "generated"


def test_pairs_are_left_out_one_by_one(world: World) -> None:
    """What has a query's last word right is found by no candidate but the one that learns it."""
    rows = [(f"{ask} wheat {end}", f"{end} {end} soil") for ask in WORDS["asking"] for end in WORDS["endings"]]
    texts = world.folder / "texts.txt"
    texts.write_text("".join(f"{thing} {ask}\n" for thing in WORDS["things"] for ask in WORDS["asking"]))
    sample = world.folder / "sample.txt"
    sample.write_text("rain soil\nsun soil\n")
    try:
        report = world.generate("paired", pairs=world.pairs(rows), corpus=texts, sample=sample, describe="the same end")
    except UsageError as error:
        assert "nothing is written" in str(error)
        assert not (world.folder / "paired").exists()
        return
    check = report["check"]
    assert set(check["ndcg"]) == {"base", *CANDIDATES}
    assert check["best"] == report["kept"] == max(check["ndcg"], key=check["ndcg"].get)
    assert check["pairs"] == 12 and check["distractors"] == 11 + 24
    assert set(report["distance"]) == {"description", "pairs", "texts"}


def test_bad_input_is_one_clear_line(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    def said() -> str:
        return capsys.readouterr().err

    with pytest.raises(UsageError, match="the description is empty"):
        world.generate("none", describe="  ")
    with pytest.raises(UsageError, match="nothing says what the adapter is for"):
        world.generate("none")
    with pytest.raises(UsageError, match="--corpus without --pairs"):
        world.generate("none", describe="x", corpus=world.folder / "texts.txt")
    said()
    world.generate("one", pairs=world.pairs([("wheat rain", "rain soil")], "one"))
    assert "one pair given, so nothing can be checked" in said()
    contradicting = world.folder / "contradicting.tsv"
    contradicting.write_text(
        "sentence1\tsentence2\tlabel\nwheat\train\t1\nwheat\train\t0\nrice\tsun\t1\nsoil\tleaf\t0\n"
    )
    world.generate("contradicting", pairs=contradicting)
    assert "2 rows are left out, which contradict other rows; the first is row" in said()
    contradicting.write_text("sentence1\tsentence2\tlabel\nwheat\train\t1\nwheat\train\t0\n")
    with pytest.raises(DataError, match="no pair of a query and a relevant document once contradictions are left out"):
        world.generate("contradicting", pairs=contradicting)
    world.generate("foreign", describe="查找同一主题的文本")
    assert "the condition is written in Han, the hypernetwork was trained on Latin only" in said()
    with pytest.raises(ModelError, match="no hypernetwork there"):
        generate(str(world.folder), Asked(describe="x"), world.folder / "none", world.config)
    rival = world.folder / "rival"
    hypernetwork_train(world.library, rival, replace(TINY, generator="multi-task", steps=1), world.config)
    with pytest.raises(ModelError, match=r"one adapter for all tasks \(multi-task\), which generates nothing"):
        generate(str(rival), Asked(describe="x"), world.folder / "none", world.config)
    other = write_model(world.folder / "other", "bert", seed=1)
    elsewhere = replace(world.config, model=str(other))
    with pytest.raises(ModelError, match=r"hyper was made for base base .*found other"):
        generate(str(world.network), Asked(describe="x"), world.folder / "none", elsewhere)


def test_a_condition_far_from_all_training_tasks_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("acclimate.stages.generate.FAR", 0.1)
    report = world.generate("far", describe="rice rice rice")
    distance = report["distance"]["description"]
    said = capsys.readouterr().err
    assert f"warning: the description given lies {distance:.1f} times as far from the training tasks as these" in said


def test_many_pairs_are_thinned_with_advice(capsys: pytest.CaptureFixture[str]) -> None:
    from acclimate.data.conditions import used_pairs

    pairs = [(f"query {number}", f"document {number}") for number in range(1000)]
    assert len(used_pairs(pairs, 32)) == 32
    assert "32 of 1,000 pairs are used, drawn evenly; with so many, train" in capsys.readouterr().err
    assert used_pairs(pairs[:8], 32) == pairs[:8] and not capsys.readouterr().err


@pytest.mark.slow
def test_training_goes_on_from_a_generated_adapter(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """LoRA on the last block: an ordinary adapter folder, from which `train` starts, on the layers that it has."""
    from acclimate.flows import verbs
    from tests.tiny_run import write_tiny_retrieval

    out = world.folder / "lora-hyper"
    few = replace(TINY, through="encoder", last_blocks=1, sides="query", steps=2, shared_steps=2)
    hypernetwork_train(world.library, out, few, world.config)
    measure_few(monkeypatch)
    report = hypernetwork_evaluate([out], world.library, world.folder / "of-lora", world.config)
    assert report["arms"]["known attributes"]["lora-hyper, description"]["ndcg"] > 0
    chosen = report["chosen"]["lora-hyper"]["known attributes"]["32"]
    assert chosen["tasks"] == report["groups"]["known attributes"] and chosen["best_gain"] >= chosen["gain"]["value"]
    assert report["curve"] == {} and report["chart"] is None  # of maps on query vectors only
    assert not (world.folder / ".work" / "lora-hyper").exists()  # the hidden states are large
    made = generate(
        str(out), Asked(describe="Relevant: what ends with the same word."), world.folder / "lora", world.config
    )
    adapter = load_adapter(world.folder / "lora")
    assert made["kind"] == "adapter" and adapter.rank == 8 and adapter.sides == "query"
    assert {name.split(".")[2] for name in adapter.modules} == {"1"}
    run = world.folder / "run"
    write_tiny_retrieval(run / "dataset")
    settings: dict[str, Any] = {"model": world.config.model, "device": "cpu", "dtype": "float32", "epochs": 1}
    verbs.train(run, start_adapter=str(world.folder / "lora"), rank=8, sides="query", batch_size=8, **settings)
    gone_on = load_adapter(run / "adapter")
    assert set(gone_on.modules) == set(adapter.modules) and gone_on.sha256 != adapter.sha256
    with pytest.raises(ModelError, match="cannot be trained on"):
        world.generate("map", describe="the same end")
        verbs.train(run, start_adapter=str(world.folder / "map"), **settings)


@pytest.mark.slow
def test_an_adapter_for_both_sides_is_measured_and_checked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Documents are encoded by every candidate: of few texts, by a quarter of the pairs at a time."""
    measure_few(monkeypatch)
    monkeypatch.setattr("acclimate.stages.generate.MOST_DISTRACTORS", {"both": 5})
    out = world.folder / "both-hyper"
    few = replace(TINY, through="encoder", last_blocks=1, steps=2, shared_steps=2)
    hypernetwork_train(world.library, out, few, world.config)
    report = hypernetwork_evaluate([out], world.library, world.folder / "of-both", world.config)
    assert report["arms"]["known attributes"]["both-hyper, description"]["ndcg"] > 0
    chosen = report["chosen"]["both-hyper"]["known attributes"]["8"]
    assert 0 < chosen["tasks"] <= 4 and set(chosen["chosen"]) <= {"base", *CANDIDATES}
    checks: list[Any] = []
    best = iter(("generated", "generated", "closed-form map"))

    def kept(rankers: Any, *more: Any) -> Any:
        checks.append(own_check(rankers, *more))
        return checks[-1] | {"best": next(best)}

    monkeypatch.setattr("acclimate.stages.generate.own_check", kept)
    rows = [(f"{ask} wheat {end}", f"{end} {ask} soil") for ask in WORDS["asking"] for end in WORDS["endings"]]
    texts = world.folder / "many.txt"
    texts.write_text("".join(f"{thing} {ask}\n" for thing in WORDS["things"] for ask in WORDS["asking"]))
    generate(str(out), Asked(pairs=world.pairs(rows, "both")), world.folder / "both", world.config)
    generate(str(out), Asked(pairs=world.pairs(rows, "both"), corpus=texts), world.folder / "among", world.config)
    assert [check["distractors"] for check in checks] == [11, 11 + 5]
    assert set(checks[0]["ndcg"]) == {"base", *CANDIDATES}
    assert load_adapter(world.folder / "both").sides == load_adapter(world.folder / "among").sides == "both"
    solved = generate(str(out), Asked(pairs=world.pairs(rows, "both")), world.folder / "solved", world.config)
    assert (solved["kept"], solved["kind"]) == ("closed-form map", "map")  # it leaves the documents as they are


def test_descriptions_in_chinese_are_trained_with(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    folder, config = world.folder, world.config
    bilingual = hypernetwork_tasks(world.corpora[:2], folder / "bilingual", config, languages=("en", "zh"))
    other = hypernetwork_tasks(world.corpora[:2], folder / "chinese", config, languages=("zh",))
    assert bilingual["groups"] == other["groups"] and bilingual["held_out"] == other["held_out"]
    few = replace(TINY, steps=2, shared_steps=2)
    hypernetwork_train(folder / "bilingual", folder / "reads-both", few, config)
    trained = load_network(folder / "reads-both")
    assert trained.metrics["languages"] == ["en", "zh"] and list(trained.metrics["scripts"]) == ["Latin", "Han"]
    assert "| descriptions | en, zh |" in (folder / "reads-both" / "README.md").read_text()
    capsys.readouterr()
    generate(str(folder / "reads-both"), Asked(describe="以同样的词结尾"), folder / "asked", config)
    assert "the condition is written in" not in capsys.readouterr().out
    for languages, said in (((), "no language for the descriptions"), (("en", "fr"), "--languages fr is not known")):
        with pytest.raises(UsageError, match=said) as refused:
            hypernetwork_tasks(world.corpora, folder / "none", config, languages=languages)
        assert "en, zh" in str(refused.value)


def test_the_commands(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    folder, base = world.folder, ("--model", str(world.folder / "base"), "--device", "cpu", "--dtype", "float32")
    main(
        [
            "hypernetwork",
            "tasks",
            *world.corpora,
            "--out",
            str(folder / "by-command"),
            "--domains",
            "0",
            "--languages",
            "zh",
        ]
    )
    assert "tasks of" in capsys.readouterr().out
    small = ("--steps", "2", "--shared-steps", "2", "--shared-rank", "2", "--own-rank", "2")
    main(["hypernetwork", "train", str(folder / "by-command"), "--out", str(folder / "h"), *small, *base])
    assert "core-modulation through query-vector" in capsys.readouterr().out
    main(["generate", "--hypernetwork", str(folder / "h"), "--describe", "same end", "--out", str(folder / "a"), *base])
    assert "times as far from the training tasks" in capsys.readouterr().out
