"""What of texts reaches a model: whether its tokenizer knows their words, and whether it can tell them apart.

A tokenizer without a text's language makes the unknown token of nearly every word, and a prompt that fills the limit
leaves no place for the text: in both cases different texts get the same vector, and no training can change that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypedDict

import numpy as np

from acclimate.core.same_text import same_text_key
from acclimate.data.facts import languages
from acclimate.errors import UsageError
from acclimate.formats.families import models_for
from acclimate.models.tokens import read_template, tokenise
from acclimate.prompts import Prompts

UNLIMITED_TOKENS = 1_000_000
WORTH_A_WARNING = 0.05
UNSUITED = 0.3
"""Share of unknown tokens, or of texts that the model cannot tell apart, from which it is not suited to them."""
MINORITY = 0.05
"""A language of a smaller share of the texts does not decide whether the model is suited to them."""
NO_LETTERS = "none"
"""What stands for the language of a text without letters."""


class Language(TypedDict):
    """The texts of one language, by its script."""

    texts: float
    """Their share of all texts."""
    unknown: float
    """Share of their tokens that are the unknown token."""


class Reading(TypedDict):
    """How a model reads some texts."""

    unknown: float
    """Share of all tokens that are the unknown token."""
    languages: dict[str, Language]
    """Script of most letters of a text -> its texts, those of the most frequent script first."""
    alike: float
    """Share of the texts (the same text counted once) that the model cannot tell from another one: their tokens are
    equal, after the cut."""


Readings: TypeAlias = Mapping[str, Reading]
"""Queries, documents -> how they are read."""


def read_texts(tokenizer: Any, texts: Sequence[str], max_tokens: int, prompt: str = "") -> Reading:
    """Find out how a model reads texts.

    Args:
        tokenizer: the model's.
        texts: without prompts.
        max_tokens: where the model cuts a text with its prompt.
        prompt: put before every text.
    """
    distinct = list({same_text_key(text): text for text in texts}.values())
    tokens, unknown_id = tokenise(tokenizer, distinct, UNLIMITED_TOKENS), tokenizer.unk_token_id
    length_N = tokens.lengths - len(read_template(tokenizer))
    unknown_N = np.zeros(len(distinct), np.int64)
    if unknown_id is not None and len(distinct):
        unknown_N = np.add.reduceat((tokens.flat == unknown_id).astype(np.int64), tokens.offsets[:-1])
    cut = tokenise(tokenizer, [prompt + text for text in distinct], max_tokens)
    rows = Counter(cut.row(index).tobytes() for index in range(len(distinct)))
    alike = sum(count for count in rows.values() if count > 1)
    return {
        "unknown": _share(unknown_N.sum(), length_N.sum()),
        "languages": _by_language(distinct, unknown_N, length_N),
        "alike": _share(alike, len(distinct)),
    }


def reading_warnings(readings: Readings) -> list[str]:
    """Say what the model cannot read, where it is more than a twentieth, and which models can."""
    notes = []
    for side, found in readings.items():
        for script, part in found["languages"].items():
            if part["unknown"] > WORTH_A_WARNING:
                notes.append(
                    f"{part['unknown']:.0%} of the tokens of the {side} in {script} script are unknown to the model"
                    f" ({part['texts']:.0%} of the {side}): {_suited(part['unknown'])}. {_others(script)}"
                )
        if found["alike"] > WORTH_A_WARNING:
            notes.append(f"{_alike(side, found)}; {_suited(found['alike'])}")
    return notes


def unsuited(readings: Readings) -> str:
    """Say why the model is not suited to texts, and which models are; empty where it can read them."""
    for side, found in readings.items():
        for script, part in found["languages"].items():
            if part["unknown"] > UNSUITED and part["texts"] >= MINORITY:
                share = f"{part['unknown']:.0%} of the tokens of the {side} in {script} script are unknown to the model"
                return f"{share}, so that it cannot tell them apart. {_others(script)}."
        if found["alike"] > UNSUITED:
            return f"{_alike(side, found)}."
    return ""


def check_prompts(tokenizer: Any, prompts: Prompts, max_tokens: int) -> None:
    """Make sure that every prompt leaves a place for the text behind it.

    Raises:
        UsageError: one fills all that the model reads, so that every text would have the same vector.
    """
    named = {text: (role, task) for role in ("document", "query") for task, text in getattr(prompts, role).items()}
    texts = [text for text in named if text]
    lengths = tokenise(tokenizer, texts, UNLIMITED_TOKENS).lengths if texts else ()
    for text, length in zip(texts, lengths, strict=True):
        if length >= max_tokens:
            role, task = named[text]
            of_task = f" of the task {task}" if task else ""
            raise UsageError(
                f"max_tokens = {max_tokens}, and the {role} prompt{of_task} alone has {length} tokens: nothing of the "
                f"text behind it would be read, and every {role} would have the same vector",
                possible=f"max_tokens = {length + 1} or more, better {2 * length} and what the texts need",
                fix="Or a shorter prompt (--query-prompt, --document-prompt).",
            )


def _by_language(texts: Sequence[str], unknown_N: Any, length_N: Any) -> dict[str, Language]:
    rows: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        rows.setdefault(next(iter(languages([text])), NO_LETTERS), []).append(row)
    ordered = sorted(rows.items(), key=lambda item: (-len(item[1]), item[0]))
    return {
        script: {"texts": _share(len(own), len(texts)), "unknown": _share(unknown_N[own].sum(), length_N[own].sum())}
        for script, own in ordered
    }


def _share(part: float, whole: float) -> float:
    return round(float(part) / max(float(whole), 1.0), 4)


def _alike(side: str, found: Reading) -> str:
    return (
        f"{found['alike']:.0%} of the {side} are the same to the model as another one: what tells them apart is cut off"
        " (--max-tokens, a long prompt) or unknown to it"
    )


def _suited(share: float) -> str:
    return "it is not suited to them" if share > UNSUITED else "it reads no more than the rest"


def _others(script: str) -> str:
    return f"Models that fit: {', '.join(models_for(script))} (--model)"
