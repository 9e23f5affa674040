"""`index RUN --to` and `index RUN --adopt`: a run's index on a server, and somebody else's index searched by a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import pytest
from pgvector import Vector
from pgvector.psycopg import register_vector
from psycopg import sql
from qdrant_client import QdrantClient, models

import acclimate
from acclimate.data.dataset import Dataset
from acclimate.errors import DataError, UsageError
from acclimate.flows.index_verbs import rebuild_index, verify_index
from acclimate.models.encoder import Encoder
from acclimate.retrieval.index.opening import open_index
from acclimate.retrieval.index.postgres.connection import parse_postgres_url
from acclimate.retrieval.index.qdrant import index as qdrant_index
from acclimate.retrieval.index.records import Document, Query
from acclimate.types import Sides
from tests.stages.worlds import config_for, tiny_embedder, write_adapter, write_retrieval


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_embedder(tmp_path_factory.mktemp("model") / "base")


def run_of(folder: Path, model: Path, sides: Sides = "query") -> Dataset:
    dataset = write_retrieval(folder)
    write_adapter(folder / "adapter", model, strength=1.0, sides=sides)
    return dataset


def test_a_runs_index_is_moved_and_searched_there(
    tmp_path: Path, model: Path, new_table: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, config, table = tmp_path / "run", config_for(model), new_table()
    run_of(run, model, "both")
    acclimate.index(run, config=config)
    here = acclimate.search(run, "wheat and rain", config=config, top=4)
    report = acclimate.move_index(run, table, config=config)
    assert (report["documents"], report["written"], report["recall"], report["replaces"]) == (40, 40, 1.0, None)
    there = acclimate.search(run, "wheat and rain", config=config, index_at=table, top=4)
    assert [hit["id"] for hit in there["hits"]] == [hit["id"] for hit in here["hits"]]
    assert acclimate.move_index(run, table, config=config)["written"] == 0
    with pytest.raises(UsageError, match="already"):
        acclimate.move_index(run, run / "index", config=config)
    mistyped = new_table()
    for _ in range(2):
        with pytest.raises(UsageError, match="there is no index"):
            acclimate.search(run, "rain", config=config, index_at=mistyped)
    assert verify_index(run, config=config, index_at=table)["problems"] == []
    with psycopg.connect(parse_postgres_url(table).conninfo) as connection:
        query = "UPDATE {} SET vector = (SELECT vector FROM {} LIMIT 1)"
        name = sql.Identifier(parse_postgres_url(table).table)
        connection.execute(sql.SQL("CREATE TABLE kept AS SELECT id, vector FROM {}").format(name))
        connection.execute(sql.SQL(query).format(name, name))
        connection.commit()
        assert "vectors are not those" in verify_index(run, config=config, index_at=table)["problems"][0]
        connection.execute(
            sql.SQL("UPDATE {} AS t SET vector = kept.vector FROM kept WHERE kept.id = t.id").format(name)
        )
        connection.execute("DROP TABLE kept")
    with pytest.raises(UsageError, match="derived from the documents by the server itself"):
        rebuild_index(run, config=config, index_at=table)
    back = acclimate.move_index(run, tmp_path / "back", config=config, index_at=table)
    assert (back["documents"], back["place"]) == (40, str(tmp_path / "back"))

    from acclimate.cli.commands.index import index as command

    command(run, to=new_table(), config=None, settings={})
    assert "40 documents moved; 100.0% of the neighbours of 40 are the same" in capsys.readouterr().out


def test_a_qdrant_collection_is_replaced_by_one_of_a_new_space(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = QdrantClient(":memory:")
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr(qdrant_index, "connect", lambda _: client)
    config = config_for(model)
    for name, sides in (("first", "query"), ("second", "both")):
        run_of(tmp_path / name, model, sides)  # type: ignore[arg-type]
        acclimate.index(tmp_path / name, config=config)
    place = "qdrant://memory/farm"
    assert acclimate.move_index(tmp_path / "first", place, config=config)["replaces"] is None
    with pytest.raises(UsageError, match="another space"):
        acclimate.search(tmp_path / "second", "rain", config=config, index_at=place)
    replaced = acclimate.move_index(tmp_path / "second", place, config=config)["replaces"]
    assert client.count(replaced).count == 40
    assert len(acclimate.search(tmp_path / "second", "rain", config=config, index_at=place)["hits"]) == 5


def their_table(address: str, dataset: Dataset, vectors: np.ndarray, metric: str = "cosine") -> str:
    """A table as other people make them: a number for a key, columns for metadata, an array, a row without a vector."""
    place = parse_postgres_url(address)
    table = sql.Identifier(place.table)
    with psycopg.connect(place.conninfo) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        register_vector(connection)
        connection.execute(
            sql.SQL(
                'CREATE TABLE {} (key int PRIMARY KEY, "Body" text, emb vector({}), year int, tags text[], "50%" int)'
            ).format(table, sql.Literal(vectors.shape[1]))
        )
        rows = enumerate(zip(dataset.corpus.values(), vectors, strict=True))
        for number, (text, vector) in rows:
            connection.execute(
                sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s, %s, 1)").format(table),
                (number, text, Vector(vector), 2000 + number % 4 if number % 5 else None, ["a", f"t{number % 3}"]),
            )
        connection.execute(sql.SQL("INSERT INTO {} VALUES (999, 'no vector yet')").format(table))
        if metric:
            statement = sql.SQL("CREATE INDEX ON {} USING hnsw (emb {})")
            connection.execute(statement.format(table, sql.SQL(f"vector_{metric}_ops")))  # type: ignore[arg-type]
    return address


def encoded(model: Path, dataset: Dataset) -> np.ndarray:
    encoder = Encoder.load(str(model), device="cpu", dtype="float32")
    return encoder.encode(list(dataset.corpus.values()), "document")


@pytest.mark.parametrize("metric", ["cosine", "ip", "l2", ""])
def test_a_table_that_is_there_is_adopted_and_searched(
    tmp_path: Path, model: Path, new_table: Callable[[], str], metric: str
) -> None:
    dataset, config = run_of(tmp_path, model), config_for(model)
    vectors = encoded(model, dataset)
    table = their_table(new_table(), dataset, vectors, metric)
    report = acclimate.adopt_index(tmp_path, table, config=config, text_field="Body", vector_field="emb")
    assert (report["documents"], report["sampled"]) == (40, 40)
    assert report["least_cosine"] > 0.9999
    query = vectors[7]
    with pytest.raises(UsageError, match="adopted"):
        acclimate.search(tmp_path, "rain", config=config, index_at=table)
    found = acclimate.search(
        tmp_path, "rain", config=config, index_at=table, mode="dense", filter='year = 2003 and tags = "t1"'
    )
    wanted = {str(n) for n in range(40) if n % 5 and n % 4 == 3 and n % 3 == 1}
    assert {hit["id"] for hit in found["hits"]} == wanted
    index = open_index(table)
    hits = index.search(Query(vector=query, mode="dense", top_k=40))
    scores = {str(n): score for n, score in enumerate((vectors @ query).tolist())}
    assert {hit.id: hit.score for hit in hits} == pytest.approx(scores, abs=1e-4)
    assert hits[0].document == Document(
        "7", list(dataset.corpus.values())[7], {"key": 7, "year": 2003, "tags": ("a", "t1"), "50%": 1}
    )
    with pytest.raises(UsageError, match="nothing can be written"):
        index.upsert([Document("1", "x")], vectors[:1])
    assert len(list(index.iterate())) == index.count() == 40
    index.close()
    # What was adopted can be moved to an index of our own, where it is searched by words too.
    acclimate.move_index(tmp_path, tmp_path / "own", config=config, index_at=table)
    assert acclimate.search(tmp_path, "rain", config=config, index_at=str(tmp_path / "own"))["mode"] == "hybrid"


def test_a_collection_that_is_there_is_adopted_and_searched(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = QdrantClient(":memory:")
    monkeypatch.setattr(client, "close", lambda: None)
    monkeypatch.setattr(qdrant_index, "connect", lambda _: client)
    dataset, config = run_of(tmp_path, model), config_for(model)
    vectors = encoded(model, dataset)
    for name, distance in (("plain", models.Distance.COSINE), ("apart", models.Distance.EUCLID)):
        size = vectors.shape[1]
        params = models.VectorParams(size=size, distance=distance)
        client.create_collection(name, vectors_config=params if name == "plain" else {"emb": params})
        texts = list(dataset.corpus.values())
        points = [
            models.PointStruct(
                id=n,
                vector=row.tolist() if name == "plain" else {"emb": row.tolist()},
                payload={"body": texts[n], "year": 2000 + n % 4, "nested": {"a": 1}},
            )
            for n, row in enumerate(vectors)
        ]
        client.upsert(name, points)
        place = f"qdrant://memory/{name}"
        given = {"text_field": "body"} | ({} if name == "plain" else {"vector_field": "emb"})
        assert acclimate.adopt_index(tmp_path, place, config=config, **given)["documents"] == 40
        index = open_index(place)
        hits = index.search(Query(vector=vectors[7], mode="dense", top_k=40))
        scores = {str(n): score for n, score in enumerate((vectors @ vectors[7]).tolist())}
        assert {hit.id: hit.score for hit in hits} == pytest.approx(scores, abs=1e-4)
        assert hits[0].document == Document("7", texts[7], {"year": 2003})
        assert len(list(index.iterate())) == 40
        for refused in (lambda index=index: index.delete(["7"]), lambda index=index: index.upsert([], vectors[:0])):
            with pytest.raises(UsageError, match="adopted"):
                refused()
    with pytest.raises(UsageError, match=r"'emb'.*has no name"):
        acclimate.adopt_index(tmp_path, place, config=config, text_field="body")
    with pytest.raises(DataError, match="none has a text in 'title'"):
        acclimate.adopt_index(tmp_path, place, config=config, text_field="title", vector_field="emb")
    with pytest.raises(UsageError, match="no collection"):
        acclimate.adopt_index(tmp_path, "qdrant://memory/absent", config=config, text_field="body")
    acclimate.index(tmp_path, config=config)
    acclimate.move_index(tmp_path, "qdrant://memory/ours", config=config)
    with pytest.raises(UsageError, match="our own"):
        acclimate.adopt_index(tmp_path, "qdrant://memory/ours", config=config, text_field="text")


def test_vectors_that_are_not_the_models_are_refused_with_the_cosines(
    tmp_path: Path, model: Path, new_table: Callable[[], str]
) -> None:
    run, both, config = tmp_path / "query", tmp_path / "both", config_for(model)
    dataset = run_of(run, model)
    run_of(both, model, "both")
    vectors = encoded(model, dataset)
    fields = {"text_field": "Body", "vector_field": "emb"}
    others = np.roll(vectors, 1, axis=0)
    with pytest.raises(UsageError, match=r"not the run's model's; of 40 texts .* median 0\.\d{4}, least"):
        acclimate.adopt_index(run, their_table(new_table(), dataset, others), config=config, **fields)
    with pytest.raises(UsageError, match="not of length 1"):
        acclimate.adopt_index(run, their_table(new_table(), dataset, 3 * vectors), config=config, **fields)
    theirs = their_table(new_table(), dataset, vectors)
    with pytest.raises(UsageError, match=r"of the base model, and the run's adapter changes documents.*--sides query"):
        acclimate.adopt_index(both, theirs, config=config, **fields)
    with pytest.raises(UsageError, match="dimensions"):
        acclimate.adopt_index(run, their_table(new_table(), dataset, vectors[:, :4]), config=config, **fields)
    with pytest.raises(UsageError, match=r"no column 'body'.*Body"):
        acclimate.adopt_index(run, theirs, config=config, text_field="body", vector_field="emb")
    with pytest.raises(UsageError, match="of type integer"):
        acclimate.adopt_index(run, theirs, config=config, text_field="Body", vector_field="year")
    with pytest.raises(UsageError, match="--text-field"):
        acclimate.adopt_index(run, theirs, config=config, vector_field="emb")
    with pytest.raises(UsageError, match="no table"):
        acclimate.adopt_index(run, new_table(), config=config, **fields)
    with pytest.raises(UsageError, match="cannot be adopted"):
        acclimate.adopt_index(run, str(tmp_path / "index"), config=config, **fields)
    with pytest.raises(UsageError, match="vector_field"):
        acclimate.index(run, config=config, vector_field="emb")
