"""Descriptions in a language model's words: asked once for each definition, for the training only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from acclimate.cli.main import main
from acclimate.configs import RunConfig, with_overrides
from acclimate.data.descriptions import ASKED, ENGLISH
from acclimate.data.task_library import read_library
from acclimate.formats.chat import ChatError
from acclimate.pairing.rewording import REWORDINGS, rewordings_in
from acclimate.stages.hypernetwork_tasks import hypernetwork_tasks
from tests.chat_server import ChatServer, Status
from tests.data.test_definitions import write_corpus
from tests.stages.test_instant import WORDS


def test_what_counts_as_a_wording() -> None:
    answer = (
        "<think>Say it shortly.</think>Here are six:\n1. Take what begins alike.\n2) “Same first word, please.”\n\n"
        "- take what  begins alike.\nYes\nFind the text that begins with the same word."
    )
    known = ("Find the text that begins with the same word.",)
    assert rewordings_in(answer, known) == ("Take what begins alike.", "Same first word, please.")
    assert len(rewordings_in("\n".join(f"Wording number {number}" for number in range(20)), known)) == REWORDINGS
    assert rewordings_in("", known) == ()
    known = ("文档以同样的词开头时才算相关。",)
    lines = ("改写如下：", "1、开头的词要一样。", "（2）“第一个词相同的就算。”", "3．开头的词要一样", "好的", *known)
    assert rewordings_in("\n".join(lines), known) == ("开头的词要一样。", "第一个词相同的就算。")


@pytest.fixture
def corpora(tmp_path: Path) -> list[str]:
    return [str(write_corpus(tmp_path, name, **WORDS)) for name in ("farm", "garden")]


def asking(server: ChatServer) -> RunConfig:
    return with_overrides(RunConfig(), {"llm": server.url, "llm_model": "writer"})


def said(messages: list[dict[str, str]]) -> str:
    """Two wordings that tell which description was asked about."""
    description = messages[-1]["content"].split("\n\n")[1]
    return f"Put otherwise: {description}\n2. In short, {description}"


def test_every_definition_is_reworded_once_and_tests_ask_as_before(corpora: list[str], tmp_path: Path) -> None:
    plain, out = tmp_path / "plain", tmp_path / "reworded"
    hypernetwork_tasks(corpora, plain, RunConfig())
    with ChatServer(said) as server:
        found = hypernetwork_tasks(corpora, out, asking(server))
    before, after = read_library(plain), read_library(out)
    first = {task.descriptions[0] for task in before.train.tasks}
    assert len(server.requests) == len(first) and found["llm"]["wordings"] == 2 * len(first)
    assert (
        found["llm"]["model"] == "writer"
        and found["groups"] == json.loads((plain / "report.json").read_text())["groups"]
    )
    for old, new in zip(before.train.tasks, after.train.tasks, strict=True):
        assert new.descriptions[: len(ENGLISH.templates) - ASKED] == old.descriptions
        assert new.descriptions[-2:] == (f"Put otherwise: {old.descriptions[0]}", f"In short, {old.descriptions[0]}")
    for old, new in zip(before.test.tasks, after.test.tasks, strict=True):
        assert new.descriptions == old.descriptions


def test_each_language_is_asked_about_in_itself(corpora: list[str], tmp_path: Path) -> None:
    with ChatServer(said) as server:
        found = hypernetwork_tasks(corpora, tmp_path / "out", asking(server), languages=("zh", "en"))
    library = read_library(tmp_path / "out")
    for task in library.train.tasks:
        own = [text for text in task.descriptions if text.startswith(("Put otherwise", "In short"))]
        assert len(own) == 4 and sum("文" in text or "相关" in text for text in own) == 2
    asked = [request["messages"][-1]["content"] for request in server.requests]
    assert sum(text.startswith("下面这句话") for text in asked) == len(asked) / 2 == found["llm"]["wordings"] / 4


def test_an_endpoint_that_fails_leaves_no_library_and_a_second_start_goes_on(
    corpora: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with ChatServer(said) as server:
        server.fail(*[Status(401)] * 4)
        with pytest.raises(ChatError, match="401"):
            hypernetwork_tasks(corpora, out, asking(server))
        assert not out.exists()
        found = hypernetwork_tasks(corpora, out, asking(server))["llm"]
    assert found["requests"] + found["from_log"] == found["wordings"] / 2


def test_one_flag_of_the_two_is_refused(corpora: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["hypernetwork-tasks", *corpora, "--out", str(tmp_path / "x"), "--llm", "http://localhost:1/v1"])
    assert "only one of --llm and --llm-model" in capsys.readouterr().err
