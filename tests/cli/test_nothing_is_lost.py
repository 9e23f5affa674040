"""Whatever lies where a command writes: what is not provably ours is there afterwards, byte for byte."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from acclimate.cli.main import main
from acclimate.ownership import MARKER_FILE
from tests.models.tiny import as_sentence_transformer
from tests.tiny_run import WORDS, write_tiny_bert, write_tiny_retrieval

REFUSED = 2
OURS_TO_FAIL = range(2, 7)
"""The exit codes of errors that a user can cause."""
QUICK = ("--rank", "1", "--epochs", "1", "--batch-size", "8", "--dev-documents", "5")
PREPARE = ("--test-fraction", "0", "--dev-fraction", "0")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run `runs/a`, a tiny model, a file of pairs and one of texts."""
    folder = tmp_path_factory.mktemp("world")
    model = as_sentence_transformer(write_tiny_bert(folder / "tiny"))
    rows = [{"query": f"{WORDS[n]} {WORDS[n + 1]}", "response": f"{WORDS[n]} {WORDS[n + 20]}"} for n in range(12)]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "texts.txt").write_text("w1 w2\nw3\n")
    write_tiny_retrieval(folder / "runs" / "a" / "dataset")
    main(["train", str(folder / "runs" / "a"), "--model", str(model), *QUICK])
    return folder


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture
def here(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the world, in which the commands run."""
    shutil.copytree(world, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def content(folder: Path) -> dict[str, bytes]:
    """Path -> bytes, of all files but those of work in progress."""
    files = (path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path.read_bytes() for name, path in named.items() if ".work/" not in name}


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The line of a command that refuses before it does anything."""
    before = content(Path())
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(words))
    said = capsys.readouterr().err
    assert stopped.value.code == REFUSED, said
    assert content(Path()) == before
    return said.splitlines()[-1]


def test_prepare_leaves_a_folder_that_holds_its_input(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "dataset").mkdir()
    shutil.copy("p.jsonl", "dataset/p.jsonl")
    (here / "dataset" / "notes.txt").write_text("x\n")
    assert "dataset/p.jsonl, which is read, lies inside dataset" in refused(
        capsys, "prepare", "dataset/p.jsonl", "--out", ".", "--model", "tiny"
    )
    assert "dataset is a folder that acclimate did not write" in refused(
        capsys, "prepare", "p.jsonl", "--out", ".", "--model", "tiny"
    )


def test_merge_leaves_a_folder_that_it_did_not_write(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "models").mkdir()
    (here / "models" / "mine.bin").write_bytes(b"\0" * 9)
    with pytest.raises(SystemExit):
        main(["merge", "runs/a", "--out", "models"])
    said = capsys.readouterr().err
    assert "did not write" in said and "runs again" not in said
    assert "did not write" in refused(capsys, "merge", "runs/a", "--out", "models")
    main(["merge", "runs/a", "--out", "merged"])
    (here / "merged" / "notes.txt").write_text("x\n")
    line = refused(capsys, "merge", "runs/a", "--out", "merged", "--dtype", "float32")
    assert "merged holds notes.txt, which acclimate did not write" in line


@pytest.mark.parametrize("out", ["runs/a", "runs", ".", "runs/a/adapter", "runs/a/dataset", "runs/a/adapter/new"])
@pytest.mark.usefixtures("here")
def test_merge_leaves_the_run_that_it_reads(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "lies inside" in (line := refused(capsys, "merge", "runs/a", "--out", out)) or "is read" in line
    assert refused(capsys, "merge", "runs/a", "runs/a", "--out", out, "--method", "linear")


@pytest.mark.usefixtures("here")
def test_merge_leaves_the_parts_of_other_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["prepare", "p.jsonl", "--out", "b", "--model", "tiny", *PREPARE])
    assert "b/dataset holds what another step wrote" in refused(capsys, "merge", "runs/a", "--out", "b/dataset")


def test_adapt_leaves_files_of_its_names(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "config.toml").write_text("# my own\nseed = 7\n")
    assert "config.toml was not written by acclimate" in refused(
        capsys, "adapt", "p.jsonl", "--config", "config.toml", "--out", ".", "--model", "tiny"
    )
    (here / "config.toml").rename("mine.toml")
    for name, text in {"report.json": '{"a": 1}', "report.html": "<p>mine", "metrics.jsonl": '{"step": 1}\n'}.items():
        (here / name).write_text(text)
        line = refused(capsys, "adapt", "p.jsonl", "--config", "mine.toml", "--out", ".", "--model", "tiny")
        assert f"{name} was not written by acclimate" in line
        (here / name).unlink()
    for name in ("negatives", "evaluation", "adapter"):  # the last stages' too are refused before the first
        (here / name).mkdir()
        (here / name / "x.py").write_text("x\n")
        assert name in refused(capsys, "adapt", "p.jsonl", "--config", "mine.toml", "--out", ".", "--model", "tiny")
        shutil.rmtree(here / name)


@pytest.mark.usefixtures("here")
def test_what_a_step_wrote_is_no_run(capsys: pytest.CaptureFixture[str]) -> None:
    main(["merge", "runs/a", "--out", "merged"])
    line = refused(capsys, "prepare", "p.jsonl", "--out", "merged", "--model", "tiny", *PREPARE)
    assert "merged is not a run, but what a step wrote (merge)" in line


@pytest.mark.parametrize("folds", [[], ["--folds", "2"]])
def test_adapt_refuses_a_prompt_that_fills_the_limit_before_any_work(
    here: Path, capsys: pytest.CaptureFixture[str], folds: list[str]
) -> None:
    words = ["--model", "tiny", "--max-tokens", "4", "--query-prompt", "w1 w2 w3 w4 ", *folds]
    assert "the query prompt alone has 4 tokens" in refused(capsys, "adapt", "p.jsonl", "--out", "b", *words)
    assert not (here / "b").exists()


def test_the_comments_of_an_edited_config_are_kept(here: Path) -> None:
    main(["prepare", "p.jsonl", "--out", "b", "--model", "tiny", "--seed", "7", *PREPARE])
    path = here / "b" / "config.toml"
    path.write_text(path.read_text().replace("seed = 7\n", "seed = 7  # lucky\n"))
    main(["prepare", "p.jsonl", "--out", "b", "--limit", "10"])
    text = path.read_text()
    assert "seed = 7  # lucky\n" in text and "\nlimit = 10\n" in text


def test_a_run_of_the_release_before_is_put_aside_not_deleted(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has no markers, so nothing says that all of it is ours."""
    main(["prepare", "p.jsonl", "--out", "b", "--model", "tiny", *PREPARE])
    (here / "b" / "dataset" / MARKER_FILE).unlink()
    (here / "b" / "dataset" / "notes.txt").write_text("x\n")
    main(["prepare", "p.jsonl", "--out", "b", "--seed", "9"])
    assert (here / "b" / "dataset.before" / "notes.txt").read_text() == "x\n"
    assert "is now b/dataset.before" in capsys.readouterr().err
    main(["prepare", "p.jsonl", "--out", "b", "--seed", "10"])
    assert not (here / "b" / "dataset.before1").exists()


def test_files_of_vectors(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("v.npy", "v.safetensors"):
        (here / name).write_bytes(b"precious")
        assert "--replace" in refused(capsys, "encode", "texts.txt", "--out", name, "--model", "tiny")
        main(["encode", "texts.txt", "--out", name, "--model", "tiny", "--replace"])
    main(["encode", "texts.txt", "--out", "v.safetensors", "--model", "tiny"])
    assert "--replace" in refused(capsys, "encode", "texts.txt", "--out", "v.npy", "--model", "tiny")
    line = refused(capsys, "encode", "texts.txt", "--out", "runs/a/adapter/v.npy", "--adapter", "runs/a")
    assert "lies inside" in line


def test_a_run_file_that_is_read_is_not_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "r.trec").write_text("q0 Q0 d0 1 0.5 mine\n")
    words = ["rerank", "--reranker", "x", "--candidates", "r.trec", "--queries", "runs/a/dataset/queries.jsonl"]
    words += ["--corpus", "runs/a/dataset/corpus.jsonl"]
    assert "r.trec is read" in refused(capsys, *words, "--out", "r.trec")
    (here / "other.trec").write_text("q0 Q0 d0 1 0.5 mine\n")
    assert "--replace" in refused(capsys, *words, "--out", "other.trec")


FOREIGN = (
    *("notes.txt", "dataset/notes.txt", "dataset/report.json", "b/dataset/sub/x.txt", "negatives/x.jsonl", "adapter"),
    *("adapter/model.py", "adapters/x/y.txt", "runs/a/adapters/y.txt", "evaluation/lexicon.txt", "models/old.bin"),
    *(".work/dataset/mine.txt", ".work/lock", ".work/cache/x/y.npy", "b/.work/x", "config.toml", "b/config.toml"),
    *("report.json", "b/report.json", "report.html", "runs/a/report.html", "metrics.jsonl", "runs/a/negatives/x"),
    *("runs/a/evaluation/settings.json", "models/.written-by-acclimate.json", "v.npy", "models"),
)
OUTS = (".", "b", "dataset", "models", "adapter", "runs", "runs/a", "runs/a/dataset", "runs/a/adapter", "new/er")
SOURCES = ("p.jsonl", "dataset/p.jsonl", "b/dataset/p.jsonl", ".")
COMMANDS = st.one_of(
    st.tuples(st.just("prepare"), st.sampled_from(SOURCES), st.sampled_from(OUTS)),
    st.tuples(st.just("merge"), st.just("runs/a"), st.sampled_from(OUTS)),
    st.tuples(st.sampled_from(["mine", "train", "evaluate", "report"]), st.sampled_from(["runs/a", "b", "."])),
    st.tuples(st.just("encode"), st.just("v.npy")),
)


def words_of(command: Sequence[str]) -> list[str]:
    match command:
        case ["prepare", source, out]:
            return ["prepare", source, "--out", out, "--model", "tiny", *PREPARE]
        case ["merge", source, out]:
            return ["merge", source, "--out", out]
        case ["train", run]:
            return ["train", run, *QUICK]
        case ["evaluate", run]:
            return ["evaluate", run, "--bootstrap", "100"]
        case ["encode", out]:
            return ["encode", "texts.txt", "--out", out, "--model", "tiny"]
    return list(command)


def put(name: str) -> Path | None:
    """Write a file of the user's, where something of that name can be."""
    path = Path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as stream:
            stream.write("" if name.endswith("lock") else f"# mine: {name}\n")
    except OSError:
        return None
    return path


def kinds() -> dict[Path, str]:
    """Which step wrote each artifact that is there."""
    return {path.parent: json.loads(path.read_text())["kind"] for path in Path().rglob(MARKER_FILE) if is_json(path)}


def is_json(path: Path) -> bool:
    return path.read_text().startswith("{")


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    foreign=st.lists(st.sampled_from(FOREIGN), max_size=4, unique=True),
    commands=st.lists(COMMANDS, min_size=1, max_size=4),
    late=st.sampled_from([*FOREIGN, "b/dataset/p.jsonl", "dataset/p.jsonl"]),
)
@example(foreign=[".work/dataset/mine.txt", ".work/lock"], commands=[("merge", "runs/a", "dataset")], late="notes.txt")
def test_no_layout_loses_a_file(
    world: Path,
    tmp_path_factory: pytest.TempPathFactory,
    foreign: list[str],
    commands: list[tuple[str, ...]],
    late: str,
) -> None:
    """Files of the user's among ours, before the first command and after it; ours of another step stay, too."""
    folder = tmp_path_factory.mktemp("layout") / "here"
    shutil.copytree(world, folder, symlinks=True)
    with inside(folder):
        mine = [*map(Path, ("p.jsonl", "texts.txt")), *(path for path in map(put, foreign) if path)]
        for number, command in enumerate(commands):
            bytes_of, steps = {path: path.read_bytes() for path in mine}, kinds()
            try:
                main(words_of(command))
            except SystemExit as stopped:
                assert stopped.code in OURS_TO_FAIL, (command, foreign)
            assert {path: path.read_bytes() for path in mine if path.is_file()} == bytes_of, (foreign, late, commands)
            after = kinds()
            assert {path: after.get(path) for path in steps} == steps, (foreign, late, commands)
            if number == 0 and (path := put(late)):
                mine.append(path)
    shutil.rmtree(folder)
