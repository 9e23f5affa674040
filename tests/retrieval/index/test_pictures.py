"""Pictures among the documents of an index: told from texts by id and metadata, searched and measured apart."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from acclimate.evaluation.through_index import Asked, recall_against_exact, search_all
from acclimate.retrieval.index.local import fields, store
from acclimate.retrieval.index.local.index import LocalIndex
from acclimate.retrieval.index.pictures import (
    PICTURES,
    NewPicture,
    among_texts,
    feed_pictures,
    first_texts,
    is_picture,
    picture_document,
    sha256_of,
)
from acclimate.retrieval.index.records import Document, Fusion, Query, Vectors
from tests.retrieval.index.contract import DIM, SPACE, unit


def picture(number: int, projection: str = "p1") -> Document:
    return picture_document(f"{number:064x}", f"leaf {number}", file=f"{number}.jpg", projection=projection, group=None)


def index_of(folder: Path, texts: int, pictures: int) -> LocalIndex:
    """Texts around one axis, pictures around another, whose ids come between those of the texts."""
    index = LocalIndex.open(folder, SPACE)
    rows = [Document(f"{'az'[number % 2]}{number:03}", f"rust {number}") for number in range(texts)]
    rows += [picture(number) for number in range(pictures)]
    vectors = unit(len(rows)) * 0.3
    vectors[:texts, 0] += 1
    vectors[texts:, 1] += 1
    index.upsert(rows, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    return index


@pytest.mark.parametrize(
    ("document", "is_one"),
    [
        (picture(1), True),
        (Document("leaf", "a", picture(1).metadata), False),
        (Document(picture(1).id, "a"), False),
        (Document(picture(1).id, "a", picture(2).metadata), False),
        (Document(picture(1).id, "a", {"picture": "1" * 64}), False),
        (Document("sku-17", "a red chair", {"picture": "https://example.org/17.jpg"}), False),
    ],
)
def test_a_picture_is_one_by_its_id_and_its_metadata(document: Document, is_one: bool) -> None:
    assert is_picture(document) == is_one


@pytest.mark.parametrize("name", ["picture:" + "g" * 64, "picture:" + "A" * 64, "picture:" + "1" * 63, "1" * 64])
def test_other_ids_are_of_no_picture(name: str) -> None:
    assert sha256_of(name) is None


def test_a_text_with_a_field_called_picture_is_a_text(tmp_path: Path) -> None:
    index = LocalIndex.open(tmp_path / "index", SPACE)
    index.upsert([Document("sku-17", "chair", {"picture": "17.jpg"})], unit(1))
    assert not index.has_pictures() and among_texts(index, None) is None
    index.close()


def test_the_first_texts_are_found_beyond_the_pictures(tmp_path: Path) -> None:
    index = index_of(tmp_path / "index", texts=8, pictures=20)
    names = [f"a{number:03}" for number in (0, 2, 4, 6)] + [f"z{number:03}" for number in (1, 3, 5, 7)]
    assert [one.document.id for one in first_texts(index, 6)] == names[:6]
    assert [one.document.id for one in first_texts(index, 3)] == names[:3]
    assert [one.document.id for one in first_texts(index, 50)] == names
    index.close()


def test_what_is_measured_through_an_index_is_its_texts(tmp_path: Path) -> None:
    """Queries that lie nearest to pictures: without a filter these would be all that is found."""
    index = index_of(tmp_path / "index", texts=30, pictures=150)
    axis = np.eye(DIM, dtype=np.float32)[1]
    assert all(is_picture(hit.document) for hit in index.search(Query(None, axis, "dense", 100)))
    asked = Asked({"q": "rust 7"}, axis[None], "model")
    for mode in ("dense", "lexical", "hybrid"):
        found = search_all(index, asked, mode, Fusion())  # type: ignore[arg-type]
        assert found["q"] and not any(is_picture(hit.document) for hit in found["q"])
    assert recall_against_exact(index, asked, search_all(index, asked, "dense", Fusion())) == 1.0
    index.close()


def test_only_what_another_projection_has_made_is_encoded(tmp_path: Path) -> None:
    """A user's text under a picture's id is none: the picture takes its place."""
    index = index_of(tmp_path / "index", texts=2, pictures=0)
    index.upsert([Document(picture(0).id, "leaf 0")], unit(1))
    kept: list[str] = []
    asked: list[int] = []

    def encode(some: object) -> Vectors:
        numbers = [one.number for one in some]  # type: ignore[attr-defined]
        asked.extend(numbers)
        return unit(len(numbers), seed=5)

    def feed(*documents: Document) -> tuple[int, int, int, int]:
        asked.clear()
        new = [NewPicture(document, b"x", number) for number, document in enumerate(documents)]
        fed = feed_pictures(index, new, lambda sha256, _: kept.append(sha256), encode)
        return fed.documents, fed.encoded, fed.relabelled, fed.unchanged

    assert feed(picture(0), picture(1)) == (2, 2, 0, 0)
    assert kept == [picture(0).metadata["picture"], picture(1).metadata["picture"]]
    renamed = picture_document(f"{1:064x}", "rust", file="b.jpg", projection="p1", group="x")
    assert feed(picture(0), renamed, picture(2, "p2")) == (3, 1, 1, 1) and asked == [2]
    assert feed(picture(0, "p2"), picture(1, "p2"), picture(2, "p2")) == (3, 2, 0, 1) and asked == [0, 1]
    assert index.count(PICTURES) == 3 and index.count() == 5
    index.close()


def test_texts_alone_are_searched_without_a_look_at_their_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_of(tmp_path / "index", texts=8, pictures=0).close()

    def read(*_: object) -> None:
        raise AssertionError("all metadata is read")

    monkeypatch.setattr(fields, "current", read)
    index = LocalIndex.open(tmp_path / "index")
    assert among_texts(index, None) is None
    index.close()


@pytest.mark.parametrize("pictures", [0, 3])
def test_an_index_of_an_earlier_release_says_the_same(tmp_path: Path, pictures: int) -> None:
    """It does not keep which documents are pictures; the next write makes it do so."""
    index_of(tmp_path / "index", texts=8, pictures=pictures).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "index" / store.FILE)) as database:
        database.execute(f"DROP INDEX {store.PICTURES_INDEX}")
    index = LocalIndex.open(tmp_path / "index")
    assert index.store.has_pictures() is None
    assert index.has_pictures() == bool(pictures)
    index.upsert([Document("new", "rust")], unit(1))
    assert index.store.has_pictures() == index.has_pictures() == bool(pictures)
    index.close()
