"""`refresh`, second part: the rows of each step, half of feedback at most, the rest the run's own."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig, effective
from acclimate.data.dataset import EXAMPLES_FILE, read_examples, write_examples
from acclimate.errors import DataError, UsageError
from acclimate.feedback.evidence import Taught, steps_of
from acclimate.feedback.reports import StepsReport
from acclimate.files import hash_folder, iter_jsonl
from acclimate.formats.trained_on import read_trained_on, write_trained_on
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.types import Example

HALF = 2
TRIES = 1000
"""Rows of the run's own that are looked at for one that shares no text with the step."""


def refresh_steps(refresh: RunFolder, taught: Path, config: RunConfig) -> StepsReport:
    """Lay out the rows of a refresh's training, step by step, in `refresh/steps`.

    No user has a part in more than `user_share` of a step's rows, and at least as many are the run's own as are of
    feedback.

    Args:
        refresh: with its dataset and negatives.
        taught: the rows of feedback, with their users.
        config: the whole run; `refresh`, and the batch size, count.

    Raises:
        UsageError: the batch is so small that one row is more than a user may have.
    """
    settings = effective(config, "refresh") | {"batch_size": config.train.batch_size}
    inputs = {"dataset": hash_folder(refresh.dataset), "negatives": hash_folder(refresh.negatives)}
    make = partial(_made, refresh, taught, config)
    return step("refresh: steps", refresh.steps, settings, inputs, make, seconds="steps_s", alone=True)


def _made(refresh: RunFolder, taught: Path, config: RunConfig) -> Work[StepsReport]:
    batch, share = config.train.batch_size, config.refresh.user_share
    per_user = int(share * batch)
    if not per_user:
        raise UsageError(
            f"user_share = {share:g} of batch_size = {batch} is less than one row",
            possible=f"batch_size = {int(1 / share)} or more",
        )
    mined = {(row.anchor, row.positive): row for row in read_examples(refresh.negatives / EXAMPLES_FILE)}
    rows = [_taught(line.value) for line in iter_jsonl(taught) if line.value is not None]
    rows = [row for row in rows if (row.query, row.document) in mined]
    own = [row for pair, row in mined.items() if pair not in {(row.query, row.document) for row in rows}]
    if not own:
        raise DataError(f"{refresh.dataset} has no rows of the run's own to learn again")
    seed = config.seed + int(refresh.path.name)
    chosen = list(
        steps_of(
            rows,
            steps=config.refresh.refresh_steps,
            per_step=batch // HALF,
            per_user=per_user,
            uses=config.refresh.feedback_uses,
            seed=seed,
        )
    )
    again = _endless(own, seed)
    laid_out = [example for one in chosen for example in _step(one, mined, again, batch)]

    def write(folder: Path) -> StepsReport:
        write_examples(folder / EXAMPLES_FILE, laid_out)
        write_trained_on(folder, read_trained_on(refresh.negatives))
        feedback = sum(map(len, chosen))
        return {
            "steps": len(chosen),
            "batch_size": batch,
            "feedback_rows": feedback,
            "replay_rows": len(laid_out) - feedback,
            "most_of_one_user": max(_most_of_one_user(one) for one in chosen),
        }

    return Work(write)


def _step(
    taught: Sequence[Taught], mined: dict[tuple[str, str], Example], again: Iterator[Example], batch: int
) -> list[Example]:
    """The rows of one step; the run's own share no text with the others where that can be."""
    rows = [mined[one.query, one.document] for one in taught]
    texts = {text for row in rows for text in (row.anchor, row.positive)}
    for tried in range(TRIES + batch):
        if len(rows) == batch:
            break
        row = next(again)
        if tried < TRIES and not texts.isdisjoint((row.anchor, row.positive)):
            continue
        rows.append(row)
        texts |= {row.anchor, row.positive}
    return rows


def _endless(rows: Sequence[Example], seed: int) -> Iterator[Example]:
    draw = random.Random(seed)
    while True:
        yield from draw.sample(rows, len(rows))


def _taught(row: dict[str, Any]) -> Taught:
    return Taught(row["anchor"], row["positive"], frozenset(row["users"]), row["weight"], row["explicit"])


def _most_of_one_user(rows: Sequence[Taught]) -> int:
    return max(Counter(user for row in rows for user in row.users).values())
