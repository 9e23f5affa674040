"""An index over to another backend and back, interrupted, changed in between; and what is compared in the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

from acclimate.core.analyser import Analyser
from acclimate.errors import StorageError
from acclimate.retrieval.index import moving
from acclimate.retrieval.index.adopting import likeness
from acclimate.retrieval.index.local.index import LocalIndex
from acclimate.retrieval.index.opening import backend_of, open_index
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.qdrant.connection import parse_qdrant_url
from acclimate.retrieval.index.qdrant.index import QdrantIndex
from acclimate.retrieval.index.records import Document, Query, Vectors
from tests.retrieval.index.contract import SPACE, corpus, found, unit

ENGLISH = Analyser("english", stop_words=True, stemming=True)


@pytest.fixture
def source(tmp_path: Path) -> Index:
    """A local index of sixty documents, one of them a chunk."""
    index = LocalIndex.open(tmp_path / "source", SPACE, ENGLISH)
    chunk = Document("report#1", "irrigated fields", {"n": 1}, "report", 5, 21)
    index.upsert([*corpus(59), chunk], unit(60))
    return index


def test_round_by_qdrant_and_postgres_nothing_changes(
    source: Index, tmp_path: Path, new_table: Callable[[], str]
) -> None:
    farm = parse_qdrant_url("qdrant://memory/farm")
    client = QdrantClient(":memory:")
    table, publish = backend_of("postgresql://").target(new_table(), SPACE, source.analyser)
    points = QdrantIndex.beside(client, farm, SPACE, source.analyser)
    back = backend_of(tmp_path).target(str(tmp_path / "back"), SPACE, source.analyser).filled
    wanted = list(source.iterate())
    for start, target in ((source, table), (table, points), (points, back)):
        moved = moving.move(start, target)
        assert (moved.documents, moved.written, len(moved.sample)) == (60, 60, 60)
        assert moving.compare(start, target, moved.sample) == (60, 60, 1.0)
        assert target.analyser == ENGLISH
        for ours, theirs in zip(target.iterate(), wanted, strict=True):
            assert ours.document == theirs.document
            assert ours.vector == pytest.approx(theirs.vector, abs=1e-3)
        assert "report#1" in found(target, Query("irrigation of a field", mode="lexical", top_k=60))
    publish()
    points.publish()
    assert QdrantIndex.open(client, farm).count() == 60
    for index in (table, points, back):
        index.close()


class Stop(Exception):
    """The interruption."""


def test_a_move_goes_on_where_it_was_stopped(
    source: Index, new_table: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moving, "BATCH", 10)
    table = new_table()
    target = open_index(table, SPACE)
    write, calls = target.upsert, []

    def stopped_after_three(documents: Sequence[Document], vectors: Vectors) -> None:
        if len(calls) == 3:
            raise Stop
        calls.append(len(documents))
        write(documents, vectors)

    monkeypatch.setattr(target, "upsert", stopped_after_three)
    with pytest.raises(Stop):
        moving.move(source, target)
    target.close()

    source.upsert([Document("d000", "changed since")], unit(1, seed=9))
    again = open_index(table, SPACE)
    moved = moving.move(source, again)
    assert (moved.documents, moved.written) == (60, 31)
    assert again.get(["d000"])["d000"].document.text == "changed since"
    assert moving.compare(source, again, moved.sample).recall == 1.0
    assert moving.move(source, again).written == 0
    again.close()


def test_what_does_not_belong_there_is_named(source: Index, new_table: Callable[[], str]) -> None:
    target = open_index(new_table(), SPACE)
    target.upsert([Document("stranger", "x")], unit(1, seed=4))
    moved = moving.move(source, target)
    with pytest.raises(StorageError, match="'stranger'"):
        moving.compare(source, target, moved.sample)
    target.delete(["stranger", "d001"])
    with pytest.raises(StorageError, match="60 documents, the one moved to 59"):
        moving.compare(source, target, moved.sample)
    target.close()


def test_other_vectors_are_noticed(source: Index, new_table: Callable[[], str]) -> None:
    target = open_index(new_table(), SPACE)
    stored = list(source.iterate())
    target.upsert([one.document for one in stored], unit(60, seed=8))
    with pytest.raises(StorageError, match="of the neighbours of 60 documents"):
        moving.compare(source, target, stored)
    target.close()


def test_likeness_by_hand() -> None:
    """Cosines 1, 1 (of a vector of length 2), 0.6 and, of a vector of zeros, 0."""
    encoded = np.eye(4, 3, dtype=np.float32)
    encoded[3] = [1, 0, 0]
    stored = np.array([[1, 0, 0], [0, 2, 0], [0, 0.8, 0.6], [0, 0, 0]], np.float32)
    found = likeness(stored, encoded)
    assert found.median_cosine == pytest.approx(0.8)
    assert (found.least_cosine, found.share, found.are_units, found.is_the_same) == (0.0, 0.5, False, False)
    assert likeness(encoded.astype(np.float16).astype(np.float32), encoded).is_the_same
    assert not likeness(2 * encoded, encoded).is_the_same
    assert "50%" in str(found) and "median 0.8000" in str(found)
