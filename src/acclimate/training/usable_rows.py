"""The rows of a dataset that a loss can learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from acclimate.configs import ObjectiveConfig, TrainConfig
from acclimate.core.same_text import text_id
from acclimate.counting import counted
from acclimate.errors import DataError, UsageError
from acclimate.progress import say
from acclimate.types import Example

POSITIVE_LABEL = 0.5
"""Labelled pairs from this score on are positives for a loss without labels."""
LABELS = ("cosine-mse", "cosent", "angle", "contrastive", "online-contrastive", "binary")
NEGATIVES = ("triplet", "margin-mse", "kl")
SCORES = ("margin-mse", "kl")
COMPARES_PAIRS = ("cosent", "angle", "online-contrastive")
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


def check_signal(rows: Sequence[Example], loss: str, train: TrainConfig) -> None:
    """Refuse a training whose every step would have the loss 0 and the gradient 0, because nothing is compared.

    With InfoNCE a row is compared with the other rows of its batch and with its own negatives; a ranking loss of
    labelled pairs compares pairs with each other.

    Args:
        rows: what the training learns from.
        loss: its name, never auto.
        train: the batch size, and how many negatives are drawn.

    Raises:
        UsageError: batches of one row, which is compared with nothing.
        DataError: all rows have the same positive, the same query or the same label.
    """
    batch = min(train.batch_size, len(rows))
    found = f"batch_size = {train.batch_size} with {counted(len(rows), 'training rows')}"
    if loss in COMPARES_PAIRS:
        if batch == 1:
            raise UsageError(
                f"{found}: {loss} compares the pairs of a batch with each other, and there is one: loss and gradient "
                "would be 0 in every step",
                possible="batch_size = 2 or more",
                fix="Or a loss of single pairs: --loss cosine-mse.",
            )
        if len({row.label for row in rows}) == 1:
            raise DataError(
                f"every training pair has the label {rows[0].label:g}: {loss} learns an order, and there is none",
                fix="Bring pairs of different labels, or train with --loss cosine-mse.",
            )
    drawn = train.group_size > 1 or train.sides == "query"
    compared = sum(drawn and bool(row.negatives) for row in rows)
    if loss != "info-nce" or compared == len(rows) or train.remine_steps is not None:
        return
    if batch == 1 and compared:
        say(f"{found}: {len(rows) - compared:,} of them have no negatives of their own, and teach nothing")
    elif batch == 1:
        raise UsageError(
            f"{found}, without negatives: a row has nothing to be told apart from, so that loss and gradient "
            "would be 0 in every step",
            possible="batch_size = 2 or more",
            fix="Or mine negatives (acclimate mine), with group_size = 2 or more.",
        )
    elif not compared and (lone := _lone(rows)):
        raise DataError(
            f"all {len(rows):,} training rows have {lone}, and none has negatives: nothing is there to be told "
            "apart, so that loss and gradient would be 0 in every step",
            fix="Bring other documents (--corpus) and mine negatives among them, or other queries.",
        )


def _lone(rows: Sequence[Example]) -> str:
    """What is the same in all rows, so that each row's candidates are its own positives."""
    if len({text_id(row.positive) for row in rows}) == 1:
        return "the same positive"
    return "the same query" if len({text_id(row.anchor) for row in rows}) == 1 else ""


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
        say(f"{loss}: {len(examples) - len(rows)} of {len(examples)} examples lack {what} and are left out")
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
