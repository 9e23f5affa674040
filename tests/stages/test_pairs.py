"""`pairs` from documents to a folder that `prepare` reads: splits, real queries, an endpoint, experts, going on."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from acclimate.configs import EndpointConfig, PairsConfig, RunConfig
from acclimate.data.build import build_dataset
from acclimate.data.documents import SourceDocument
from acclimate.errors import DataError, UsageError
from acclimate.files import hash_file
from acclimate.flows.from_documents import pairs as verb
from acclimate.pairing import streaming
from acclimate.pairing.made_pair import MadePair
from acclimate.pairing.splitting import split_pairs, without_ambiguous
from acclimate.pairing.streaming import streamed
from acclimate.stages.pairs import pairs
from tests.chat_server import ChatServer, Status
from tests.tiny_run import WORDS, write_tiny_bert

DOCUMENTS = 300


def text_of(draw: random.Random, count: int) -> str:
    return " ".join(draw.choices(WORDS, k=count))


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of one or two passages, each with a title of three of its words and a number of its own."""
    draw = random.Random(5)
    path = tmp_path_factory.mktemp("docs") / "docs.jsonl"
    with path.open("w") as stream:
        for number in range(DOCUMENTS):
            body = text_of(draw, 30)
            title = f"{' '.join(draw.sample(body.split(), 3))} n{number}"
            stream.write(
                json.dumps({"_id": f"doc{number}", "title": title, "text": f"{body}. {text_of(draw, 20)}."}) + "\n"
            )
    return path


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    model = write_tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert")
    settings = PairsConfig(passage_words=32)
    return RunConfig(model=str(model), pooling="mean", device="cpu", dtype="float32", pairs=settings)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def changed(config: RunConfig, **settings: Any) -> RunConfig:
    return replace(config, pairs=replace(config.pairs, **settings))


@pytest.fixture(scope="module")
def made(docs: Path, config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("made") / "pairs"
    return out, dict(pairs([docs], out, config))


def test_no_document_is_in_two_splits(made: tuple[Path, dict[str, Any]]) -> None:
    out, report = made
    splits: dict[str, set[str]] = {}
    for row in rows(out / "pairs.jsonl"):
        splits.setdefault(row["split"], set()).add(row["document"])
    assert set(splits) == {"train", "dev", "test"} and report["split_by"] == "document"
    assert sum(map(len, splits.values())) == len(set.union(*splits.values()))
    assert report["test"] == {"title": 100}, "at least a hundred, of what is like a query"
    assert report["documents"] == DOCUMENTS and report["ranked"] == report["passages"] == 2 * DOCUMENTS


def test_the_report_adds_up(made: tuple[Path, dict[str, Any]]) -> None:
    out, report = made
    written = rows(out / "pairs.jsonl")
    for source, row in report["sources"].items():
        assert row["kept"] == sum(it["made_by"] == source for it in written) == sum(row["splits"].values())
        assert row["drawn"] == row["kept"] + sum(row["dropped"].values()), source
        assert row["per_document"] == pytest.approx(row["made"] / DOCUMENTS, abs=1e-4)
    assert sum(row["share"] for row in report["sources"].values()) == pytest.approx(1, abs=1e-3)
    assert report["sources"]["heading"]["made"] == 0 and report["sources"]["neighbours"]["made"] == DOCUMENTS


def test_prepare_reads_the_folder_and_the_file_and_knows_who_asked(
    made: tuple[Path, dict[str, Any]], config: RunConfig
) -> None:
    out, report = made
    dataset, _ = build_dataset(str(out), config.prepare, seed=1)
    assert len(dataset.corpus) == report["ranked"] and len(dataset.qrels["test"]) == 100
    assert dataset.info["made_by"]["test"] == {"title": 100} and dataset.info["splits"]["test"] == "given"
    assert not any("columns not used" in warning for warning in dataset.info["warnings"])
    alone, _ = build_dataset(str(out / "pairs.jsonl"), config.prepare, seed=1)
    assert alone.info["made_by"] == dataset.info["made_by"]


def test_a_second_start_keeps_it_and_the_copy_is_ours(docs: Path, config: RunConfig, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    verb(docs, out=file, config=config)
    before = hash_file(file)
    report = verb(docs, out=file, config=config, annotate=tmp_path / "experts.csv")
    assert hash_file(file) == before == hash_file(tmp_path / "p.made" / "pairs.jsonl")
    assert report["annotate"]["pairs"] == 200
    with file.open("a") as stream:
        stream.write("mine\n")
    with pytest.raises(UsageError, match="is not the copy"):
        verb(docs, out=file, config=config)
    with pytest.raises(UsageError, match="written as JSONL"):
        verb(docs, out=tmp_path / "p.csv", config=config)


def test_experts_decisions_count(docs: Path, config: RunConfig, tmp_path: Path) -> None:
    pairs([docs], tmp_path / "pairs", config, annotate=tmp_path / "a.jsonl")
    asked = rows(tmp_path / "a.jsonl")
    files = []
    for expert in ("b", "c"):
        said = [
            row | {"decision": "reject" if n < 10 or (n < 20 and expert == "c") else "accept"}
            for n, row in enumerate(asked)
        ]
        files.append(tmp_path / f"{expert}.jsonl")
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in said))
    report = pairs([docs], tmp_path / "pairs", changed(config, annotated=tuple(map(str, files))))
    left = {row["id"] for row in rows(tmp_path / "pairs" / "pairs.jsonl")}
    assert not left & {row["id"] for row in asked[:20]} and {row["id"] for row in asked[20:]} & left
    assert report["experts"] == {"rejected": 20, "accepted": 180}
    [agreement] = report["agreement"]
    assert agreement["experts"] == ["b.jsonl", "c.jsonl"] and agreement["agreed"] == 0.95


def test_real_queries_are_the_test_and_nothing_else(docs: Path, config: RunConfig, tmp_path: Path) -> None:
    real = tmp_path / "real.jsonl"
    asked = [{"query": f"w{number} real {number}", "document": f"doc{number}"} for number in range(3)]
    more = [{"query": "another one", "positive": "w1 w2 w3 an answer of its own"}, {"query": "nobody knows"}]
    real.write_text("".join(json.dumps(row) + "\n" for row in [*asked, *more, {"query": "x", "document": "gone"}]))
    report = pairs([docs], tmp_path / "pairs", changed(config, queries=str(real)))
    test = [row for row in rows(tmp_path / "pairs" / "pairs.jsonl") if row["split"] == "test"]
    assert {row["made_by"] for row in test} == {"real"} and len(test) == 3 * 2 + 1, "both passages of a document"
    assert report["real"] == {"queries": 6, "judged": 4, "alone": 1} and report["test"] == {"real": 4}
    assert rows(tmp_path / "pairs" / "queries.jsonl") == [{"text": "nobody knows"}]
    dataset, _ = build_dataset(str(tmp_path / "pairs"), config.prepare, seed=1)
    assert dataset.info["made_by"]["test"] == {"real": 4}
    trained = {example.anchor for example in dataset.examples}
    assert not trained & {row["query"] for row in test}


def words_in(messages: list[dict[str, str]]) -> str:
    """An honest writer: five of the passage's words, backwards."""
    words = messages[-1]["content"].partition("Passage:\n")[2].partition("\n")[0].split()
    return (
        f"keyword: {' '.join(reversed(words[:5]))}\nquestion: what of {' '.join(words[7:4:-1])}?\nlong: nothing of it"
    )


def test_written_queries_go_on_after_a_failure(docs: Path, config: RunConfig, tmp_path: Path) -> None:
    with ChatServer(words_in) as server:
        asking = replace(
            changed(config, asked_passages=40, pair_sources=("title", "cluster"), llm_prices=(1.0, 2.0)),
            endpoint=EndpointConfig(llm=server.url, llm_model="writer", llm_parallel=2),
        )
        server.fail(Status(401, "who are you"))
        with pytest.raises(Exception, match="ACCLIMATE_LLM_API_KEY"):
            pairs([docs], tmp_path / "pairs", asking)
        report = pairs([docs], tmp_path / "pairs", asking)
        llm = report["llm"]
        assert llm["requests"] + llm["from_log"] == 40 and llm["from_log"] <= 2
        assert llm["written"] == llm["kept"] + sum(llm["dropped"].values()) - llm["dropped"].get("not in the answer", 0)
        assert report["sources"]["written"]["made"] == llm["kept"] > 10 and llm["cost"] > 0
        assert "written" in report["test"]
        count = len(server.requests)
        again = pairs(
            [docs], tmp_path / "pairs", replace(asking, seed=asking.seed, pairs=replace(asking.pairs, pairs_limit=99))
        )
        assert len(server.requests) == count and again["llm"]["from_log"] == 40, "answers are kept with the pairs"


def test_nothing_to_make_pairs_of_is_our_error(config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "docs.jsonl").write_text('{"text": "too short"}\n')
    with pytest.raises(DataError, match="no pair can be made of 1 documents"):
        pairs([tmp_path / "docs.jsonl"], tmp_path / "pairs", config)


def stream(documents: Iterator[SourceDocument], folder: Path, checkpoint: int = 50) -> streaming.Streamed:
    more: dict[str, Any] = {
        "words": 32,
        "pairs_limit": 30,
        "passages_limit": 40,
        "seed": 1,
        "state": folder,
        "key": "k",
    }
    return streamed(documents, ("title", "crop"), wanted={"d3": []}, checkpoint=checkpoint, **more)


def test_a_stream_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    def documents(end: int = 10**9) -> Iterator[SourceDocument]:
        for number in range(170):
            if number == end:
                raise KeyboardInterrupt
            yield SourceDocument(
                f"d{number}", f"{text_of(random.Random(number), 60)}.", {"title": f"w1 w2 {number}"}, "", 1
            )

    whole = stream(documents(), tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        stream(documents(130), tmp_path / "b")
    taken: list[str] = []
    original = streaming._take
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "_take", lambda *arguments: (taken.append(arguments[0].id), original(*arguments)))
        resumed = stream(documents(), tmp_path / "b")
    assert taken[0] == "d100" and resumed.documents == 170
    for name, sample in whole.samples.items():
        assert list(sample) == list(resumed.samples[name]) and sample.offered == resumed.samples[name].offered
    assert resumed.wanted == whole.wanted and len(whole.wanted["d3"]) == 2


def made_pairs(counts: dict[str, int], per_document: int = 1) -> Sequence[MadePair]:
    return [
        MadePair(f"{source} {number}", f"p {source} {number}", source, f"d{number // per_document}")
        for source, count in counts.items()
        for number in range(count)
    ]


def test_words_of_the_texts_stand_in_where_nothing_is_like_a_query() -> None:
    few = split_pairs(
        made_pairs({"title": 20, "neighbours": 150, "crop": 300}),
        test_fraction=0.1,
        dev_fraction=0.05,
        seed=1,
        documents=300,
    )
    assert few.tested == ("title", "neighbours", "crop")
    many = split_pairs(
        made_pairs({"title": 400, "crop": 300}), test_fraction=0.1, dev_fraction=0.05, seed=1, documents=400
    )
    assert many.tested == ("title",) and {pair.made_by for pair in many.splits["test"]} == {"title"}
    assert len(many.splits["test"]) == 100 and many.dropped["crop", "of a document that is held out"] > 0


def test_few_documents_are_split_by_passage_and_a_large_one_stays_in_train() -> None:
    few = split_pairs(
        made_pairs({"title": 400}, per_document=100), test_fraction=0.1, dev_fraction=0, seed=1, documents=4
    )
    assert few.by == "passage" and len(few.splits["test"]) == 100
    one = [*made_pairs({"heading": 600}), *(MadePair(f"q{n}", f"p{n}", "heading", "large") for n in range(200))]
    split = split_pairs(one, test_fraction=0.4, dev_fraction=0.1, seed=1, documents=601)
    assert {pair.document for pair in split.splits["test"]}.isdisjoint({"large"}) and len(split.splits["test"]) == 320


def test_mates_across_the_border_are_in_no_split() -> None:
    pairs = [
        *made_pairs({"title": 400}),
        *(MadePair(f"c{n}", f"p{n}", "cluster", f"d{n}", beside=f"d{n + 1}") for n in range(399)),
    ]
    split = split_pairs(pairs, test_fraction=0.25, dev_fraction=0, seed=1, documents=400)
    held = {pair.document for pair in split.splits["test"]}
    mates = [pair for pair in split.splits["train"] if pair.made_by == "cluster"]
    assert mates and not any(held & set(pair.documents) for pair in mates)


def mates(joins: list[tuple[int, int]]) -> list[MadePair]:
    return [MadePair(f"c{a} {b}", f"p{b}", "cluster", f"d{b}", beside=f"d{a}") for a, b in joins]


def test_tested_mates_of_the_same_documents_share_a_split() -> None:
    """Documents in threes: none of their pairs is lost, and no document is in two splits."""
    pairs = mates([(n, n + step) for n in range(0, 600, 3) for step in (1, 2)])
    split = split_pairs(pairs, test_fraction=0.1, dev_fraction=0.2, seed=1, documents=600)
    assert not split.dropped and {name: len(part) for name, part in split.splits.items()} == {
        "train": 240,
        "dev": 60,
        "test": 100,
    }
    held = {name: {it for pair in part for it in pair.documents} for name, part in split.splits.items()}
    assert sum(map(len, held.values())) == len(set.union(*held.values())) == 600


def test_mates_that_join_most_documents_are_split_all_the_same() -> None:
    split = split_pairs(
        mates([(n, n + 1) for n in range(399)]), test_fraction=0.25, dev_fraction=0.1, seed=1, documents=400
    )
    held = {name: {it for pair in part for it in pair.documents} for name, part in split.splits.items()}
    assert split.splits["train"] and split.splits["test"] and split.dropped["cluster", "of a document that is held out"]
    assert held["test"].isdisjoint(held["train"] | held["dev"])


def test_a_query_for_several_passages_is_none() -> None:
    pairs = [MadePair("Introduction.", f"p{n}", "heading", f"d{n}") for n in range(3)]
    kept, dropped = without_ambiguous(
        [*pairs, MadePair("introduction", "p", "crop", "d"), MadePair("alone", "p", "title", "d")]
    )
    assert [pair.query for pair in kept] == ["introduction", "alone"] and dropped.total() == 3
