"""How soon a fresh process has the vector of one text, beside what transformers' models and sentence-transformers take.

    python benchmarks/first_vector.py [--rounds 5]

Processor seconds of fresh processes on one thread, the ways taking turns; the lowest and the median of the rounds. The
difference from the first row is what is ours to spend: the import of torch and transformers is in each of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys

from acclimate.formats.sources import locate
from common import machine, table

MODEL = "sentence-transformers/all-MiniLM-L6-v2"
WAYS = {
    "import torch, transformers.modeling_utils": "import torch, transformers.modeling_utils",
    "acclimate: load and encode one text": (
        f"from acclimate import load\nload({MODEL!r}, device='cpu').encode(['one text'], 'query')"
    ),
    "sentence-transformers: load and encode one text": (
        "from sentence_transformers import SentenceTransformer\n"
        f"SentenceTransformer({str(locate(MODEL)[0])!r}, device='cpu').encode(['one text'])"
    ),
}


def main() -> None:
    """Print a row for each way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name, code in WAYS.items():
            seconds[name].append(processor_seconds(code))
    least = min(seconds[next(iter(WAYS))])
    rows = [
        [name, f"{min(found):.2f}", f"{statistics.median(found):.2f}", f"{min(found) - least:+.2f}"]
        for name, found in seconds.items()
    ]
    print(machine())
    print(table(["", "least, s", "median, s", "over the import, s"], rows))


def processor_seconds(code: str) -> float:
    """What code takes in a fresh interpreter."""
    timed = f"import time\nstarted = time.process_time()\n{code}\nprint(time.process_time() - started)"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", timed], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    main()
