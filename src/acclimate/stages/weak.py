"""`weak`: training pairs out of the corpus of a prepared dataset, the first of the three stages' data."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig
from acclimate.data.dataset import EXAMPLES_FILE, write_examples
from acclimate.data.weak import weak_pairs
from acclimate.errors import DataError, UsageError
from acclimate.files import REPORT_FILE, artifact, hash_folder, is_current, read_json, write_json
from acclimate.progress import say
from acclimate.runs.run_folder import open_dataset


def weak(dataset: Path, out: Path, config: RunConfig) -> dict[str, Any]:
    """Write weak pairs as `examples.jsonl`, in the form in which `mine` writes its rows.

    Args:
        dataset: a folder that `prepare` wrote.
        out: the folder to write.
        config: its `stages` section and `seed`.

    Returns:
        what `out/report.json` holds: `pairs` by kind, and `timings`.

    Raises:
        UsageError: the dataset holds labelled pairs, which have no corpus.
        DataError: no document gives a pair.
    """
    started = time.monotonic()
    settings = {"weak_pairs": list(config.stages.weak_pairs), "limit": config.stages.weak_limit, "seed": config.seed}
    inputs = {"dataset": hash_folder(dataset)}
    if is_current(out, settings, inputs):
        say(f"weak pairs: {out} is up to date")
        return read_json(out / REPORT_FILE)
    data = open_dataset(dataset)
    if data.kind == "pairs":
        raise UsageError(f"{dataset} holds labelled pairs, no corpus to make pairs of", fix="Use --recipe one-stage.")
    found = weak_pairs(data, config.stages.weak_pairs, config.stages.weak_limit, config.seed)
    counts = {kind: len(examples) for kind, examples in found.items()}
    if not any(counts.values()):
        raise DataError(
            f"{dataset}: no document outside of dev and test is long enough, or has a title, for a weak pair",
            fix="Add documents with --corpus, or use --recipe one-stage.",
        )
    say("weak pairs: " + ", ".join(f"{count:,} {kind}" for kind, count in counts.items()))
    with artifact(out, settings, inputs) as folder:
        write_examples(folder / EXAMPLES_FILE, [example for examples in found.values() for example in examples])
        report = {"pairs": counts, "timings": {"weak_pairs_s": round(time.monotonic() - started, 3)}}
        write_json(folder / REPORT_FILE, report)
    return report
