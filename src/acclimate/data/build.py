"""The whole of `prepare` in memory: read, clean, split, sample, give ids, describe."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from acclimate.configs import PrepareConfig
from acclimate.core.same_text import TokenKeys
from acclimate.counting import are, counted
from acclimate.data import facts
from acclimate.data.beir import add_documents
from acclimate.data.clean import clean
from acclimate.data.dataset import Dataset, map_label
from acclimate.data.made import makers_of
from acclimate.data.readers import read_source
from acclimate.data.records import RawData, Record, folded
from acclimate.data.sample import sample
from acclimate.data.split import split_sources
from acclimate.data.splits import Fold, Source, Splits
from acclimate.errors import DataError
from acclimate.progress import say
from acclimate.types import SPLITS, Corpus, Example, LabelledPair, Qrels, Rejected, Split


def build_dataset(
    source: str, settings: PrepareConfig, *, seed: int, limit: int | None = None, whole: Split | None = None
) -> tuple[Dataset, list[Rejected]]:
    """Turn one source into a leak-free dataset; as `build_datasets`."""
    return build_datasets([(source, settings)], seed=seed, limit=limit, whole=whole)[0]


def build_datasets(
    sources: Sequence[tuple[str, PrepareConfig]],
    *,
    seed: int,
    limit: int | None = None,
    token_keys: TokenKeys | None = None,
    fold: Fold | None = None,
    whole: Split | None = None,
) -> list[tuple[Dataset, list[Rejected]]]:
    """Turn the sources of a run into datasets that are leak-free, each by itself and all together.

    Args:
        sources: files, folders, or datasets on the hub (see `readers.read_source`); and how each is read, cleaned and
            split.
        seed: of the splits and of what is left out.
        limit: use at most this many queries (or labelled pairs) of each, drawn evenly.
        token_keys: by which texts are the same too, if a model is known (`core.same_text`).
        fold: of the only source, this part is the test (cross-validation), or there is none (`ALL_DATA`).
        whole: put all rows into this split, and nothing into the others: train, where nothing is left to prove; test,
            where nothing is trained (a test split that a source defines is taken instead).

    Returns:
        For each source the dataset, and every row of the source that is not in it, with the reason.

    Raises:
        DataError: what is missing, broken or ambiguous, by file and row.
    """
    raws = [_read(source, settings) for source, settings in sources]
    cleaned = [clean(raw.records, raw.kind) for raw, _ in raws]
    unusable = [row for (raw, _), (_, unclean) in zip(raws, cleaned, strict=True) for row in (*raw.rejected, *unclean)]
    notes = [note for raw, _ in raws for note in raw.notes]
    unsplit = [
        Source(records, raw.kind, raw.given, settings)
        for (raw, _), (records, _), (_, settings) in zip(raws, cleaned, sources, strict=True)
    ]
    # Of all data in one split, no other can be small; the verdict of folds rests on all of them together.
    rests_on: tuple[Split, ...] = () if whole else ("dev",) if fold else ("dev", "test")
    built = []
    with _told(unusable, notes):
        if whole is None:
            split = split_sources(unsplit, seed, token_keys, fold)
        else:
            split = [Splits.undivided(one, whole) for one in unsplit]
    for (raw, label_range), (records, unclean), splits, (_, settings) in zip(
        raws, cleaned, split, sources, strict=True
    ):
        chosen = sample(splits.records, raw.kind, settings.per_label, limit, seed)
        rejected = [*raw.rejected, *unclean, *splits.rejected]
        dataset = _retrieval(raw, records, chosen) if label_range is None else _labelled_pairs(chosen, label_range)
        dataset.info = _describe(dataset, raw, splits, rejected, settings, rests_on)
        if label_range is not None:
            dataset.info["label_range"] = list(label_range)
        built.append((dataset, rejected))
    return built


@contextmanager
def _told(rejected: Sequence[Rejected], notes: Sequence[str]) -> Iterator[None]:
    """Tell with an error of the data how the source was read, and which rows were rejected: often that is the
    reason."""
    try:
        yield
    except DataError as error:
        for note in notes:
            say(f"  warning: {note}")
        told = facts.by_reason(rejected)
        raise DataError(
            f"{error.found}; {told}" if told else error.found, possible=error.possible, fix=error.fix
        ) from None


def _read(source: str, settings: PrepareConfig) -> tuple[RawData, tuple[float, float] | None]:
    """The raw data, and the range of its labels where it has some."""
    raw = read_source(source, settings)
    if settings.corpus is not None:
        add_documents(raw, Path(settings.corpus))
    _spell_alike(raw)
    with _told(raw.rejected, raw.notes):
        return raw, _label_range(raw, settings, source) if raw.kind == "pairs" else None


def _spell_alike(raw: RawData) -> None:
    """Let texts that differ in white space alone be one text, spelt as where it comes first; those that have ids of
    their own stay as they are."""
    spelling: dict[str, str] = {}
    for text in (*raw.corpus.values(), *raw.unnamed):
        spelling.setdefault(folded(text), text)

    def alike(text: str) -> str:
        return spelling.setdefault(folded(text), text)

    for place, record in enumerate(raw.records):
        if record.anchor_id is None:
            texts = alike(record.anchor), alike(record.positive), tuple(map(alike, record.negatives))
            if texts != (record.anchor, record.positive, record.negatives):
                raw.records[place] = replace(record, anchor=texts[0], positive=texts[1], negatives=texts[2])


def _label_range(raw: RawData, settings: PrepareConfig, source: str) -> tuple[float, float]:
    """The lowest and the highest possible label: as configured, as the source states, else read off the data."""
    stated = raw.label_range or (None, None)
    low = settings.label_min if settings.label_min is not None else stated[0]
    high = settings.label_max if settings.label_max is not None else stated[1]
    labels = [record.label for record in raw.records if record.label is not None]
    for record in raw.records:
        label = record.label
        if label is not None and ((low is not None and label < low) or (high is not None and label > high)):
            raise DataError(
                f"{source}: {record.source} row {record.row}: label {label:g} is outside the range",
                possible=f"{'any' if low is None else f'{low:g}'} to {'any' if high is None else f'{high:g}'}",
                fix="Correct the row, or --label-min and --label-max.",
            )
    within_unit = min(labels) >= 0.0 and max(labels) <= 1.0
    span = (0.0, 1.0) if within_unit and low is None and high is None else (min(labels), max(labels))
    if len(set(labels)) == 1 and (low is None or high is None):
        raise DataError(
            f"{source}: every label is {labels[0]:g}: nothing can be learned from one label",
            fix="Leave the column out if all pairs belong together; if not, give --label-min and --label-max.",
        )
    return (span[0] if low is None else low, span[1] if high is None else high)


def _retrieval(raw: RawData, cleaned: Sequence[Record], chosen: dict[Split, list[Record]]) -> Dataset:
    corpus, document_ids = _documents(raw, cleaned)
    query_ids = _query_ids(raw, cleaned)
    titles = {key: raw.titles[text] for key, text in corpus.items() if text in raw.titles}
    dataset = Dataset("retrieval", corpus=corpus, titles=titles)
    for split, records in chosen.items():
        qrels: Qrels = {}
        for record in records:
            query = record.anchor_id or query_ids[record.anchor]
            document = record.positive_id or document_ids[record.positive]
            grades = qrels.setdefault(query, {})
            grades[document] = max(record.grade, grades.get(document, record.grade))
            dataset.queries[query] = record.anchor
        if qrels:
            dataset.qrels[split] = qrels
    refused = _judged_irrelevant(chosen["train"])
    order = {query: place for place, query in enumerate(dataset.qrels.get("train", ()))}
    by_query = sorted(chosen["train"], key=lambda record: order[record.anchor_id or query_ids[record.anchor]])
    for record in by_query:  # as the qrels' file has them, so that reading it again gives the same
        if record.grade > 0:
            known = dict.fromkeys((*record.negatives, *refused.get(record.anchor, ())))
            scores = record.scores if len(known) == len(record.negatives) else None
            dataset.examples.append(Example(record.anchor, record.positive, tuple(known), scores=scores))
    return dataset


def _judged_irrelevant(records: Sequence[Record]) -> dict[str, list[str]]:
    """Query text -> documents that the judgements call not relevant: the best hard negatives there are."""
    refused: dict[str, list[str]] = {}
    for record in records:
        if record.grade <= 0:
            refused.setdefault(record.anchor, []).append(record.positive)
    return refused


def _documents(raw: RawData, records: Sequence[Record]) -> tuple[Corpus, dict[str, str]]:
    """The corpus, and text -> id: known ids stay, other texts get d0, d1, .. in the order of the input."""
    corpus = dict(raw.corpus)
    ids = {text: key for key, text in reversed(corpus.items())}
    fresh = _free_ids("d", corpus)
    texts = (text for record in records for text in (record.positive, *record.negatives))
    for text in (*texts, *raw.unnamed):
        if text not in ids:
            ids[text] = next(fresh)
            corpus[ids[text]] = text
    return corpus, ids


def _query_ids(raw: RawData, records: Sequence[Record]) -> dict[str, str]:
    ids: dict[str, str] = {}
    fresh = _free_ids("q", raw.queries)
    for record in records:
        if record.anchor_id is None and record.anchor not in ids:
            ids[record.anchor] = next(fresh)
    return ids


def _free_ids(prefix: str, taken: Collection[str]) -> Iterator[str]:
    reserved = frozenset(taken)
    return (name for index in count() if (name := f"{prefix}{index}") not in reserved)


def _labelled_pairs(chosen: dict[Split, list[Record]], label_range: tuple[float, float]) -> Dataset:
    dataset = Dataset("pairs")
    for split, records in chosen.items():
        pairs = [
            LabelledPair(record.anchor, record.positive, record.label, map_label(record.label, label_range))
            for record in records
            if record.label is not None
        ]
        if pairs:
            dataset.pairs[split] = pairs
    dataset.examples = [
        Example(pair.sentence1, pair.sentence2, label=pair.score) for pair in dataset.pairs.get("train", [])
    ]
    return dataset


def _describe(
    dataset: Dataset,
    raw: RawData,
    splits: Splits,
    rejected: list[Rejected],
    settings: PrepareConfig,
    rests_on: Collection[Split],
) -> dict[str, Any]:
    notes = list(raw.notes)
    if dataset.kind == "retrieval" and settings.per_label is not None:
        notes.append("--per-label has no effect: this is retrieval data, it has no labels")
    if dataset.kind == "pairs" and settings.corpus is not None:
        notes.append("--corpus has no effect: labelled pairs are not ranked against a corpus")
    if splits.negatives_removed:
        notes.append(
            f"{counted(splits.negatives_removed, 'training negatives')} removed: queries or documents of dev or test"
        )
    if splits.near_duplicates:
        notes.append(_near(splits, settings, "queries" if dataset.kind == "retrieval" else "pairs"))
    notes += splits.notes
    texts = facts.sides(dataset)
    return {
        "kind": dataset.kind,
        "counts": {
            **facts.counts(dataset, rejected),
            "shared_documents": splits.shared_documents,
            "near_duplicates": splits.near_duplicates,
        },
        "lengths": {side: {"characters": facts.percentiles(map(len, column))} for side, column in texts.items()},
        "languages": facts.languages([text for column in texts.values() for text in facts.evenly(column)]),
        "warnings": facts.warnings(dataset, rejected, splits.shared_documents, rests_on=rests_on) + notes,
        "splits": {split: splits.made[split] for split in ("train", "dev", "test") if split in splits.made},
        "columns": raw.columns,
        **({"made_by": made} if (made := _made_by(splits)) else {}),
    }


def _made_by(splits: Splits) -> dict[str, dict[str, int]]:
    """Split -> what made its queries -> how many, of data whose queries were made out of documents."""
    return {split: made for split in SPLITS if (made := makers_of(splits.records[split]))}


def _near(splits: Splits, settings: PrepareConfig, noun: str) -> str:
    count = splits.near_duplicates
    held = f"{counted(count, noun)} of dev and test {are(count)} nearly a text of train"
    if settings.strict_near:
        return f"{held}: {splits.near_removed:,} training rows were removed"
    return f"{held}; --strict-near removes these training rows"
