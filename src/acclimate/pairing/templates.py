"""What a language model is asked, in English and Chinese, and how its answers are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from acclimate.data.weak import UNIT, UNSPACED
from acclimate.formats.chat import Message

Language: TypeAlias = Literal["en", "zh"]

VERSION = "1"
"""Names these templates: pairs that were made with others are made again."""
MOST_HAN = 0.2
"""Share of units that are Chinese or Japanese characters, from which on a passage is asked about in Chinese."""
MAX_PASSAGE_CHARS = 6_000
"""As much of a passage is shown to the model."""
ANSWER_TOKENS = 60
"""Longest answer, in tokens for each query."""

STYLES: dict[Language, dict[str, str]] = {
    "en": {
        "keyword": "two to five keywords, as typed into a search box",
        "question": "one short, natural question",
        "long": "one or two sentences in which somebody describes what they need, without naming the passage",
    },
    "zh": {
        "keyword": "两到五个关键词，像在搜索框里输入的那样",
        "question": "一个简短自然的问句",
        "long": "一两句话，描述提问者的需求，不要提到“这段文字”",
    },
}
_SYSTEM: dict[Language, str] = {
    "en": (
        "You write the search queries of people who do not know the passage yet, and whom it would answer. Use their "
        "words, not the passage's: no sentence and no long phrase of it. Ask only what the passage answers. Write "
        "nothing but the lines that are asked for."
    ),
    "zh": (
        "你替还没有读过这段文字、但它正好能回答其需求的人写检索词。用提问者自己的话，不要照抄原文的句子或长短语。"
        "只问这段文字能回答的内容。除了要求的各行以外，不要输出任何其他内容。"
    ),
}
_ASK: dict[Language, str] = {
    "en": "Passage:\n{passage}\n\nWrite one query of each kind, each on a line of its own, in this form:\n{lines}",
    "zh": "文字：\n{passage}\n\n请每种各写一个检索，每个占一行，格式如下（冒号前的英文词保持不变）：\n{lines}",
}
_JUDGE: dict[Language, str] = {
    "en": (
        "Query: {query}\n\nPassage:\n{passage}\n\nDoes the passage answer the query? Answer with yes or no, nothing "
        "else."
    ),
    "zh": "检索：{query}\n\n文字：\n{passage}\n\n这段文字是否回答了该检索？只回答“是”或“否”。",
}
_YES = re.compile(r"\W*(yes|是)(?!\w*不)", re.IGNORECASE)
THOUGHT = re.compile(r"<think>.*?</think>", re.DOTALL)
"""What a reasoning model says to itself before it answers."""
_LINE = re.compile(r"[\s\-*#\d.)]*\**(keyword|question|long)\w*\**\s*[:：]\s*(.+?)\s*$", re.IGNORECASE)
_QUOTES = "\"'“”‘’「」*`"


def language_of_passage(text: str) -> Language:
    """In which language a passage is asked about."""
    found = UNIT.findall(text)
    han = sum(1 for unit in found if re.match(rf"[{UNSPACED}]", unit))
    return "zh" if han > MOST_HAN * max(len(found), 1) else "en"


def ask_for_queries(passage: str, styles: Sequence[str]) -> list[Message]:
    """The conversation that asks for one query of each style."""
    language = language_of_passage(passage)
    lines = "\n".join(f"{style}: <{STYLES[language][style]}>" for style in styles)
    asked = _ASK[language].format(passage=passage[:MAX_PASSAGE_CHARS], lines=lines)
    return [{"role": "system", "content": _SYSTEM[language]}, {"role": "user", "content": asked}]


def ask_for_judgement(query: str, passage: str) -> list[Message]:
    """The conversation that asks whether a passage answers a query."""
    text = _JUDGE[language_of_passage(passage)].format(query=query, passage=passage[:MAX_PASSAGE_CHARS])
    return [{"role": "user", "content": text}]


def queries_in(answer: str, styles: Sequence[str]) -> list[tuple[str, str]]:
    """Read (style, query) of an answer; the first of each style counts, and what has no style is none."""
    found: dict[str, str] = {}
    for line in THOUGHT.sub("", answer).splitlines():
        if (match := _LINE.match(line)) and (style := match[1].lower()) in styles:
            query = " ".join(match[2].strip(_QUOTES + "<> ").split())
            if query:
                found.setdefault(style, query)
    return list(found.items())


def says_yes(answer: str) -> bool:
    """Whether a judgement is a yes; anything else is a no."""
    return _YES.match(THOUGHT.sub("", answer)) is not None
