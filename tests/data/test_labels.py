"""A column `label` or `score` beside queries and answers: its values say what it is, and the user has the last word."""

from __future__ import annotations

import tomllib

import pytest

from acclimate.configs import PrepareConfig, RunConfig, config_from_mapping, dump_config, for_dataset
from acclimate.errors import DataError
from tests.data.conftest import Build


def rows(header: str, labels: list[object], queries: int = 1000) -> str:
    lines = [f"question {n % queries},answer {n},{label}" for n, label in enumerate(labels)]
    return "\n".join([header, *lines]) + "\n"


def test_upvotes_are_no_labels(build: Build) -> None:
    text = rows("question,answer,score", [n * 7 - 3 for n in range(12)])
    dataset, rejected = build("x.csv", text)
    assert dataset.kind == "retrieval" and len(dataset.examples) == 12 and rejected == []
    (note,) = [warning for warning in dataset.info["warnings"] if "'score'" in warning]
    assert "-3 to 74, look like counts" in note and "--label-column score" in note
    dataset, _ = build("x.csv", text, label_column="score")
    assert dataset.kind == "pairs"


def test_topics_are_no_labels(build: Build) -> None:
    text = rows("query,response,label", ["billing", "billing", "login", "other"])
    dataset, rejected = build("x.csv", text)
    assert dataset.kind == "retrieval" and len(dataset.examples) == 4 and rejected == []
    assert any("most of its values are no numbers" in warning for warning in dataset.info["warnings"])
    with pytest.raises(DataError, match="not a number"):
        build("x.csv", text, label_column="label")


def test_degrees_are_labels_and_it_is_said(build: Build) -> None:
    text = rows("query,response,label", [0.1, 0.9, "", 0.5, 0.4])
    dataset, rejected = build("x.csv", text)
    assert dataset.kind == "pairs" and [row.reason for row in rejected] == ["no number (label)"]
    assert any(
        "makes these labelled pairs" in note and "--label-column none" in note for note in dataset.info["warnings"]
    )
    dataset, rejected = build("x.csv", text, label_column="none")
    assert dataset.kind == "retrieval" and len(dataset.examples) == 5 and rejected == []


@pytest.mark.parametrize("values", [("1", "0"), ("True", "False"), ("1.0", "0.0")])
def test_zero_and_one_of_repeated_queries_is_relevance(build: Build, values: tuple[str, str]) -> None:
    labels = [values[0], values[1], values[1], values[0], values[1], values[1]]
    lines = [f"question {n // 2},answer {n},{label}" for n, label in enumerate(labels)]
    text = "\n".join(["query,response,label", *lines]) + "\n"
    dataset, rejected = build("x.csv", text)
    assert dataset.kind == "retrieval" and [len(example.negatives) for example in dataset.examples] == [1, 1]
    assert [row.reason for row in rejected] == ["no relevant answer to its query (label 0 only)"] * 2
    assert any("read as relevance" in warning for warning in dataset.info["warnings"])
    dataset, _ = build("x.csv", text, label_column="label")
    assert dataset.kind == "pairs" and len(dataset.pairs["train"]) == 6


def test_zero_and_one_of_single_queries_are_labels(build: Build) -> None:
    dataset, _ = build("x.csv", rows("query,response,label", [0, 1, 1, 0]))
    assert dataset.kind == "pairs"


def test_none_is_not_the_default_in_config_toml() -> None:
    config = RunConfig(prepare=PrepareConfig(label_column="none"))
    again = config_from_mapping(tomllib.loads(dump_config(config)), "config.toml")
    assert again.prepare.label_column == "none" != RunConfig().prepare.label_column


def test_one_of_several_datasets_can_have_no_labels() -> None:
    config = config_from_mapping(
        {"datasets": [{"source": "a", "label_column": "none"}, {"source": "b"}], "prepare": {"label_column": "stars"}},
        "",
    )
    again = config_from_mapping(tomllib.loads(dump_config(config)), "config.toml")
    assert again == config
    assert [for_dataset(again, one).prepare.label_column for one in again.datasets] == ["none", "stars"]


def test_sentences_without_labels_by_request(build: Build) -> None:
    text = "sentence1,sentence2,label\na cat,a dog,1\nthe sun,the star,3\n"
    assert build("x.csv", text)[0].kind == "pairs"
    assert build("x.csv", text, label_column="none")[0].kind == "retrieval"
