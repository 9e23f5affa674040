"""What `dataset.json` says about a dataset: counts, lengths, languages, warnings. Standard library and numpy."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np

from acclimate.counting import are, counted
from acclimate.data.dataset import Dataset
from acclimate.data.records import folded
from acclimate.types import SPLITS, Rejected, Split

FEW_PAIRS = 10_000
FEW_TEST = 200
FEW_DEV = 50
MANY_REJECTED = 0.05
PERCENTILES = (50, 90, 99)
REASONS = 4
"""So many reasons for rejecting rows are named in a message."""
SAMPLE_TEXTS = 5_000
SAMPLE_CHARS = 500
Item = TypeVar("Item")
SCRIPTS = {"CJK": "Han", "HIRAGANA": "Kana", "KATAKANA": "Kana"}
"""First word of a character's Unicode name -> script, where that word is not the script itself."""


def counts(dataset: Dataset, rejected: Sequence[Rejected]) -> dict[str, Any]:
    """Queries, documents and pairs in all and per split; rejected rows by reason."""
    splits: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        if split in dataset.qrels:
            qrels = dataset.qrels[split]
            splits[split] = {
                "queries": len(qrels),
                "documents": len({document for grades in qrels.values() for document in grades}),
                "pairs": sum(len(grades) for grades in qrels.values()),
            }
        elif split in dataset.pairs:
            splits[split] = {"pairs": len(dataset.pairs[split])}
    reasons = Counter(row.reason.partition(" (")[0] for row in rejected)
    return {
        "queries": len(dataset.queries),
        "documents": len(dataset.corpus),
        "examples": len(dataset.examples),
        "with_negatives": sum(bool(example.negatives) for example in dataset.examples),
        **splits,
        "rejected": dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
    }


def by_reason(rejected: Sequence[Rejected]) -> str:
    """Say how many rows were rejected, why, and where the first of each reason is; "" where none was."""
    groups: dict[str, list[Rejected]] = {}
    for row in rejected:
        groups.setdefault(row.reason.partition(" (")[0], []).append(row)
    largest = sorted(groups.values(), key=lambda rows: -len(rows))
    named = [
        f"{rows[0].source} row {rows[0].row}: {rows[0].reason}" + (f", and {len(rows) - 1:,} more" if rows[1:] else "")
        for rows in largest[:REASONS]
    ]
    if not named:
        return ""
    more = f"; {counted(len(groups) - REASONS, 'more reasons')}" if len(groups) > REASONS else ""
    return f"{counted(len(rejected), 'rows')} rejected: {'; '.join(named)}{more}"


def sides(dataset: Dataset) -> dict[str, list[str]]:
    """The texts of both sides: queries and documents, or the first and the second sentences of labelled pairs."""
    if dataset.kind == "retrieval":
        return {"queries": list(dataset.queries.values()), "documents": list(dataset.corpus.values())}
    pairs = [pair for rows in dataset.pairs.values() for pair in rows]
    return {"queries": [pair.sentence1 for pair in pairs], "documents": [pair.sentence2 for pair in pairs]}


def evenly(items: Sequence[Item], count: int = SAMPLE_TEXTS) -> list[Item]:
    """Take at most `count` of the items, at even distances."""
    step = max(len(items) / count, 1.0)
    return [items[int(index * step)] for index in range(min(len(items), count))]


def percentiles(lengths: Iterable[int]) -> dict[str, int]:
    """p50, p90, p99 and the maximum: pN is the smallest length that N percent of the texts do not exceed."""
    values = np.fromiter(lengths, dtype=np.int64)
    if not len(values):
        return {}
    shares = {f"p{at}": int(np.percentile(values, at, method="inverted_cdf")) for at in PERCENTILES}
    return {**shares, "max": int(values.max())}


def languages(texts: Sequence[str]) -> dict[str, float]:
    """Share of each script among the letters of an even sample of texts, largest first."""
    letters: Counter[str] = Counter()
    for text in evenly(texts):
        letters.update(text[:SAMPLE_CHARS])
    scripts: Counter[str] = Counter()
    for letter, count in letters.items():
        if letter.isalpha():
            word = unicodedata.name(letter, "OTHER").split()[0]
            scripts[SCRIPTS.get(word, word.capitalize())] += count
    total = max(scripts.total(), 1)
    ordered = sorted(scripts.items(), key=lambda item: (-item[1], item[0]))
    return {script: round(count / total, 4) for script, count in ordered if count / total >= 0.001}


def warnings(
    dataset: Dataset,
    rejected: Sequence[Rejected],
    shared_documents: int,
    *,
    rests_on: Collection[Split] = ("dev", "test"),
) -> list[str]:
    """What the user should know before training on this.

    Args:
        dataset: what was made of the source.
        rejected: rows that are not in it.
        shared_documents: documents of dev and test that are in train too.
        rests_on: splits of this dataset on which something rests, the kept step (dev) or the verdict (test): they are
            warned of where they are small.
    """
    notes: list[str] = []
    examples = len(dataset.examples)
    if examples == 0:
        notes.append("no training pairs: this dataset can only be evaluated on")
    elif examples < FEW_PAIRS:
        notes.append(
            f"{counted(examples, 'training pairs')}, fewer than {FEW_PAIRS:,}: expect a smaller gain, and watch dev"
        )
    sizes = {split: len(dataset.qrels.get(split, ())) or len(dataset.pairs.get(split, ())) for split in SPLITS}
    small: tuple[tuple[Split, int, str], ...] = (
        ("test", FEW_TEST, "only large differences can be proven"),
        ("dev", FEW_DEV, "the best checkpoint is chosen by little evidence"),
    )
    for split, few, why in small:
        if split in rests_on and sizes[split] < few and (examples or split == "test"):
            noun = "queries" if dataset.kind == "retrieval" else "pairs"
            notes.append(f"{counted(sizes[split], f'{split} {noun}')}, fewer than {few}: {why}")
    rows = len(rejected) + sum(sizes.values())
    if len(rejected) > MANY_REJECTED * rows:
        notes.append(
            f"{counted(len(rejected), 'rows')} rejected, {len(rejected) / rows:.0%} of all: see rejected.jsonl"
        )
    if shared_documents:
        noun = "documents" if dataset.kind == "retrieval" else "sentences"
        shared = f"{counted(shared_documents, noun)} of dev and test {are(shared_documents)} in train too"
        notes.append(f"{shared}; --strict-documents removes {'it' if shared_documents == 1 else 'them'}")
    twins = len(dataset.corpus) - len(set(map(folded, dataset.corpus.values())))
    if twins:
        notes.append(f"{counted(twins, 'documents')} {'has' if twins == 1 else 'have'} the text of another document")
    return notes
