"""`answer`: from a run's index through a language model to checked citations, by Python and by the command."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

import acclimate
from acclimate.cli.main import main
from acclimate.configs import dump_config, with_overrides
from acclimate.errors import UsageError
from acclimate.files import read_json, write_json
from acclimate.formats.chat import ChatError
from acclimate.retrieval.answers import NO_ANSWER
from acclimate.stages.index import index
from tests.chat_server import ChatServer, Cut, Messages, Status
from tests.models import tiny
from tests.stages.test_index import corpus_run
from tests.stages.worlds import config_for, tiny_embedder

QUESTION = "rain on wheat"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answers")
    model = tiny_embedder(folder / "base")
    corpus_run(folder / "run")
    config = with_overrides(config_for(model), {"refuse": 0.9})
    (folder / "run" / "config.toml").write_text(dump_config(config), encoding="utf-8")
    index(folder / "run", [], None, config)
    return folder / "run"


@pytest.fixture
def llm() -> Iterator[ChatServer]:
    def invents(messages: Messages) -> str:
        """Some true citations, and about as many invented ones, other ones for each question."""
        draw = random.Random(messages[1]["content"])
        return " ".join(f"word [{draw.randint(1, 16)}]" for _ in range(12))

    with ChatServer(invents) as server:
        yield server


def lowered(run: Path, threshold: float | None) -> None:
    choice = read_json(run / "fusion.json")
    write_json(run / "fusion.json", {**choice, "refusal": {**choice["refusal"], "threshold": threshold}})


def test_the_threshold_is_chosen_on_dev_and_kept_with_its_reasons(run: Path) -> None:
    refusal = read_json(run / "fusion.json")["refusal"]
    assert refusal["queries"] == 30 and 0 < refusal["threshold"] < 1
    assert refusal["refused"] >= 0.9 and 0 <= refusal["answered"] <= 1
    assert refusal["chosen"] == "90% refused with 80% confidence, by 30 dev queries" and len(refusal["model"]) == 64
    again = acclimate.index(run, refuse=0.5)
    chosen = read_json(run / "fusion.json")["refusal"]
    assert again["encoded"] == 0 and chosen["threshold"] < refusal["threshold"] and chosen["wanted"] == 0.5


def test_only_what_was_retrieved_is_cited(run: Path, llm: ChatServer) -> None:
    lowered(run, -1.0)
    place = {"llm": llm.url, "llm_model": "m"}
    found = acclimate.answer(run, QUESTION, top=6, **place)
    hits = {hit["id"]: hit["text"] for hit in acclimate.search(run, QUESTION, top=6)["hits"]}
    assert found["answered"] and found["struck"] > 0 and found["citations"] and found["model"] == "m"
    for one in found["citations"]:
        assert hits[one["id"]] == one["text"] and f"[{one['number']}]" in found["answer"]
    pieces: list[str] = []
    streamed = acclimate.answer(run, QUESTION, top=6, on_text=pieces.append, **place)
    assert "".join(pieces) == streamed["answer"] and streamed == found
    assert llm.requests[-1]["stream"] and llm.requests[-1]["max_tokens"] == 1024
    reranker = str(tiny.tiny_reranker(run.parent / "reranker"))
    reranked = acclimate.answer(run, QUESTION, top=2, rerank=6, reranker=reranker, **place)
    assert {one["id"] for one in reranked["citations"]} <= set(hits) and reranked["reranker"].endswith("reranker")


def test_below_the_threshold_the_model_is_not_asked(run: Path, llm: ChatServer) -> None:
    lowered(run, 1.1)
    found = acclimate.answer(run, QUESTION, llm=llm.url, llm_model="m")
    assert (found["answered"], found["threshold"], llm.requests) == (False, 1.1, [])
    assert found["answer"] == "The documents do not answer this question."
    lowered(run, None)
    assert acclimate.answer(run, QUESTION, llm=llm.url, llm_model="m")["threshold"] is None


def test_the_command_streams_and_then_shows_what_is_cited(
    run: Path, llm: ChatServer, capsys: pytest.CaptureFixture[str]
) -> None:
    lowered(run, -1.0)
    llm.answer = lambda _: "In rain [1], never [77]."
    command = ["answer", str(run), QUESTION, "--llm", llm.url, "--llm-model", "m", "--context-tokens", "200"]
    main(command)
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "In rain [1], never." and shown[1].startswith("[1] d")
    assert shown[2] == "1 citation of what was not retrieved: left out"
    main([*command, "--json"])
    assert json.loads(capsys.readouterr().out)["struck"] == 1
    llm.answer = lambda _: NO_ANSWER
    main(command)
    assert capsys.readouterr().out == "The documents do not answer this question.\n"


def test_what_cannot_be_is_our_error(run: Path, llm: ChatServer) -> None:
    place = {"llm": llm.url, "llm_model": "m"}
    lowered(run, None)
    for wanted, message in (
        ({"top": 0}, "top = 0"),
        ({"rerank": 2}, "rerank = 2, and top = 8"),
        ({"reranker": "r"}, "nothing is to be reranked"),
        ({"llm": "nowhere"}, "no address of an endpoint"),
        ({"llm_model": None}, "llm"),
    ):
        with pytest.raises(UsageError, match=message):
            acclimate.answer(run, QUESTION, **{**place, **wanted})
    with pytest.raises(UsageError, match="no language model is named"):
        acclimate.answer(run, QUESTION)
    with pytest.raises(UsageError, match="question is empty"):
        acclimate.answer(run, " ", **place)
    llm.fail(Status(401))
    with pytest.raises(ChatError, match="ACCLIMATE_LLM_API_KEY"):
        acclimate.answer(run, QUESTION, **place)
    llm.fail(Cut(3))
    with pytest.raises(ChatError, match="broke off in the middle"):
        acclimate.answer(run, QUESTION, on_text=lambda _: None, **place)


def test_a_runs_own_settings_name_no_language_model(run: Path, llm: ChatServer) -> None:
    """Whoever wrote them would get the documents and the key."""
    config = run / "config.toml"
    before = config.read_text(encoding="utf-8")
    mine = before.replace('llm = "none"', f'llm = "{llm.url}"').replace('llm_model = "none"', 'llm_model = "m"')
    assert mine != before
    config.write_text(mine, encoding="utf-8")
    try:
        with pytest.raises(UsageError, match="no language model is named"):
            acclimate.answer(run, QUESTION)
    finally:
        config.write_text(before, encoding="utf-8")
    assert llm.requests == []
