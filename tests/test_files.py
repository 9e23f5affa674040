"""Plain files: broken lines cost themselves, and an artifact is there whole or not at all, whatever happens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.errors import AcclimateError, DataError, StorageError
from acclimate.files import (
    MAX_LINE_BYTES,
    PARTIAL,
    Line,
    artifact,
    hash_config,
    hash_folder,
    hash_text,
    iter_jsonl,
    open_input,
    read_json,
    recover,
    work_folder,
    write_json,
    write_jsonl,
    write_text,
)
from acclimate.paths import missing_path
from acclimate.runs.differences import is_current

FULL_DEVICE = Path("/dev/full")
needs_full_device = pytest.mark.skipif(not FULL_DEVICE.is_char_device(), reason="no /dev/full here")


def lines_of(path: Path, content: bytes) -> list[Line]:
    path.write_bytes(content)
    return list(iter_jsonl(path))


# ---- reading ----


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "not JSON"),
        (b"[1, 2]", "a JSON list, not an object"),
        (b'"text"', "a JSON str, not an object"),
        (b'{"a": "\xff"}', "not UTF-8 (byte 7)"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"a": "' + b"x" * (10 * 2**20) + b'"}', "longer than 8 MiB"),
    ],
)
def test_a_broken_line_costs_that_line_only(tmp_path: Path, line: bytes, reason: str) -> None:
    found = lines_of(tmp_path / "rows.jsonl", b'{"a": 1}\n' + line + b'\n\n{"a": 2}')
    assert [(item.row, item.value) for item in found] == [(1, {"a": 1}), (2, None), (4, {"a": 2})]
    assert found[1].error.startswith(reason)


def test_a_long_last_line_without_a_newline_ends(tmp_path: Path) -> None:
    found = lines_of(tmp_path / "rows.jsonl", b'{"a": 1}\n' + b"x" * (3 * MAX_LINE_BYTES))
    assert [item.row for item in found] == [1, 2]
    assert found[1].value is None


def test_a_byte_order_mark_and_other_newlines_do_no_harm(tmp_path: Path) -> None:
    found = lines_of(tmp_path / "rows.jsonl", b'\xef\xbb\xbf{"a": "\xe6\x9d\x91"}\r\n \r\n{"a": "\\ud83d\\ude00"}\r\n')
    assert [(item.row, item.value) for item in found] == [(1, {"a": "村"}), (3, {"a": "😀"})]


JSON_ROWS = st.lists(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), min_size=1))


@settings(max_examples=50, deadline=None)
@given(rows=JSON_ROWS)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]) -> None:
    """Also texts with line separators of Unicode, which are no newlines."""
    path = tmp_path_factory.mktemp("jsonl") / "rows.jsonl"
    assert write_jsonl(path, rows) == len(rows)
    if rows:
        assert [item.value for item in iter_jsonl(path)] == rows


def test_an_input_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name, reason in [
        ("absent", "no such file"),
        ("empty", "is empty"),
        (".", "is a folder"),
        ("empty/x", "no such"),
    ]:
        with pytest.raises(DataError, match=reason):
            open_input(tmp_path / name)


def test_damaged_json_is_an_error_of_storage(tmp_path: Path) -> None:
    for content, reason in [(b"{", "is damaged"), (b"[]", "no JSON object"), (b"\xff", "is damaged")]:
        (tmp_path / "a.json").write_bytes(content)
        with pytest.raises(StorageError, match=reason):
            read_json(tmp_path / "a.json")
    with pytest.raises(StorageError, match="is missing"):
        read_json(tmp_path / "b.json")


# ---- hashes ----


def test_hashes_see_borders_names_and_bytes(tmp_path: Path) -> None:
    assert hash_text("ab", "c") != hash_text("a", "bc")
    assert hash_config({"a": 1, "b": 2}) == hash_config({"b": 2, "a": 1}) != hash_config({"a": 1, "b": 3})
    folder = tmp_path / "folder"
    folder.mkdir()
    write_text(folder / "a.txt", "1")
    first = hash_folder(folder)
    write_json(folder / "report.json", {"seconds": 3.5})
    assert hash_folder(folder) == first, "timings differ from run to run and are not part of the artifact"
    (folder / "a.txt").rename(folder / "b.txt")
    assert hash_folder(folder) != first
    (folder / "b.txt").rename(folder / "a.txt")
    write_text(folder / "a.txt", "2")
    assert hash_folder(folder) != first


# ---- artifacts ----


def make(out: Path, content: str, config: dict[str, Any] | None = None) -> None:
    with artifact(out, config or {"version": content}, {"data": "hash"}) as folder:
        write_text(folder / "data.txt", content)


def test_an_artifact_is_current_for_its_config_and_inputs_only(tmp_path: Path) -> None:
    out = tmp_path / "run" / "dataset"
    assert not is_current(out, {}, {})
    make(out, "one", {"targets": ("a", "b"), "rate": 0.1})
    assert is_current(out, {"rate": 0.1, "targets": ["a", "b"]}, {"data": "hash"})
    assert not is_current(out, {"rate": 0.2, "targets": ["a", "b"]}, {"data": "hash"})
    assert not is_current(out, {"rate": 0.1, "targets": ["a", "b"]}, {"data": "other"})
    (out / "settings.json").write_text("{")
    assert not is_current(out, {"rate": 0.1, "targets": ["a", "b"]}, {"data": "hash"})


def test_a_failure_inside_leaves_the_older_artifact(tmp_path: Path) -> None:
    out = tmp_path / "run" / "dataset"
    make(out, "one")
    before = hash_folder(out)
    with pytest.raises(ZeroDivisionError), artifact(out, {"version": "two"}, {}) as folder:
        write_text(folder / "data.txt", "half")
        raise ZeroDivisionError
    assert hash_folder(out) == before
    make(out, "three")
    assert (out / "data.txt").read_text() == "three"
    assert not work_folder(out).exists()


KILLED = """
    import os, pathlib, signal, sys
    from acclimate.files import artifact, write_text

    out, last = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    rename, done = pathlib.Path.rename, 0

    def rename_then_die(self, target):
        global done
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        return rename(self, target)

    pathlib.Path.rename = rename_then_die
    with artifact(out, {"version": "two"}, {"data": "hash"}) as folder:
        write_text(folder / "data.txt", "two")
"""


def test_two_that_write_one_artifact_do_not_mix(tmp_path: Path) -> None:
    with artifact(tmp_path / "negatives", {}, {}) as folder:
        write_text(folder / "rows.txt", "mine")
        with (
            pytest.raises(StorageError, match=r"another acclimate is at work in .*negatives"),
            artifact(tmp_path / "negatives", {}, {}),
        ):
            pass
    assert (tmp_path / "negatives" / "rows.txt").read_text() == "mine"
    assert not (tmp_path / ".work" / "negatives").exists()


@pytest.mark.parametrize("renames", [0, 1])
def test_killed_between_the_renames_the_older_artifact_comes_back(tmp_path: Path, renames: int) -> None:
    """A real SIGKILL, before the first rename and between the two."""
    out = tmp_path / "run" / "dataset"
    make(out, "one")
    before = hash_folder(out)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(out), str(renames)])
    assert done.returncode == -signal.SIGKILL
    assert out.exists() == (renames == 0)
    recover(out)
    assert hash_folder(out) == before
    assert is_current(out, {"version": "one"}, {"data": "hash"})
    make(out, "three")
    assert (out / "data.txt").read_text() == "three"


@needs_full_device
def test_a_full_disk_is_named_and_changes_nothing(tmp_path: Path) -> None:
    """The kernel's own ENOSPC: files inside the new artifact lead to /dev/full."""
    out = tmp_path / "run" / "dataset"
    make(out, "one")
    before = hash_folder(out)
    with pytest.raises(StorageError, match="no space left on the disk"), artifact(out, {}, {}) as folder:
        (folder / "rows.jsonl").symlink_to(FULL_DEVICE)
        write_jsonl(folder / "rows.jsonl", [{"text": "x" * 100_000}])
    with pytest.raises(StorageError, match=r"dataset.*no space left on the disk"), artifact(out, {}, {}) as folder:
        (folder / "raw.bin").symlink_to(FULL_DEVICE)
        (folder / "raw.bin").write_bytes(b"not through our own writers")
    assert hash_folder(out) == before


@needs_full_device
def test_a_text_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"a": 1})
    (tmp_path / f".report.json.{PARTIAL}").symlink_to(FULL_DEVICE)
    with pytest.raises(StorageError, match="no space left"):
        write_json(path, {"a": 2})
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


TOO_LARGE = """
    import pathlib, resource, sys
    from acclimate.errors import StorageError
    from acclimate.files import artifact, write_jsonl

    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    try:
        with artifact(pathlib.Path(sys.argv[1]), {}, {}) as folder:
            write_jsonl(folder / "rows.jsonl", [{"text": "x" * 100_000}])
    except StorageError as error:
        sys.exit(error.exit_code)
"""


def test_a_file_size_limit_is_an_error_of_storage(tmp_path: Path) -> None:
    out = tmp_path / "run" / "dataset"
    make(out, "one")
    before = hash_folder(out)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(TOO_LARGE), str(out)])
    assert done.returncode == StorageError.exit_code
    assert hash_folder(out) == before


def test_a_place_where_nothing_can_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AcclimateError, match="cannot be written"):
        make(tmp_path / "file" / "dataset", "one")


def test_json_is_written_for_people_too(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"text": "小麦"})
    assert "小麦" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"text": "小麦"}


def test_a_mistyped_path_is_told_from_an_id_of_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "pairs.jsonl").touch()
    assert missing_path("data/pairs") == "no 'pairs' in the folder data, which holds pairs.jsonl"
    assert missing_path("./farm") == "no 'farm' in the folder ., which holds data"
    assert missing_path("data/pairs.jsonl") is None and missing_path("owner/name") is None


def test_a_file_beside_what_is_written_stays(tmp_path: Path) -> None:
    mine = tmp_path / "report.json.partial"
    mine.write_text("mine")
    write_text(tmp_path / "report.json", "{}")
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.json.partial"]
