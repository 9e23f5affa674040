"""The rows of a dataset that a loss can learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from acclimate.configs import ObjectiveConfig, TrainConfig
from acclimate.errors import DataError, UsageError
from acclimate.progress import say
from acclimate.types import Example

POSITIVE_LABEL = 0.5
"""Labelled pairs from this score on are positives for a loss without labels."""
LABELS = ("cosine-mse", "cosent", "angle", "contrastive", "online-contrastive", "binary")
NEGATIVES = ("triplet", "margin-mse", "kl")
SCORES = ("margin-mse", "kl")
"""Losses by what their rows need."""


def rows_for(examples: Sequence[Example], objective: ObjectiveConfig, train: TrainConfig) -> tuple[list[Example], str]:
    """Select the training rows that the objective's loss can use, and resolve the loss `auto`.

    Rows that lack what the loss needs are left out, and their number is printed.

    Raises:
        UsageError: the loss does not fit the data.
        DataError: no row is left, or scores do not match their documents.
    """
    loss: str = objective.loss
    labelled = any(example.label is not None for example in examples)
    if loss == "auto":
        loss = "cosine-mse" if labelled else "info-nce"
    if loss in LABELS:
        rows = _with("labels", lambda example: example.label is not None, examples, loss, labelled)
    elif loss == "info-nce" and labelled:
        rows = _positives(examples)
    elif loss in NEGATIVES:
        rows = _with("negatives", lambda example: bool(example.negatives), examples, loss, labelled)
        if loss in SCORES:
            rows = _with("a teacher's scores", lambda example: example.scores is not None, rows, loss, labelled)
            _check_scores(rows)
        if train.group_size < 2 and train.sides == "both":
            raise UsageError(f"loss = {loss!r} with group_size = {train.group_size}", possible="2 or more")
    else:
        rows = list(examples)
    return rows, loss


def _with(
    what: str, has: Callable[[Example], bool], examples: Sequence[Example], loss: str, labelled: bool
) -> list[Example]:
    """The rows that have what the loss needs."""
    rows = [example for example in examples if has(example)]
    if not rows:
        fits = ("info-nce", *LABELS) if labelled else ("info-nce", *NEGATIVES)
        hints = {
            "negatives": "Mine some (acclimate mine), or bring them with the data.",
            "a teacher's scores": "Mine with --reranker, or bring scores of the positive and the negatives.",
        }
        raise UsageError(
            f"loss = {loss!r} needs {what}, which these examples lack",
            possible=", ".join(("auto", *fits, "embedding-distillation")),
            fix=hints.get(what, ""),
        )
    if len(rows) < len(examples):
        say(f"{loss}: {len(examples) - len(rows)} of {len(examples)} examples have no {what} and are left out")
    return rows


def _positives(examples: Sequence[Example]) -> list[Example]:
    positive = [example for example in examples if example.label is None or example.label >= POSITIVE_LABEL]
    say(f"info-nce: {len(positive)} of {len(examples)} labelled pairs are positives (score >= {POSITIVE_LABEL})")
    if not positive:
        raise DataError("no labelled pair is a positive", fix="Train with --loss cosine-mse.")
    return positive


def _check_scores(rows: Sequence[Example]) -> None:
    for example in rows:
        if example.scores is not None and len(example.scores) != 1 + len(example.negatives):
            raise DataError(
                f"{len(example.scores)} scores for one positive and {len(example.negatives)} negatives "
                f"(query {example.anchor[:60]!r})",
                fix="Give a score for the positive and for every negative, in their order.",
            )
