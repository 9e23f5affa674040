"""One error tree: what a message says, and which exit code it leaves."""

from __future__ import annotations

import re

import pytest

from acclimate import errors
from acclimate.errors import (
    AcclimateError,
    DataError,
    Interrupted,
    MissingExtraError,
    ModelError,
    StorageError,
    UsageError,
)

ALL = (UsageError, DataError, ModelError, StorageError, MissingExtraError, Interrupted)


def test_the_three_parts_make_one_line() -> None:
    error = DataError("pairs.tsv, row 7: label 'x'", possible="a number from 0 to 5", fix="Correct it\n and go on")
    assert str(error) == "pairs.tsv, row 7: label 'x'. Possible: a number from 0 to 5. Correct it and go on."
    assert (error.found, error.possible) == ("pairs.tsv, row 7: label 'x'", "a number from 0 to 5")


@pytest.mark.parametrize("text", ["found", "found\n\nover lines", "ends already.", "asks?"])
def test_a_message_is_one_line_that_ends(text: str) -> None:
    assert re.fullmatch(r"[^\n]*[.?!:]", str(AcclimateError(text)))
    assert ".." not in str(AcclimateError(text))


def test_every_error_is_ours_and_has_its_own_exit_code() -> None:
    codes = [cls.exit_code for cls in (AcclimateError, *ALL)]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
    assert all(issubclass(cls, AcclimateError) for cls in ALL)


def test_the_picture_in_the_docstring_is_true() -> None:
    drawn = re.findall(r"(\w+)\s+exit (\d+)", errors.__doc__ or "")
    assert {name: int(code) for name, code in drawn} == {cls.__name__: cls.exit_code for cls in (AcclimateError, *ALL)}


def test_a_missing_extra_says_how_to_get_it() -> None:
    assert "pip install 'acclimate[chinese]'" in str(MissingExtraError("jieba segmentation", "chinese"))
