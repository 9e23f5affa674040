"""Pictures as documents of a run's index: written, told apart from texts, searched, and never taken for their texts."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import acclimate
from acclimate.cli.main import main
from acclimate.configs import RunConfig
from acclimate.data.dataset import Dataset
from acclimate.errors import DataError, MissingExtraError, StorageError, UsageError
from acclimate.flows.index_verbs import index_info, reencode_index, verify_index
from acclimate.models.encoder import Encoder
from acclimate.models.projection import ProjectedImages, load_projection, save_projection
from acclimate.retrieval.index import feeding, pictures
from acclimate.retrieval.index.beside import built_beside
from acclimate.retrieval.index.local.index import LocalIndex
from acclimate.retrieval.index.of_run import opened_index
from acclimate.retrieval.index.records import Stored
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task
from acclimate.stages.refresh_data import _documents
from acclimate.types import Example
from tests.chat_server import ChatServer
from tests.image_world import encoded, picture, tiny_graph, write_class_folders
from tests.models.tiny import as_sentence_transformer
from tests.serve.http.world import copy_run
from tests.tiny_run import write_tiny_bert

OWN = 48
TEXTS = 8


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a text model, a run `trained` on them, and a corpus of a page for each class."""
    folder = tmp_path_factory.mktemp("pictures")
    as_sentence_transformer(write_tiny_bert(folder / "bert"))
    write_class_folders(folder / "images", images=6)
    tiny_graph(folder / "tower")
    acclimate.adapt(
        folder / "images",
        out=folder / "trained",
        config=RunConfig(device="cpu", dtype="float32"),
        model=str(folder / "bert"),
        image_model=str(folder / "tower"),
        image_epochs=4,
        image_learning_rate=0.01,
        image_negatives=0,
        held_out_classes=1,
        sign_flips=100,
    )
    rows = [{"_id": f"page {n}", "text": f"w{n} w{n + 20}", "kind": n % 2} for n in range(TEXTS)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def run(world: Path, tmp_path: Path) -> Path:
    """A copy of the run, which has no index."""
    return Path(shutil.copytree(world / "trained", tmp_path / "run"))


@pytest.fixture(scope="module")
def indexed(world: Path) -> Path:
    """A copy with an index of texts and the run's own pictures."""
    run = Path(shutil.copytree(world / "trained", world / "indexed"))
    acclimate.index(run, world / "corpus.jsonl")
    acclimate.index(run, images=True)
    return run


@pytest.fixture
def mixed(indexed: Path, tmp_path: Path) -> Path:
    """A copy of that."""
    return copy_run(indexed, tmp_path / "mixed")


def stored(run: Path) -> dict[str, Stored]:
    with opened_index(str(run / "index")) as index:
        return {one.document.id: one for one in index.iterate()}


def stored_pictures(run: Path) -> dict[str, Stored]:
    return {name: one for name, one in stored(run).items() if pictures.is_picture(one.document)}


def retrain(run: Path) -> None:
    """Give the run another projection of the same sizes."""
    projection = load_projection(run / "projection")
    for tensor in projection.head.parameters():
        tensor.data = torch.flip(tensor.data, (0,))
    save_projection(run / "projection", projection)


def test_own_pictures_are_documents_of_the_texts_index(world: Path, mixed: Path) -> None:
    found = stored(mixed)
    own = stored_pictures(mixed)
    assert len(found) == OWN + TEXTS and len(own) == OWN
    images = ProjectedImages.open(mixed / "projection", device="cpu")
    for name, one in list(own.items())[:5]:
        sha256 = name.removeprefix("picture:")
        data = (mixed / "pictures" / sha256[:2] / sha256).read_bytes()
        assert hashlib.sha256(data).hexdigest() == sha256
        metadata = one.document.metadata
        assert set(metadata) == {"picture", "file", "class", "projection"}
        assert (metadata["picture"], metadata["class"]) == (sha256, one.document.text)
        assert metadata["projection"] == images.projection.digest[:12]
        assert (world / "images" / str(metadata["file"])).read_bytes() == data  # nothing had to be changed
        np.testing.assert_allclose(one.vector, images.encode([data])[0], atol=1e-3)
    report = index_info(mixed)
    assert (report["documents"], report["pictures"]) == (OWN + TEXTS, OWN)


def test_an_unchanged_picture_is_left_and_a_projection_of_today_makes_it_anew(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["index", str(mixed), "--images"])
    said = " ".join(capsys.readouterr().out.split())
    assert f"{OWN + TEXTS} documents, {OWN} pictures among them; {OWN} read, {OWN} unchanged" in said
    (tmp_path / "other.png").write_bytes(encoded(picture(1, 80), "PNG"))
    acclimate.index(mixed, tmp_path / "other.png", images=True)
    before = stored_pictures(mixed)
    retrain(mixed)
    assert f"{OWN + 1} pictures of an earlier projection" in verify_index(mixed)["problems"][0]
    report = acclimate.index(mixed, images=True)
    assert [report[name] for name in ("encoded", "unchanged", "pictures", "stale")] == [OWN, 0, OWN + 1, 1]
    after = stored_pictures(mixed)
    assert before.keys() == after.keys()
    moved = [not np.allclose(before[name].vector, after[name].vector, atol=1e-2) for name in before]
    assert sum(moved) == OWN  # the other one is not among the run's own
    main(["index", str(mixed), "--images"])
    assert "1 picture of an earlier projection: name the sources" in " ".join(capsys.readouterr().out.split())
    acclimate.index(mixed, tmp_path / "other.png", images=True)
    assert verify_index(mixed)["problems"] == []


def test_pictures_of_other_sources(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Image files, a folder of them, a table; one picture twice, and one that is broken. It makes the index, too."""
    folder = tmp_path / "photos"
    (folder / "w4_w24").mkdir(parents=True)
    (folder / "blue-leaf_2.png").write_bytes(encoded(picture(2, 70), "PNG"))
    (folder / "same.png").write_bytes(encoded(picture(2, 70), "PNG"))
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "w4_w24" / "a.jpg").write_bytes(encoded(picture(4, 71)))
    (tmp_path / "alone.webp").write_bytes(encoded(picture(3, 72), "WEBP"))
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "one.jpg").write_bytes(encoded(picture(5, 73)))
    (tmp_path / "t" / "rows.jsonl").write_text(
        '{"image": "one.jpg", "caption": ["w5 w25", "w5"]}\n{"image": "no.jpg"}\n'
    )
    main(["index", str(run), str(folder), str(tmp_path / "alone.webp"), str(tmp_path / "t" / "rows.jsonl"), "--images"])
    said = " ".join(capsys.readouterr().out.split())
    assert (
        "4 documents, 4 pictures among them; 4 read, 4 new or changed, 1 the same as an earlier one, 2 rejected" in said
    )
    found = {one.document.metadata["file"]: one.document for one in stored_pictures(run).values()}
    texts = {name: document.text for name, document in found.items()}
    assert texts == {
        "blue-leaf_2.png": "blue leaf 2",
        "w4_w24/a.jpg": "w4 w24",
        "alone.webp": "alone",
        "one.jpg": "w5 w25",
    }
    assert found["w4_w24/a.jpg"].metadata["class"] == "w4 w24" and "class" not in found["one.jpg"].metadata
    reasons = [json.loads(line)["reason"] for line in (run / "index-rejected.jsonl").read_text().splitlines()]
    assert len(reasons) == 2 and reasons[0].startswith("no image") and "neither a text nor a class" in reasons[1]
    main(["search", str(run), "w4 w24"])
    assert "the index holds pictures only" in capsys.readouterr().err
    again = acclimate.index(run, folder, images=True)
    assert (again["unchanged"], again["encoded"], again["twice"]) == (2, 0, 1)
    renamed = folder / "blue-leaf_2.png"
    renamed.rename(folder / "a green leaf.png")
    again = acclimate.index(run, folder, images=True)
    assert (again["relabelled"], again["encoded"]) == (1, 0)


def test_what_was_acknowledged_before_an_interruption_stays(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "BATCH_PICTURES", 10)
    original, calls = LocalIndex.upsert, []

    def upsert(self: LocalIndex, documents: Sequence[Any], vectors: Any) -> None:
        calls.append(len(documents))
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(self, documents, vectors)

    with monkeypatch.context() as patch:
        patch.setattr(LocalIndex, "upsert", upsert)
        with pytest.raises(KeyboardInterrupt):
            acclimate.index(run, images=True)
    there = stored_pictures(run)
    assert len(there) == 20
    kept = [path.name for path in (run / "pictures").rglob("*") if path.is_file()]
    assert {name.removeprefix("picture:") for name in there} < set(kept) and len(kept) == 30  # bytes come first
    report = acclimate.index(run, images=True)
    assert (report["unchanged"], report["encoded"]) == (20, OWN - 20)
    assert verify_index(run)["problems"] == []


@pytest.mark.slow
def test_a_kill_between_two_batches_leaves_whole_files_and_what_was_acknowledged(run: Path) -> None:
    child = os.fork()
    if child == 0:
        signal.alarm(300)
        original, calls = LocalIndex.upsert, []

        def upsert(self: LocalIndex, documents: Sequence[Any], vectors: Any) -> None:
            calls.append(len(documents))
            if len(calls) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            original(self, documents, vectors)

        pictures.BATCH_PICTURES = 10
        LocalIndex.upsert = upsert  # type: ignore[method-assign]
        try:
            acclimate.index(run, images=True)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    kept = [path for path in (run / "pictures").rglob("*") if path.is_file()]
    assert len(kept) == 30 and all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in kept)
    report = acclimate.index(run, images=True)
    assert (report["unchanged"], report["encoded"], report["pictures"]) == (20, OWN - 20, OWN)
    assert verify_index(run)["problems"] == []


def test_texts_and_pictures_are_found_apart(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    query = tmp_path / "query.png"
    query.write_bytes(encoded(picture(3, 999), "PNG"))
    main(["search", str(mixed), "--image", str(query), "--top", "4", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert len(found["hits"]) == len(found["pictures"]) == 4
    assert all(hit["id"].startswith("page") for hit in found["hits"])
    assert all(hit["id"].startswith("picture:") for hit in found["pictures"])
    assert {hit["metadata"]["class"] for hit in found["pictures"]} == {"w3 w23"}
    main(["search", str(mixed), "--image", str(query), "--filter", "kind == 1"])
    shown = capsys.readouterr().out
    assert "page" in shown and "no picture found" in shown  # the filter holds for both
    named = acclimate.search_pictures(mixed, "w3 w23", top=4, filter='class = "w4 w24"')
    assert {hit["metadata"]["class"] for hit in named["pictures"]} == {"w4 w24"} and "hits" not in named
    main(["search", str(mixed), "w3 w23", "--images"])
    assert "3/" in capsys.readouterr().out
    texts = acclimate.search(mixed, "w3 w23", top=8)
    assert sorted(hit["id"] for hit in texts["hits"]) == [f"page {n}" for n in range(TEXTS)]
    lexical = acclimate.search(mixed, "w3 w23", mode="lexical", top=50)
    assert [hit["id"] for hit in lexical["hits"]] == ["page 3"]


def test_without_pictures_in_the_index_the_runs_own_are_found(world: Path, run: Path) -> None:
    acclimate.index(run, world / "corpus.jsonl")
    found = acclimate.search_pictures(run, "w3 w23", top=4)
    assert len(found["images"]) == 4 and "pictures" not in found
    with pytest.raises(UsageError, match="no index that holds pictures"):
        acclimate.search_pictures(run, "w3", filter="kind = 1")


def test_reencode_carries_pictures_over_or_leaves_them_out(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = stored(mixed)
    report = reencode_index(mixed)  # into the same space
    after = stored(mixed)
    assert (report["pictures_left_out"], report["documents"], report["encoded"]) == (0, OWN + TEXTS, TEXTS)
    assert {name: one.document for name, one in before.items()} == {name: one.document for name, one in after.items()}
    assert all(np.allclose(one.vector, after[name].vector, atol=1e-3) for name, one in before.items())
    other = as_sentence_transformer(write_tiny_bert(tmp_path / "other", initializer_range=0.3))
    monkeypatch.setattr(feeding, "BATCH_DOCUMENTS", 3)
    capsys.readouterr()
    main(["index", str(mixed), "--reencode", "--model", str(other)])
    told = capsys.readouterr()
    assert f"{OWN} pictures of" in told.err and "index RUN --images" in told.err
    assert f"without {OWN} pictures" in " ".join(told.out.split())
    assert sorted(stored(mixed)) == [f"page {n}" for n in range(TEXTS)]
    with pytest.raises(UsageError, match="holds vectors of another space") as refused:
        acclimate.index(mixed, images=True)
    assert "Train the projection in the space of its texts" in str(refused.value.fix)


def test_the_index_that_is_kept_for_the_way_back_still_has_its_pictures(
    world: Path, mixed: Path, tmp_path: Path
) -> None:
    """An adapter that changes documents is promoted and rolled back; a text that is deleted meanwhile stays away."""
    other = as_sentence_transformer(write_tiny_bert(tmp_path / "other", initializer_range=0.3))
    encoders = [Encoder.load(str(name), device="cpu", dtype="float32") for name in (other, world / "bert")]
    with built_beside(mixed / "index", encoders[0], keep=True) as built:
        assert (built.documents, built.encoded, built.left_out) == (TEXTS, TEXTS, OWN)
        built.publish()
    (tmp_path / "ids.txt").write_text("page 0\n")
    acclimate.index(mixed, delete=tmp_path / "ids.txt", model=str(other))
    with built_beside(mixed / "index", encoders[1], keep=True) as built:
        assert (built.documents, built.encoded, built.left_out) == (OWN + TEXTS - 1, 0, 0)
        built.publish()
    assert len(stored_pictures(mixed)) == OWN and "page 0" not in stored(mixed)


def test_verify_looks_at_the_files_and_encodes_texts_only(mixed: Path) -> None:
    assert verify_index(mixed)["sampled"] == TEXTS and verify_index(mixed)["problems"] == []
    first, second, *_ = sorted(path for path in (mixed / "pictures").rglob("*") if path.is_file())
    data = first.read_bytes()
    first.unlink()
    second.write_bytes(b"x")
    problems = verify_index(mixed)["problems"]
    assert [one.partition(" in ")[0] for one in problems] == [f"of {OWN} pictures"] * 2
    assert problems[0].endswith("1 are missing") and problems[1].endswith("1 are damaged: delete them")
    second.unlink()
    assert acclimate.index(mixed, images=True)["unchanged"] == OWN
    assert first.read_bytes() == data and verify_index(mixed)["problems"] == []


def test_what_was_exported_is_not_read_as_texts(mixed: Path, tmp_path: Path) -> None:
    """A picture's name, encoded, would be another document under the picture's id."""
    acclimate.export_index(mixed, tmp_path / "all.jsonl")
    report = acclimate.index(mixed, tmp_path / "all.jsonl", index_at=str(tmp_path / "new"))
    assert report["documents"] == TEXTS and sum(report["rejected"].values()) == OWN
    assert "its id is that of a picture" in next(iter(report["rejected"]))


def test_deleted_pictures_are_gone_with_their_files(mixed: Path, tmp_path: Path) -> None:
    name = next(iter(stored_pictures(mixed)))
    (tmp_path / "ids.txt").write_text(f"{name}\npage 0\n")
    assert acclimate.index(mixed, delete=tmp_path / "ids.txt")["deleted"] == 2
    sha256 = name.removeprefix("picture:")
    assert name not in stored(mixed) and not (mixed / "pictures" / sha256[:2] / sha256).exists()


def test_no_answer_reads_a_pictures_name_and_no_refresh_learns_it(mixed: Path) -> None:
    with ChatServer(lambda _: "w3 [1].") as server:
        told = acclimate.answer(mixed, "w3 w23", top=50, llm=server.url, llm_model="m")
        (asked,) = server.requests
    assert told["citations"][0]["id"].startswith("page")
    assert "w3 w23" in str(asked) and str(asked).count("w3 w23") == 2  # the page of that text, and the question
    data = Dataset("retrieval", {"d": "w1"}, {}, {}, [Example("w1", "w1")])
    config = RunConfig(device="cpu", dtype="float32")
    corpus, new = _documents(data, one_task(mixed, config))
    assert new == TEXTS and not any(name.startswith("picture:") for name in corpus)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("index", "{run}", "--images", "--info"), "--info is about the index as it is"),
        (("index", "{run}", "--images", "--delete", "ids.txt"), "delete and images exclude each other"),
        (("index", "{run}", "--images", "--chunk-tokens", "100"), "index RUN --images does not read chunk_tokens"),
        (("index", "{run}", "corpus.jsonl", "--image-side", "64"), "index RUN CORPUS does not read image_side"),
        (("index", "{run}", "nowhere", "--images"), "nowhere: no such file or folder"),
        (("index", "{bare}", "--images"), "holds no projection of images"),
        (("index", "{run}", "{text}", "--images"), "no picture can be used (neither"),
        (("index", "{run}", "{run}/pictures", "--images"), "is read"),
    ],
)
def test_what_cannot_be_is_refused_and_makes_no_index(
    words: tuple[str, ...], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bare").mkdir()
    (run / "pictures" / "ab").mkdir(parents=True)
    (run / "pictures" / "ab" / "x.jpg").write_bytes(encoded(picture(1, 1)))
    (tmp_path / "row.jsonl").write_text('{"image": "x.jpg"}\n')
    places = {"run": run, "bare": tmp_path / "bare", "text": tmp_path / "row.jsonl"}
    with pytest.raises(SystemExit) as stopped:
        main([word.format(**places) for word in words])
    assert stopped.value.code in (2, 3, 4, 5)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (run / "index").exists()


def test_a_folder_of_the_users_own_pictures_is_not_written_into(run: Path) -> None:
    (run / "pictures").mkdir()
    (run / "pictures" / "holiday.jpg").write_bytes(encoded(picture(1, 1)))
    with pytest.raises(UsageError, match=r"holds holiday\.jpg, which acclimate did not write"):
        acclimate.index(run, images=True)


def test_pillow_that_is_missing_is_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="images"):
        acclimate.index(run, images=True)


def test_errors_name_what_there_is(run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / "images")
    with pytest.raises(StorageError, match="holds no images"):
        acclimate.index(run, images=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images that are known"):
        acclimate.index(run, tmp_path / "empty", images=True)
    assert not RunFolder(run).pictures.exists()
