"""Descriptions of definitions of relevance in a language model's words, beside those of the templates.

Only what is trained with is reworded: tests ask in the templates' own last wordings, whoever has written the others.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from acclimate.core.lexicon import CJK
from acclimate.core.same_text import same_text_key
from acclimate.data.definitions import Definition, Family
from acclimate.data.descriptions import Language
from acclimate.formats.chat import Message
from acclimate.pairing.templates import THOUGHT
from acclimate.pairing.writing import Endpoint

REWORDINGS = 6
"""Asked for, of each definition: as many as there are wordings of the templates."""
MAX_TOKENS = 400
LONGEST_CHARS = 300
"""A longer line is no description."""

_ASK: dict[Language, str] = {
    "en": """\
A search engine is told in one sentence when a document counts as relevant to a query:

{description}

Say the same in {count} other ways, as different people would, some short, some long, without adding or leaving out a
condition. One sentence per line, nothing else.""",
    "zh": """\
下面这句话告诉搜索引擎，文档在什么情况下算是与查询相关：

{description}

请用另外 {count} 种说法表达同样的意思，像不同的人会说的那样，有长有短，不要增加或遗漏任何条件。
每行一句，不要写别的内容。""",
}
_SENTENCE = re.compile(rf"\s|[{CJK}]{{4}}")
"""What a line of several words has; Chinese puts nothing between them."""
_MARK = re.compile(r"^\s*(?:[-*•]|[(（]?\d+[.):．）：、])\s*")
_QUOTES = "\"'“”‘’「」`"


def reworded(found: Sequence[Family], endpoint: Endpoint) -> tuple[list[Family], int]:
    """Ask for further wordings of every definition, once in each language for all families that have it.

    Args:
        found: the families.
        endpoint: is asked.

    Returns:
        the families, their definitions with the wordings added; and how many were added to a definition in all.

    Raises:
        ChatError: it cannot be reached, or refuses all.
    """
    known: dict[str, tuple[Language, tuple[str, ...]]] = {}
    for definition in (definition for family in found for definition in family.definitions):
        for language, wordings in definition.descriptions.items():
            known.setdefault(wordings[0], (language, (*wordings, *definition.asked)))
    asked = [ask_for_rewordings(description, language) for description, (language, _) in known.items()]
    answers = endpoint.answers(asked, MAX_TOKENS, "reword descriptions")
    added = {
        description: rewordings_in(answer or "", wordings)
        for (description, (_, wordings)), answer in zip(known.items(), answers, strict=True)
    }

    def longer(definition: Definition) -> Definition:
        texts = definition.descriptions.items()
        return replace(definition, descriptions={name: (*own, *added[own[0]]) for name, own in texts})

    families = [replace(family, definitions=tuple(map(longer, family.definitions))) for family in found]
    return families, sum(map(len, added.values()))


def ask_for_rewordings(description: str, language: Language) -> list[Message]:
    """The conversation that asks for the same in other words of its language."""
    return [{"role": "user", "content": _ASK[language].format(description=description, count=REWORDINGS)}]


def rewordings_in(answer: str, known: Sequence[str]) -> tuple[str, ...]:
    """Read the sentences of an answer, one of each line; what is known already, or no sentence, is none."""
    seen = {same_text_key(text) for text in known}
    found = []
    for line in THOUGHT.sub("", answer).splitlines():
        text = " ".join(_MARK.sub("", line).strip(_QUOTES + " ").split())
        is_sentence = _SENTENCE.search(text) and not text.endswith((":", "：")) and len(text) <= LONGEST_CHARS
        if is_sentence and same_text_key(text) not in seen:
            seen.add(same_text_key(text))
            found.append(text)
    return tuple(found[:REWORDINGS])
