"""Every input form, and that names decide: expected examples are written out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from acclimate.configs import PrepareConfig
from acclimate.data.readers import is_hub_id, read_hub_splits, read_source
from acclimate.errors import DataError
from acclimate.types import Example, LabelledPair
from tests.data.conftest import Build, build_source, jsonl

FIRST = {"sentence1": "a cat", "sentence2": "a dog", "label": 1}
SECOND = {"score": 5, "sentence2": "the star", "sentence1": "the sun"}
RESPONSES = [
    {"query": "a cat", "response": "a dog", "label": 1},
    {"query": "the sun", "response": "the star", "label": 5},
]
SCORED = [LabelledPair("a cat", "a dog", 1.0, 0.0), LabelledPair("the sun", "the star", 5.0, 1.0)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.tsv", "sentence1\tsentence2\tlabel\na cat\ta dog\t1\nthe sun\tthe star\t5\n"),
        ("x.tsv", "label\tsentence2\tsentence1\r\n1\ta dog\ta cat\r\n5\tthe star\tthe sun\r\n"),
        ("x.csv", 'Sentence1,Sentence2,Score\na cat,a dog,1\n"the sun","the star",5.0\n'),
        ("x.csv", "sentence1;sentence2;score\na cat;a dog;1\nthe sun;the star;5\n"),
        ("x.txt", "sentence1\tsentence2\tlabel\na cat\ta dog\t1\nthe sun\tthe star\t5\n"),
        ("x.jsonl", jsonl(FIRST, SECOND)),
        ("x.json", jsonl(FIRST, SECOND)),
        ("x.json", json.dumps(RESPONSES)),
    ],
)
def test_labelled_pairs(build: Build, name: str, content: str) -> None:
    dataset, rejected = build(name, content)
    assert dataset.kind == "pairs" and rejected == []
    assert dataset.pairs == {"train": SCORED}
    assert dataset.info["label_range"] == [1.0, 5.0]
    assert dataset.examples == [Example("a cat", "a dog", label=0.0), Example("the sun", "the star", label=1.0)]


def test_labelled_pairs_of_ms_swift(build: Build) -> None:
    rows = [
        {
            "messages": [{"role": "user", "content": first}],
            "positive_messages": [[{"role": "user", "content": second}]],
            "label": label,
        }
        for first, second, label in [("a cat", "a dog", 0.25), ("the sun", "the star", 1)]
    ]
    dataset, _ = build("x.jsonl", jsonl(*rows))
    assert dataset.kind == "pairs"
    assert [pair.score for pair in dataset.pairs["train"]] == [0.25, 1.0]


def test_columns_name_a_file_without_header(build: Build) -> None:
    text = "1\ta cat\ta dog\n5\tthe sun\tthe star\n"
    dataset, _ = build("x.tsv", text, columns=("label", "sentence1", "sentence2"))
    assert dataset.pairs["train"] == SCORED
    with pytest.raises(DataError, match=r"row 1 has 3 columns, --columns names 2"):
        build("x.tsv", text, columns=("sentence1", "sentence2"))


def test_parquet(tmp_path: Path) -> None:
    table = pyarrow.table({"question": ["who is it", "what is it"], "answer": ["it is me", None]})
    pyarrow.parquet.write_table(table, tmp_path / "x.parquet")
    dataset, rejected = build_source(tmp_path / "x.parquet")
    assert dataset.examples == [Example("who is it", "it is me")]
    assert [(row.row, row.reason) for row in rejected] == [(2, "empty (answer)")]


@pytest.mark.parametrize("anchor", ["prompt", "query", "question", "anchor"])
@pytest.mark.parametrize("positive", ["response", "answer", "positive"])
def test_questions_and_answers(build: Build, anchor: str, positive: str) -> None:
    dataset, _ = build("x.csv", f"{positive},{anchor},id\nit is me,who is it,7\n")
    assert dataset.examples == [Example("who is it", "it is me")]
    assert dataset.corpus == {"d0": "it is me"} and dataset.queries == {"q0": "who is it"}
    assert "columns not used: id" in dataset.info["warnings"]


NEGATIVES = Example("who is it", "it is me", ("it is you", "it is he"))


@pytest.mark.parametrize(
    "row",
    [
        {"query": "who is it", "response": "it is me", "rejected_response": ["it is you", "it is he"]},
        {"query": "who is it", "pos": ["it is me"], "neg": ["it is you", "it is he"], "type": "normal"},
        {"anchor": "who is it", "negative_2": "it is he", "positive": "it is me", "negative_1": "it is you"},
        {"anchor": "who is it", "positive": "it is me", "negative": ["it is you", "", "it is you", "it is he"]},
        {
            "messages": [{"role": "user", "content": "who is it"}],
            "positive_messages": [[{"role": "user", "content": "it is me"}]],
            "negative_messages": [[{"role": "user", "content": text}] for text in ("it is you", "it is he")],
        },
    ],
)
def test_negatives(build: Build, row: dict[str, object]) -> None:
    dataset, rejected = build("x.jsonl", jsonl(row))
    assert dataset.kind == "retrieval" and rejected == []
    assert dataset.examples == [NEGATIVES]
    assert list(dataset.corpus.values()) == ["it is me", "it is you", "it is he"]
    assert dataset.qrels == {"train": {"q0": {"d0": 1}}}


def test_scores_and_prompts_of_query_pos_neg(build: Build) -> None:
    row = {"query": "who", "pos": ["me", "us"], "neg": ["he", "me"], "pos_scores": [0.9, 0.8], "neg_scores": [0.2, 0.1]}
    dataset, _ = build("x.jsonl", jsonl(row | {"prompt": "Find it: ", "task": "qa"}))
    # "me" is a positive of the same query, so it is no negative, and its score goes with it
    assert dataset.examples == [
        Example("who", "me", ("he",), scores=(0.9, 0.2)),
        Example("who", "us", ("he",), scores=(0.8, 0.2)),
    ]
    assert any("'Find it: '" in warning and "--query-prompt" in warning for warning in dataset.info["warnings"])
    with pytest.raises(DataError, match=r"row 1: wrong number of scores \(pos_scores: 1 for 2 pos\)"):
        build("x.jsonl", jsonl(row | {"pos_scores": [0.9]}))


def test_system_messages_are_prompts_not_text(build: Build) -> None:
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "who is it"}]
    dataset, _ = build("x.jsonl", jsonl({"messages": talk, "positive_messages": [[{"role": "user", "content": "me"}]]}))
    assert dataset.examples == [Example("who is it", "me")]
    assert any("'Be brief.'" in warning for warning in dataset.info["warnings"])


def test_triplets_of_one_pair_become_one_example(build: Build) -> None:
    lines = "negative,anchor,positive\nhe is,who,me\nshe is,who,me\nhe is,who,me\n"
    dataset, rejected = build("x.csv", lines)
    assert dataset.examples == [Example("who", "me", ("he is", "she is"))]
    assert [(row.row, row.reason) for row in rejected] == [(4, "duplicate (of x.csv row 2)")]


def test_named_columns(build: Build) -> None:
    text = "q,sentence1,d\nwho is it,unused,it is me\n"
    with pytest.raises(DataError, match=r"'q', 'sentence1', 'd'.*--anchor-column"):
        build("x.csv", text)
    dataset, _ = build("x.csv", text, anchor_column="q", positive_column="d")
    assert dataset.examples == [Example("who is it", "it is me")]
    with pytest.raises(DataError, match=r"no column 'doc', which --positive-column names; columns found: 'q'"):
        build("x.csv", text, anchor_column="q", positive_column="doc")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("query,question,answer", r"more than one column .*query, question, answer.*--anchor-column"),
        ("anchor,positive,sentence1,sentence2", "more than one column"),
        ("sentence1,sentence2,label,score", "both label and score.*--label-column"),
        ("sentence1,sentence2", "without a label or score.*--anchor-column sentence1"),
        ("text,value", r"no known pair of columns; columns found: 'text', 'value'.*--columns"),
        ("query,answer,answer", "column 'answer' comes twice"),
    ],
)
def test_ambiguous_or_wrong_columns(build: Build, header: str, message: str) -> None:
    width = header.count(",") + 1
    with pytest.raises(DataError, match=message):
        build("x.csv", header + "\n" + ",".join(["some text"] * width) + "\n")


def test_label_column_resolves_ambiguity(build: Build) -> None:
    text = "sentence1,sentence2,label,score\na cat,a dog,0,1\nthe sun,the star,1,5\n"
    dataset, _ = build("x.csv", text, label_column="score")
    assert dataset.pairs["train"] == SCORED


def test_folder_of_split_files(tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    for split, label in (("train", 1), ("validation", 2), ("test", 3)):
        (tmp_path / "pairs" / f"{split}.tsv").write_text(
            f"sentence1\tsentence2\tlabel\na {split}\tthe {split}\t{label}\n"
        )
    dataset, _ = build_source(tmp_path)
    assert {split: [pair.score for pair in pairs] for split, pairs in dataset.pairs.items()} == {
        "train": [0.0], "dev": [0.5], "test": [1.0],
    }  # fmt: skip
    assert dataset.info["splits"] == {"train": "given", "dev": "given", "test": "given"}
    (tmp_path / "pairs" / "dev.tsv").write_text("x")
    with pytest.raises(DataError, match=r"more than one file for dev: dev.tsv, validation.tsv"):
        build_source(tmp_path)


def test_quotes_in_raw_tsv_are_letters(build: Build) -> None:
    lines = ["query\tanswer", '"w" prints\tw | head', '"He said ""hi"""\tit is me', '"both"\tends "quoted"']
    dataset, _ = build("x.tsv", "\n".join(lines))
    assert [example.anchor for example in dataset.examples] == ['"w" prints', 'He said "hi"', '"both"']
    dataset, _ = build("y.tsv", '"query"\t"answer"\n"who\tis it"\t"it is\nme"\n')
    assert dataset.examples == [Example("who\tis it", "it is\nme")]


def test_hub_splits() -> None:
    rows = {"query": ["who is it"], "answer": ["it is me"]}
    loaded = datasets.DatasetDict(
        train=datasets.Dataset.from_dict(rows),
        validation=datasets.Dataset.from_dict({"query": ["what is it"], "answer": ["a thing"]}),
        extra=datasets.Dataset.from_dict(rows),
    )
    raw = read_hub_splits(dict(loaded), "owner/name", PrepareConfig())
    assert [(record.anchor, record.split) for record in raw.records] == [
        ("who is it", "train"),
        ("what is it", "dev"),
    ]
    assert raw.given == {"train", "dev"} and "extra" in raw.notes[0]
    single = read_hub_splits({"all": loaded["train"]}, "owner/name", PrepareConfig())
    assert single.given == frozenset() and len(single.records) == 1


def test_hub_out_of_reach() -> None:
    assert is_hub_id("owner/name") and is_hub_id("owner/name:config")
    assert not is_hub_id("owner/name.jsonl") and not is_hub_id("./owner/name") and not is_hub_id("name")
    with pytest.raises(DataError, match=r"nobody-here/nothing-there: no such file or folder here, and the hub"):
        build_source("nobody-here/nothing-there")


def test_a_mistyped_path_is_not_looked_up_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call, in one line: the hub would be asked again and again, with the network's own messages between."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", None)
    monkeypatch.setattr("datasets.load_dataset", None)
    with pytest.raises(DataError, match="data/x: no 'x' in the folder data, which holds nothing"):
        read_source("data/x", PrepareConfig())


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.load_dataset", None)
    with pytest.raises(DataError, match="the hub has no such dataset, or cannot be reached"):
        read_source("nobody-here/nothing-there", PrepareConfig())
