"""`weak`: training pairs out of the corpus of a prepared dataset, the first of the three stages' data."""

from __future__ import annotations

from pathlib import Path

from acclimate.configs import RunConfig
from acclimate.data.dataset import EXAMPLES_FILE, Dataset, write_examples
from acclimate.data.reports import WeakReport
from acclimate.data.weak import weak_pairs
from acclimate.errors import DataError, UsageError
from acclimate.files import hash_folder
from acclimate.progress import say
from acclimate.runs.opening import open_dataset
from acclimate.runs.step import Work, step
from acclimate.types import Example


def weak(dataset: Path, out: Path, config: RunConfig) -> WeakReport:
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
    settings = {"weak_pairs": list(config.stages.weak_pairs), "limit": config.stages.weak_limit, "seed": config.seed}
    inputs = {"dataset": hash_folder(dataset)}

    def make() -> Work[WeakReport]:
        found = weak_pairs_of(open_dataset(dataset), str(dataset), config)
        counts = {kind: len(examples) for kind, examples in found.items()}
        say("weak pairs: " + ", ".join(f"{count:,} {kind}" for kind, count in counts.items()))

        def write(folder: Path) -> WeakReport:
            write_examples(folder / EXAMPLES_FILE, [example for examples in found.values() for example in examples])
            return {"pairs": counts}

        return Work(write)

    return step("weak pairs", out, settings, inputs, make, seconds="weak_pairs_s", reads=[dataset], alone=True)


def weak_pairs_of(data: Dataset, where: str, config: RunConfig) -> dict[str, list[Example]]:
    """Kind of pair -> the pairs; at least one in all.

    Args:
        data: a prepared dataset.
        where: how it is called in messages.
        config: its `stages` section and `seed`.

    Raises:
        UsageError, DataError: as `weak`.
    """
    if data.kind == "pairs":
        raise UsageError(f"{where} holds labelled pairs, no corpus to make pairs of", fix="Use --recipe one-stage.")
    found = weak_pairs(data, config.stages.weak_pairs, config.stages.weak_limit, config.seed)
    if not any(found.values()):
        raise DataError(
            f"{where}: no document outside of dev and test is long enough, or has a title, for a weak pair",
            fix="Add documents with --corpus, or use --recipe one-stage.",
        )
    return found
