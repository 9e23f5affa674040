"""Replies that are kept."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np

from acclimate.serve.result_cache import Identity, ResultCache, digest, is_same, served

VECTOR = np.eye(16, dtype=np.float32)[0]


def identity(query: str = "q", epoch: str = "1", scope: bytes = b"s") -> Identity:
    return Identity(scope, epoch, query)


def found(*ids: str) -> dict[str, Any]:
    return {"query": "q", "hits": [{"id": name} for name in ids]}


def said(text: str, *ids: str, answered: bool = True) -> dict[str, Any]:
    cited = [{"id": name, "number": place} for place, name in enumerate(ids, 1)]
    return {"answer": text, "answered": answered, "citations": cited}


def test_the_same_request_has_the_same_reply_and_no_other_one_has() -> None:
    kept = ResultCache(10_000, 0)
    kept.keep(identity(), found("a"))
    assert kept.exact(identity()) == {**found("a"), "cache": "exact"}
    for other in (identity("Q"), identity(epoch="2"), identity(scope=b"t"), None):
        assert kept.exact(other) is None
    kept.keep(None, found("b"))
    assert (kept.exact_hits, kept.exact_misses) == (1, 3)


def test_memory_is_bounded_and_the_longest_unused_is_forgotten() -> None:
    kept = ResultCache(5_000, 0)
    for number in range(50):
        kept.keep(identity(str(number)), found(*(f"document {place}" for place in range(20))))
        assert kept.bytes_used <= 5_000
        kept.exact(identity("0"))
    assert kept.exact(identity("49")) is not None and kept.exact(identity("20")) is None
    kept.keep(identity("49"), found("a"))
    assert kept.exact(identity("0")) is not None, "it was asked for again and again"
    kept.keep(identity("large"), found("x" * 10_000))
    assert kept.bytes_used <= 5_000 and kept.exact(identity("large")) is None
    nothing = ResultCache(0, 0)
    nothing.keep(identity(), found("a"))
    assert not nothing.keeps_anything and nothing.exact(identity()) is None and nothing.counts is None


def test_a_semantic_hit_says_so_and_some_are_computed_afterwards() -> None:
    kept = ResultCache(0, 100, seed=3)

    async def run() -> int:
        hits = 0
        for number in range(600):
            own = identity(f"q{chr(97 + number % 26)}")
            near = kept.look(own, VECTOR)
            if near is not None and near.serves:
                hits += 1
                kept.maybe_audit(near, compute)
                reply = served(near, own.query)
                assert (
                    reply["query"] == own.query and reply["cache"] == "semantic" and reply["hits"] == found("a")["hits"]
                )
                assert 0 < reply["cache_estimate"]["chance"] <= 1 and reply["cache_estimate"]["similarity"] == 1.0
            else:
                kept.keep(own, {**found("a"), "query": own.query}, VECTOR, near)
            await asyncio.sleep(0)
        return hits

    async def compute() -> dict[str, Any]:
        if kept.counts is not None and kept.counts.audited > 3:
            raise RuntimeError("its deadline is over")
        return found("b" if kept.counts is not None and kept.counts.audited == 2 else "a")

    hits = asyncio.run(run())
    assert kept.counts is not None and kept.counts.hits == hits > 100
    assert kept.counts.audited == 4 and kept.counts.false_hits == 1 and 0.2 < kept.counts.bound < 1


def test_when_two_replies_are_the_same() -> None:
    assert is_same(found("a", "b", "c", "d", "e"), found("e", "d", "c", "b", "x"))
    assert not is_same(found("a", "b", "c", "d"), found("a", "b", "c", "x"))
    assert is_same(found(), found()) and not is_same(found("a"), found())
    one = said("Wheat is sown in October [1].", "d7")
    assert is_same(one, said("Wheat is sown in October[1].", "d7"))
    for other in (
        said("Wheat is sown in October [1].", "d8"),
        said("Wheat is not sown in October [1].", "d7"),
        said("Barley is sown in March [1].", "d7"),
        said("Wheat is sown in October [1].", "d7", answered=False),
    ):
        assert not is_same(one, other)
    numbered = {**one, "answer": "Wheat is sown in October [4].", "citations": [{"id": "d7", "number": 4}]}
    assert is_same(one, numbered), "the same document may be at another place"


def test_the_digest_of_values_is_theirs_whatever_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})
    assert digest("a", "b") != digest("ab") and digest(None) != digest("None")
