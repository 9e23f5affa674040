"""Feedback over HTTP: impressions in replies, marks, who may send them; a promotion while requests come."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from acclimate.feedback.store import FeedbackStore
from acclimate.flows.index_switch import index_of_version
from acclimate.flows.refresh import rollback
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.runs.refreshes import decisions
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task
from acclimate.runs.versions import add, promote
from tests.serve.http.test_embeddings import refused
from tests.serve.http.test_limits import until
from tests.serve.http.world import World, adapter_of, make_world, served


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("feedback"))


@pytest.fixture(scope="module")
def kept(own: World) -> Iterator[httpx.Client]:
    """Of a service that keeps feedback, and puts neighbours in random order in every second search."""
    with served(own, own.farm, feedback=True, swaps=0.5) as client:
        yield client


def search(client: httpx.Client, **body: Any) -> dict[str, Any]:
    reply = client.post("/v1/search", json={"query": "wheat rice", "top_k": 5, **body})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def marked(client: httpx.Client, *marks: dict[str, Any]) -> dict[str, Any]:
    reply = client.post("/v1/feedback", json={"marks": list(marks)})
    assert reply.status_code == 200, reply.text
    found: dict[str, Any] = reply.json()
    return found


def test_what_a_search_shows_is_kept_and_marks_refer_to_it(kept: httpx.Client, own: World) -> None:
    reply = search(kept)
    shown = [hit["id"] for hit in reply["hits"]]
    number = reply["impression_id"]
    said = marked(
        kept,
        {"impression_id": number, "id": shown[2], "mark": "click", "user": "ann"},
        {"impression_id": number, "id": shown[2], "mark": "click", "user": "ann"},
        {"query": "rice", "id": shown[0], "mark": "relevant"},
        {"impression_id": "nobody", "id": shown[0], "mark": "relevant"},
        {"impression_id": number, "id": "nobody", "mark": "relevant"},
        {"query": "rice", "id": "nobody", "mark": "relevant"},
        {"id": shown[0], "mark": "relevant"},
    )
    assert (said["stored"], said["repeated"]) == (2, 1)
    assert said["refused"] == [
        {"index": 3, "reason": "unknown impression"},
        {"index": 4, "reason": "not shown by the impression"},
        {"index": 5, "reason": "no such document"},
        {"index": 6, "reason": "neither impression nor query"},
    ]
    with closing(FeedbackStore(RunFolder(own.farm).feedback, read_only=True)) as store:
        impression = next(one for one in store.impressions() if one.id == number)
        assert list(impression.shown) == shown and impression.query == "wheat rice"
        assert impression.adapter == reply["acclimate"]["sha256"]
        clicked = next(mark for mark in store.marks() if mark.mark == "click")
        assert (clicked.rank, clicked.user, clicked.impression) == (3, "ann", number)
    assert 'acclimate_marks_total{index="farm",result="stored"} 2.0' in kept.get("/metrics").text
    assert kept.get("/info").json()["feedback"] is True


def test_swaps_are_said_and_change_two_neighbours(kept: httpx.Client, own: World) -> None:
    orders = [search(kept) for _ in range(40)]
    with closing(FeedbackStore(RunFolder(own.farm).feedback)) as store:
        marked(kept, {"query": "rice", "id": "d00", "mark": "relevant"})  # after it, all that was shown is written
        by_id = {one.id: one for one in store.impressions()}
    pairs = [by_id[one["impression_id"]].pair for one in orders]
    assert {None} < set(pairs) <= {None, 1, 2, 3, 4}
    plain = next(one for one, pair in zip(orders, pairs, strict=True) if pair is None)["hits"]
    for one, pair in zip(orders, pairs, strict=True):
        moved = [place for place in range(5) if one["hits"][place]["id"] != plain[place]["id"]]
        assert moved == [] or (pair is not None and moved == [pair - 1, pair])


def test_a_search_beside_what_is_shown_is_no_impression_and_swaps_nothing(kept: httpx.Client, own: World) -> None:
    def stored() -> int:
        marked(kept, {"query": "rice", "id": "d01", "mark": "relevant"})  # after it, all that was shown is written
        with closing(FeedbackStore(RunFolder(own.farm).feedback)) as store:
            return store.counts()["impressions"]

    before = stored()
    beside = [search(kept, query="wheat soil", impression=False) for _ in range(20)]
    assert {one["impression_id"] for one in beside} == {None}
    assert len({tuple(hit["id"] for hit in one["hits"]) for one in beside}) == 1
    assert stored() == before
    shown = search(kept, query="wheat soil")  # kept from before: whether it is shown is no part of the reply
    assert shown["cache"] == "exact" and shown["impression_id"] is not None
    assert stored() == before + 1


def test_a_search_by_vector_and_one_without_hits_have_no_impression(kept: httpx.Client) -> None:
    vector = [1.0] + [0.0] * 31
    assert search(kept, query=None, vector=vector)["impression_id"] is None
    assert search(kept, filter="year > 3000")["impression_id"] is None
    assert re.fullmatch("[0-9a-f]{32}", search(kept, mode="lexical")["impression_id"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"marks": []}, "marks"),
        ({}, "marks"),
        ({"marks": [{"id": "a"}]}, "marks.0.mark"),
        ({"marks": [{"id": "a", "mark": "click", "rank": 1}]}, "marks.0.rank"),
        ({"marks": [{"id": "a", "mark": "click", "query": 3}]}, "marks.0.query"),
    ],
)
def test_a_request_that_cannot_be_is_refused(kept: httpx.Client, body: dict[str, Any], field: str) -> None:
    refused(kept.post("/v1/feedback", json=body), 422, field)


def test_a_service_without_feedback_and_a_replica_keep_nothing(client: httpx.Client, own: World) -> None:
    one = {"marks": [{"query": "rice", "id": "d00", "mark": "relevant"}]}
    assert client.post("/v1/search", json={"index": "farm", "query": "rice"}).json()["impression_id"] is None
    assert "--feedback" in refused(client.post("/v1/feedback", json=one), 404, None)["fix"]
    with served(own, own.farm, feedback=True, read_only=True) as replica:
        assert search(replica)["impression_id"] is None
        refused(replica.post("/v1/feedback", json=one), 403, None)


def test_marks_need_the_right_to_write(own: World, tmp_path: Path) -> None:
    reader, writer = "reader-" + "k" * 16, "writer-" + "k" * 16
    keys = tmp_path / "keys.toml"
    keys.write_text(
        f'[keys.a]\nkey = "{reader}"\nrights = ["read"]\n[keys.b]\nkey = "{writer}"\nrights = ["read", "write"]\n'
    )
    one = {"marks": [{"query": "rice", "id": "d00", "mark": "relevant", "user": "key"}]}
    with served(own, own.farm, feedback=True, keys=str(keys)) as client:
        refused(client.post("/v1/feedback", json=one, headers={"authorization": f"Bearer {reader}"}), 403, None)
        done = client.post("/v1/feedback", json=one, headers={"authorization": f"Bearer {writer}"})
        assert done.json()["stored"] == 1


def test_of_several_runs_an_impression_says_which(own: World) -> None:
    with served(own, own.farm, f"again={own.farm}", feedback=True) as client:
        found = client.post("/v1/search", json={"query": "rice", "index": "again"}).json()
        hit = found["hits"][0]["id"]
        assert marked(client, {"impression_id": found["impression_id"], "id": hit, "mark": "click"})["stored"] == 1
        refused(client.post("/v1/feedback", json={"marks": [{"query": "q", "id": hit, "mark": "click"}]}), 422, "index")
        named = {"index": "farm", "marks": [{"query": "q", "id": hit, "mark": "click", "user": "named"}]}
        assert client.post("/v1/feedback", json=named).json()["stored"] == 1


@contextmanager
def asked_by_three(ask: Callable[[], tuple[str, Any]], replies: list[tuple[str, Any]]) -> Iterator[None]:
    """Three threads that ask again and again; no request may fail."""
    stop, failures = threading.Event(), list[BaseException]()

    def load() -> None:
        try:
            while not stop.is_set():
                replies.append(ask())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []  # also where what was waited for never came: then this is the reason


def test_under_load_an_adapter_of_documents_and_its_index_are_replaced_together(tmp_path: Path) -> None:
    """Every search is answered, and by what the version that it names finds among vectors of its own."""
    world = make_world(tmp_path)
    encoder = Encoder.load(str(world.base), device="cpu", dtype="float32")
    run, config = RunFolder(world.farm), world.config()
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    save_adapter(fresh, adapter_of(encoder, seed=9), encoder.source)
    replies: list[tuple[str, Any]] = []
    with served(world, world.farm, poll_s=0.05) as client:

        def ask() -> tuple[str, Any]:
            reply = client.post("/v1/search", json={"query": "wheat rice", "top_k": 5, "mode": "dense"})
            assert reply.status_code == 200, reply.text
            return reply.headers["x-acclimate-sha256"], [(hit["id"], hit["score"]) for hit in reply.json()["hits"]]

        first = ask()
        with asked_by_three(ask, replies):
            name = add(run, fresh)
            with index_of_version(one_task(run.path, config), name) as publish:
                assert ask()[0] == first[0], "the old one serves until the new one is whole and in use"
                promote(run, name)
                publish()
            until(lambda: bool(replies) and replies[-1][0] != first[0])
            second = ask()
            rollback(run.path, config)
            until(lambda: replies[-1][0] == first[0])
    assert second[0] != first[0] and second[1] != first[1]
    for found, hits in replies:
        expected = (first if found == first[0] else second)[1]
        assert [name for name, _ in hits] == [name for name, _ in expected]
        assert [score for _, score in hits] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_under_load_a_promotion_and_a_rollback_fail_no_request(tmp_path: Path) -> None:
    """Every reply names the hash that it was computed with, and is what that version computes."""
    world = make_world(tmp_path)
    encoder = Encoder.load(str(world.base), device="cpu", dtype="float32")
    run, texts = RunFolder(world.bank), ["wheat rice", "maize"]
    second = adapter_of(encoder, seed=9, sides="query")
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    save_adapter(fresh, second, encoder.source)
    alone = {name: encoder.with_adapter(one).encode(texts, "query") for name, one in (("second", second),)}
    replies: list[tuple[str, Any]] = []
    with served(world, world.bank, poll_s=0.05) as client:

        def ask() -> tuple[str, Any]:
            body = {"model": "bank@query", "input": texts}
            reply = client.post("/v1/embeddings", json=body)
            assert reply.status_code == 200, reply.text
            return reply.headers["x-acclimate-sha256"], [row["embedding"] for row in reply.json()["data"]]

        first_hash, first_vectors = ask()
        with asked_by_three(ask, replies):
            name = add(run, fresh)
            promote(run, name)
            until(lambda: bool(replies) and replies[-1][0] != first_hash)
            rollback(run.path, world.config())
            until(lambda: replies[-1][0] == first_hash)
    hashes = {found for found, _ in replies}
    assert len(hashes) == 2
    for found, vectors in replies:
        expected = first_vectors if found == first_hash else alone["second"]
        np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert [row["outcome"] for row in decisions(run)] == ["rolled back"]
