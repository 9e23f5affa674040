"""What lies where an index, or something beside it, is to be written: replaced only if it is ours."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

import acclimate
from acclimate.configs import RunConfig, load_config
from acclimate.errors import StorageError, UsageError
from acclimate.files import read_json
from acclimate.models.encoder import Encoder
from acclimate.retrieval.index import feeding
from acclimate.retrieval.index.of_run import opened_index
from tests.stages.worlds import config_for, tiny_embedder, write_adapter, write_retrieval


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def config(model: Path) -> RunConfig:
    return config_for(model)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    write_retrieval(tmp_path / "run")
    return tmp_path / "run"


def test_a_folder_of_the_users_gets_no_index(run: Path, config: RunConfig) -> None:
    (run / "index").mkdir()
    (run / "index" / "notes.txt").write_text("mine")
    with pytest.raises(
        UsageError, match=r"holds other things than an index, so it is not replaced. Choose another --at"
    ):
        acclimate.index(run, config=config)
    assert [path.name for path in (run / "index").iterdir()] == ["notes.txt"]


def test_a_database_of_the_users_gets_no_tables(run: Path, config: RunConfig) -> None:
    (run / "index").mkdir()
    path = run / "index" / "documents.sqlite"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (value TEXT)")
    database.close()
    before = path.read_bytes()
    for call in (lambda: acclimate.index(run, config=config), lambda: acclimate.search(run, "rain", config=config)):
        with pytest.raises(UsageError, match="is a database of something else"):
            call()
    assert path.read_bytes() == before


def test_files_of_the_users_beside_it_stay(run: Path, config: RunConfig) -> None:
    for name, text in (("fusion.json", '{"reactor": "tokamak"}'), ("index-rejected.jsonl", '{"mine": 1}\n')):
        (run / name).write_text(text)
        with pytest.raises(UsageError, match=f"{name} was not written by acclimate"):
            acclimate.index(run, config=config)
        assert (run / name).read_text() == text and not (run / "index").exists()
        (run / name).unlink()
    acclimate.index(run, config=config)
    (run / "index_evaluation").mkdir()
    (run / "index_evaluation" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="a folder that acclimate did not write"):
        acclimate.evaluate_index(run, config=config)
    assert (run / "index_evaluation" / "notes.txt").read_text() == "mine"


def test_documents_are_not_read_from_where_the_index_is_written(run: Path, config: RunConfig, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "a.txt").write_text("Wheat and rain.")
    for at in (docs, docs / "index"):
        with pytest.raises(UsageError, match="Choose another --at"):
            acclimate.index(run, docs, config=config, index_at=str(at))
    assert [path.name for path in docs.iterdir()] == ["a.txt"]
    acclimate.index(run, docs, config=config)
    with pytest.raises(UsageError, match="lies inside"):
        acclimate.export_index(run, run / "index" / "out.jsonl")


def test_encoded_again_nothing_is_left_and_nothing_lost(run: Path, config: RunConfig, model: Path) -> None:
    acclimate.index(run, config=config)
    write_adapter(run / "adapter", model, strength=1.0)
    (run / "index" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds notes.txt, which acclimate did not write.* another --at"):
        acclimate.reencode_index(run)
    (run / "index" / "notes.txt").unlink()
    before = {path.name for path in run.iterdir()}
    assert acclimate.reencode_index(run)["encoded"] == 40
    assert {path.name for path in run.iterdir()} == before
    assert acclimate.search(run, "wheat and rain", mode="dense")["hits"]


def test_encoding_again_goes_on_only_from_the_same_model(
    run: Path, config: RunConfig, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acclimate.index(run, config=config)
    monkeypatch.setattr(feeding, "BATCH_DOCUMENTS", 10)
    original, calls = Encoder.encode, []

    def stopped(self: Encoder, *arguments: object, **keywords: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, *arguments, **keywords)  # type: ignore[arg-type]

    def interrupted() -> None:
        calls.clear()
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Encoder, "encode", stopped)
            acclimate.reencode_index(run)

    write_adapter(run / "adapter", model, strength=1.0)
    interrupted()
    shutil.rmtree(run / "adapter")
    write_adapter(run / "adapter", model, strength=0.5)  # trained again meanwhile
    interrupted()
    with opened_index(str(run / "index")) as old:
        old.delete(["d00"])
    assert acclimate.reencode_index(run)["encoded"] == 20
    with opened_index(str(run / "index")) as new:
        assert (new.count(), new.get(["d00"])) == (39, {})


def test_a_deletion_makes_no_index(run: Path, config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("d00\n")
    with pytest.raises(StorageError, match="there is no index"):
        acclimate.index(run, delete=tmp_path / "ids.txt", config=config)
    assert not (run / "index").exists()


def test_the_run_remembers_where_and_how(run: Path, config: RunConfig, tmp_path: Path) -> None:
    acclimate.index(run, config=config, index_at=str(tmp_path / "beside"), chunk_tokens=40)
    assert load_config(run / "config.toml").index.chunk_tokens == 40
    assert acclimate.search(run, "rain")["place"] == str(tmp_path / "beside")
    assert acclimate.index(run)["encoded"] == 0
    acclimate.evaluate_index(run)
    assert read_json(run / "report.json")["index"]["place"] == str(tmp_path / "beside")


def test_no_dataset_and_no_documents(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="holds no dataset"):
        acclimate.index(tmp_path / "mistyped")
    assert not (tmp_path / "mistyped").exists()


def test_what_another_writes_while_all_is_encoded_again_is_not_lost(run: Path, config: RunConfig) -> None:
    """A service that has written keeps the index, and the new one would not have what it goes on writing."""
    acclimate.index(run, config=config)
    with opened_index(str(run / "index")) as service:
        service.delete(["d00"])
        with pytest.raises(StorageError, match="another acclimate is at work"):
            acclimate.reencode_index(run)
        service.delete(["d01"])
    assert acclimate.reencode_index(run)["documents"] == 38
