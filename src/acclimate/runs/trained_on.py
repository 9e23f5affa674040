"""What the models and data of a run have been trained on, found by their names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from acclimate.data.dataset import Dataset
from acclimate.errors import DataError
from acclimate.formats.facts import ADAPTER_FILE
from acclimate.formats.trained_on import TRAINED_ON_FILE, TrainedOn, read_trained_on
from acclimate.progress import say
from acclimate.runs.resolve import made_folder
from acclimate.runs.run_folder import AUDIT_FILE, RunFolder
from acclimate.types import Example, Split


def trained_on(names: Iterable[str | Path | None]) -> TrainedOn:
    """Join what some models have been trained on. What a public model has seen is not known, and not counted.

    Args:
        names: runs, folders or hub ids; None stands for no model.
    """
    found = TrainedOn()
    for name in names:
        folder = None if name is None else made_folder(name)
        if folder is not None:
            found |= read_trained_on(folder)
    return found


def reranker_trained_on(name: str | None) -> TrainedOn:
    """What a reranker has been trained on: a run's, or that of a folder of ours."""
    for folder in () if name is None else (RunFolder(Path(name)).reranker, Path(name)):
        if (folder / ADAPTER_FILE).is_file():
            return read_trained_on(folder)
    return TrainedOn()


def miners_trained_on(negatives: Path) -> TrainedOn:
    """What the teacher and the reranker that chose the negatives of a folder have been trained on."""
    mined = (negatives / TRAINED_ON_FILE).is_file() or (negatives / AUDIT_FILE).is_file()
    return read_trained_on(negatives) if mined else TrainedOn()


def trained_on_input(seen: TrainedOn) -> dict[str, str]:
    """What a step inherits as an input of it; nothing where nothing was trained, so that public models need no word."""
    return {} if seen.complete and not len(seen.ids) else {"trained_on": seen.sha256}


def told_by(examples: Sequence[Example], dev: Dataset | None = None, retained: Iterable[str] = ()) -> TrainedOn:
    """Collect what a training is told: its rows, the texts that it retains, and the dev split that it is chosen by.

    Args:
        examples: training rows.
        dev: the dataset whose dev split chooses the best step.
        retained: texts whose vectors are kept.
    """
    texts = {text for row in examples for text in (row.anchor, row.positive, *row.negatives)} | set(retained)
    pairs = {(row.anchor, row.positive) for row in examples}
    chosen = TrainedOn() if dev is None else asked_in(dev, ("dev",))
    return TrainedOn.of(texts, pairs) | chosen


def asked_in(data: Dataset, splits: Sequence[Split]) -> TrainedOn:
    """Collect the queries, or labelled pairs, of some splits."""
    queries = {data.queries[query] for split in splits for query in data.qrels.get(split, ())}
    pairs = {(pair.sentence1, pair.sentence2) for split in splits for pair in data.pairs.get(split, ())}
    return TrainedOn.of(queries, pairs)


def without_seen(data: Dataset, seen: TrainedOn, what: str) -> tuple[Dataset, int]:
    """Take out of the test split what a model, or anything that it was made from, has been trained on.

    Args:
        data: with a test split.
        seen: what was trained on, or chosen by.
        what: the data's name, for messages.

    Returns:
        The data with the rest of its test split, and how many queries (labelled pairs) were taken out.

    Raises:
        DataError: nothing is left.
    """
    qrels, pairs = data.qrels.get("test", {}), data.pairs.get("test", [])
    kept_qrels = {query: grades for query, grades in qrels.items() if not seen.has_text(data.queries[query])}
    kept_pairs = [pair for pair in pairs if not seen.has_pair(pair.sentence1, pair.sentence2)]
    total, left = len(qrels) + len(pairs), len(kept_qrels) + len(kept_pairs)
    if left == total:
        return data, 0
    noun = "pairs" if pairs else "queries"
    if not left:
        raise DataError(
            f"all {total} test {noun} of {what} were in the training of the model, or of one that it was made from",
            fix="Bring other test data: on this, nothing can be proven.",
        )
    say(f"{total - left:,} of {total:,} test {noun} of {what} were in the training: they are left out")
    tested = replace(
        data,
        qrels={**data.qrels, "test": kept_qrels} if qrels else data.qrels,
        pairs={**data.pairs, "test": kept_pairs} if pairs else data.pairs,
    )
    return tested, total - left
