"""What each column holds: decided by its name, never by its order, and never guessed.

A row's set of names is recognised once as a `Form`; a form turns rows into records.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acclimate.configs import AUTO, NONE, PrepareConfig
from acclimate.data.made import MADE_BY, MADE_COLUMNS, SPLIT_COLUMN
from acclimate.data.names import ANCHORS, LABELS, NEGATIVES, NUMBERED_NEGATIVE, POSITIVES, SENTENCES, TEXTS, TITLE
from acclimate.data.records import BadRowError, Record, folded, normalise
from acclimate.data.tables import Row
from acclimate.errors import DataError
from acclimate.types import Kind, Split

ALIAS_POSSIBLE = (
    f"sentence1 + sentence2 + label (or score); one of {', '.join(ANCHORS)} with one of {', '.join(POSITIVES)}; "
    f"negatives in {', '.join(NEGATIVES)}, negative_1 .."
)
ALIAS_FIX = (
    "Name the columns by --anchor-column and --positive-column (and --label-column); "
    "if the file has no header, name all by --columns."
)

SINGLE_ROLES = (
    "anchor",
    "positive",
    "label",
    "positive_scores",
    "negative_scores",
    "instruction",
    "group",
    "made_by",
)

TRUTH = {"true": 1.0, "false": 0.0}
"""How truth values are written into text files."""


@dataclass(frozen=True, slots=True)
class Form:
    """The columns of a table by what they hold."""

    anchor: str
    positive: str
    negatives: tuple[str, ...] = ()
    label: str | None = None
    label_found: bool = False
    """Whether the label was found by its name alone, beside queries and answers: its values decide what it is."""
    positive_scores: str | None = None
    negative_scores: str | None = None
    instruction: str | None = None
    """A column of prompts: read only to report them, because only the run's own prompts are used."""
    group: str | None = None
    made_by: str | None = None
    """A column that says what made a query, of pairs that were made out of documents."""
    ignored: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """Pairs if there is a label, retrieval if not."""
        return "retrieval" if self.label is None else "pairs"

    def roles(self) -> dict[str, list[str]]:
        """Role -> column names, for `dataset.json`."""
        single = {role: [name] for role in SINGLE_ROLES if (name := getattr(self, role)) is not None}
        return {**single, "negatives": list(self.negatives), "ignored": list(self.ignored)}


def recognise(names: Sequence[str], where: str, config: PrepareConfig) -> Form:
    """Recognise the form of a table by its column names.

    Args:
        names: the column names; upper and lower case are the same.
        where: the file, for the message.
        config: may name the columns.

    Raises:
        DataError: a named column is missing, none is recognised, or more than one could be meant.
    """
    folded = {str(name).strip().casefold(): str(name) for name in names}
    if len(folded) < len(names):
        raise _problem("column names that differ only in upper and lower case", names, where)
    anchor, positive, instruction = _text_columns(folded, names, where, config)
    negatives = tuple(name for name in _negative_columns(folded) if name not in (anchor, positive))
    label = _label_column(folded, names, where, config)
    sentences = (anchor.casefold(), positive.casefold()) == SENTENCES and config.anchor_column is None
    if label is None and sentences and config.label_column != NONE:
        raise _problem(
            "sentence1 and sentence2 without a label or score",
            names,
            where,
            fix="Name the labels by --label-column; or, if the second sentence answers the first, "
            "give --anchor-column sentence1 --positive-column sentence2.",
        )
    made_by, group = folded.get(MADE_BY), None
    if made_by is not None and config.split_by == "component":
        group = folded.get(SPLIT_COLUMN)  # split by document when they were made
    elif config.split_by not in ("component", "query"):
        group = _named(config.split_by, "--split-by", folded, names, where)
    form = Form(
        anchor=anchor,
        positive=positive,
        negatives=negatives,
        label=None if negatives else label,
        label_found=not (negatives or label is None or sentences or _says_labels(config)),
        positive_scores=folded.get("pos_scores"),
        negative_scores=folded.get("neg_scores"),
        instruction=instruction,
        group=group,
        made_by=made_by,
    )
    used = {name for role in form.roles().values() for name in role}
    used |= {folded[name] for name in MADE_COLUMNS & set(folded)} if made_by is not None else set()
    return Form(
        **{name: getattr(form, name) for name in Form.__dataclass_fields__ if name != "ignored"},
        ignored=tuple(str(name) for name in names if str(name) not in used),
    )


def _text_columns(
    folded: dict[str, str], names: Sequence[str], where: str, config: PrepareConfig
) -> tuple[str, str, str | None]:
    """The columns of the anchor, of the positive, and of the prompts."""
    instruction = folded.get("prompt")
    if config.anchor_column is not None and config.positive_column is not None:
        anchor = _named(config.anchor_column, "--anchor-column", folded, names, where)
        positive = _named(config.positive_column, "--positive-column", folded, names, where)
        return anchor, positive, None if instruction in (anchor, positive) else instruction
    anchors = [name for name in ANCHORS if name in folded]
    positives = [name for name in POSITIVES if name in folded]
    if "prompt" in anchors and len(anchors) > 1 and positives == ["pos"]:
        anchors.remove("prompt")  # in query + pos + neg rows, prompt is the instruction before the query
    else:
        instruction = None
    sentences = [name for name in SENTENCES if name in folded]
    if len(sentences) == 2 and not (anchors or positives):
        return folded[SENTENCES[0]], folded[SENTENCES[1]], None
    if len(anchors) > 1 or len(positives) > 1 or (sentences and (anchors or positives)):
        candidates = ", ".join(anchors + positives + sentences)
        raise _problem(f"more than one column that could be the query or the document ({candidates})", names, where)
    if not (anchors and positives):
        raise _problem("no known pair of columns", names, where)
    return folded[anchors[0]], folded[positives[0]], instruction


def _negative_columns(folded: dict[str, str]) -> list[str]:
    plain = [folded[name] for name in NEGATIVES if name in folded]
    numbered = sorted(
        (int(match[1]), actual) for name, actual in folded.items() if (match := NUMBERED_NEGATIVE.fullmatch(name))
    )
    return plain + [actual for _, actual in numbered]


def _label_column(folded: dict[str, str], names: Sequence[str], where: str, config: PrepareConfig) -> str | None:
    if config.label_column == NONE:
        return None
    if config.label_column != AUTO:
        return _named(config.label_column, "--label-column", folded, names, where)
    labels = [folded[name] for name in LABELS if name in folded]
    if len(labels) > 1:
        raise _problem("both label and score", names, where, fix="Say which by --label-column.")
    return labels[0] if labels else None


def _says_labels(config: PrepareConfig) -> bool:
    """Whether a setting says that there are labels, so that none need be guessed from values."""
    return config.label_column != AUTO or any(
        value is not None for value in (config.label_min, config.label_max, config.per_label)
    )


def _named(name: str, flag: str, folded: dict[str, str], names: Sequence[str], where: str) -> str:
    if name in names:
        return name
    if name.strip().casefold() not in folded:
        raise _problem(f"no column {name!r}, which {flag} names", names, where, fix=f"Give {flag} one of them.")
    return folded[name.strip().casefold()]


def _problem(what: str, names: Sequence[str], where: str, fix: str = ALIAS_FIX) -> DataError:
    shown = ", ".join(repr(str(name)[:60]) for name in names[:30]) or "none"
    return DataError(f"{where}: {what}; columns found: {shown}", possible=ALIAS_POSSIBLE, fix=fix)


def records_of(row: Row, form: Form, split: Split, min_chars: int, prompts: Counter[str]) -> Iterator[Record]:
    """Turn one row into records, one per positive.

    Args:
        row: names -> values.
        form: the form of this set of names.
        split: the split the row's file belongs to.
        min_chars: shorter texts make the row unusable.
        prompts: counts the prompts that the rows themselves contain.

    Raises:
        BadRowError: the row cannot be used, and why.
    """
    anchors = texts_of(row.values[form.anchor], form.anchor, prompts)
    positives = texts_of(row.values[form.positive], form.positive, prompts)
    if len(anchors) != 1 or not positives:
        empty = form.positive if anchors else form.anchor
        raise BadRowError(f"{len(anchors)} queries in one row" if len(anchors) > 1 else f"empty ({empty})")
    for text, name in [(anchors[0], form.anchor), *((text, form.positive) for text in positives)]:
        check_text(text, name, min_chars)
    given = [text for name in form.negatives for text in texts_of(row.values.get(name), name, prompts)]
    if form.instruction is not None and isinstance(prompt := row.values.get(form.instruction), str) and prompt.strip():
        prompts[prompt] += 1
    label = None if form.label is None else _label(row.values.get(form.label), form)
    scores = _teacher_scores(row, form, len(positives), len(given))
    group = None if form.group is None else str(row.values.get(form.group, ""))
    made_by = "" if form.made_by is None else str(row.values.get(form.made_by) or "")
    for index, positive in enumerate(positives):
        teacher = (scores[0][index], *scores[1]) if scores else None
        negatives, teacher = _usable_negatives(given, teacher, {anchors[0], *positives})
        yield Record(
            row.source,
            row.row,
            anchors[0],
            positive,
            negatives,
            teacher,
            label,
            split=split,
            group=group,
            made_by=made_by,
        )


def _label(cell: Any, form: Form) -> float:
    """A label's number; NaN for what is no number, where the values of the column are still to be judged."""
    try:
        return number(cell, str(form.label))
    except BadRowError:
        if form.label_found:
            return math.nan
        raise


def check_text(text: str, name: str, min_chars: int) -> None:
    """Raise BadRowError unless the text is there and long enough."""
    if not text:
        raise BadRowError(f"empty ({name})")
    if len(text) < min_chars:
        raise BadRowError(f"too short ({name}: {text!r})")


def _usable_negatives(
    given: list[str], scores: tuple[float, ...] | None, taken: set[str]
) -> tuple[tuple[str, ...], tuple[float, ...] | None]:
    """Remove empty and repeated negatives, the query itself and its positives, with their scores."""
    kept: dict[str, int] = {}
    unwanted = set(map(folded, taken))
    for index, text in enumerate(given):
        if text and (key := folded(text)) not in unwanted:
            kept.setdefault(key, index)
    if scores is not None:
        scores = (scores[0], *(scores[1 + index] for index in kept.values()))
    return tuple(given[index] for index in kept.values()), scores


def texts_of(cell: Any, name: str, prompts: Counter[str]) -> list[str]:
    """The normalised texts in a cell: a string, a list of strings, of passages, a conversation, a list of these.

    A passage (Tevatron, DPR: `{"docid"?, "title"?, "text"}`) is its title and its text. In a conversation (ms-swift:
    `[{"role", "content"}, ...]`) the texts of user and assistant are joined; a system message is a prompt, and is only
    counted.

    Raises:
        BadRowError: the cell holds something else.
    """
    if cell is None or cell != cell:  # parquet and pandas write an absent text as NaN
        return []
    if isinstance(cell, str):
        text = normalise(cell)
        return [text] if text else []
    if isinstance(cell, int | float) and not isinstance(cell, bool):
        return [str(cell)]
    if isinstance(cell, list) and cell and all(isinstance(item, dict) for item in cell):
        passages = [passage_text(item) for item in cell]
        return [text or "" for text in passages] if None not in passages else [_conversation(cell, name, prompts)]
    if isinstance(cell, list) and not any(isinstance(item, dict) for item in cell):
        return [text for item in cell for text in texts_of(item, name, prompts) or [""]]
    raise BadRowError(f"not text ({name} holds a {type(cell).__name__})")


def passage_text(values: Mapping[str, Any], titles: dict[str, str] | None = None) -> str | None:
    """Join a document's title and text by a space, as BEIR and MTEB do; None where it has no text.

    Args:
        values: a row, or a passage in a row; a message (with a role) is none.
        titles: gets the title, by the joint text.

    Raises:
        BadRowError: the text cannot be used.
    """
    texts = [values[name] for name in TEXTS if isinstance(values.get(name), str)]
    if not texts or "role" in values:
        return None
    title = folded(normalise(values[TITLE])) if isinstance(values.get(TITLE), str) else ""
    text = normalise(f"{title} {texts[0]}" if title else texts[0])
    if titles is not None and title and text.startswith(title + " "):
        titles[text] = title
    return text


def _conversation(messages: list[dict[str, Any]], name: str, prompts: Counter[str]) -> str:
    spoken = []
    for message in messages:
        content = message.get("content")
        if not isinstance(content, str):
            raise BadRowError(f"not text (a message of {name} without a content)")
        if message.get("role") == "system":
            prompts[content] += 1
        else:
            spoken.append(content)
    return normalise(" ".join(spoken))


def number(cell: Any, name: str) -> float:
    """Read a finite number.

    Raises:
        BadRowError: the cell holds none.
    """
    if cell is None or (isinstance(cell, str) and not cell.strip()):
        raise BadRowError(f"no number ({name} is empty)")
    try:
        value = TRUTH.get(cell.strip().casefold()) if isinstance(cell, str) else None
        value = float(cell) if value is None else value
    except (TypeError, ValueError, OverflowError):
        raise BadRowError(f"not a number ({name}: {str(cell)[:60]!r})") from None
    if not math.isfinite(value):
        raise BadRowError(f"not a finite number ({name}: {cell})")
    return value


def _teacher_scores(row: Row, form: Form, positives: int, negatives: int) -> tuple[list[float], list[float]] | None:
    """Scores of the positives and of the negatives, if the row has both."""
    scores = []
    for name, count, of in (
        (form.positive_scores, positives, form.positive),
        (form.negative_scores, negatives, "negatives"),
    ):
        cell = row.values.get(name) if name is not None else None
        values = [
            number(item, str(name)) for item in (cell if isinstance(cell, list) else [] if cell is None else [cell])
        ]
        if values and len(values) != count:
            raise BadRowError(f"wrong number of scores ({name}: {len(values)} for {count} {of})")
        if not values and count:
            return None
        scores.append(values)
    return scores[0], scores[1]
