"""`index`, `search` through an index, `evaluate --index`: a run's documents, found by a tiny model."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.configs import IndexConfig, RunConfig, with_overrides
from acclimate.data.dataset import Dataset, write_dataset
from acclimate.errors import DataError, StorageError, UsageError
from acclimate.files import read_json, write_json, write_jsonl
from acclimate.flows.record import summarise
from acclimate.models.encoder import Encoder
from acclimate.retrieval.index import feeding
from acclimate.retrieval.index.of_run import opened_index
from acclimate.retrieval.index.reports import IndexReport
from acclimate.runs.resolve import load
from acclimate.runs.run_folder import RunFolder
from acclimate.stages.evaluate import evaluate
from acclimate.stages.evaluate_index import evaluate_index
from acclimate.stages.index import index as stage
from acclimate.stages.index_care import export_index, index_info, rebuild_index, reencode_index, verify_index
from acclimate.stages.search import search_index
from acclimate.types import Sides
from tests.models import tiny
from tests.stages.worlds import WORDS, config_for, tiny_embedder, write_adapter, write_pairs


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("model") / "base")


def corpus_run(run: Path) -> Dataset:
    """Eighty documents with titles; the queries are words of theirs, thirty on dev, thirty on test."""
    draw = random.Random(3)
    titles = {f"d{number:02}": draw.choice(WORDS) for number in range(80)}
    corpus = {name: f"{title} {' '.join(draw.choices(WORDS, k=6))} x{name}" for name, title in titles.items()}
    queries = {f"q{number:02}": " ".join(corpus[f"d{number:02}"].split()[1:6]) for number in range(60)}
    qrels = {name: {f"d{name[1:]}": 1} for name in queries}
    splits: dict[Any, Any] = {
        "train": {},
        "dev": dict(list(qrels.items())[:30]),
        "test": dict(list(qrels.items())[30:]),
    }
    dataset = Dataset("retrieval", corpus, queries, splits, titles=titles)
    (run / "dataset").mkdir(parents=True)
    write_dataset(run / "dataset", dataset, [])
    return dataset


def index(run: Path, sources: list[Path], config: RunConfig, delete: Path | None = None) -> IndexReport:
    return stage(run, sources, delete, config)


def no_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Encoder.encode

    def encode(self: Encoder, texts: Any, role: Any = "document", *arguments: Any, **keywords: Any) -> Any:
        assert role == "query", "a document is encoded"
        return original(self, texts, role, *arguments, **keywords)

    monkeypatch.setattr(Encoder, "encode", encode)


def test_a_record_of_a_fusion_of_before_there_were_answers_is_ours(tmp_path: Path, model: Path) -> None:
    corpus_run(tmp_path)
    report = index(tmp_path, [], config_for(model))
    write_json(tmp_path / "fusion.json", {name: it for name, it in report["fusion"].items() if name != "refusal"})
    assert index(tmp_path, [], config_for(model))["unchanged"] == 80


def test_own_corpus_once_and_again(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, config = corpus_run(tmp_path), config_for(model)
    report = index(tmp_path, [], config)
    assert (report["documents"], report["read"], report["encoded"], report["rejected"]) == (80, 80, 80, {})
    assert report["fusion"]["chosen"] == "best NDCG@10 of 30 dev queries" and len(report["fusion"]["tried"]) == 18
    assert read_json(tmp_path / "fusion.json") == report["fusion"]
    encoder = Encoder.load(str(model), device="cpu", dtype="float32")
    expected = encoder.encode(list(dataset.corpus.values()), "document")
    with opened_index(str(tmp_path / "index")) as opened:
        stored = list(opened.iterate())
        assert opened.space == encoder.space
    assert np.allclose([one.vector for one in stored], expected, atol=1e-3)
    assert stored[0].document.metadata == {"title": dataset.titles["d00"]}
    no_encoding(monkeypatch)
    again = index(tmp_path, [], config)
    assert again["unchanged"] == 80 and again["fusion"] == report["fusion"]


def test_what_evaluate_has_encoded_is_not_encoded_again(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus_run(tmp_path)
    write_adapter(tmp_path / "adapter", model, strength=0.2)
    config = config_for(model)
    evaluate(tmp_path / "dataset", tmp_path / "adapter", tmp_path / "evaluation", config)
    no_encoding(monkeypatch)
    report = index(tmp_path, [], config)
    assert report["encoded"] == 80
    lexical = read_json(tmp_path / "evaluation" / "report.json")["lexical"]
    with opened_index(str(tmp_path / "index")) as opened:
        analyser: Any = opened
        assert analyser.store.analyser.language == lexical["language"]


def test_files_in_chunks(tmp_path: Path, model: Path) -> None:
    run, docs = tmp_path / "run", tmp_path / "docs"
    (docs / "deep").mkdir(parents=True)
    text = " ".join(f"Wheat rust number{number} on maize leaf." for number in range(12))
    (docs / "deep" / "long.txt").write_text(text)
    (docs / "broken.pdf").write_bytes(b"%PDF")
    table = tmp_path / "table.jsonl"
    write_jsonl(table, [{"_id": "d#7", "text": "an id like a chunk's"}, {"_id": "e#x", "text": "another"}])
    config = with_overrides(config_for(model), {"chunk_tokens": 30, "chunk_overlap": 8})
    report = index(run, [docs, table], config)
    assert (report["read"], sum(report["rejected"].values())) == (2, 2)
    assert report["rejected_rows"] == str(run / "index-rejected.jsonl")
    rows = [json.loads(line) for line in (run / "index-rejected.jsonl").read_text().splitlines()]
    assert {row["source"] for row in rows} == {"table.jsonl", "broken.pdf"}
    with opened_index(report["place"]) as opened:
        chunks = [stored.document for stored in opened.iterate() if stored.document.parent != "e#x"]
    assert len(chunks) + 1 == report["encoded"] > 4
    assert all(chunk.parent == "deep/long.txt" and text[chunk.start : chunk.end] == chunk.text for chunk in chunks)
    found = search_index(run, "number11", 1, config, mode="lexical")["hits"][0]
    assert found["parent"] == "deep/long.txt" and "number11" in text[found["start"] : found["end"]]
    (docs / "broken.pdf").unlink()
    assert index(run, [docs], config)["rejected_rows"] is None
    assert not (run / "index-rejected.jsonl").exists()
    with pytest.raises(UsageError, match=r"chunk_tokens = 500; .* no more than 62"):
        index(run, [docs], with_overrides(config, {"chunk_tokens": 500}))


def test_interrupted_and_gone_on(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus_run(tmp_path)
    config = config_for(model)
    monkeypatch.setattr(feeding, "BATCH_DOCUMENTS", 16)
    original, calls = Encoder.encode, []

    def stopped(self: Encoder, texts: Any, *arguments: Any, **keywords: Any) -> Any:
        calls.append(len(texts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, texts, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "encode", stopped)
        with pytest.raises(KeyboardInterrupt):
            index(tmp_path, [], config)
    report = index(tmp_path, [], config)
    assert (report["unchanged"], report["encoded"], report["documents"]) == (32, 48, 80)


def test_deleted_by_ids(tmp_path: Path, model: Path) -> None:
    corpus_run(tmp_path)
    config = config_for(model)
    index(tmp_path, [], config)
    ids = tmp_path / "ids.txt"
    ids.write_text("d00\n\nnothing\nd01\n")
    report = index(tmp_path, [], config, delete=ids)
    assert (report["deleted"], report["documents"], report["read"]) == (2, 78, 0)
    ids.write_text("\n")
    with pytest.raises(DataError, match="holds no id"):
        index(tmp_path, [], config, delete=ids)
    with pytest.raises(DataError, match="d00"):
        qrels = tmp_path / "dataset" / "qrels" / "test.tsv"
        qrels.write_text(qrels.read_text() + "q30\td00\t1\n")
        evaluate_index(tmp_path, config)


def test_metadata_filters(tmp_path: Path, model: Path) -> None:
    source = tmp_path / "corpus.csv"
    rows = [f"{number},{WORDS[number % 5]} rain,{2000 + number},{number % 2 == 0}" for number in range(20)]
    source.write_text("id,text,year,even\n" + "\n".join(rows) + "\n")
    config = config_for(model)
    index(tmp_path / "run", [source], config)
    for mode in ("dense", "lexical", "hybrid"):
        found = search_index(tmp_path / "run", "rain", 20, config, mode=mode, filter="year >= 2016 and even = true")
        assert {hit["id"] for hit in found["hits"]} == {"16", "18"}
        assert all(hit["metadata"]["even"] is True for hit in found["hits"])


@pytest.mark.parametrize("sides", ["both", "query"])
def test_an_adapter_and_the_index_of_its_base(tmp_path: Path, model: Path, sides: Sides) -> None:
    corpus_run(tmp_path)
    config = config_for(model)
    index(tmp_path, [], config)
    write_adapter(tmp_path / "adapter", model, strength=1.0, sides=sides)
    adapted = load(tmp_path / "adapter", base=str(model), device="cpu", dtype="float32")
    if sides == "query":
        found = search_index(tmp_path, "wheat and rain", 3, config, mode="dense")["hits"]
        with opened_index(str(tmp_path / "index")) as opened:
            stored = {one.document.id: one.vector for one in opened.iterate()}
        query = adapted.encode(["wheat and rain"], "query")[0]
        best = sorted(stored, key=lambda name: -float(stored[name] @ query))[:3]
        assert [hit["id"] for hit in found] == best
        assert index(tmp_path, [], config)["unchanged"] == 80
        return
    assert adapted.adapter is not None
    for call in (lambda: search_index(tmp_path, "rain", 5, config), lambda: index(tmp_path, [], config)):
        with pytest.raises(UsageError) as refused:
            call()
        message = str(refused.value)
        assert f"document_adapter is none in the index and {adapted.adapter.sha256[:12]}" in message
        assert "changes documents" in message and "--reencode" in message and "--at FOLDER" in message
    chosen = read_json(tmp_path / "fusion.json")
    beside = with_overrides(config, {"index_at": str(tmp_path / "beside")})
    assert index(tmp_path, [], beside)["encoded"] == 80
    before = search_index(tmp_path, "rain", 5, beside, mode="dense")["hits"]
    assert reencode_index(tmp_path, config)["encoded"] == 80
    assert index_info(tmp_path, config)["fusion"]["space"] == adapted.space.digest
    write_json(tmp_path / "fusion.json", chosen)
    assert index_info(tmp_path, config)["fusion"] is None, "chosen for the base's vectors"
    assert search_index(tmp_path, "rain", 5, config, mode="dense")["hits"] == before
    assert verify_index(tmp_path, config)["problems"] == []


def test_a_field_that_no_document_has_is_said(tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus_run(tmp_path)
    config = config_for(model)
    index(tmp_path, [], config)
    capsys.readouterr()
    found = search_index(tmp_path, "rain", 5, config, mode="dense", filter='not titel = "x" and not exists(crop)')
    assert len(found["hits"]) == 5
    assert capsys.readouterr().err.splitlines() == [
        "warning: no document has the field 'titel' of the filter; fields are title; did you mean title?",
        "warning: no document has the field 'crop' of the filter; fields are title",
    ]
    search_index(tmp_path, "rain", 5, config, mode="dense", filter='title != "x"')
    assert capsys.readouterr().err == ""


def test_vectors_that_are_not_those_of_their_texts_are_found(tmp_path: Path, model: Path) -> None:
    corpus_run(tmp_path)
    config = config_for(model)
    index(tmp_path, [], config)
    assert verify_index(tmp_path, config) == {
        "place": str(tmp_path / "index"), "documents": 80, "sampled": 64, "problems": []
    }  # fmt: skip
    with opened_index(str(tmp_path / "index")) as opened:
        stored = list(opened.iterate())
        opened.upsert([one.document for one in stored], np.roll([one.vector for one in stored], 1, axis=0))
    (problem,) = verify_index(tmp_path, config)["problems"]
    assert "vectors are not those that" in problem and "of 64 texts encoded again" in problem


def test_search_as_it_was_chosen_and_reranked(tmp_path: Path, model: Path) -> None:
    corpus_run(tmp_path)
    config = config_for(model)
    with pytest.raises(StorageError, match=r"there is no index.*acclimate index"):
        search_index(tmp_path, "rain", 5, config)
    index(tmp_path, [], config)
    hybrid = search_index(tmp_path, "wheat and rain", 4, config)
    assert (hybrid["documents"], hybrid["mode"], len(hybrid["hits"])) == (80, "hybrid", 4)
    assert hybrid["fusion"]["constant"] == read_json(tmp_path / "fusion.json")["constant"]
    reranker = str(tiny.tiny_reranker(tmp_path / "reranker-model"))
    reranked = search_index(tmp_path, "wheat and rain", 2, config, rerank_first=4, reranker=reranker)
    assert {hit["id"] for hit in reranked["hits"]} <= {hit["id"] for hit in hybrid["hits"]}
    scores = [hit["score"] for hit in reranked["hits"]]
    assert scores == sorted(scores, reverse=True) and reranked["reranker"].endswith("reranker-model")
    for refused, message in (
        ({"rerank_first": 1}, "rerank = 1"),
        ({"reranker": reranker}, "nothing is to be reranked"),
        ({"filter": "year >="}, "a filter has the end"),
    ):
        with pytest.raises(UsageError, match=message):
            search_index(tmp_path, "rain", 5, config, **refused)  # type: ignore[arg-type]
    with pytest.raises(StorageError, match="holds no reranker"):
        search_index(tmp_path, "rain", 5, config, rerank_first=10)


def test_evaluated_through_the_index(tmp_path: Path, model: Path) -> None:
    corpus_run(tmp_path)
    config = config_for(model)
    index(tmp_path, [], config)
    report = evaluate_index(tmp_path, config)
    assert report["exact_recall"] == 1.0 and report["queries"] == 30
    assert set(report["modes"]) == {"dense", "lexical", "hybrid"}
    assert report["modes"]["lexical"]["ndcg@10"] > 0.5
    for mode in ("lexical", "hybrid"):
        difference = report["modes"][mode]["ndcg@10"] - report["modes"]["dense"]["ndcg@10"]
        delta = report["delta"][mode]["ndcg@10"]
        assert delta["value"] == pytest.approx(difference) and delta["low"] <= delta["value"] <= delta["high"]
    assert read_json(tmp_path / "index_evaluation" / "report.json")["modes"] == report["modes"]
    assert {path.stem for path in (tmp_path / "index_evaluation" / "runs").iterdir()} == {"dense", "lexical", "hybrid"}
    again = evaluate_index(tmp_path, config)
    assert {**again, "timings": {}} == {**report, "timings": {}}


def test_chunks_are_measured_as_their_documents(tmp_path: Path, model: Path) -> None:
    dataset = corpus_run(tmp_path / "run")
    source = tmp_path / "long.jsonl"
    write_jsonl(source, ({"_id": name, "text": f"{text}. " * 8} for name, text in dataset.corpus.items()))
    config = with_overrides(config_for(model), {"chunk_tokens": 40, "chunk_overlap": 0})
    assert index(tmp_path / "run", [source], config)["documents"] > 160
    report = evaluate_index(tmp_path / "run", config)
    assert report["modes"]["lexical"]["ndcg@10"] > 0.5
    run = (tmp_path / "run" / "index_evaluation" / "runs" / "dense.trec").read_text()
    assert "#" not in run


def test_care(tmp_path: Path, model: Path) -> None:
    corpus_run(tmp_path / "run")
    run, config = tmp_path / "run", config_for(model)
    report = index(run, [], config)
    info = index_info(run, config)
    assert (info["backend"], info["documents"], info["fusion"]) == ("local", 80, report["fusion"])
    assert verify_index(run, config)["problems"] == []
    assert rebuild_index(run, config)["documents"] == 80
    exported = export_index(run, tmp_path / "out.jsonl", config)
    assert exported["documents"] == 80
    with pytest.raises(UsageError, match="is there already"):
        export_index(run, tmp_path / "out.jsonl", config)
    index(tmp_path / "other", [tmp_path / "out.jsonl"], config)
    with opened_index(str(run / "index")) as one, opened_index(str(tmp_path / "other" / "index")) as other:
        documents = [[stored.document for stored in opened.iterate()] for opened in (one, other)]
    assert documents[0] == documents[1]


def test_what_it_refuses(tmp_path: Path, model: Path) -> None:
    config = config_for(model)
    with pytest.raises(StorageError, match="acclimate prepare"):
        index(tmp_path / "run", [], config)
    write_pairs(tmp_path / "pairs")
    with pytest.raises(UsageError, match="labelled pairs"):
        index(tmp_path / "pairs", [], config)
    with pytest.raises(DataError, match="no such file"):
        index(tmp_path / "run", [tmp_path / "none.jsonl"], config)
    for call in (index_info, verify_index, rebuild_index, reencode_index):
        with pytest.raises(StorageError, match="there is no index"):
            call(tmp_path / "run", config)
    assert not (tmp_path / "run" / "index").exists()
    with pytest.raises(UsageError, match="an overlap of 0 to 15"):
        IndexConfig(chunk_tokens=16)
    assert dataclasses.asdict(RunConfig().index)["chunk_tokens"] is None


def test_scores_through_the_index_say_when_they_are_of_an_older_adapter(tmp_path: Path, model: Path) -> None:
    """After a training, the run's summary held the older adapter's as if they were the new one's."""
    corpus_run(tmp_path)
    run, config = RunFolder(tmp_path), config_for(model)
    write_adapter(run.adapter, model, strength=0.5, sides="query")
    index(tmp_path, [], config)
    measured = evaluate_index(tmp_path, config)
    assert summarise(run, config)["index"] == measured  # type: ignore[typeddict-item]
    shutil.rmtree(run.adapter)
    write_adapter(run.adapter, model, strength=0.9, sides="query")
    said = summarise(run, config)["index"]["outdated"]  # type: ignore[typeddict-item]
    assert said.startswith(f"The scores are those of version {measured['adapter_version']} of the adapter")
