"""The local index: what it promises beside the contract. Other processes, damage, kills, full disks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.core.analyser import Analyser
from acclimate.core.filter_language import parse_filter
from acclimate.errors import StorageError, UsageError
from acclimate.retrieval.bm25 import BM25
from acclimate.retrieval.index.local import checkpoints, dense, derived, fields, index
from acclimate.retrieval.index.local.index import LocalIndex
from acclimate.retrieval.index.opening import open_index
from acclimate.retrieval.index.records import Document, Query, Vectors
from acclimate.text_use import SpaceId
from tests.retrieval.index.contract import DIM, SPACE, expected, found, numbered, unit

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "index"


# An index equals a dictionary with exact search.

NAMES = [f"n{number}" for number in range(6)]
VECTORS = unit(8, seed=3)
STEPS = st.one_of(
    st.tuples(st.just("upsert"), st.dictionaries(st.sampled_from(NAMES), st.integers(0, 7), min_size=1)),
    st.tuples(st.just("delete"), st.sets(st.sampled_from(NAMES))),
    st.tuples(st.sampled_from(["reopen", "crash", "rebuild", "search"]), st.none()),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_any_sequence_of_changes_equals_a_dictionary(tmp_path_factory: pytest.TempPathFactory, steps: list) -> None:
    """A crash is what is left on the disk when nothing is closed: the folder as it is, copied."""
    folder = tmp_path_factory.mktemp("steps") / "index"
    with pytest.MonkeyPatch.context() as patch:
        # So that few documents come to FAISS, to a new build, and to checkpoints between two writes.
        patch.setattr(dense, "LEAST_ROWS", 2)
        patch.setattr(derived, "FRESH_VECTORS", 2)
        patch.setattr(index, "FRESH_VECTORS", 2)
        patch.setattr(index, "LEXICAL_CHECKPOINT", 3)
        patch.setattr(index, "DENSE_CHECKPOINT", 4)
        there: dict[str, int] = {}
        opened = LocalIndex.open(folder, SPACE)
        for what, value in steps:
            if what == "upsert":
                opened.upsert(
                    [Document(name, f"w{n}", {"n": n}) for name, n in value.items()], VECTORS[[*value.values()]]
                )
                there |= value
            elif what == "delete":
                assert opened.delete(value) == len(value & there.keys())
                there = {name: n for name, n in there.items() if name not in value}
            elif what == "rebuild":
                opened.rebuild()
            elif what == "search":
                assert_equal(opened, there)
            else:
                if what == "crash":
                    copy = shutil.copytree(folder, folder.with_name(f"{folder.name}+"))
                opened.close()
                if what == "crash":
                    folder = copy
                opened = LocalIndex.open(folder)
        assert_equal(opened, there)
        assert opened.verify() == []
        opened.close()


def assert_equal(opened: LocalIndex, there: dict[str, int]) -> None:
    """Every mode finds what a dictionary's exact search finds."""
    rows = [Document(name, f"w{n}", {"n": n}) for name, n in sorted(there.items())]
    vectors = VECTORS[[n for _, n in sorted(there.items())]]
    assert opened.count() == len(rows)
    assert [one.document for one in opened.iterate()] == rows
    for n in range(8):
        assert opened.count(parse_filter(f"n = {n}")) == [*there.values()].count(n)
        query = Query(f"w{n}", VECTORS[n], "dense", 3)
        assert found(opened, query) == expected(rows, vectors, VECTORS[n], 3)
        wordiest = found(opened, Query(f"w{n}", mode="lexical"))
        assert sorted(wordiest) == sorted(name for name, m in there.items() if m == n)


# Kills.

CHILD = """
import os, signal, sys
from pathlib import Path
from acclimate.retrieval.index.local import index
from acclimate.retrieval.index.local.index import LocalIndex
from tests.retrieval.index.contract import numbered, unit

folder, point, skipped, version = Path(sys.argv[1]), tuple(sys.argv[2:4]), int(sys.argv[4]), int(sys.argv[5])
index.LEXICAL_CHECKPOINT, index.DENSE_CHECKPOINT = 40, 40

def kill_there(frame, event, argument):
    global skipped
    name = argument.__name__ if event.startswith("c_") and event != "c_exception" else frame.f_code.co_name
    if (event, name) == point and "acclimate" in frame.f_code.co_filename:
        skipped -= 1
        if skipped < 0:
            os.kill(os.getpid(), signal.SIGKILL)

opened = LocalIndex.open(folder)
sys.setprofile(kill_there)
for start in range(0, 60, 20):
    rows = numbered(60, version)[start : start + 20]
    opened.upsert(rows, unit(60, seed=version)[start : start + 20])
    print("upserted", start, flush=True)
    opened.delete([rows[0].id])
    print("deleted", start, flush=True)
opened.close()
print("closed", flush=True)
"""
POINTS = [
    ("call", "write"),
    ("c_call", "executemany"),
    ("return", "write"),
    ("call", "_maintain"),
    ("call", "delete"),
    ("call", "publish"),
    ("c_call", "commit"),
    ("call", "_take"),
    ("call", "fsync_tree"),
    ("call", "fsync"),
    ("return", "publish"),
    ("call", "absorb"),
    ("call", "build"),
    ("call", "rmtree"),
]
"""Event and function of Python's profiler: before, in, and after the store's transaction and every step of a
checkpoint."""


def round_of_kill(folder: Path, point: tuple[str, str], skipped: int, before: int) -> int:
    """One child that kills itself at a point; what it acknowledged is there, and nothing half. Returns its version."""
    version = before + 1
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), *point, str(skipped), str(version)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        cwd=ROOT,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    said = done.stdout.splitlines()
    opened = LocalIndex.open(folder)
    assert opened.verify() == []
    rows = {one.document.id: one.document for one in opened.iterate()}
    assert opened.count() == len(rows)
    for start in range(0, 60, 20):
        block = numbered(60, version)[start : start + 20]
        versions = {rows[one.id].metadata["v"] for one in block[1:]}
        assert len(versions) == 1, "a call is there whole or not at all"
        if f"upserted {start}" in said:
            assert versions == {version}
        if f"deleted {start}" in said:
            assert block[0].id not in rows
        for one, vector in zip(block[1:4], unit(60, seed=version)[start + 1 : start + 4], strict=True):
            if versions == {version}:
                assert found(opened, Query(one.text, vector, "dense", 1)) == [one.id]
                assert found(opened, Query(f"version{version}", mode="lexical", top_k=60)).count(one.id) == 1
    opened.upsert(numbered(60, version), unit(60, seed=version))
    opened.close()
    return version


def run_rounds(folder: Path, rounds: list[tuple[tuple[str, str], int]]) -> None:
    first = LocalIndex.open(folder, SPACE)
    first.upsert(numbered(60), unit(60))
    first.close()
    version = 0
    for point, skipped in rounds:
        version = round_of_kill(folder, point, skipped, version)


def test_nothing_acknowledged_is_lost_by_a_kill(folder: Path) -> None:
    run_rounds(folder, [(point, number % 2) for number, point in enumerate(POINTS)])


@pytest.mark.long
def test_a_hundred_kills(folder: Path) -> None:
    run_rounds(folder, [(POINTS[number % len(POINTS)], number // len(POINTS)) for number in range(100)])


# Damaged, missing and older checkpoints.


def truncate(place: Path) -> None:
    for path in place.iterdir():
        if path.name != checkpoints.MANIFEST and path.stat().st_size > 1:
            os.truncate(path, path.stat().st_size // 2)


def flip(place: Path) -> None:
    largest = max(place.iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 255
    largest.write_bytes(content)


def spoil_manifest(place: Path) -> None:
    (place / checkpoints.MANIFEST).write_text("{")


def remove_a_file(place: Path) -> None:
    next(path for path in sorted(place.iterdir()) if path.name != checkpoints.MANIFEST).unlink()


@pytest.mark.parametrize("kind", ["dense", "lexical"])
@pytest.mark.parametrize("damage", [truncate, flip, spoil_manifest, remove_a_file])
def test_a_damaged_checkpoint_is_made_anew(
    folder: Path, kind: str, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    answers = answers_of(filled(folder))
    (place,) = folder.glob(f"{kind}-*")
    damage(place)
    opened = LocalIndex.open(folder)
    assert answers_of(opened, close=False) == answers
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if place.name in line]) == 1
    opened.upsert(numbered(1), unit(1))
    opened.close()
    again = LocalIndex.open(folder)
    assert again.verify() == []
    again.close()
    assert capsys.readouterr().err == ""


def test_metadata_is_kept_for_the_first_filter(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what came after the checkpoint is read; a damaged one is said once and not used."""
    noted: list[int] = []
    note = fields.note
    monkeypatch.setattr(fields, "note", lambda columns, change: (noted.append(change.row), note(columns, change)))
    odd = {"v": 1.0, "tags": ("a", 2, True), "name": "ä", "ok": False, "0": 2**53 + 1}
    opened = filled(folder)
    opened.upsert([Document("odd", "odd", odd), Document("gone", "gone", {"v": 7})], unit(2))
    opened.delete(["gone"])
    opened.close()
    assert len(noted) == 62
    writer = LocalIndex.open(folder)
    writer.upsert(numbered(3, 1), unit(3))
    noted.clear()
    counts = {"ok = false": 1, "v = 1": 4, "v = 0": 57, "v = 7": 0, "tags = true and tags = 2": 1,
              f"`0` > {2**53}": 1, "exists(name)": 1}  # fmt: skip
    reader = LocalIndex.open(folder)
    assert {text: reader.count(parse_filter(text)) for text in counts} == counts
    assert len(noted) == 3
    reader.close()
    writer.close()
    (place,) = folder.glob(f"{fields.KIND}-*")
    values = (place / fields.VALUES).read_text(encoding="utf-8")
    assert '"v": [0, 1' in values and json.loads(values)["v"] == [0, 1]
    flip(place)
    capsys.readouterr()
    reader = LocalIndex.open(folder)
    assert {text: reader.count(parse_filter(text)) for text in counts} == counts
    assert [place.name in line for line in capsys.readouterr().err.splitlines()] == [True]
    reader.close()


def test_missing_and_older_checkpoints_give_the_same_answers(folder: Path, tmp_path: Path) -> None:
    filled(folder).close()
    for kind in ("dense", "lexical"):
        (place,) = folder.glob(f"{kind}-*")
        shutil.copytree(place, tmp_path / place.name)
    opened = LocalIndex.open(folder)
    opened.upsert(numbered(30, 2), unit(30, seed=2))
    opened.delete(["d0050", "d0051"])
    answers = answers_of(opened)
    for kind in ("dense", "lexical"):
        (place,) = folder.glob(f"{kind}-*")
        shutil.rmtree(place)
    assert answers_of(LocalIndex.open(folder)) == answers
    for place in tmp_path.glob("*-*"):
        shutil.copytree(place, folder / place.name)
    opened = LocalIndex.open(folder)
    assert opened.derived.saved_seq == 60
    assert opened.verify() == []
    assert answers_of(opened) == answers


def test_a_checkpoint_of_another_index_is_not_used(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    filled(folder).close()
    other = LocalIndex.open(tmp_path / "other", SPACE)
    other.upsert(numbered(60, 5), unit(60, seed=5))
    answers = answers_of(other)
    (place,) = (tmp_path / "other").glob("lexical-*")
    shutil.rmtree(place)
    shutil.copytree(next(folder.glob("lexical-*")), place)
    capsys.readouterr()
    assert answers_of(LocalIndex.open(tmp_path / "other")) == answers
    assert "made from other documents" in capsys.readouterr().err


def filled(folder: Path) -> LocalIndex:
    opened = LocalIndex.open(folder, SPACE)
    opened.upsert(numbered(60), unit(60))
    return opened


def answers_of(opened: LocalIndex, *, close: bool = True) -> list[list[str]]:
    queries = [Query(f"text {n} version2", vector, mode) for n, vector in enumerate(unit(6, seed=9))
               for mode in ("dense", "lexical", "hybrid")]  # fmt: skip
    answers = [found(opened, query) for query in queries]
    if close:
        opened.close()
    return answers


# Other processes and threads.


def test_what_one_process_writes_another_finds_at_once(folder: Path) -> None:
    """Two connections with nothing in common but the folder stand for two processes."""
    writer = LocalIndex.open(folder, SPACE)
    reader = LocalIndex.open(folder)
    vectors = unit(40)
    for start in range(0, 40, 10):
        writer.upsert(numbered(40)[start : start + 10], vectors[start : start + 10])
        assert reader.count() == start + 10
        assert found(reader, Query(vector=vectors[start + 3], mode="dense", top_k=1)) == [f"d{start + 3:04}"]
        assert f"d{start + 5:04}" in found(reader, Query(f"{start + 5}", mode="lexical"))
        if start == 20:
            writer.close()
            writer = LocalIndex.open(folder)
    writer.delete(["d0003"])
    assert found(reader, Query(vector=vectors[3], mode="dense", top_k=1)) != ["d0003"]
    reader.close()
    writer.close()


def test_a_reader_takes_checkpoints_that_are_newer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "REPLAYED", 5)
    writer = LocalIndex.open(folder, SPACE)
    reader = LocalIndex.open(folder)
    writer.upsert(numbered(20), unit(20))
    writer.close()
    assert found(reader, Query("text 7", mode="lexical"))[0] == "d0007"
    assert reader.derived.lexical.saved_seq == 20 and reader.derived.dense.saved_seq == 20
    reader.close()


def test_filters_know_what_another_process_wrote_when_this_one_begins_to_write(folder: Path) -> None:
    first, second = filled(folder), LocalIndex.open(folder)
    assert second.count(parse_filter("v = 0")) == 60
    first.upsert(numbered(30, 1), unit(30))
    first.close()
    second.delete([])  # It takes over, and with it the newer checkpoints.
    assert second.count(parse_filter("v = 1")) == 30
    second.close()


def test_one_writes_at_a_time(folder: Path) -> None:
    first, second = filled(folder), LocalIndex.open(folder)
    with pytest.raises(StorageError, match="another acclimate is at work"):
        second.upsert(numbered(1), unit(1))
    assert second.count() == 60
    first.close()
    second.upsert(numbered(1, 7), unit(1))
    assert second.get(["d0000"])["d0000"].document.metadata["v"] == 7
    second.close()


def test_searches_and_writes_in_many_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(derived, "FRESH_VECTORS", 16)
    monkeypatch.setattr(index, "FRESH_VECTORS", 16)
    monkeypatch.setattr(index, "LEXICAL_CHECKPOINT", 50)
    monkeypatch.setattr(index, "DENSE_CHECKPOINT", 50)
    monkeypatch.setattr(dense, "LEAST_ROWS", 32)
    opened, vectors = LocalIndex.open(folder, SPACE), unit(200)
    opened.upsert(numbered(10), vectors[:10])
    failures: list[BaseException] = []
    stop = threading.Event()

    def search() -> None:
        try:
            while not stop.is_set():
                assert found(opened, Query("text 3", vectors[3], "dense", 1)) == ["d0003"]
                assert found(opened, Query("text 3", vectors[3], "hybrid", 1)) == ["d0003"]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    for start in range(10, 200, 10):
        opened.upsert(numbered(200)[start : start + 10], vectors[start : start + 10])
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert opened.verify() == []
    opened.close()


# Many rows: scanned in 8 bits, then in cells.


def test_cells_are_built_when_there_are_many_and_take_changes_in_place(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "SCAN_ROWS", 1500)
    monkeypatch.setattr(derived, "FRESH_VECTORS", 100)
    monkeypatch.setattr(index, "FRESH_VECTORS", 100)
    vectors, rows = unit(3000), numbered(3000)
    opened = LocalIndex.open(folder, SPACE)
    opened.upsert(rows[:1200], vectors[:1200])
    assert_finds(opened, rows[:1200], vectors[:1200])
    assert opened.derived.dense.kind == "all rows, in 8 bits"
    opened.upsert(rows[1200:], vectors[1200:])
    assert_finds(opened, rows, vectors)
    if opened.derived.training is not None:
        opened.derived.training.join()
    assert opened.info().details["dense"] == "216 cells"
    # A third of the rows change places, some go.
    moved = np.roll(vectors, 1, axis=0)
    opened.upsert(rows[:1000], moved[:1000])
    opened.delete([one.id for one in rows[2900:]])
    there = np.concatenate([moved[:1000], vectors[1000:2900]])
    assert_finds(opened, rows[:2900], there)
    opened.close()
    opened = LocalIndex.open(folder)
    assert opened.derived.dense.kind == "216 cells"
    assert_finds(opened, rows[:2900], there)
    assert opened.verify() == []
    opened.close()


def assert_finds(opened: LocalIndex, rows: list[Document], vectors: Vectors) -> None:
    """Recall of at least 0.99 against exact search, without and with filters."""
    for text in ("", "n < 30", "n >= 100 and n < 900", "not n < 900"):
        hits = wanted = 0
        for query in unit(20, seed=11):
            best = expected(rows, vectors, query, 10, text)
            filter = parse_filter(text) if text else None
            answer = found(opened, Query(vector=query, mode="dense", filter=filter))
            hits, wanted = hits + len({*best} & {*answer}), wanted + len(best)
        assert hits >= 0.99 * wanted, text


def test_words_are_scored_as_by_the_baseline(folder: Path) -> None:
    """Whether tantivy has them or not, and long texts too, of which it rounds the lengths."""
    draw = np.random.default_rng(5)
    rows = [
        Document(f"d{n:03}", " ".join(f"w{word}" for word in draw.zipf(1.3, draw.integers(1, 400)).clip(max=60)))
        for n in range(80)
    ]
    exact = BM25({one.id: one.text for one in rows}, Analyser())
    opened = LocalIndex.open(folder, SPACE)
    opened.upsert(rows[:60], unit(80)[:60])
    opened.close()
    opened = LocalIndex.open(folder)
    opened.upsert(rows[60:], unit(80)[60:])
    for _ in ("a quarter is newer", "tantivy has all"):
        for text in ("w1 w7 w20", "w3 w3 w9 absent", "w45", "w60 w2"):
            hits = opened.search(Query(text, mode="lexical", top_k=10))
            assert {hit.id: hit.score for hit in hits} == pytest.approx(exact.rank({"q": text}, 10)["q"], rel=1e-6)
        opened.close()
        opened = LocalIndex.open(folder)
    opened.close()


# What the disk and users do.


def test_a_full_disk_is_one_line_and_loses_nothing(folder: Path) -> None:
    """The limit on a file's size is the disk's: SQLite meets it in the middle of a transaction."""
    filled(folder).close()
    limit = max(path.stat().st_size for path in folder.iterdir() if path.is_file()) + 200_000
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from acclimate.errors import StorageError\n"
        "from acclimate.retrieval.index.local.index import LocalIndex\n"
        "from tests.retrieval.index.contract import numbered, unit\n"
        "opened = LocalIndex.open(Path(sys.argv[1]))\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, resource.RLIM_INFINITY))\n"
        "rows = [type(one)(one.id, one.text * 50, one.metadata) for one in numbered(9000, 1)]\n"
        "try:\n    opened.upsert(rows, unit(9000))\nexcept StorageError as error:\n    print(error)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "opened.upsert(numbered(2, 2), unit(2))\nopened.close()\n"
    )
    done = run_python(code, str(folder))
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 and "nothing that was acknowledged is lost" in done.stdout
    opened = LocalIndex.open(folder)
    assert opened.count() == 60 and opened.verify() == []
    assert [opened.get([name])[name].document.metadata["v"] for name in ("d0000", "d0001", "d0002")] == [2, 2, 0]
    opened.close()


def test_a_read_only_folder_is_one_line(folder: Path) -> None:
    filled(folder).close()
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom acclimate.errors import AcclimateError\n"
        "from acclimate.retrieval.index.local.index import LocalIndex\n"
        "if os.getuid() == 0:\n    os.setgid(65534)\n    os.setuid(65534)\n"
        "try:\n    LocalIndex.open(Path('.'))\nexcept AcclimateError as error:\n    print(error)\n"
    )
    try:
        done = run_python(code, cwd=folder)
    finally:
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 and "Make the folder writable" in done.stdout


def run_python(code: str, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, cwd=cwd)


def test_a_later_file_version_is_one_line(folder: Path) -> None:
    filled(folder).close()
    with sqlite3.connect(folder / "documents.sqlite") as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StorageError, match="file version 99, made by a later acclimate"):
        LocalIndex.open(folder)


def test_an_index_of_before_its_space_was_whole_is_one_line(folder: Path) -> None:
    filled(folder).close()
    with sqlite3.connect(folder / "documents.sqlite") as db:
        db.execute("PRAGMA user_version = 1")
    db.close()
    with pytest.raises(StorageError, match=r"file version 1.*did not record all that decides its vectors.*index its"):
        LocalIndex.open(folder)


@pytest.mark.parametrize("content", [b"", b"no database " * 1000])
def test_another_file_in_its_place_is_one_line(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "documents.sqlite").write_bytes(content)
    with pytest.raises(StorageError, match=r"not an index|not a database"):
        LocalIndex.open(folder)


def test_another_space_is_refused_by_its_differences(folder: Path) -> None:
    filled(folder).close()
    other = SpaceId("b" * 64, None, "doc: ", "mean", DIM, False, "")
    with pytest.raises(UsageError, match=r"base_sha256: 'a+….*'b+….*document_prompt: '' here, 'doc: ' there"):
        open_index(folder, other)
    open_index(folder, SPACE).close()
    open_index(folder).close()


def test_an_index_that_is_not_there_is_not_made_by_a_search(folder: Path) -> None:
    with pytest.raises(UsageError, match="there is no index at"):
        open_index(folder)
    assert not folder.exists()
    with pytest.raises(UsageError, match="gopher"):
        open_index("gopher://host/index")


def test_the_analyser_stays_the_indexs(folder: Path) -> None:
    stems = Analyser("english", stop_words=True, stemming=True)
    opened = open_index(folder, SPACE, stems)
    opened.upsert([Document("a", "growing plants")], unit(1))
    opened.close()
    opened = open_index(folder, SPACE)
    assert found(opened, Query("grows plant", mode="lexical")) == ["a"]
    assert found(opened, Query("the", mode="lexical")) == []
    opened.close()


def test_rebuilding_gives_the_same_answers(folder: Path) -> None:
    opened = filled(folder)
    answers = answers_of(opened, close=False)
    opened.rebuild()
    assert answers_of(opened, close=False) == answers
    assert opened.verify() == []
    opened.close()
