"""Which texts a model was trained on: kept, joined, and recognised in other dress."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.errors import StorageError
from acclimate.formats.trained_on import TRAINED_ON_FILE, TrainedOn, read_trained_on, write_trained_on

texts = st.lists(st.text("abcdef", min_size=1), max_size=20)


def test_written_and_read(tmp_path: Path) -> None:
    write_trained_on(tmp_path, TrainedOn.of(["How so?", "why"], [("why", "because")]))
    found = read_trained_on(tmp_path)
    assert found.complete and len(found.ids) == 3
    assert found.has_text("how so") and found.has_text("WHY.") and not found.has_text("because")
    assert found.has_pair("Because!", "why") and not found.has_pair("how so", "why")


@given(texts, texts)
def test_the_union_has_both_and_nothing_else(one: list[str], other: list[str]) -> None:
    union = TrainedOn.of(one, []) | TrainedOn.of(other, [])
    assert all(union.has_text(text) for text in (*one, *other))
    assert len(union.ids) == len({*one, *other}) and not union.has_text("xyz")
    assert union.complete and not (union | TrainedOn(complete=False)).complete


def test_a_folder_without_one_is_not_complete(tmp_path: Path) -> None:
    assert not read_trained_on(tmp_path).complete
    assert not read_trained_on(tmp_path).has_text("anything")


def test_damage_is_our_error(tmp_path: Path) -> None:
    (tmp_path / TRAINED_ON_FILE).write_bytes(b"nothing")
    with pytest.raises(StorageError, match="is damaged"):
        read_trained_on(tmp_path)
