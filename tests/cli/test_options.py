"""Flags are made from the config's fields; a flag wins over the file, a file over a default."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App, CycloptsError

from acclimate.cli.lists import one_flag_a_word
from acclimate.cli.main import COMMANDS, main
from acclimate.cli.options import Command, Given, every_setting
from acclimate.configs import RunConfig, dump_config
from acclimate.errors import UsageError
from acclimate.flows import verbs


def parse(*arguments: str) -> Mapping[str, Any]:
    """The settings that a command line gives to a command that reads all of `adapt`'s."""
    app, seen = App(), []

    def command(*, settings: Given) -> None:
        seen.append(settings)

    app.default(Command("adapt", command, example="").parsed(True))
    with pytest.MonkeyPatch.context() as patch:
        # cyclopts checks values by pydantic as well where that is loaded: not in our command line, but by a client of a
        # server that another test has used in this process.
        patch.delitem(sys.modules, "pydantic", raising=False)
        app(list(arguments), exit_on_error=False, print_error=False, result_action="return_value")
    return seen[0]


def configured(given: Mapping[str, Any] | None, file: Path | None, run: Path | None = None) -> RunConfig:
    return verbs.configured("adapt", given or {}, file, run)


def test_only_given_flags_are_overrides() -> None:
    assert parse() == {}
    assert parse("--rank", "8", "--sides", "query") == {"rank": 8, "sides": "query"}


def test_a_field_s_documentation_is_one_line_of_help() -> None:
    helps = {name: setting.text for name, setting in every_setting().items()}
    assert helps["eval_steps"].startswith("Steps between evaluations on dev")
    assert not [name for name, text in helps.items() if "\n" in text or "  " in text]


def test_none_is_a_value_and_not_the_absence_of_one() -> None:
    assert parse("--relative-margin", "none") == {"relative_margin": None}
    assert configured(parse("--relative-margin", "none"), None).mine.relative_margin is None


def test_a_prompt_and_an_instruction_take_each_other_s_place(tmp_path: Path) -> None:
    """What an earlier stage was told is no conflict with what is given now."""
    run, file = tmp_path / "run", tmp_path / "mine.toml"
    run.mkdir()
    (run / "config.toml").write_text(dump_config(RunConfig(instruction="Find it")))
    file.write_text('query_prompt = "file: "\n')
    for found, prompt in (
        (configured({"query_prompt": "now: "}, None, run), "now: "),
        (configured(None, file, run), "file: "),
    ):
        assert (found.query_prompt, found.instruction) == (prompt, None)
    again = configured({"instruction": "Answer it"}, file, run)
    assert (again.query_prompt, again.instruction) == (None, "Answer it")
    assert configured({"rank": 4}, None, run).instruction == "Find it"
    with pytest.raises(UsageError, match="exclude each other"):
        configured({"instruction": "Answer it", "query_prompt": "now: "}, None, run)


@pytest.mark.parametrize(
    ("command", "words", "spread"),
    [
        ("train", "RUN --targets query key", "RUN --targets query --targets key"),
        ("train", "--targets query key RUN", "--targets query --targets key RUN"),
        ("train", "--targets query,key RUN", "--targets query,key RUN"),
        ("train", "--targets query RUN --rank 8", "--targets query RUN --rank 8"),
        ("train", "--full --matryoshka-dims 64 128 RUN", "--full --matryoshka-dims 64 --matryoshka-dims 128 RUN"),
        ("prepare", "x.tsv --columns a b c --out RUN", "x.tsv --columns a --columns b --columns c --out RUN"),
        ("prepare", "--columns a pyproject.toml --out RUN", "--columns a pyproject.toml --out RUN"),
        ("merge", "a b --out c --weights 0.5 0.5", "a b --out c --weights 0.5 --weights 0.5"),
        ("merge", "--weights 0.5 0.5 a b --out c", "--weights 0.5 --weights 0.5 a b --out c"),
        ("search", "RUN --top 3 words", "RUN --top 3 words"),
    ],
)
def test_lists_by_words(command: str, words: str, spread: str) -> None:
    assert one_flag_a_word(COMMANDS[command], words.split()) == spread.split()


def test_lists_by_words_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", str(tmp_path / "absent.tsv"), "--columns", "query", "answer", "--out", str(tmp_path / "run")])
    assert "absent.tsv: no such file" in capsys.readouterr().err


def test_lists_by_comma_or_repetition() -> None:
    assert parse("--targets", "query,key", "--targets", "value") == {"targets": ("query", "key", "value")}
    both = {"blocks": ("query-document", "query-query"), "matryoshka_dims": (64, 128), "matryoshka_weights": (0.5, 2.0)}
    words = "--blocks query-document,query-query --matryoshka-dims 64,128 --matryoshka-weights 0.5,2"
    assert parse(*words.split()) == both
    with pytest.raises(CycloptsError, match="matryoshka-dims"):
        parse("--matryoshka-dims", "64,many")
    with pytest.raises(UsageError, match=r"blocks = query-text.*query-document"):
        configured(parse("--blocks", "query-text"), None)


def test_an_old_name_is_understood_and_the_new_one_said(capsys: pytest.CaptureFixture[str]) -> None:
    objective = configured(parse("--anchor-source", "texts.txt", "--anchor-weight", "3"), None).objective
    assert (objective.retain_data, objective.retain_weight) == ("texts.txt", 3.0)
    hints = ["--anchor-source is called --retain-data now", "--anchor-weight is called --retain-weight now"]
    assert capsys.readouterr().err.splitlines() == hints
    with pytest.raises(UsageError, match=r"--anchor-weight and --retain-weight are given.*Give --retain-weight only"):
        configured(parse("--retain-weight", "2", "--anchor-weight", "3"), None)
    flags = inspect.signature(COMMANDS["train"].parsed(True)).parameters
    assert not flags["anchor_source"].annotation.__metadata__[0].show


def test_flag_wins_over_file_and_file_over_default(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("seed = 7\n[train]\nrank = 4\nepochs = 2\n", encoding="utf-8")
    config = configured(parse("--rank", "8"), file)
    assert (config.seed, config.train.rank, config.train.epochs) == (7, 8, 2.0)
    assert config.train.batch_size == RunConfig().train.batch_size


def test_a_runs_own_file_is_the_base_where_no_file_is_given(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("seed = 9\n", encoding="utf-8")
    assert configured(None, None, tmp_path).seed == 9


def test_unknown_key_in_the_file_is_named_with_the_possible_ones(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[train]\nrnak = 4\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"run\.toml \[train\]: unknown key 'rnak'.*rank"):
        configured(None, file)
