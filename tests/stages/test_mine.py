"""The mine stage: what it writes, when it runs again, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acclimate.configs import MineConfig, RunConfig
from acclimate.data.dataset import Dataset, write_dataset
from acclimate.errors import UsageError
from acclimate.files import hash_folder, read_json
from acclimate.models.reranker import Reranker
from acclimate.stages.mine import mine
from acclimate.types import Example, LabelledPair, Qrels, Split
from tests.models.tiny import as_sentence_transformer, tiny_bert, tiny_reranker

CORPUS = {
    "d0": "ls lists files", "d1": "rm removes files", "d2": "cp copies files", "d3": "mv renames files",
    "d4": "cat prints a file", "d5": "grep finds lines", "d6": "sed edits lines", "d7": "sort orders lines",
}  # fmt: skip
QUERIES = {"q0": "show the files", "q1": "delete a file", "q2": "search in a file", "q3": "order a list"}
QRELS: dict[Split, Qrels] = {
    "train": {"q0": {"d0": 1, "d4": 1}, "q1": {"d1": 1}},
    "dev": {"q2": {"d5": 1}},
    "test": {"q3": {"d7": 1}},
}


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two training queries, one of them with two positives, the other with negatives that the data brought."""
    examples = [
        Example(QUERIES["q0"], CORPUS["d0"]),
        Example(QUERIES["q0"], CORPUS["d4"]),
        # d1 is its positive and d7 is judged for test: neither may stay a negative.
        Example(QUERIES["q1"], CORPUS["d1"], (CORPUS["d6"], CORPUS["d1"], CORPUS["d7"])),
    ]
    folder = tmp_path / "run" / "dataset"
    folder.mkdir(parents=True)
    write_dataset(folder, Dataset("retrieval", CORPUS, QUERIES, QRELS, examples), [])
    return folder


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    model = str(as_sentence_transformer(tiny_bert(tmp_path / "model")))
    return RunConfig(model=model, device="cpu", dtype="float32", mine=MineConfig(num_negatives=2, spread_margin=None))


def test_files_and_counts(dataset: Path, config: RunConfig) -> None:
    out = dataset.parent / "negatives"
    report = mine(dataset, out, config)
    examples = rows(out / "examples.jsonl")
    assert [(row["anchor"], row["positive"]) for row in examples] == [
        (QUERIES["q0"], CORPUS["d0"]), (QUERIES["q0"], CORPUS["d4"]), (QUERIES["q1"], CORPUS["d1"]),
    ]  # fmt: skip
    # Both rows of q0 have the same two negatives, not a positive of q0; documents of dev and test may be mined.
    assert examples[0]["negatives"] == examples[1]["negatives"]
    assert len(set(examples[0]["negatives"])) == 2
    assert set(examples[0]["negatives"]) <= {CORPUS[key] for key in ("d1", "d2", "d3", "d5", "d6", "d7")}
    assert len(examples[0]["scores"]) == 3
    # What the data brought is in front; its own positive and the test document are gone.
    assert examples[2]["negatives"][0] == CORPUS["d6"]
    assert len(examples[2]["negatives"]) == 3
    assert set(examples[2]["negatives"][1:]) <= {CORPUS[key] for key in ("d0", "d2", "d3", "d4", "d5", "d7")}
    assert report["given_negatives_dropped"] == 2
    assert (report["queries"], report["positives"], report["negatives"]) == (2, 3, 4)
    assert report["timings"]["mine_s"] > 0
    assert read_json(out / "report.json") == report

    responses = rows(out / "rejected_response.jsonl")
    assert [row["response"] for row in responses] == [row["positive"] for row in examples]
    assert [row["rejected_response"] for row in responses] == [row["negatives"] for row in examples]
    assert rows(out / "query_pos_neg.jsonl") == [
        {"query": QUERIES["q0"], "pos": [CORPUS["d0"], CORPUS["d4"]], "neg": examples[0]["negatives"]},
        {"query": QUERIES["q1"], "pos": [CORPUS["d1"]], "neg": examples[2]["negatives"]},
    ]
    audit = read_json(out / "audit.json")
    assert audit["queries_with_too_few"] == 0
    assert len(audit["likeliest_false_negatives"]) == 4


def test_it_runs_again_only_when_something_changed(dataset: Path, config: RunConfig) -> None:
    out = dataset.parent / "negatives"
    first = mine(dataset, out, config)
    before = hash_folder(out)
    assert mine(dataset, out, config) == first  # the same timing: nothing was computed
    changed = replace(config, mine=replace(config.mine, num_negatives=1))
    assert mine(dataset, out, changed)["negatives"] == 2
    assert mine(dataset, out, config)["timings"] != first["timings"]
    assert hash_folder(out) == before


def test_another_encoder_can_be_the_teacher(dataset: Path, config: RunConfig, tmp_path: Path) -> None:
    teacher = str(as_sentence_transformer(tiny_bert(tmp_path / "teacher", seed=1)))
    out = dataset.parent / "negatives"
    mine(dataset, out, replace(config, mine=replace(config.mine, teacher=teacher)))
    taught = (rows(out / "examples.jsonl"), read_json(out / "inputs.json")["model"])
    mine(dataset, out, replace(config, model=teacher))
    assert (rows(out / "examples.jsonl"), read_json(out / "inputs.json")["model"]) == taught


def test_the_run_s_pooling_is_not_the_teacher_s(dataset: Path, config: RunConfig, tmp_path: Path) -> None:
    plain = str(tiny_bert(tmp_path / "plain"))  # its files name no pooling: the run's --pooling does
    report = mine(dataset, dataset.parent / "negatives", replace(config, model=plain, pooling="mean"))
    taught = mine(
        dataset,
        dataset.parent / "taught",
        replace(config, model=plain, mine=replace(config.mine, teacher=config.model), pooling="cls"),
    )
    assert report["mean_positive_score"] == pytest.approx(taught["mean_positive_score"], abs=1e-6)


def test_a_reranker_decides_the_order_and_the_scores(dataset: Path, config: RunConfig, tmp_path: Path) -> None:
    name = str(tiny_reranker(tmp_path / "reranker"))
    reranker = Reranker.load(name, device="cpu", dtype="float32")
    settings = replace(config.mine, reranker=name, include_positives=True)
    out = dataset.parent / "negatives"
    mine(dataset, out, replace(config, mine=settings))
    assert set(read_json(out / "inputs.json")) == {"dataset", "model", "reranker"}
    for row in rows(out / "ranked.jsonl"):
        texts = [document["text"] for document in row["documents"]]
        scores = reranker.score(row["query"], texts)
        assert [document["score"] for document in row["documents"]] == pytest.approx(scores.tolist(), abs=1e-5)
        assert scores.tolist() == sorted(scores.tolist(), reverse=True)
        best = [document["text"] for document in row["documents"] if not document["positive"]][:2]
        mined = next(one["neg"] for one in rows(out / "query_pos_neg.jsonl") if one["query"] == row["query"])
        assert [text for text in mined if text in best] == best


def test_triplets(dataset: Path, config: RunConfig) -> None:
    out = dataset.parent / "negatives"
    mine(dataset, out, replace(config, mine=replace(config.mine, output="triplet")))
    triplets = rows(out / "examples.jsonl")
    assert len(triplets) == 2 * 2 + 3
    assert all(len(row["negatives"]) == 1 for row in triplets)
    assert all(len(row["scores"]) == 2 for row in triplets[:4])


def test_labelled(dataset: Path, config: RunConfig) -> None:
    out = dataset.parent / "negatives"
    mine(dataset, out, replace(config, mine=replace(config.mine, output="labelled")))
    labelled = rows(out / "examples.jsonl")
    positives = {(row["anchor"], row["positive"]) for row in labelled if row["label"] == 1}
    assert positives == {(QUERIES[q], CORPUS[d]) for q, grades in QRELS["train"].items() for d in grades}
    assert [row["label"] for row in labelled] == [1, 1, 0, 0, 1, 0, 0, 0]


def test_ranked_lists_hold_the_positives_in_place(dataset: Path, config: RunConfig) -> None:
    out = dataset.parent / "negatives"
    mine(dataset, out, replace(config, mine=replace(config.mine, include_positives=True)))
    ranked = rows(out / "ranked.jsonl")
    assert [row["query"] for row in ranked] == [QUERIES["q0"], QUERIES["q1"]]
    for row, known in zip(ranked, ({CORPUS["d0"], CORPUS["d4"]}, {CORPUS["d1"]}), strict=True):
        scores = [document["score"] for document in row["documents"]]
        assert scores == sorted(scores, reverse=True)
        assert {document["text"] for document in row["documents"] if document["positive"]} == known


def test_labelled_pairs_are_refused_and_nothing_is_written(tmp_path: Path, config: RunConfig) -> None:
    pairs = [LabelledPair("a cat", "a dog", 3.0, 0.5), LabelledPair("a sea", "a lake", 4.0, 0.75)]
    folder = tmp_path / "run" / "dataset"
    folder.mkdir(parents=True)
    examples = [Example(pair.sentence1, pair.sentence2, label=pair.score) for pair in pairs]
    splits: dict[Split, list[LabelledPair]] = {"train": pairs, "dev": [], "test": pairs}
    write_dataset(folder, Dataset("pairs", examples=examples, pairs=splits, info={"label_range": [1, 5]}), [])
    with pytest.raises(UsageError, match="labelled pairs"):
        mine(folder, tmp_path / "run" / "negatives", config)
    assert not (tmp_path / "run" / "negatives").exists()


def test_what_each_filter_removes_is_said_and_too_much_is_a_warning(
    dataset: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    out = dataset.parent / "negatives"
    report = mine(dataset, out, replace(config, mine=MineConfig(num_negatives=2, spread_margin=-100.0)))
    said = capsys.readouterr().err
    unit = f"above the positive - -100 of the scores' spread, {report['score_spread']:.4g}"
    assert f"spread_margin removed 0 of {report['candidates']} candidates: those {unit}" in said
    assert "warning" not in said

    strict = MineConfig(num_negatives=2, spread_margin=100.0, hard_negative_share=0.0)
    report = mine(dataset, out, replace(config, mine=strict))
    said = capsys.readouterr().err
    assert report["removed"] == {"spread_margin": report["candidates"]} and report["queries_without_negatives"] == 2
    assert "2 of 2 queries have fewer than 2 negatives, 2 of them none" in said
    assert "warning: spread_margin removed 100% of the candidates (--spread-margin): lower it" in said
    assert "warning: 100% of the queries are left without hard negatives" in said
    assert report["warnings"] == read_json(out / "audit.json")["warnings"] and len(report["warnings"]) == 2


def test_who_gets_negatives_past_a_filter_is_said(
    dataset: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    filling = MineConfig(num_negatives=2, spread_margin=100.0, hard_negative_share=0.9)
    report = mine(dataset, dataset.parent / "negatives", replace(config, mine=filling))
    assert report["filled"]["spread_margin"] >= 1
    assert "had none, and got their lowest-scoring candidates, past spread_margin" in capsys.readouterr().err


def test_another_margin_than_that_of_the_spread_is_said_too(
    dataset: Path, config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    strict = MineConfig(num_negatives=2, relative_margin=0.99, hard_negative_share=0.0)
    report = mine(dataset, dataset.parent / "negatives", replace(config, mine=strict))
    removed = report["removed"]["relative_margin"]
    assert removed and report["spread_margin"] is None
    assert f"relative_margin removed {removed} of {report['candidates']} candidates\n" in capsys.readouterr().err
