"""A refresh of an adapter that changes documents: the index goes with it, whole, and back; what cannot be refreshed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import acclimate
from acclimate.cli.main import main
from acclimate.configs import DatasetConfig, IndexConfig, RunConfig
from acclimate.errors import StorageError, UsageError
from acclimate.files import hash_folder
from acclimate.flows import index_switch
from acclimate.retrieval.index import beside
from acclimate.retrieval.index.local.index import LocalIndex
from acclimate.retrieval.index.of_run import opened_index
from acclimate.runs import versions
from acclimate.runs.refreshes import decisions
from acclimate.runs.resolve import load
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import one_task
from acclimate.text_use import SpaceId
from tests.flows.feedback_world import REFRESH, make_run, mark
from tests.tiny_run import write_tiny_pairs


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = make_run(tmp_path_factory.mktemp("moving"))
    main(["train", str(run.path), "--sides", "both"])
    main(["index", str(run.path)])
    return run.path.parent


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A copy of a trained run with an index, whose every candidate is promoted."""
    monkeypatch.setattr("acclimate.stages.refresh_judge.objections", lambda *_, **__: [])
    shutil.copytree(trained / "run", tmp_path / "run", symlinks=True)
    copy = RunFolder(tmp_path / "run")
    mark(copy)
    return copy


def refreshed(run: RunFolder) -> Any:
    return acclimate.refresh(run.path, **REFRESH)


def space(run: RunFolder) -> SpaceId:
    with opened_index(str(run.index)) as index:
        return index.space


def found(run: RunFolder) -> list[Any]:
    """What a search finds, by vectors alone: it is refused where the index is not the model's."""
    hits: list[Any] = acclimate.search(run.path, "w1 w2", mode="dense", top=10)["hits"]
    return hits


def test_the_index_goes_with_the_adapter_and_back(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    before, old, hits = hash_folder(run.adapter), space(run), found(run)
    decision = refreshed(run)
    assert decision["outcome"] == "promoted"
    assert space(run) == load(run.path).space != old
    assert "60 documents are in it, 60 of them encoded now" in capsys.readouterr().err
    assert found(run) != hits
    acclimate.rollback(run.path)
    assert (hash_folder(run.adapter), space(run)) == (before, old)
    assert found(run) == hits
    assert "60 documents are in it, 0 of them encoded now" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("point", ["built_beside", "feed", "promote", "_replace", "fsync"])
def test_a_kill_leaves_the_old_pair_or_the_new_one(run: RunFolder, point: str) -> None:
    """Before building, while building, before the switch, after it, and while the indexes change their places."""
    mark(run, 60, seed=3)
    before, old = hash_folder(run.adapter), space(run)
    assert killed_at(point, run) == 9
    is_new = hash_folder(run.adapter) != before
    assert is_new == (point in ("_replace", "fsync"))
    assert len(found(run)) == 10, "whichever is in use, its index answers"
    assert (space(run) != old) == is_new
    assert refreshed(run)["outcome"] == "promoted" and len(decisions(run)) == 1
    assert space(run) == load(run.path).space != old
    acclimate.rollback(run.path)
    assert (hash_folder(run.adapter), space(run)) == (before, old)


def killed_at(point: str, run: RunFolder) -> int:
    """Refresh in a child process that dies right before a step; its status."""
    child = os.fork()
    if child == 0:
        owners: dict[str, Any] = {"built_beside": index_switch, "promote": versions}

        def die(*_: Any, **__: Any) -> None:
            os.kill(os.getpid(), 9)

        setattr(owners.get(point, beside), point, die)
        try:
            refreshed(run)
        finally:
            os._exit(1)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@pytest.mark.slow
def test_documents_that_come_meanwhile_are_in_the_index_of_either_version(run: RunFolder, tmp_path: Path) -> None:
    refreshed(run)
    (tmp_path / "more.jsonl").write_text('{"_id": "new", "text": "w1 w2 w1 w2"}\n')
    main(["index", str(run.path), str(tmp_path / "more.jsonl")])
    acclimate.rollback(run.path)
    assert len(found(run)) == 10
    with opened_index(str(run.index)) as index:
        assert "new" in index.get(["new"]) and index.count() == 61


def test_nothing_changes_while_another_process_writes_the_index(run: RunFolder) -> None:
    before, old = hash_folder(run.adapter), space(run)
    with LocalIndex.sole_writer(run.index), pytest.raises(StorageError, match="another acclimate is at work"):
        refreshed(run)
    assert (hash_folder(run.adapter), space(run), decisions(run)) == (before, old, [])
    assert refreshed(run)["number"] == 1


@pytest.mark.slow
def test_a_whole_index_is_not_taken_once_the_older_one_has_changed(run: RunFolder) -> None:
    assert killed_at("_replace", run) == 9
    with opened_index(str(run.index)) as index:
        index.delete(["d1"])
    assert not beside.put_in_place(run.index, load(run.path).space)
    with pytest.raises(UsageError, match="another space"):
        found(run)
    refreshed(run)
    assert len(found(run)) == 10
    with opened_index(str(run.index)) as index:
        assert index.get(["d1"]) == {} and index.count() == 59


def test_an_index_on_a_server_cannot_go_with_it(run: RunFolder) -> None:
    config = RunConfig(index=IndexConfig(index_at="qdrant://localhost/docs"))
    with pytest.raises(UsageError, match="is on a server"):
        index_switch.check_can_move(one_task(run.path, config))


def test_labelled_pairs_and_several_tasks_are_refused_in_words(tmp_path: Path) -> None:
    write_tiny_pairs(tmp_path / "dataset")
    with pytest.raises(UsageError, match="labelled pairs") as refused:
        index_switch.only_task(RunFolder(tmp_path), RunConfig())
    assert "train it again" in str(refused.value)
    two = (DatasetConfig(source="a.jsonl", name="law"), DatasetConfig(source="b.jsonl", name="tax"))
    with pytest.raises(UsageError, match=r"several tasks \(law, tax\)") as refused:
        index_switch.only_task(RunFolder(tmp_path), RunConfig(datasets=two))
    assert "a run of its own" in str(refused.value)
