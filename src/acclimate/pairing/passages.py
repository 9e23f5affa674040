"""A document -> the passages that are searched, and what in it asks for them: its title, headings, questions.

Headings and questions are no part of a passage: what a query is made of shall not stand in what it has to find. Units
are those of `data.weak`: words, and single characters of scripts that put no spaces between words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from acclimate.core.chunking import chunk_spans
from acclimate.data.documents import SourceDocument
from acclimate.data.names import TITLE
from acclimate.data.weak import UNIT, units

MIN_PASSAGE_UNITS = 5
"""Shorter passages are left out: a page number, a caption."""
MIN_SECTION_UNITS = 12
"""A heading asks for at least so much text; what stands below it otherwise belongs to the text before."""
HEADING_UNITS = (2, 14)
QUESTION_UNITS = (3, 40)

_FENCE = re.compile(r"\s*(```|~~~)")
_ATX = re.compile(r"\s{0,3}#{1,6}\s+(.+?)\s*#*\s*$")
_SETEXT = re.compile(r"\s{0,3}(=+|-{2,})\s*$")
_ASKED = re.compile(
    r"\s*(?:[-*+]\s+)?(?:\*\*)?(?:Q(?:uestion)?\s*\d*|问题?|問)\s*[:.：、]\s*(.+?)(?:\*\*)?\s*$", re.IGNORECASE
)
_QUESTION = re.compile(r"\s*(?:[-*+]\s+|\d+[.)]\s+)?(?:\*\*)?(.+?[?？])(?:\*\*)?\s*$")
_ANSWER = re.compile(r"\s*(?:\*\*)?(?:A(?:nswer)?|答案?)\s*[:：]\s*(?:\*\*)?\s*", re.IGNORECASE)
_PROSE_END = re.compile(r"[.!。！?？;；:：,，、]\s*$")
_NUMBER = re.compile(r"^\s*(?:\d+(?:\.\d+)*[.)]?|[一二三四五六七八九十]+[、.])\s+")


class Passage(NamedTuple):
    """A part of a document that is searched by itself."""

    id: str
    """The document's id, `#`, and its number within the document."""
    text: str


class Asking(NamedTuple):
    """A heading or a question, and the first passage below it."""

    text: str
    passage: Passage


@dataclass(frozen=True, slots=True)
class PassagedDocument:
    """A document in passages."""

    id: str
    title: str
    """Empty where it has none."""
    passages: list[Passage]
    headings: list[Asking] = field(default_factory=list)
    questions: list[Asking] = field(default_factory=list)


@dataclass(slots=True)
class _Section:
    """What stands below a heading or a question."""

    label: str = ""
    asks: bool = False
    lines: list[str] = field(default_factory=list)

    @property
    def body(self) -> str:
        return "\n".join(self.lines).strip()


def passaged(document: SourceDocument, words: int) -> PassagedDocument:
    """Cut a document.

    Args:
        document: as a source holds it; its text may begin with its title.
        words: the most units of a passage.
    """
    given = document.metadata.get(TITLE)
    title = " ".join(given.split()) if isinstance(given, str) else ""
    body = document.text
    if title and body.startswith(title):
        body = body[len(title) :]
    made = PassagedDocument(document.id, title, [])
    for section in _merged(_sections(body)):
        first = len(made.passages)
        text = section.body
        for span in chunk_spans(text, [match.span() for match in UNIT.finditer(text)], words, 0):
            part = text[span.start : span.end]
            if units(part) >= MIN_PASSAGE_UNITS:
                made.passages.append(Passage(f"{document.id}#{len(made.passages)}", part))
        if section.label and len(made.passages) > first:
            asking = made.questions if section.asks else made.headings
            asking.append(Asking(section.label, made.passages[first]))
    return made


def _sections(text: str) -> Iterator[_Section]:
    """The text in the sections that its headings and questions make."""
    lines = text.split("\n")
    section, fenced = _Section(), False
    place = 0
    while place < len(lines):
        line = lines[place]
        fenced ^= _FENCE.match(line) is not None
        found, taken = (None, 1) if fenced else _label(lines, place)
        if found is None:
            section.lines.append(line)
        else:
            yield section
            section = found
        place += taken
    yield section


def _label(lines: list[str], place: int) -> tuple[_Section | None, int]:
    """The section that begins at a line, and how many lines say so; None where the line is text."""
    line = lines[place]
    if not line.strip():
        return None, 1
    after = lines[place + 1] if place + 1 < len(lines) else ""
    if match := _ATX.match(line):
        return _labelled(match[1]), 1
    if _SETEXT.match(after) and _is_short(line, HEADING_UNITS) and not _SETEXT.match(line):
        return _labelled(line), 2
    if (match := _ASKED.match(line)) and _is_short(match[1], QUESTION_UNITS):
        return _Section(match[1].strip(), asks=True), 1
    alone = place == 0 or not lines[place - 1].strip()
    if alone and (match := _QUESTION.match(line)) and _is_short(match[1], QUESTION_UNITS):
        return _Section(match[1].strip(), asks=True), 1
    if alone and not after.strip() and _is_short(line, HEADING_UNITS) and not _PROSE_END.search(line):
        return _labelled(line), 1
    return None, 1


def _labelled(text: str) -> _Section:
    label = _NUMBER.sub("", text.strip().strip("*_ "))
    return _Section(label, asks=label.endswith(("?", "？")))


def _is_short(text: str, limits: tuple[int, int]) -> bool:
    low, high = limits
    return low <= units(text) <= high


def _merged(sections: Iterator[_Section]) -> Iterator[_Section]:
    """The sections, those with too little text joined to the one before, label and all; "A:" before an answer goes."""
    held: _Section | None = None
    for section in sections:
        if section.asks and section.lines:
            first = next((number for number, line in enumerate(section.lines) if line.strip()), 0)
            section.lines[first] = _ANSWER.sub("", section.lines[first], count=1)
        least = MIN_PASSAGE_UNITS if section.asks else MIN_SECTION_UNITS
        if held is not None and section.label and units(section.body) < least:
            held.lines += ["", section.label, *section.lines]
            continue
        if held is not None:
            yield held
        held = section
    if held is not None:
        yield held
