"""A refresh: what it learns from, what it decides and keeps, and what a kill leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import acclimate
from acclimate.cli.main import main
from acclimate.data.dataset import EXAMPLES_FILE, load_dataset, read_examples
from acclimate.errors import DataError, UsageError
from acclimate.evaluation.dev import dev_set
from acclimate.feedback.records import Mark
from acclimate.feedback.store import FeedbackStore
from acclimate.files import hash_folder, iter_jsonl, read_json
from acclimate.flows import refresh as flow
from acclimate.flows import watch as watching
from acclimate.flows.watch import Due
from acclimate.runs import refreshes, versions
from acclimate.runs.refreshes import Decision, decisions, judged_report
from acclimate.runs.resolve import load
from acclimate.runs.run_folder import RunFolder
from tests.flows.feedback_world import REFRESH, make_run, mark, queries_to_come

DECISION: Decision = {"time": "now", "outcome": "kept aside", "reason": "none", "before": "a", "version": "b"}
BOUND_S = 600
"""How long a refresh may take in a process of its own before a test gives up."""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("trained")).path.parent


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> RunFolder:
    """A copy of a trained run that nobody has marked anything in; the base is where it was."""
    shutil.copytree(trained / "run", tmp_path / "run", symlinks=True)
    return RunFolder(tmp_path / "run")


def refreshed(run: RunFolder, **settings: Any) -> dict[str, Any]:
    return acclimate.refresh(run.path, **{**REFRESH, **settings})


def promote_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Object to no candidate: so small a model learns too little for a decision that can be foreseen."""
    monkeypatch.setattr("acclimate.stages.refresh_judge.objections", lambda *_, **__: [])


def test_a_refresh_learns_judges_and_keeps_a_candidate_aside(run: RunFolder) -> None:
    mark(run)
    before = hash_folder(run.adapter)
    decision = refreshed(run, gate_margin=0.0)
    assert decision["outcome"] == "kept aside" and "later feedback" in decision["reason"]
    assert hash_folder(run.adapter) == before
    part = run.refresh(1)
    learned, laid = (read_json(folder / "report.json") for folder in (part.dataset, part.steps))
    assert (learned["later_queries"], learned["rows"], learned["later_users"]) == (12, 28, 10)
    assert laid["replay_rows"] >= laid["feedback_rows"] > 0 and laid["most_of_one_user"] <= 5
    assert decision["measured"]["test"]["queries"] == 12
    assert (part.adapter / "adapter_config.json").is_file(), "the candidate is kept"
    assert decisions(run)[0]["version"] == hash_folder(part.adapter)[:16] != decision["before"]


def test_what_judges_is_neither_trained_on_nor_chosen_by(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(run)
    chosen_by: set[str] = set()

    def noted(*arguments: Any) -> Any:
        chosen_by.update(arguments[4])
        return dev_set(*arguments)

    monkeypatch.setattr("acclimate.training.task_training.dev_set", noted)
    refreshed(run)
    part, data = run.refresh(1), load_dataset(run.dataset)
    named = read_json(part.dataset / "parts.json")
    queries = load_dataset(part.dataset).queries
    judging = {queries[query] for query in named["gate"] + named["later"]} | {
        data.queries[q] for q in data.qrels["test"]
    }
    rows = read_examples(part.steps / EXAMPLES_FILE)
    assert judging.isdisjoint(text for row in rows for text in (row.anchor, row.positive, *row.negatives))
    assert chosen_by and chosen_by.isdisjoint(named["gate"])
    assert chosen_by | set(named["gate"]) == set(data.qrels["dev"])


@pytest.mark.slow
def test_ten_thousand_marks_of_one_user_do_nothing_alone(run: RunFolder) -> None:
    data = load_dataset(run.dataset)
    flood = [
        Mark("d1", "relevant", f"{query} w{number}", user="flood")
        for number in range(500)
        for query in queries_to_come(data, 20)
    ]
    with closing(FeedbackStore(run.feedback, create=True)) as store:
        assert store.add_marks(flood).stored == 10_000
    with pytest.raises(DataError, match="0 later queries of 0 users"):
        refreshed(run)
    assert decisions(run) == []
    mark(run)
    refreshed(run, later_fraction=0.5)
    taught = [line.value for line in iter_jsonl(run.refresh(1).dataset / "taught.jsonl") if line.value]
    of = {(row["anchor"], row["positive"]): row["users"] for row in taught}
    rows = read_examples(run.refresh(1).steps / EXAMPLES_FILE)
    for first in range(0, len(rows), 20):
        users = Counter(user for row in rows[first : first + 20] for user in of.get((row.anchor, row.positive), ()))
        assert users["flood"] <= 5


@pytest.mark.slow
def test_marks_that_teach_nothing_are_counted(run: RunFolder) -> None:
    mark(run)
    data = load_dataset(run.dataset)
    test = data.queries[next(iter(data.qrels["test"]))]
    with closing(FeedbackStore(run.feedback)) as store:
        store.add_marks(
            [
                Mark("gone", "relevant", "w1 w2 w3", user="a"),
                Mark("d1", "relevant", test, user="a"),
                Mark("d1", "saved", "w1 w2", user="a"),
            ]
        )
    refreshed(run)
    report = read_json(run.refresh(1).dataset / "report.json")
    assert report["not_used"]["documents that are gone"] == 1
    assert report["marks"]["of another name: not learned from"] == 1
    anchors = {row.anchor for row in read_examples(run.refresh(1).dataset / EXAMPLES_FILE)}
    assert test not in anchors


@pytest.mark.slow
def test_new_documents_join_mining_and_texts_of_elsewhere_are_retained(run: RunFolder, tmp_path: Path) -> None:
    main(["mine", str(run.path)])
    main(["index", str(run.path)])
    new = {f"new{number}": f"w{number} w{number + 1} w{number + 2}" for number in range(20)}
    (tmp_path / "new.jsonl").write_text(
        "".join(f'{{"_id": "{name}", "text": "{text}"}}\n' for name, text in new.items())
    )
    main(["index", str(run.path), str(tmp_path / "new.jsonl")])
    (tmp_path / "retained.txt").write_text("".join(f"w5{number} w4{number}\n" for number in range(10)))
    mark(run)
    refreshed(run, retain_data=str(tmp_path / "retained.txt"))
    part = run.refresh(1)
    learned = read_json(part.dataset / "report.json")
    assert learned["new_documents"] == 20
    assert 0.0 <= learned["negatives_age_days"] < 1.0, "those of the run, which are mined anew"
    mined = {text for row in read_examples(part.negatives / EXAMPLES_FILE) for text in row.negatives}
    assert not mined.isdisjoint(new.values())
    assert read_json(part.adapter / "report.json")["train"]["retained_excluded"] == 0


def test_a_promotion_and_a_rollback_to_the_same_vectors(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(run)
    promote_anything(monkeypatch)
    main(["report", str(run.path)])
    texts = ["w1 w2", "w3 w4 w5"]
    before = load(run.path).encode(texts, "query")
    decision = refreshed(run)
    assert decision["outcome"] == "promoted"
    assert [it.set_by for it in versions.versions(run) if it.name == decision["version"]] == ["promotion"]
    after = load(run.path).encode(texts, "query")
    assert not np.array_equal(before, after)
    page = run.page.read_text()
    assert "What was learned from feedback" in page and decision["version"][:8] in page
    main(["rollback", str(run.path)])
    assert np.array_equal(before, load(run.path).encode(texts, "query"))
    assert [row["outcome"] for row in decisions(run)] == ["promoted", "rolled back"]
    assert "rolled back" in run.page.read_text()
    with pytest.raises(UsageError, match="no other version"):
        acclimate.rollback(run.path)


@pytest.mark.slow
def test_what_has_decided_once_is_learned_from_and_decides_no_more(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    promote_anything(monkeypatch)
    mark(run)
    refreshed(run)
    with pytest.raises(DataError, match="too little feedback to judge by: 0 later"):
        refreshed(run)
    mark(run, 60, seed=1)
    refreshed(run)
    learned = read_json(run.refresh(2).dataset / "report.json")
    assert learned["rows"] + learned["later_queries"] == 100
    assert not run.refresh(1).dataset.exists(), "only the last one's data stay"
    assert [row["number"] for row in decisions(run)] == [1, 2]


@pytest.mark.slow
def test_only_so_many_versions_and_candidates_are_kept(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    promote_anything(monkeypatch)
    monkeypatch.setattr(refreshes, "KEPT", 1)
    monkeypatch.setattr(flow, "KEPT", 1)
    first = hash_folder(run.adapter)[:16]
    for seed in range(3):
        mark(run, 40, seed=seed)
        refreshed(run, refresh_steps=2)
    made = [row["version"] for row in decisions(run)]
    kept = {it.name for it in versions.versions(run)}
    assert kept == {first, *made[1:]}, "a training's version is not deleted"
    assert not any(run.refresh(1).adapters.glob("*/"))


@pytest.mark.slow
def test_a_version_that_comes_meanwhile_is_not_replaced(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    mark(run)
    promote_anything(monkeypatch)
    judge = flow.refresh_judge

    def and_meanwhile(*arguments: Any) -> Any:
        report = judge(*arguments)
        versions.promote(run, versions.take(run, changed))
        return report

    changed = run.path / "changed"
    shutil.copytree(run.adapter, changed)
    (changed / "README.txt").write_text("another one")
    monkeypatch.setattr(flow, "refresh_judge", and_meanwhile)
    decision = refreshed(run)
    assert decision["outcome"] == "kept aside" and "meanwhile" in decision["reason"]
    assert (run.adapter / "README.txt").is_file()


POINTS = (
    "mine",
    "refresh_steps",
    "train_tasks",
    "refresh_judge",
    "versions.take",
    "versions.promote",
    "record",
)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_named_point_leaves_a_whole_version_and_the_next_start_goes_on(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    mark(run)
    promote_anything(monkeypatch)
    before = hash_folder(run.adapter)
    assert killed_at(point, run) == 9
    assert hash_folder(run.adapter)[:16] in {it.name for it in versions.versions(run)}
    mark(run, 60, seed=5)  # of which the try that was begun knows nothing
    decision = refreshed(run)
    assert decision["outcome"] == "promoted" and decision["number"] == 1 and len(decisions(run)) == 1
    assert hash_folder(run.adapter)[:16] == decision["version"] != before[:16]
    assert read_json(judged_report(run.refresh(1)))["before"] == before[:16]
    learned = run.refresh(1).dataset / "report.json"
    assert read_json(learned)["rows"] == 28
    acclimate.rollback(run.path)
    assert hash_folder(run.adapter) == before


def killed_at(point: str, run: RunFolder) -> int:
    """Refresh in a child process that dies right before a step of the flow; its status."""
    child = os.fork()
    if child == 0:
        owner: Any = versions if point.startswith("versions.") else flow

        def die(*_: Any, **__: Any) -> None:
            os.kill(os.getpid(), 9)

        setattr(owner, point.removeprefix("versions."), die)
        try:
            refreshed(run)
        finally:
            os._exit(1)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


def test_a_kill_while_what_is_bulky_is_deleted_leaves_no_half_of_it(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(run.dataset, run.refresh(1).dataset)
    monkeypatch.setattr(refreshes, "is_listed", lambda _: True)
    for number in (1, 2):
        refreshes.record(run, {**DECISION, "number": number})

    def stopped(folder: Path, **_: Any) -> None:
        next(iter(sorted(folder.glob("*")))).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(refreshes.shutil, "rmtree", lambda folder, **_: stopped(folder) if folder.is_dir() else None)
        refreshes.tidy(run)
    assert not run.refresh(1).dataset.exists()
    refreshes.tidy(run)
    assert [path for path in run.refreshes.rglob("*") if path.is_file() and path != run.decisions] == []


def test_when_a_refresh_is_due() -> None:
    due = Due(marks=100, hours=2.0)
    assert due.reason(99, 0.0) == "" and "100 new marks" in due.reason(100, 0.0)
    assert due.reason(0, 9999999.0) == "" and "2 hours" in due.reason(1, 7200.0)
    assert Due(100, None).reason(99, 1e9) == ""


WATCHER = """
import json, os, signal, sys
from pathlib import Path
from acclimate.flows import feedback_verbs, watch
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.alarm(int(sys.argv[3]))
watch.POLL_S = 0.05
run = Path(sys.argv[1])
config = feedback_verbs.refreshing(run, None, json.loads(sys.argv[2]))
try:
    watch.watch(run, config, watch.Due(3, None))
except KeyboardInterrupt:
    sys.exit(os.nice(0))
sys.exit(99)
"""


@pytest.mark.slow
def test_it_watches_until_it_is_stopped(run: RunFolder) -> None:
    """The real loop, in a process of its own: what fails is told, and what is due is done, one after the other."""
    mark(run, 3)
    arguments = [str(run.path), json.dumps(REFRESH), str(2 * BOUND_S)]
    with subprocess.Popen([sys.executable, "-c", WATCHER, *arguments]) as child:
        try:
            for number in (1, 2):
                mark(run, 40, seed=number)
                end = time.monotonic() + BOUND_S
                while len(decisions(run)) < number:
                    assert time.monotonic() < end and child.poll() is None
                    time.sleep(0.05)
            child.send_signal(signal.SIGINT)
            nice = child.wait(BOUND_S)
        finally:
            child.kill()  # else a failure would wait for its alarm
    assert nice == min(19, os.nice(0) + watching.NICE)
    assert [row["number"] for row in decisions(run)] == [1, 2]


def test_the_commands_say_what_there_is(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"query": f"w{n} w1 w2", "id": "d1", "mark": "relevant", "user": "a"} for n in range(3)]
    file = run.path.parent / "marks.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"id": "gone", "query": "q", "mark": "click"}]))
    main(["feedback", str(run.path), "--import", str(file)])
    assert "3 marks, 0 impressions stored" in capsys.readouterr().out
    assert run.not_imported.is_file()
    main(["feedback", str(run.path), "--info"])
    assert "marks: 3" in capsys.readouterr().out
    main(["feedback", str(run.path), "--export", str(run.path.parent / "out.qrels")])
    assert "3 judgements" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["feedback", str(run.path), "--export", str(run.path.parent / "out.qrels")])
    assert "is there" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["refresh", str(run.path)])
    assert "too little feedback to judge by" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_remembers_nothing_of_a_refreshs_settings(run: RunFolder) -> None:
    mark(run)
    before = run.config.read_text()
    refreshed(run)
    assert run.config.read_text() == before
