"""The newcomer's path, timed: the commands under "Sixty seconds" of README.md, one after the other, on 216 pairs.

The pairs are docstrings of this Python (examples/docstrings.py). Each command is a process of its own, as typed; the
first line of its output that holds a verdict is printed beside its time.

    python benchmarks/newcomer.py --out FOLDER
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

from common import machine, table

ROOT = Path(__file__).resolve().parents[1]
PAIRS = 216
SECTION = re.compile(r"^## Sixty seconds\n(.*?)^## ", re.M | re.S)
SHELL = re.compile(r"^```bash\n(.*?)^```$", re.M | re.S)


def main() -> None:
    """Write the pairs, run the commands, print the seconds of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="an empty folder, in which the commands run")
    folder = parser.parse_args().out
    folder.mkdir(parents=True)
    docstrings = [sys.executable, ROOT / "examples" / "docstrings.py", "--out", "pairs.jsonl", "--limit", str(PAIRS)]
    subprocess.run(docstrings, cwd=folder, check=True)
    rows = []
    for command in commands():
        started = time.perf_counter()
        words = [sys.executable, "-m", *shlex.split(command)]
        done = subprocess.run(words, cwd=folder, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        seconds = time.perf_counter() - started
        verdict = next((line for line in done.stdout.splitlines() if line.startswith("verdict")), "")
        rows.append([command, f"{seconds:.1f}", verdict])
        print(f"{seconds:7.1f} s  {command}  {verdict}", flush=True)
    print(machine())
    print(table(["command", "seconds", "verdict"], rows))


def commands() -> list[str]:
    """The commands of the README's section, in its order."""
    found = SECTION.search((ROOT / "README.md").read_text(encoding="utf-8"))
    if found is None:
        raise SystemExit('README.md has no section "Sixty seconds"')
    return [line for block in SHELL.findall(found.group(1)) for line in block.splitlines() if line.strip()]


if __name__ == "__main__":
    main()
