"""Memory does not grow with the number of documents: ten times as many take no more."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny_run import WORDS

CHILD = """
import resource, sys
from pathlib import Path
from acclimate.data.documents import Documents
from acclimate.pairing.streaming import streamed
docs, state = map(Path, sys.argv[1:])
documents = Documents([docs], distinct=False)
found = streamed(documents, ("title", "heading", "faq", "neighbours", "crop"), words=64, pairs_limit=2000,
                 passages_limit=5000, seed=1, wanted={}, state=state, key="k")
assert documents.hash() and documents.count() == found.documents
print(found.documents, len(found.passages), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
GROWTH_MB = 30
"""What the interpreter's own bookkeeping may add: 90,000 documents more are 60 MB of text."""


def peak_mb(folder: Path, count: int) -> int:
    draw = random.Random(count)
    docs = folder / f"{count}.jsonl"
    with docs.open("w") as stream:
        for number in range(count):
            words = [f"{word}{draw.randrange(10**6)}" for word in draw.choices(WORDS, k=60)]
            text = f"# {' '.join(words[:3])}\n\n{' '.join(words)}. {' '.join(reversed(words))}."
            stream.write(json.dumps({"_id": f"doc{number}", "title": f"{words[5]} {number}", "text": text}) + "\n")
    command = [sys.executable, "-c", CHILD, str(docs), str(folder / f"state{count}")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    documents, passages, peak = map(int, done.stdout.split())
    assert (documents, passages) == (count, 5000)
    return peak


@pytest.mark.long
def test_a_hundred_thousand_documents_take_what_ten_thousand_do(tmp_path: Path) -> None:
    few, many = peak_mb(tmp_path, 10_000), peak_mb(tmp_path, 100_000)
    assert many < few + GROWTH_MB, f"{few} MB, then {many} MB"
