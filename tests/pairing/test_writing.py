"""Queries written by a language model: asked once each, whatever happens; copies, repetitions and strays dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from acclimate.formats.chat import ChatClient, ChatError
from acclimate.pairing.made_pair import MadePair
from acclimate.pairing.round_trip import finds
from acclimate.pairing.templates import ask_for_queries, queries_in, says_yes
from acclimate.pairing.writing import Endpoint, copies, judged, written_queries
from tests.chat_server import MALFORMED, ChatServer, Status

WHEAT = "Winter wheat is sown from late September on, as soon as the soil can carry the drill after the rain."
ROWS = [(f"d{number}", f"Passage {number}: {WHEAT} Number {number}.") for number in range(6)]
STYLES = ("keyword", "question", "long")


def answer(messages: list[dict[str, str]]) -> str:
    """What the model says of a passage, by its number."""
    number = messages[-1]["content"].split("Passage ")[1][0] if "Passage " in messages[-1]["content"] else "x"
    if messages[-1]["content"].startswith("Query:"):
        return "Yes." if "autumn cereals 1" in messages[-1]["content"] else "no"
    lines = f"1. **keyword:** autumn cereals {number}\nQuestion: “When to sow {number}?”\nlong: {WHEAT}"
    return f"<think>keyword: no</think>{lines}"


def endpoint(server: ChatServer, folder: Path, **more: float) -> Endpoint:
    return Endpoint(ChatClient(server.url, "writer", first_wait_s=0.0, retries=0, **more), folder / "log.jsonl", 2)  # type: ignore[arg-type]


def test_queries_of_every_style_without_copies_and_repetitions(tmp_path: Path) -> None:
    with ChatServer(answer) as server:
        pairs, dropped = written_queries([*ROWS[:2], ROWS[0]], STYLES, endpoint(server, tmp_path))
    assert [(pair.query, pair.document, pair.style) for pair in pairs] == [
        ("autumn cereals 0", "d0", "keyword"),
        ("When to sow 0?", "d0", "question"),
        ("autumn cereals 1", "d1", "keyword"),
        ("When to sow 1?", "d1", "question"),
    ]
    assert dropped == {"copies the passage": 3, "repeated": 2}
    assert len(server.requests) == 2, "an equal conversation is asked once"


def test_an_interruption_loses_no_answer(tmp_path: Path) -> None:
    with ChatServer(answer) as server:
        server.fail(Status(429, retry_after="9999"))
        asked = endpoint(server, tmp_path)
        with pytest.raises(ChatError, match="9999 s"):
            written_queries(ROWS, STYLES, asked)
        before = len(server.requests)
        (tmp_path / "log.jsonl").open("a").write('{"key": "half a li')  # as a kill leaves it
        again = endpoint(server, tmp_path)
        pairs, _ = written_queries(ROWS, STYLES, again)
        assert len(pairs) == 12
        assert again.usage.from_log == asked.usage.requests - 1
        assert len(server.requests) == before + 6 - again.usage.from_log
        third = endpoint(server, tmp_path)
        assert written_queries(ROWS, STYLES, third)[0] == pairs
        assert (third.usage.requests, third.usage.from_log) == (0, 6)
        assert third.usage.prompt_tokens == again.usage.prompt_tokens > 0


def test_one_refused_passage_costs_that_passage(tmp_path: Path) -> None:
    with ChatServer(answer) as server:
        server.fail(Status(400, "filtered"), MALFORMED)
        pairs, dropped = written_queries(ROWS, STYLES, endpoint(server, tmp_path))
        assert dropped["refused by the endpoint"] == 6 and len(pairs) == 8
        server.fail(*[Status(400)] * 20)
        with pytest.raises(ChatError, match="status 400"):
            written_queries([(name, f"{text} More.") for name, text in ROWS * 2], STYLES, endpoint(server, tmp_path))


def test_what_it_cost(tmp_path: Path) -> None:
    with ChatServer(answer) as server:
        asked = endpoint(server, tmp_path)
        written_queries(ROWS, STYLES, asked)
    found = asked.usage.report((1.0, 10.0))
    assert found["requests"] == 6 and found["prompt_tokens"] > 100
    assert found["cost"] == pytest.approx((found["prompt_tokens"] + 10 * found["completion_tokens"]) / 1e6, abs=1e-6)
    assert "cost" not in asked.usage.report(())


def test_the_judge_keeps_what_is_answered(tmp_path: Path) -> None:
    with ChatServer(answer) as server:
        asked = endpoint(server, tmp_path)
        pairs, _ = written_queries(ROWS[:3], ("keyword",), asked)
        kept, dropped = judged(pairs, asked)
    assert [pair.query for pair in kept] == ["autumn cereals 1"] and dropped == 2
    assert says_yes("Yes") and says_yes("是。") and not says_yes("不是") and not says_yes("否") and not says_yes("")


def test_the_passages_language_decides() -> None:
    english, chinese = ask_for_queries(WHEAT, STYLES), ask_for_queries("冬小麦一般在九月下旬播种。", STYLES)
    assert "one short, natural question" in english[1]["content"] and "检索" in chinese[0]["content"]
    assert queries_in("关键词：小麦\nquestion：什么时候播种？\nquestion: again", STYLES) == [
        ("question", "什么时候播种？")
    ]


@pytest.mark.parametrize(
    ("query", "copied"),
    [
        ("sow wheat", False),
        ("winter wheat is sown", False),
        ("winter wheat is sown from", True),
        ("so I ask: as soon as the soil can carry the drill, or later?", True),
        ("when does winter wheat get sown in the north", False),
    ],
)
def test_a_copy_is_many_words_in_a_row(query: str, copied: bool) -> None:
    assert copies(query, WHEAT) is copied


def test_a_query_is_kept_if_words_or_vectors_find_its_passage() -> None:
    passages = ["wheat rust", "barley mildew", "beet seed", "oats sowing"]
    pairs = [MadePair("mildew", "barley mildew", "written", "d"), MadePair("cereal", "wheat rust", "written", "d")]
    pairs.append(MadePair("nothing", "beet seed", "written", "d"))
    eye = np.eye(4, dtype=np.float32)
    queries = eye[[3, 0, 3]]  # by vectors: the oats, the wheat, the oats
    assert finds(pairs, passages, queries, eye, 1) == [True, True, False]
