"""Feeding an index: only what is new is encoded, chunks of before go, and an interruption costs one batch."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.core.analyser import Analyser
from acclimate.retrieval.index import feeding
from acclimate.retrieval.index.feeding import Whole, cut, feed, remove
from acclimate.retrieval.index.local.index import LocalIndex
from acclimate.retrieval.index.records import Document, Vectors
from acclimate.text_use import SpaceId

SPACE = SpaceId("0" * 64, None, "", "mean", 4, False, "")


class Encoded:
    """Vectors that are a function of the text, and every text that they were asked for."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.texts: list[str] = []
        self.stop_after = stop_after

    def __call__(self, texts: Sequence[str]) -> Vectors:
        if len(self.texts) >= self.stop_after:
            raise KeyboardInterrupt
        self.texts += texts
        rows = np.array([[len(text) + 1, text.count("a"), text.count("b"), 1] for text in texts], np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def opened(folder: Path) -> LocalIndex:
    return LocalIndex.open(folder / "index", SPACE, Analyser())


def plain(name: str, text: str, **metadata: str | int) -> Whole:
    return Whole(name, (Document(name, text, metadata),))


def by_words(name: str, text: str) -> Whole:
    """A chunk for every word."""
    spans, start = [], 0
    for word in text.split(" "):
        spans.append((start, start + len(word)))
        start += len(word) + 1
    return cut(Document(name, text), spans)


def ids(index: LocalIndex) -> list[str]:
    return [stored.document.id for stored in index.iterate()]


def test_only_what_is_new_is_encoded(tmp_path: Path) -> None:
    first, second = Encoded(), Encoded()
    advanced: list[float] = []
    with closing(opened(tmp_path)) as index:
        fed = feed(index, [plain("a", "one"), plain("b", "two", year=1)], first, advanced.append)
        assert (fed.documents, fed.encoded, advanced) == (2, 2, [2])
        again = feed(index, [plain("a", "one"), plain("b", "two", year=2), plain("c", "three")], second)
        assert second.texts == ["three"]
        assert (again.unchanged, again.relabelled, again.encoded) == (1, 1, 1)
        stored = index.get(["b"])["b"]
        assert stored.document.metadata == {"year": 2}
        assert np.allclose(stored.vector, first(["two"])[0], atol=1e-3)


def test_chunks_that_a_document_does_not_have_any_more_go(tmp_path: Path) -> None:
    encode = Encoded()
    with closing(opened(tmp_path)) as index:
        feed(index, [by_words("d", "a b c d"), plain("d#x", "other"), plain("e", "whole")], encode)
        assert ids(index) == ["d#0", "d#1", "d#2", "d#3", "d#x", "e"]
        chunk = index.get(["d#2"])["d#2"].document
        assert (chunk.text, chunk.parent, chunk.start, chunk.end) == ("c", "d", 4, 5)
        encode.texts.clear()
        fed = feed(index, [by_words("d", "a b"), by_words("e", "now two")], encode)
        assert encode.texts == ["now", "two"] and fed.removed == 3
        assert ids(index) == ["d#0", "d#1", "d#x", "e#0", "e#1"]
        feed(index, [plain("d", "a b")], encode)
        assert ids(index) == ["d", "d#x", "e#0", "e#1"]
        assert remove(index, ["e", "d", "nothing"]) == 2
        assert ids(index) == ["d#x"]


def test_an_interruption_costs_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeding, "BATCH_DOCUMENTS", 3)
    documents = [plain(f"d{number}", "a" * number) for number in range(1, 11)]
    with closing(opened(tmp_path)) as index, pytest.raises(KeyboardInterrupt):
        feed(index, documents, Encoded(stop_after=6))
    rest = Encoded()
    with closing(opened(tmp_path)) as index:
        assert index.count() == 6
        feed(index, documents, rest)
        assert index.count() == 10
    assert len(rest.texts) == 4


def test_more_chunks_than_are_asked_for_at_once(tmp_path: Path) -> None:
    with closing(opened(tmp_path)) as index:
        feed(index, [by_words("d", " ".join("ab" * 100))], Encoded())
        assert index.count() == 200
        feed(index, [by_words("d", "a")], Encoded())
        assert ids(index) == ["d#0"]


CALLS = st.lists(
    st.dictionaries(st.sampled_from("xyz"), st.text("ab ", min_size=1, max_size=9).filter(str.strip), max_size=3),
    max_size=5,
)


@settings(max_examples=25, deadline=None)
@given(CALLS, st.booleans(), st.sets(st.sampled_from("xyz")))
def test_any_calls_end_as_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, calls: list[dict[str, str]], chunked: bool, removed: set[str]
) -> None:
    expected: dict[str, str] = {}
    with closing(opened(tmp_path_factory.mktemp("law"))) as index:
        for call in calls:
            texts = {name: " ".join(text.split()) for name, text in call.items()}
            feed(index, [(by_words if chunked else plain)(name, text) for name, text in texts.items()], Encoded())
            expected |= texts
        remove(index, removed)
        found: dict[str, list[str]] = {}
        for stored in index.iterate():
            found.setdefault(stored.document.parent or stored.document.id, []).append(stored.document.text)
    kept = {name: text for name, text in expected.items() if name not in removed}
    assert {name: " ".join(parts) for name, parts in found.items()} == kept
