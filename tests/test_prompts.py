"""Prompts: one registry, read from sentence-transformers' names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer

from acclimate.errors import ModelError, UsageError
from acclimate.formats.families import find_family
from acclimate.models.encoder import Encoder
from acclimate.prompts import Prompts
from tests.models.tiny import as_sentence_transformer, tiny_bert

TABLES = st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_sentence_transformer(tiny_bert(tmp_path_factory.mktemp("prompts")))


def test_tasks_and_defaults() -> None:
    prompts = Prompts({"": "query: ", "farm": "Instruct: find farms\nQuery:"}, {"": "passage: "})
    assert prompts.prompt("query") == "query: "
    assert prompts.prompt("query", "farm") == "Instruct: find farms\nQuery:"
    assert prompts.prompt("document", "farm") == "passage: "  # a task of queries only: documents keep their default
    assert Prompts().prompt("document") == ""
    with pytest.raises(UsageError, match=r"'tractor'.*farm"):
        prompts.prompt("document", "tractor")


def test_overriding_defaults_keeps_tasks() -> None:
    prompts = Prompts({"": "a", "t": "b"}, {"": "c"}).with_defaults(query="", document=None)
    assert (prompts.prompt("query"), prompts.prompt("query", "t"), prompts.prompt("document")) == ("", "b", "c")


@given(TABLES, TABLES)
def test_json_round_trip(query: dict[str, str], document: dict[str, str]) -> None:
    prompts = Prompts(query, document)
    assert Prompts.from_json(prompts.to_json()) == prompts


@pytest.mark.parametrize("value", [None, "query: ", {"query": "x"}, {"query": {"": 3}}])
def test_damaged_json(value: object) -> None:
    with pytest.raises(ModelError, match="Prompts"):
        Prompts.from_json(value)


@pytest.mark.parametrize(
    ("named", "default", "query", "document"),
    [
        ({"query": "q: ", "document": ""}, None, "q: ", ""),
        ({"query": "q: ", "passage": "p: "}, None, "q: ", "p: "),
        ({"query": None, "document": None}, None, "", ""),
        ({"document": "", "passage": "p: "}, None, "", ""),
        ({"passage": "p: ", "corpus": "c: "}, None, "", "p: "),
        ({"instruct": "i: "}, "instruct", "", ""),
        ({"query": "q: ", "instruct": "i: "}, "instruct", "q: ", ""),
    ],
)
def test_names_of_sentence_transformers(
    named: dict[str, str | None], default: str | None, query: str, document: str, tiny_folder: Path
) -> None:
    """Its own `encode_query` and `encode_document`, on the same folder, choose the same."""
    prompts = Prompts.from_sentence_transformers(named)
    assert (prompts.prompt("query"), prompts.prompt("document")) == (query, document)
    settings = {"prompts": named, "default_prompt_name": default}
    (tiny_folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    theirs = SentenceTransformer(str(tiny_folder), device="cpu")
    ours = Encoder.load(str(tiny_folder), device="cpu", dtype="float32")
    if "document" not in named and document:  # documented so, and true once the placeholder is gone that hides them
        assert theirs.prompts.pop("document") == ""
    assert ours.encode(["list"], "query") == pytest.approx(theirs.encode_query(["list"]), abs=1e-5)
    assert ours.encode(["list"], "document") == pytest.approx(theirs.encode_document(["list"]), abs=1e-5)


def test_other_names_are_tasks() -> None:
    named: dict[str, str | None] = {"retrieval.query": "rq", "retrieval.passage": "rp", "STS": "s"}
    prompts = Prompts.from_sentence_transformers(named)
    assert prompts.tasks == ("STS", "retrieval")
    assert (prompts.prompt("query", "retrieval"), prompts.prompt("document", "retrieval")) == ("rq", "rp")
    assert prompts.prompt("query", "STS") == prompts.prompt("document", "STS") == "s"


@pytest.mark.parametrize(
    ("name", "pooling", "query"),
    [
        ("BAAI/bge-small-en-v1.5", "cls", "Represent this sentence for searching relevant passages: "),
        ("BAAI/bge-base-zh-v1.5", "cls", "为这个句子生成表示以用于检索相关文章："),
        ("BAAI/bge-m3", "cls", ""),
        ("intfloat/multilingual-e5-small", "mean", "query: "),
        ("e5-small-v2", "mean", "query: "),
        ("thenlper/gte-base", "mean", ""),
        ("thenlper/gte-base/", "mean", ""),
        ("Alibaba-NLP/gte-base-en-v1.5", "cls", ""),
        ("google/embeddinggemma-300m", "mean", "task: search result | query: "),
        ("moka-ai/m3e-base", "mean", ""),
        (
            "Qwen/Qwen3-Embedding-0.6B",
            "last",
            "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
        ),
    ],
)
def test_families(name: str, pooling: str, query: str) -> None:
    family = find_family(name)
    assert family is not None
    assert (family.pooling, family.query_prompt) == (pooling, query)


@pytest.mark.parametrize("name", ["acme/my-own-model", "", "acme/bge-small-en-v1.5-tuned", "qwen3-embedding", "gte-x"])
def test_a_model_derived_from_a_family_may_have_another_recipe(name: str) -> None:
    assert find_family(name) is None


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("Instruct: search the web\nQuery:", "Instruct: find farms\nQuery:"),
        ("Instruct: search the web\nQuery: ", "Instruct: find farms\nQuery: "),
        ("task: search result | query: ", "task: find farms | query: "),
    ],
)
def test_an_instruction_takes_the_place_of_the_models_own(own: str, expected: str) -> None:
    prompts = Prompts({"": own, "farm": "f"}, {"": "d"}).with_instruction("find farms")
    assert prompts == Prompts({"": expected, "farm": "f"}, {"": "d"})


@pytest.mark.parametrize("own", ["", "query: "])
def test_an_instruction_needs_a_place(own: str) -> None:
    with pytest.raises(UsageError, match=r"no place for a task.*--query-prompt"):
        Prompts({"": own}).with_instruction("find farms")
