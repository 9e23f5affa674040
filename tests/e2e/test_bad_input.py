"""Bad input: an exit code, one line naming file and row, no traceback, earlier artifacts unchanged."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from acclimate.cli.main import main
from acclimate.files import MAX_LINE_BYTES, hash_folder
from tests.models.tiny import as_sentence_transformer, tiny_bert, tiny_qwen3

DATA_ERROR, MODEL_ERROR, STORAGE_ERROR, INTERRUPTED = 3, 4, 5, 130
QUICK = ("--split-by", "query", "--batch-size", "8", "--dev-documents", "20", "--sign-flips", "100", "--rank", "2")
CROPS = ("wheat", "rice", "maize", "barley", "cotton", "potato", "tea", "apple", "pear", "soy")
ACTS = ("sow", "water", "prune", "harvest", "store", "graft", "weed", "spray", "fertilise", "dry")


def pairs() -> list[dict[str, str]]:
    """A thousand different pairs, so that a test split of a hundred queries exists."""
    rng = random.Random(0)
    return [
        {
            "query": f"when to {act} {crop} in week {week}",
            "response": f"{act} the {crop} {rng.randrange(10**6)} days on",
        }
        for crop in CROPS
        for act in ACTS
        for week in range(12)
    ]


def write_rows(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return as_sentence_transformer(tiny_bert(tmp_path_factory.mktemp("model") / "tiny-bert"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """A run with all its artifacts, made once."""
    folder = tmp_path_factory.mktemp("finished")
    data = write_rows(folder / "pairs.jsonl", pairs())
    main(["adapt", str(data), "--out", str(folder / "run"), "--model", str(model), *QUICK])
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def artifacts(run: Path) -> dict[str, str]:
    return {path.name: hash_folder(path) for path in run.iterdir() if path.is_dir() and not path.name.startswith(".")}


def refused(arguments: Sequence[str], code: int, capsys: pytest.CaptureFixture[str], run: Path) -> str:
    """The one line that a failing command prints; checks everything a failure owes its user."""
    before = artifacts(run)
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    captured = capsys.readouterr()
    assert stopped.value.code == code, captured.err
    assert captured.out == ""
    lines = [line for line in captured.err.splitlines() if line.startswith("acclimate: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err and "internal error" not in captured.err
    assert artifacts(run) == before
    return lines[0]


def label_file(path: Path, label: str) -> Path:
    rows = [f"a sentence {i}\tanother one {i}\t{i % 2}" for i in range(300)]
    rows[41] = f"a sentence 41\tanother one 41\t{label}"
    path.write_text("sentence1\tsentence2\tlabel\n" + "\n".join(rows) + "\n", encoding="utf-8")
    return path


def beir_with_unknown_document(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    write_rows(folder / "corpus.jsonl", [{"_id": "d1", "text": "sow the wheat early"}])
    write_rows(folder / "queries.jsonl", [{"_id": "q1", "text": "when to sow wheat"}])
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td9\t1\n", encoding="utf-8")
    return folder


def written(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return path

    return make


BAD_DATA: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], tuple[str, ...]]] = {
    "missing file": (lambda folder: folder / "nowhere.jsonl", (), ("nowhere.jsonl",)),
    "empty file": (written("empty.jsonl", ""), (), ("empty.jsonl", "empty")),
    "wrong columns": (
        written("odd.csv", "left,right\na b c,d e f\n"),
        (),
        ("odd.csv", "left", "right", "--anchor-column"),
    ),
    "only broken lines": (written("broken.jsonl", '{"query": "a b", \n'), (), ("broken.jsonl", "row 1", "JSON")),
    "one line of 10 MB": (
        written("long.jsonl", json.dumps({"query": "a b c", "response": "x" * (MAX_LINE_BYTES + 2**21)}) + "\n"),
        (),
        ("long.jsonl", "row 1", "MiB"),
    ),
    "label out of range": (
        lambda folder: label_file(folder / "labels.tsv", "7"),
        ("--label-min", "0", "--label-max", "1"),
        ("labels.tsv", "row 43", "7"),
    ),
    "unknown document": (
        lambda folder: beir_with_unknown_document(folder / "beir"),
        (),
        ("test.tsv", "row 2", "d9"),
    ),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_one_line_that_names_file_and_row(
    case: str, tmp_path: Path, run: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, flags, words = BAD_DATA[case]
    line = refused(
        ["adapt", str(make(tmp_path)), "--out", str(run), "--model", str(model), *flags], DATA_ERROR, capsys, run
    )
    for word in words:
        assert word in line, line


def broken_line(folder: Path) -> Path:
    rows = [json.dumps(row) for row in pairs()]
    rows[4] = '{"query": "cut off'
    return written("pairs.jsonl", "\n".join(rows) + "\n")(folder)


@pytest.mark.parametrize(
    ("make", "row", "reason"),
    [(broken_line, 5, "not JSON"), (lambda folder: label_file(folder / "labels.tsv", "nan"), 43, "nan")],
    ids=["broken line", "label NaN"],
)
def test_a_bad_row_among_good_ones_costs_that_row_and_is_reported(
    make: Callable[[Path], Path], row: int, reason: str, tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = make(tmp_path)
    main(["prepare", str(data), "--out", str(tmp_path / "run"), "--model", str(model), "--split-by", "query"])
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "rejected" in line]
    assert f"{data.name} row {row}: " in line
    rejected = [json.loads(line) for line in (tmp_path / "run" / "dataset" / "rejected.jsonl").open()]
    assert [found["row"] for found in rejected if reason in found["reason"].lower().replace("json", "JSON")] == [row]


def test_nan_scores_are_refused_with_their_row(
    tmp_path: Path, run: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {
        "query": "when to sow",
        "pos": ["in spring"],
        "neg": ["never"],
        "pos_scores": [float("nan")],
        "neg_scores": [0],
    }
    data = write_rows(tmp_path / "scores.jsonl", [row])
    line = refused(["adapt", str(data), "--out", str(run), "--model", str(model)], DATA_ERROR, capsys, run)
    assert "scores.jsonl" in line and "row 1" in line and "nan" in line.lower()


def test_cls_on_a_causal_model_is_refused_and_says_why(
    tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    causal = tiny_qwen3(tmp_path / "tiny-qwen3")
    data = write_rows(tmp_path / "pairs.jsonl", pairs())
    arguments = ["adapt", str(data), "--out", str(run), "--model", str(causal), "--pooling", "cls"]
    line = refused(arguments, MODEL_ERROR, capsys, run)
    assert "cls" in line and "causal" in line and "last" in line


def test_an_adapter_for_another_base_is_refused(tmp_path: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = as_sentence_transformer(tiny_bert(tmp_path / "other-bert", seed=1))
    arguments = ["evaluate", str(run / "dataset"), "--model", str(other), "--adapter", str(run / "adapter")]
    line = refused(arguments, MODEL_ERROR, capsys, run)
    assert "base" in line and "sha256" in line


def test_no_space_left_is_said_and_nothing_is_half_there(tmp_path: Path, model: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    data = write_rows(tmp_path / "pairs.jsonl", pairs())
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no private mounts on this machine")
    command = [sys.executable, "-m", "acclimate.cli.main", "prepare", str(data), "--out", str(mount / "run")]
    command += ["--model", str(model), "--split-by", "query"]
    script = 'mount -t tmpfs -o size=100k tmpfs "$1" || exit 99; shift; "$@"; code=$?; ls -A "$0"/run; exit $code'
    result = subprocess.run(
        [*unshare, "sh", "-c", script, str(mount), str(mount), *command], capture_output=True, text=True
    )
    if result.returncode == 99:
        pytest.skip("no private mounts on this machine")
    assert result.returncode == STORAGE_ERROR, result.stderr
    assert "no space left" in result.stderr and "Traceback" not in result.stderr
    assert result.stdout.split() == [".work"]


def heeds_ctrl_c() -> None:
    """In the child: a suite that was started in the background has inherited an ignored SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_keeps_what_is_finished_and_a_second_start_ends_the_work(tmp_path: Path, model: Path, run: Path) -> None:
    data = write_rows(tmp_path / "pairs.jsonl", pairs())
    before = artifacts(run)
    # Other settings, so that every stage has to run again; slow enough to be met in the middle of training.
    command = [sys.executable, "-m", "acclimate.cli.main", "adapt", str(data), "--out", str(run), "--model", str(model)]
    command += [*QUICK, "--seed", "7", "--epochs", "200", "--checkpoint-steps", "5", "--patience", "1000"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, preexec_fn=heeds_ctrl_c
    )
    deadline = time.monotonic() + 120
    while not list(run.glob(".work/adapter/**/*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("acclimate: ")]
    assert "again" in line
    assert artifacts(run)["adapter"] == before["adapter"]
    command[command.index("200")] = "1"
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert artifacts(run)["adapter"] != before["adapter"]


@pytest.mark.parametrize("command", ["prepare", "mine", "evaluate"])
def test_ctrl_c_outside_training_is_one_message_too(command: str, tmp_path: Path, model: Path, run: Path) -> None:
    data = write_rows(tmp_path / "pairs.jsonl", pairs())
    words = {
        "prepare": ["prepare", str(data), "--out", str(tmp_path / "new"), "--model", str(model)],
        "mine": ["mine", str(run), "--num-negatives", "3"],
        "evaluate": ["evaluate", str(run), "--sign-flips", "100000"],
    }
    before = artifacts(run)
    process = subprocess.Popen(
        [sys.executable, "-m", "acclimate", *words[command]],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=heeds_ctrl_c,
    )
    assert process.stderr is not None
    first = process.stderr.readline()
    assert first.startswith(f"{command}: "), first
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, err
    assert "Traceback" not in err
    (line,) = [line for line in err.splitlines() if line.startswith("acclimate: ")]
    assert "stopped" in line and "again" in line
    assert artifacts(run) == before


READ_ONLY = (
    'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || exit 99; touch "$0"/x 2>/dev/null && exit 98; "$@"'
)


def on_a_read_only_disk(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command with a folder mounted for reading only: permissions alone would not stop root."""
    unshare = ["unshare", "--user", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no private mounts on this machine")
    command = [*unshare, "sh", "-c", READ_ONLY, str(folder), sys.executable, "-m", "acclimate", *words]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode == 99:
        pytest.skip("no private mounts on this machine")
    return result


@pytest.mark.parametrize("cached", [True, False])
def test_a_run_on_a_read_only_disk_can_be_used(cached: bool, tmp_path: Path, run: Path, model: Path) -> None:
    if not cached:
        shutil.rmtree(run / ".work")
    texts = tmp_path / "texts.txt"
    texts.write_text("sow the wheat\n")
    commands = [
        ["search", str(run), "when to sow wheat"],
        ["similarity", str(run), "sow", "reap"],
        ["versions", str(run)],
        ["evaluate", str(run), "--adapter", str(run), "--model", str(model)],
        ["encode", str(texts), "--adapter", str(run), "--out", str(tmp_path / "texts.npy")],
    ]
    for words in commands:
        result = on_a_read_only_disk(run, *words)
        assert result.returncode == 0, (words[0], result.stderr)
        assert ("these vectors are not kept" in result.stderr) == (not cached and words[0] in ("search", "evaluate"))


@pytest.mark.parametrize("flags", [[], ["--confidence", "0.9"]])
def test_base_and_adapted_are_compared_on_a_read_only_disk(flags: list[str], run: Path) -> None:
    """It failed; nothing has to be written to be seen."""
    result = on_a_read_only_disk(run, "evaluate", str(run), *flags)
    assert result.returncode == 0, result.stderr
    assert "cannot be written: the result is shown, and not kept" in result.stderr and "verdict" in result.stdout


def test_a_command_that_has_to_write_says_that_it_cannot(run: Path) -> None:
    result = on_a_read_only_disk(run, "mine", str(run), "--num-negatives", "3")
    assert result.returncode == STORAGE_ERROR
    assert "cannot be written (permission denied)" in result.stderr and "Traceback" not in result.stderr
