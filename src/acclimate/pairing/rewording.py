"""Descriptions of definitions of relevance in a language model's words, beside those of the templates.

Only what is trained with is reworded: tests ask in the templates' own last wordings, whoever has written the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from acclimate.core.same_text import same_text_key
from acclimate.data.definitions import Definition, Family
from acclimate.formats.chat import Message
from acclimate.pairing.templates import THOUGHT
from acclimate.pairing.writing import Endpoint

REWORDINGS = 6
"""Asked for, of each definition: as many as there are wordings of the templates."""
MAX_TOKENS = 400
LONGEST_CHARS = 300
"""A longer line is no description."""

_ASK = """\
A search engine is told in one sentence when a document counts as relevant to a query:

{description}

Say the same in {count} other ways, as different people would, some short, some long, without adding or leaving out a
condition. One sentence per line, nothing else."""
_MARK = re.compile(r"^\s*(?:[-*•]|\(?\d+[.):])\s*")
_QUOTES = "\"'“”‘’「」`"


def reworded(found: Sequence[Family], endpoint: Endpoint) -> tuple[list[Family], int]:
    """Ask for further wordings of every definition, each once for all families that have it.

    Args:
        found: the families.
        endpoint: is asked.

    Returns:
        the families, their definitions with the wordings added; and how many were added to a definition in all.

    Raises:
        ChatError: it cannot be reached, or refuses all.
    """
    known: dict[str, Definition] = {}
    for family in found:
        for definition in family.definitions:
            known.setdefault(definition.descriptions[0], definition)
    asked = [ask_for_rewordings(description) for description in known]
    answers = endpoint.answers(asked, MAX_TOKENS, "reword descriptions")
    added = {
        description: rewordings_in(answer or "", (*definition.descriptions, *definition.asked))
        for (description, definition), answer in zip(known.items(), answers, strict=True)
    }

    def longer(definition: Definition) -> Definition:
        more = added[definition.descriptions[0]]
        return replace(definition, descriptions=(*definition.descriptions, *more))

    families = [replace(family, definitions=tuple(map(longer, family.definitions))) for family in found]
    return families, sum(map(len, added.values()))


def ask_for_rewordings(description: str) -> list[Message]:
    """The conversation that asks for the same in other words."""
    return [{"role": "user", "content": _ASK.format(description=description, count=REWORDINGS)}]


def rewordings_in(answer: str, known: Sequence[str]) -> tuple[str, ...]:
    """Read the sentences of an answer, one of each line; what is known already, or no sentence, is none."""
    seen = {same_text_key(text) for text in known}
    found = []
    for line in THOUGHT.sub("", answer).splitlines():
        text = " ".join(_MARK.sub("", line).strip(_QUOTES + " ").split())
        if " " in text and not text.endswith(":") and len(text) <= LONGEST_CHARS and same_text_key(text) not in seen:
            seen.add(same_text_key(text))
            found.append(text)
    return tuple(found[:REWORDINGS])
