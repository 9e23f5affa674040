"""What a user gives to describe a task without training: a sentence, a few pairs, some texts; read and checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from acclimate.configs import PrepareConfig
from acclimate.counting import are, counted
from acclimate.data.clean import clean
from acclimate.data.facts import evenly
from acclimate.data.readers import read_source
from acclimate.data.texts import read_texts, typed_text
from acclimate.errors import DataError, UsageError
from acclimate.progress import say

MOST_TEXTS = 32
"""Sample texts that are used, drawn evenly: a hypernetwork has never seen more."""
MANY_PAIRS = 200
"""With so many a training is worth its minutes."""


def read_description(text: str) -> str:
    """Take a description that was typed.

    Raises:
        UsageError: it is empty, or no Unicode text.
    """
    if not (taken := " ".join(typed_text(text).split())):
        raise UsageError("the description is empty", fix="Say in a sentence what shall count as relevant.")
    return taken


def read_few_pairs(path: Path, settings: PrepareConfig) -> list[tuple[str, str]]:
    """Read example pairs: queries, each with a relevant document. What contradicts itself is left out, and said.

    Args:
        path: whatever `prepare` reads.
        settings: may name columns.

    Raises:
        DataError: it cannot be read, or holds no pair that can be used.
    """
    raw = read_source(str(path), settings)
    kept, rejected = clean(raw.records, raw.kind)
    contradictions = [row for row in rejected if row.reason.startswith("contradiction")]
    if contradictions:
        count = len(contradictions)
        say(f"{path}: {counted(count, 'rows')} {are(count)} left out, which contradict other rows; the first is row "
            f"{contradictions[0].row}")  # fmt: skip
    if raw.kind == "pairs":
        labels = [row.label for row in raw.records if row.label is not None]
        middle = (min(0.0, *labels) + max(labels)) / 2
        kept = [row for row in kept if row.label is not None and row.label > middle]
    pairs = list(dict.fromkeys((row.anchor, row.positive) for row in kept if row.grade > 0))
    if not pairs:
        why = " once contradictions are left out" if contradictions else ""
        raise DataError(
            f"{path} holds no pair of a query and a relevant document{why}", fix="Give a few that are right."
        )
    return pairs


def read_sample(path: Path) -> list[str]:
    """Read sample texts, at most `MOST_TEXTS` of them, drawn evenly.

    Raises:
        DataError: it cannot be read, or holds no text.
    """
    texts = [text for text in dict.fromkeys(read_texts(path)) if text.strip()]
    if not texts:
        raise DataError(f"{path} holds no text", fix="Give some texts of the domain.")
    if len(texts) > MOST_TEXTS:
        say(f"{path}: {MOST_TEXTS} of {counted(len(texts), 'texts')} are used, drawn evenly")
    return evenly(texts, MOST_TEXTS)


def used_pairs(pairs: Sequence[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    """Take at most `most` of the pairs, evenly, and say so; with very many, say that training is worth more."""
    if len(pairs) > most:
        advice = "; with so many, train: acclimate adapt PAIRS --out RUN" if len(pairs) >= MANY_PAIRS else ""
        say(f"{most} of {counted(len(pairs), 'pairs')} are used, drawn evenly{advice}")
    return evenly(pairs, most)
