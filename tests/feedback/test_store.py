"""The store of impressions and marks: what is refused, what is stored once, who may read while another writes."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from acclimate.errors import StorageError, UsageError
from acclimate.feedback.position import PairClicks
from acclimate.feedback.records import Impression, Mark, StoredMark
from acclimate.feedback.store import FeedbackStore

SHOWN = Impression("i1", 1.0, "Rust on wheat", ("a", "b", "c"), "adapter", "space", 7, 2)


@pytest.fixture
def store(tmp_path: Path) -> FeedbackStore:
    made = FeedbackStore(tmp_path / "feedback.sqlite", create=True)
    made.add_impressions([SHOWN])
    return made


def test_what_is_stored_comes_back(store: FeedbackStore) -> None:
    assert store.add_impressions([SHOWN]) == 0, "it is there"
    added = store.add_marks(
        [
            Mark("b", "click", impression_id="i1", user="ann", at=2.0),
            Mark("z", "relevant", query="something else", user="bob", at=3.0),
        ]
    )
    assert (added.stored, added.repeated, added.refused) == (2, 0, [])
    assert list(store.impressions()) == [SHOWN]
    assert SHOWN.propensities == [1.0, 0.5, 0.5]
    assert list(store.marks()) == [
        StoredMark(1, 2.0, "Rust on wheat", "b", "click", "ann", "i1", 2, 2, "space"),
        StoredMark(2, 3.0, "something else", "z", "relevant", "bob", None),
    ]
    assert store.seq == 2 and store.marks_after(1) == 1
    assert store.counts() == {
        "impressions": 1,
        "impressions in random order": 1,
        "marks": 2,
        "click": 1,
        "relevant": 1,
        "users": 2,
        "queries": 2,
    }
    assert store.pair_clicks() == [PairClicks("ann", 2, 1, 0)]
    assert store.pair_clicks(until=0) == []


@pytest.mark.parametrize(
    ("mark", "reason"),
    [
        (Mark("a", "click", impression_id="nobody"), "unknown impression"),
        (Mark("d", "click", impression_id="i1"), "not shown by the impression"),
        (Mark("a", "click", impression_id="i1", query="barley"), "another query than the impression's"),
        (Mark("a", "relevant"), "neither impression nor query"),
        (Mark("a", "relevant", query="  "), "neither impression nor query"),
        (Mark("gone", "relevant", query="wheat"), "no such document"),
        (Mark("a", "", query="wheat"), "no name of a mark"),
        (Mark("a", "Relevant!", query="wheat"), "no name of a mark"),
        (Mark("", "relevant", query="wheat"), "too long, or no text"),
        (Mark("a", "relevant", query="\ud800"), "too long, or no text"),
        (Mark("a", "relevant", query="wheat", user="u" * 2000), "too long, or no text"),
    ],
)
def test_a_mark_that_cannot_be_is_named_and_the_others_are_stored(
    store: FeedbackStore, mark: Mark, reason: str
) -> None:
    good = Mark("a", "relevant", query="wheat")
    added = store.add_marks([good, mark], lambda ids: {"a", "b", "c", "d", ""}.intersection(ids))
    assert added.stored == 1
    assert [(one.index, one.reason) for one in added.refused] == [(1, reason)]


def test_the_same_mark_is_stored_once_and_a_judgement_can_be_taken_back(store: FeedbackStore) -> None:
    def said(mark: str, user: str | None = "ann", impression: str | None = None) -> tuple[int, int]:
        query = None if impression else "wheat"
        added = store.add_marks([Mark("a", mark, query, impression, user)])
        return added.stored, added.repeated

    assert said("relevant") == (1, 0)
    assert said("relevant") == (0, 1)
    assert said("relevant", user="bob") == (1, 0)
    assert said("not_relevant") == (1, 0)
    assert said("relevant") == (1, 0), "the later judgement counts, so it is stored"
    assert said("click", impression="i1") == (1, 0)
    assert said("click", impression="i1") == (0, 1)
    assert said("click", user=None) == (1, 0)


def test_a_reader_sees_whole_changes_while_another_connection_writes(store: FeedbackStore) -> None:
    reader = FeedbackStore(store.path, read_only=True)
    with store.transaction():
        store.db.execute(
            "INSERT INTO impressions (id, at, query, shown, adapter, space) VALUES ('x', 0, '', '[]', '', '')"
        )
        assert reader.counts()["impressions"] == 1
    assert reader.counts()["impressions"] == 2
    with pytest.raises(StorageError, match="readonly"):
        reader.add_impressions([Impression("y", 0.0, "q", (), "", "")])


def test_a_kill_before_the_commit_leaves_what_was_there(store: FeedbackStore) -> None:
    child = os.fork()
    if child == 0:
        own = FeedbackStore(store.path)
        own.db.execute("BEGIN IMMEDIATE")
        own.db.execute("DELETE FROM impressions")
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert list(store.impressions()) == [SHOWN]
    assert store.add_marks([Mark("a", "click", impression_id="i1")]).stored == 1


def test_what_is_no_feedback_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "feedback.sqlite"
    with pytest.raises(StorageError, match="there is no feedback"):
        FeedbackStore(path)
    sqlite3.connect(path).execute("CREATE TABLE theirs (x)").connection.close()
    with pytest.raises(UsageError, match="something else"):
        FeedbackStore(path, create=True)
    path.unlink()
    FeedbackStore(path, create=True).db.execute("PRAGMA user_version = 99")
    with pytest.raises(StorageError, match="file version 99"):
        FeedbackStore(path)
    for rest in path.parent.glob("feedback.sqlite*"):
        rest.unlink()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match="not a database"):
        FeedbackStore(path)
