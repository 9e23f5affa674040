"""Versions of an adapter: `RUN/adapter` leads to a whole one at any moment, the one that was decided on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.errors import StorageError, UsageError
from acclimate.files import artifact, hash_folder, held, work_folder, write_json, write_text
from acclimate.runs.differences import is_current
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.versions import add, promote, publish, restore, rollback, trained_before, versions


def train(run: RunFolder, content: str) -> None:
    """What a training writes, as small as it can be."""
    with artifact(run.adapter, {"content": content}, {}, publish=publish) as folder:
        write_text(folder / "weights.txt", content)


def content(run: RunFolder) -> str:
    return (run.adapter / "weights.txt").read_text()


def names(run: RunFolder) -> dict[str, str]:
    """Content -> name of the version."""
    return {(version.folder / "weights.txt").read_text(): version.name for version in versions(run)}


def set_by(run: RunFolder) -> dict[str, str | None]:
    return {(version.folder / "weights.txt").read_text(): version.set_by for version in versions(run)}


def assert_whole(run: RunFolder) -> None:
    """What `RUN/adapter` leads to is what its name says; nothing else is among the versions."""
    assert run.adapter.is_dir()
    if run.adapter.is_symlink():
        assert hash_folder(run.adapter)[:16] == run.adapter.resolve().name
    found = [folder for folder in run.adapters.iterdir() if folder.is_dir()]
    assert all(hash_folder(folder)[:16] == folder.name for folder in found)
    assert hash_folder(run.adapter)[:16] in [folder.name for folder in found]


def no_links(*_: object, **__: object) -> None:
    raise OSError("no links here")


@pytest.fixture(params=["links", "copies"])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """An empty run, on a disk with symbolic links and on one without."""
    if request.param == "copies":
        monkeypatch.setattr(os, "symlink", no_links)
    return RunFolder(tmp_path / "run")


def test_a_training_adds_a_version_and_leads_to_it(run: RunFolder) -> None:
    train(run, "one")
    train(run, "two")
    assert content(run) == "two"
    assert set_by(run) == {"one": None, "two": "training"}
    assert is_current(run.adapter, {"content": "two"}, {})
    assert_whole(run)
    assert not work_folder(run.adapter).exists()
    assert not work_folder(run.adapters).exists()


def test_the_link_is_relative_so_that_a_run_can_be_moved(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    train(run, "one")
    run.path.rename(tmp_path / "moved")
    moved = RunFolder(tmp_path / "moved")
    assert moved.adapter.readlink() == Path("adapters") / moved.adapter.resolve().name
    assert content(moved) == "one"
    assert hash_folder(moved.adapter) == hash_folder(moved.adapter.resolve())


def test_the_same_content_is_one_version(run: RunFolder) -> None:
    for _ in range(2):
        train(run, "one")
    assert len(versions(run)) == 1


def test_a_damaged_version_is_replaced_by_the_same_content(run: RunFolder) -> None:
    train(run, "one")
    (name,) = names(run).values()
    write_text(run.adapters / name / "weights.txt", "damaged")
    train(run, "one")
    assert (run.adapters / name / "weights.txt").read_text() == "one"


def test_a_training_does_not_undo_a_promotion(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    train(run, "one")
    train(run, "two")
    promote(run, names(run)["one"])
    train(run, "three")
    said = capsys.readouterr().err
    assert content(run) == "one"
    assert set_by(run) == {"one": "promotion", "two": None, "three": None}
    assert "was promoted" in said
    assert f"acclimate versions {run.path} --promote {names(run)['three']}" in said
    assert [folder.name for folder in trained_before(run)] == sorted([names(run)["two"], names(run)["three"]])


def test_a_rollback_returns_to_what_was_there_and_to_who_decides(run: RunFolder) -> None:
    train(run, "one")
    train(run, "two")
    promote(run, names(run)["one"][:6])
    assert rollback(run).set_by == "training"
    assert content(run) == "two"
    train(run, "three")
    assert content(run) == "three", "no promotion stands any more"
    assert rollback(run).name == names(run)["two"]
    assert rollback(run).name == names(run)["one"]
    with pytest.raises(UsageError, match="no other version"):
        rollback(run)


def test_a_version_can_be_added_without_being_used(run: RunFolder, tmp_path: Path) -> None:
    train(run, "one")
    (tmp_path / "candidate").mkdir()
    write_text(tmp_path / "candidate" / "weights.txt", "two")
    name = add(run, tmp_path / "candidate")
    assert content(run) == "one"
    assert promote(run, name).folder == run.adapters / name
    assert content(run) == "two"


def test_a_name_that_is_none_or_several_is_refused(run: RunFolder) -> None:
    with pytest.raises(UsageError, match="no version"):
        promote(run, "abc")
    assert not run.path.exists(), "a run that is only looked at gets no folder"
    for number in range(20):
        train(run, str(number))
    with pytest.raises(UsageError, match="several versions"):
        promote(run, _common_start([version.name for version in versions(run)]))
    with pytest.raises(UsageError, match="no version ''"):
        promote(run, "")


def _common_start(found: list[str]) -> str:
    """A letter with which two names begin: there are twenty names, and sixteen letters."""
    return next(letter for letter in "0123456789abcdef" if sum(name.startswith(letter) for name in found) > 1)


def test_a_link_made_by_hand_is_left_alone(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    for text in ("one", "two", "three"):
        train(run, text)
    known = names(run)
    write_json(run.adapter_history, {"history": [{"version": known["three"], "by": "training"}]})
    run.adapter.unlink()
    run.adapter.symlink_to(Path("adapters") / known["one"])
    assert set_by(run)["one"] == "hand"
    train(run, "four")
    assert content(run) == "one"
    (tmp_path / "elsewhere").mkdir()
    write_text(tmp_path / "elsewhere" / "weights.txt", "mine")
    run.adapter.unlink()
    run.adapter.symlink_to(tmp_path / "elsewhere")
    train(run, "five")
    assert content(run) == "mine"
    promote(run, names(run)["five"])
    assert content(run) == "five"


def test_a_damaged_history_is_named(run: RunFolder) -> None:
    train(run, "one")
    write_json(run.adapter_history, {"history": [{"version": "x", "by": "magic"}]})
    with pytest.raises(StorageError, match=r"history.json is damaged"):
        versions(run)


def test_listing_needs_no_lock(run: RunFolder) -> None:
    """As on a disk for reading only."""
    train(run, "one")
    train(run, "two")
    with held(work_folder(run.adapters) / "lock", run.path):
        assert set_by(run) == {"one": None, "two": "training"}


# ---- runs of before ----


def test_the_adapter_of_an_older_run_is_listed_where_it_cannot_be_moved(run: RunFolder) -> None:
    before = old_run(run)
    with held(work_folder(run.adapters) / "lock", run.path):
        assert [(it.name, it.set_by, it.folder) for it in versions(run)] == [(before[:16], "training", run.adapter)]


def old_run(run: RunFolder, text: str = "old") -> str:
    """A run whose adapter is a plain folder; returns its hash."""
    with artifact(run.adapter, {"content": text}, {}) as folder:
        write_text(folder / "weights.txt", text)
    return hash_folder(run.adapter)


def test_the_adapter_of_an_older_run_becomes_a_version(run: RunFolder) -> None:
    before = old_run(run)
    restore(run)
    assert hash_folder(run.adapter) == before
    assert hash_folder(run.adapters / before[:16]) == before
    assert set_by(run) == {"old": "training"}
    train(run, "new")
    assert content(run) == "new"
    assert rollback(run).name == before[:16]
    assert content(run) == "old"


def test_a_run_that_moves_to_a_disk_with_links_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(os, "symlink", no_links)
        train(run, "one")
        assert not run.adapter.is_symlink()
    restore(run)
    assert run.adapter.is_symlink()
    assert_whole(run)
    assert len(versions(run)) == 1


def test_a_run_that_was_killed_while_it_had_no_versions_gets_its_adapter_back(run: RunFolder) -> None:
    """Between the two renames of `artifact`, as it was written before there were versions."""
    before = old_run(run)
    (work_folder(run.adapter)).mkdir(parents=True)
    run.adapter.rename(work_folder(run.adapter) / "old")
    restore(run)
    assert hash_folder(run.adapter) == before
    assert_whole(run)


# ---- kills ----

CHANGES = ("rename", "replace", "unlink", "symlink_to", "mkdir")


def killed_at(last: int, work: Callable[[], object]) -> bool:
    """Do the work in a child process that is gone at its `last` change of the disk; whether that came."""
    child = os.fork()
    if child == 0:
        status, done = 0, 0

        def then_die(change: Callable[..., Any]) -> Callable[..., Any]:
            def changed(*arguments: Any, **options: Any) -> Any:
                nonlocal done
                if done == last:
                    os._exit(9)
                done += 1
                return change(*arguments, **options)

            return changed

        try:
            for name in CHANGES:
                setattr(Path, name, then_die(getattr(Path, name)))
            shutil.rmtree = then_die(shutil.rmtree)
            work()
        except (StorageError, UsageError):
            pass
        except BaseException:
            status = 1
        os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9


@pytest.mark.parametrize("links", [True, False])
def test_a_kill_while_an_older_run_is_moved_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """At every change of the disk in turn, among them between the renames of the folder and of the link."""
    if not links:
        monkeypatch.setattr(os, "symlink", no_links)
    for last in range(100):
        run = RunFolder(tmp_path / str(last))
        before = old_run(run)
        killed = killed_at(last, lambda run=run: restore(run))  # type: ignore[misc]
        restore(run)
        assert hash_folder(run.adapter) == before
        assert_whole(run)
        assert set_by(run) == {"old": "training"}
        if not killed:
            break
    assert 3 < last < 50


CONTENTS = ("a", "b", "c")
OPERATIONS = st.tuples(
    st.sampled_from(["train", "promote", "rollback"]),
    st.sampled_from(CONTENTS),
    st.none() | st.integers(0, 25),
)


def operate(run: RunFolder, verb: str, text: str) -> None:
    if verb == "train":
        train(run, text)
    elif verb == "promote":
        promote(run, names(run).get(text, "none"))
    else:
        rollback(run)


@pytest.mark.parametrize("links", [True, False])
@settings(max_examples=25, deadline=None)
@given(steps=st.lists(OPERATIONS, min_size=1, max_size=8), starts_old=st.booleans())
def test_whatever_happens_the_adapter_is_a_whole_version(
    links: bool,
    tmp_path_factory: pytest.TempPathFactory,
    steps: list[tuple[str, str, int | None]],
    starts_old: bool,
) -> None:
    """Trainings, promotions, rollbacks and kills in any order: beside a kill, each does what it says."""
    run = RunFolder(tmp_path_factory.mktemp("versions") / "run")
    with pytest.MonkeyPatch.context() as patched:
        if not links:
            patched.setattr(os, "symlink", no_links)
        if starts_old:
            old_run(run, "a")
            restore(run)
        for verb, text, kill in steps:
            before = content(run) if run.adapter.is_dir() else None
            deciding = set_by(run).get(before) if before else None
            killed = killed_at(99_999 if kill is None else kill, lambda: operate(run, verb, text))  # noqa: B023
            if before is not None and links:
                assert_whole(run)  # at any moment, before anything is mended
            restore(run)
            if run.adapter.is_dir():
                assert_whole(run)
            if not killed and verb == "train":
                assert content(run) == (text if deciding in (None, "training") else before)
            if not killed and verb == "promote" and text in names(run):
                assert content(run) == text
                assert set_by(run)[text] == "promotion"
            if killed and before is not None:
                assert content(run) in (CONTENTS if verb == "rollback" else {before, text})
