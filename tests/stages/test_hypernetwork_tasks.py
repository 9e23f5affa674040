"""`hypernetwork tasks` with a column that says where a text comes from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from acclimate.configs import RunConfig
from acclimate.data.task_library import read_library
from acclimate.errors import UsageError
from acclimate.stages.hypernetwork_tasks import hypernetwork_tasks
from tests.data.test_definitions import with_column, write_corpus


def test_only_sources_that_have_the_column_get_the_attribute(tmp_path: Path) -> None:
    bank = with_column(write_corpus(tmp_path, "bank", 300), "module")
    shop = write_corpus(tmp_path, "shop", 300)
    hypernetwork_tasks([str(bank), str(shop)], tmp_path / "tasks", RunConfig(), group_column="module")
    facts = read_library(tmp_path / "tasks").facts
    assert {one.collection for one in facts if "group" in one.definition.split("+")} == {"bank"}
    assert {one.collection for one in facts} == {"bank", "shop"}


def test_a_column_that_no_source_has_is_refused_with_those_they_have(tmp_path: Path) -> None:
    bank = with_column(write_corpus(tmp_path, "bank", 300), "module")
    with pytest.raises(UsageError, match="no source has a column 'section'") as raised:
        hypernetwork_tasks([str(bank)], tmp_path / "tasks", RunConfig(), group_column="section")
    assert "module" in str(raised.value)
    assert not (tmp_path / "tasks").exists()


@pytest.mark.parametrize("value", [lambda row: f"module {row}", lambda row: ("train", "dev", "test")[row % 3]])
def test_a_column_that_makes_no_definition_is_named(
    value: Callable[[int], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each text has its own value, or the values are names of splits."""
    bank = with_column(write_corpus(tmp_path, "bank", 300), "module", value)
    hypernetwork_tasks([str(bank)], tmp_path / "tasks", RunConfig(), group_column="module")
    assert "warning: no definition uses 'module'" in capsys.readouterr().err
