"""What every backend of an index does: one suite, which `test_contract.py` runs over all of them.

A backend is a `Backend`: how to make a new, empty index, and how to open the same one again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pytest

from acclimate.core.filter_language import parse_filter
from acclimate.core.filters import matches
from acclimate.errors import DataError, UsageError
from acclimate.retrieval.index.pictures import PICTURES
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.records import Document, Fusion, Query, Vectors
from acclimate.text_use import SpaceId

DIM = 16
SPACE = SpaceId("a" * 64, None, "", "mean", DIM, False, "")
CROPS = ("rice", "maize", "wheat")
FILTERS = (
    'crop = "rice"',
    'crop in ("rice", "maize") and year >= 2020',
    "year > 2020 and year <= 2023",
    "not exists(year)",
    "not (exists(crop) and exists(year))",
    'crop != "rice"',
    "organic = true",
    "organic = true or yield < 2.5",
    "yield = 2",
    'tags = "new" and not tags = "old"',
    'sown >= "2024-03" and sown < "2024-06"',
    'year = "2020"',
    'missing = 1 or crop = "nothing"',
    "not (organic = true or exists(year))",
)


@dataclass(frozen=True)
class Backend:
    """How the suite gets an index of this kind."""

    name: str
    new: Callable[[SpaceId], Index]
    """Makes an empty one."""
    again: Callable[[Index], Index]
    """Closes it, and opens what it has kept."""


def unit(rows: int, seed: int = 0, dim: int = DIM) -> Vectors:
    """Random unit rows, such that float16 holds them exactly enough: they are rounded first."""
    vectors = np.random.default_rng(seed).standard_normal((rows, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16).astype(np.float32)


def corpus(count: int = 60) -> list[Document]:
    """Documents with every kind of metadata, some of them without some."""
    documents = []
    for n in range(count):
        metadata: dict[str, object] = {"crop": CROPS[n % 3], "yield": [2, 2.0, 2.5, 3.25][n % 4]}
        if n % 5:
            metadata["year"] = 2018 + n % 7
        if n % 4 == 0:
            metadata["organic"] = n % 8 == 0
        metadata["tags"] = ("new", "old") if n % 6 == 0 else ("new",)
        metadata["sown"] = f"2024-{1 + n % 12:02}-15"
        text = f"field {n} of {CROPS[n % 3]}, {'dry ' * (n % 4)}soil number{n}"
        documents.append(Document(f"d{n:03}", text, metadata))  # type: ignore[arg-type]
    return documents


def numbered(count: int, version: int = 0) -> list[Document]:
    """Documents that say which of several versions they are."""
    return [Document(f"d{n:04}", f"text {n} version{version}", {"n": n, "v": version}) for n in range(count)]


def expected(documents: Sequence[Document], vectors: Vectors, query: Vectors, top_k: int, text: str = "") -> list[str]:
    """Exact search: score descending, then id; of the documents that pass the filter."""
    filter = parse_filter(text) if text else None
    passing = [n for n, one in enumerate(documents) if filter is None or matches(filter, one.metadata)]
    scores = vectors[passing].astype(np.float64) @ query.astype(np.float64)
    order = sorted(range(len(passing)), key=lambda place: (-scores[place], documents[passing[place]].id))
    return [documents[passing[place]].id for place in order[:top_k]]


def found(index: Index, query: Query) -> list[str]:
    return [hit.id for hit in index.search(query)]


def before_and_after(backend: Backend, index: Index) -> Iterator[Index]:
    """The index as it is, then closed and opened again."""
    yield index
    yield backend.again(index)


class Contract:
    """The suite; a backend's fixture is `backend`."""

    def test_dense_search_is_exact(self, backend: Backend) -> None:
        documents, vectors = corpus(), unit(60)
        index = backend.new(SPACE)
        index.upsert(documents, vectors)
        for query in unit(5, seed=1):
            hits = index.search(Query(vector=query, mode="dense", top_k=7))
            assert [hit.id for hit in hits] == expected(documents, vectors, query, 7)
            places = [int(hit.id[1:]) for hit in hits]
            assert [hit.score for hit in hits] == pytest.approx((vectors[places] @ query).tolist(), abs=2e-3)
        index.close()

    @pytest.mark.parametrize("text", FILTERS)
    def test_filters_mean_what_matches_says(self, backend: Backend, text: str) -> None:
        documents, vectors = corpus(), unit(60)
        first = backend.new(SPACE)
        first.upsert(documents, vectors)
        for index in before_and_after(backend, first):
            wanted = {one.id for one in documents if matches(parse_filter(text), one.metadata)}
            assert index.count(parse_filter(text)) == len(wanted)
            query = Query("soil", unit(1, seed=2)[0], "dense", 60, parse_filter(text))
            assert found(index, query) == expected(documents, vectors, unit(1, seed=2)[0], 60, text)
            assert set(found(index, Query("soil", None, "lexical", 60, parse_filter(text)))) == wanted
            assert set(found(index, Query("soil", query.vector, "hybrid", 60, parse_filter(text)))) == wanted
        index.close()

    def test_words_are_found_chinese_ones_too(self, backend: Backend) -> None:
        texts = ["小麦锈病的防治", "水稻的种植", "Wheat rust and its control", "rust on iron", "it isn't 3.5 my_dir"]
        documents = [Document(f"d{n}", text) for n, text in enumerate(texts)]
        first = backend.new(SPACE)
        first.upsert(documents, unit(5))
        for index in before_and_after(backend, first):
            for text, wanted in (
                ("小麦", ["d0"]),
                ("水稻", ["d1"]),
                ("WHEAT", ["d2"]),
                ("my_dir", ["d4"]),
                ("3.5", ["d4"]),
                ("nothing at all", []),
                ("", []),
                ("?!", []),
            ):
                assert found(index, Query(text, mode="lexical")) == wanted
            assert set(found(index, Query("rust", mode="lexical"))) == {"d2", "d3"}
            # Both words, and the shorter text.
            assert found(index, Query("iron rust", mode="lexical"))[0] == "d3"
        index.close()

    def test_hybrid_is_the_fusion_of_both(self, backend: Backend) -> None:
        documents = [Document("a", "wheat"), Document("b", "maize"), Document("c", "wheat and maize")]
        vectors = np.eye(DIM, dtype=np.float32)[:3]
        index = backend.new(SPACE)
        index.upsert(documents, vectors)
        query = (vectors[1] * 0.8 + vectors[0] * 0.6).astype(np.float32)
        # Dense: b, a, c. Lexical, for "wheat": a (shorter), c. With the constant 1: a has 1/3 + 1/2, b has 1/2.
        hits = index.search(Query("wheat", query, "hybrid", 3, fusion=Fusion(constant=1)))
        assert [hit.id for hit in hits] == ["a", "c", "b"]
        assert [hit.score for hit in hits] == pytest.approx([1 / 3 + 1 / 2, 1 / 4 + 1 / 3, 1 / 2])
        only_dense = Query("wheat", query, "hybrid", 3, fusion=Fusion(constant=1, lexical_weight=0))
        assert found(index, only_dense) == ["b", "a", "c"]
        index.close()

    def test_a_document_comes_back_whole(self, backend: Backend) -> None:
        chunk = Document(
            "report/7#2", "  línea\n小麦 🌾 ", {"n": 3, "x": 1.5, "ok": False, "tags": ("a", "b")}, "report/7", 5, 20
        )
        plain = Document("plain", "")
        vectors = unit(2)
        first = backend.new(SPACE)
        first.upsert([chunk, plain], vectors)
        for index in before_and_after(backend, first):
            assert index.space == SPACE
            stored = index.get(["report/7#2", "absent", "plain"])
            assert {name: one.document for name, one in stored.items()} == {"report/7#2": chunk, "plain": plain}
            assert stored["report/7#2"].vector == pytest.approx(vectors[0], abs=1e-3)
            assert index.search(Query(vector=vectors[0], mode="dense", top_k=1))[0].document == chunk
            assert type(stored["report/7#2"].document.metadata["ok"]) is bool
            assert type(stored["report/7#2"].document.metadata["n"]) is int
        index.close()

    def test_upsert_replaces_and_delete_removes_at_once(self, backend: Backend) -> None:
        vectors = unit(4)
        first = backend.new(SPACE)
        first.upsert([Document("a", "old words", {"v": 1}), Document("b", "other")], vectors[:2])
        first.upsert([Document("a", "new terms", {"v": 2}), Document("c", "third")], vectors[2:])
        for index in before_and_after(backend, first):
            assert index.count() == 3
            assert found(index, Query("old", mode="lexical")) == []
            assert found(index, Query("new", mode="lexical")) == ["a"]
            assert index.count(parse_filter("v = 1")) == 0
            assert index.search(Query(vector=vectors[0], mode="dense", top_k=1))[0].score < 0.999
            assert found(index, Query(vector=vectors[2], mode="dense", top_k=1)) == ["a"]
        assert index.delete(["a", "nobody", "a"]) == 1
        second = index
        for index in before_and_after(backend, second):
            assert index.count() == 2
            assert found(index, Query("new", mode="lexical")) == []
            assert sorted(found(index, Query(vector=vectors[2], mode="dense"))) == ["b", "c"]
            assert index.get(["a"]) == {}
        index.upsert([Document("a", "back again")], vectors[:1])
        assert found(index, Query("back", mode="lexical")) == ["a"]
        assert found(index, Query(vector=vectors[0], mode="dense", top_k=1)) == ["a"]
        index.close()

    def test_iteration_is_in_the_order_of_ids_and_resumes(self, backend: Backend) -> None:
        names = ["b", "a", "Z", "é", "中", "a/b", "10", "9"]
        index = backend.new(SPACE)
        index.upsert([Document(name, name) for name in names], unit(8))
        assert [one.document.id for one in index.iterate()] == sorted(names)
        assert [one.document.id for one in index.iterate(after="a")] == sorted(names)[sorted(names).index("a") + 1 :]
        assert all(one.vector.shape == (DIM,) and one.vector.dtype == np.float32 for one in index.iterate())
        index.close()

    def test_it_knows_whether_it_holds_pictures(self, backend: Backend) -> None:
        """After any writes: pictures, texts with one of their fields, a text in the place of a picture, deletions."""
        draw = np.random.default_rng(5)
        kinds: list[dict[str, str]] = [
            {},
            {"picture": "7.jpg"},
            {"projection": "x"},
            {"picture": "a", "projection": "b"},
        ]
        index = backend.new(SPACE)
        assert not index.has_pictures()
        seen = set()
        for step in range(24):
            ids = [f"d{number}" for number in draw.choice(6, draw.integers(1, 4), replace=False)]
            if draw.random() < 0.5:
                chosen = draw.choice(4, len(ids), p=[0.3, 0.2, 0.2, 0.3])
                documents = [Document(name, "a text", kinds[kind]) for name, kind in zip(ids, chosen, strict=True)]
                index.upsert(documents, unit(len(ids), seed=step))
            else:
                index.delete(ids)
            if step % 6 == 5:
                index = backend.again(index)
            there = index.count(PICTURES) > 0
            assert index.has_pictures() == there
            seen.add(there)
        index.close()
        assert seen == {True, False}

    def test_an_empty_index_answers(self, backend: Backend) -> None:
        first = backend.new(SPACE)
        for index in before_and_after(backend, first):
            assert index.count() == 0 and index.info().documents == 0
            assert index.search(Query("x", unit(1)[0])) == []
            assert list(index.iterate()) == [] and index.delete(["x"]) == 0
            index.upsert([], np.empty((0, DIM), np.float32))
        index.close()
        index.close()

    @pytest.mark.parametrize(
        ("vector", "said"),
        [
            (np.full(DIM, np.nan), "not finite"),
            (np.zeros(DIM), "length 0"),
            (np.ones(DIM), "length 4"),
            (np.eye(DIM + 1)[0], "shape"),
        ],
    )
    def test_vectors_that_are_none_are_refused(self, backend: Backend, vector: Vectors, said: str) -> None:
        index = backend.new(SPACE)
        with pytest.raises(DataError, match=said):
            index.upsert([Document("good", "x"), Document("bad", "y")], np.stack([np.eye(len(vector))[0], vector]))
        with pytest.raises(DataError, match=said):
            index.search(Query(vector=vector.astype(np.float32), mode="dense"))
        assert index.count() == 0
        index.close()

    @pytest.mark.parametrize(
        ("document", "said"),
        [
            (Document("", "x"), "empty"),
            (Document("a\0b", "x"), "NUL"),
            (Document("x" * 10_240, "x"), "10,240 bytes"),
            (Document("a", "x\0y"), "NUL"),
            (Document("a", "half \ud800 pair"), "surrogate"),
            (Document("a", "x", {"n": float("nan")}), "nan"),
            (Document("a", "x", {"n": 2**70}), "64 bits"),
            (Document("a", "x", {"n": {"deep": 1}}), "deep"),  # type: ignore[dict-item]
            (Document("a", "x", {"": 1}), "empty name"),
            (Document("a", "x", {"n": "y" * 70_000}), "70,"),
            (Document("a", "x" * 100_000_000), "100,000,000 characters"),
        ],
        ids=lambda value: value[:12] if isinstance(value, str) else "",
    )
    def test_documents_that_none_takes_are_refused(self, backend: Backend, document: Document, said: str) -> None:
        index = backend.new(SPACE)
        with pytest.raises(DataError, match=said) as caught:
            index.upsert([Document("good", "x"), document], unit(2))
        assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
        assert index.count() == 0
        index.close()

    def test_odd_but_possible_ids(self, backend: Backend) -> None:
        names = ["a/b/../c", "x" * 1024, "'; DROP TABLE documents; --", " ", "\n", "%", "🌾", "a" * 1000 + "b"]
        vectors = unit(len(names))
        index = backend.new(SPACE)
        index.upsert([Document(name, "t") for name in names], vectors)
        for name, vector in zip(names, vectors, strict=True):
            assert found(index, Query(vector=vector, mode="dense", top_k=1)) == [name]
        assert index.delete(names) == len(names)
        index.close()

    def test_one_call_has_every_id_once(self, backend: Backend) -> None:
        index = backend.new(SPACE)
        with pytest.raises(DataError, match="twice"):
            index.upsert([Document("a", "x"), Document("a", "y")], unit(2))
        with pytest.raises(DataError, match="shape"):
            index.upsert([Document("a", "x")], unit(2))
        index.close()

    def test_a_search_says_what_it_lacks(self) -> None:
        with pytest.raises(UsageError, match="no vector"):
            Query("x", None, "hybrid")
        with pytest.raises(UsageError, match="no text"):
            Query(None, unit(1)[0], "lexical")
        with pytest.raises(UsageError, match="top_k is 0"):
            Query("x", mode="lexical", top_k=0)
