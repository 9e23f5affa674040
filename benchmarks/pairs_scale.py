"""Pairs out of very many documents: seconds and the most memory of `acclimate pairs`, also after a kill.

    python benchmarks/pairs_scale.py [--documents 10000 100000 1000000] [--words 40] [--kill] [--folder FOLDER]

The documents are random words with a title and a heading. `--kill` kills each making in the middle (once half of the
seconds that the one before took per document are over) and starts it again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import machine, table

VOCABULARY = 50_000
EXPECTED_S = 0.0005
"""Per document, for the first kill."""


def main() -> None:
    """Make pairs of each number of documents, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--words", type=int, default=40)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--folder", type=Path, help="for the documents; a temporary one if not given")
    arguments = parser.parse_args()
    rows, per_document = [], EXPECTED_S
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for count in arguments.documents:
            source = Path(folder) / f"{count}.jsonl"
            size = write_documents(source, count, arguments.words)
            made = Path(folder, str(count), "pairs.jsonl")
            command = [sys.executable, "-m", "acclimate", "pairs", str(source), "--out", str(made)]
            killed = run(command, kill_after=per_document * count / 2) if arguments.kill else (0.0, 0)
            seconds, peak = run(command)
            with made.open() as lines:
                pairs = sum(1 for _ in lines)
            per_document = (killed[0] + seconds) / count
            before = f"{killed[0]:.0f}" if arguments.kill else "-"
            rows.append(
                [f"{count:,}", f"{size / 1e6:.0f}", before, f"{seconds:.0f}", f"{max(killed[1], peak):,}", f"{pairs:,}"]
            )
            source.unlink()
    print(machine())
    print(table(["documents", "MB", "seconds before the kill", "seconds", "peak MB", "pairs"], rows))


def write_documents(path: Path, count: int, words: int) -> int:
    """Write documents, one a line; return their bytes."""
    draw = random.Random(count)
    vocabulary = ["".join(draw.choices("abcdefghijklmnoprstuvw", k=draw.randint(3, 9))) for _ in range(VOCABULARY)]
    with path.open("w") as stream:
        for number in range(count):
            body = draw.choices(vocabulary, k=words)
            text = f"# {' '.join(body[:3])}\n\n{' '.join(body[: words // 2])}. {' '.join(body[words // 2 :])}."
            stream.write(json.dumps({"_id": f"doc{number}", "title": f"{body[5]} {number}", "text": text}) + "\n")
    return path.stat().st_size


def run(command: list[str], kill_after: float | None = None) -> tuple[float, int]:
    """Run a command, or kill it after some seconds; return its seconds and the most memory it took, in MB."""
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(process.pid, signal.SIGKILL)
    _, status, usage = os.wait4(process.pid, 0)
    if kill_after is None and status:
        raise SystemExit(1)  # the command has said why
    return time.monotonic() - begun, usage.ru_maxrss // 1024


if __name__ == "__main__":
    main()
