"""How a run was made, as tables: its training, its data, its mining. A field that has no name here keeps its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from acclimate.report.tables import Cell, Row, Table, values
from acclimate.report.words import ABSENT, count, duration, is_number, percent, plain, score

LENGTHS = {"p50": "Median", "p90": "90 % up to", "p99": "99 % up to", "max": "Longest"}
COUNTS = {
    "examples": "Training examples",
    "with_negatives": "of these with hard negatives in the data",
    "queries": "Queries in all",
    "documents": "Documents in the corpus",
    "pairs": "Pairs in all",
    "shared_documents": "Documents (sentences) of dev and test that are in train too",
    "near_duplicates": "Dev and test queries (pairs) that are nearly a training text",
}
MINED = {
    "queries": "Queries",
    "positives": "Positives",
    "candidates": "Candidates looked at",
    "negatives": "Negatives taken",
    "hard_negative_share": "Training examples with a hard negative",
    "score_spread": "Spread of a query's scores of random documents",
    "spread_margin": "Margin below the positive, in spreads",
    "mean_positive_score": "Mean score of the positives",
    "mean_negative_score": "Mean score of the negatives taken",
    "queries_without_negatives": "Queries without a negative",
    "queries_with_too_few": "Queries with fewer negatives than wanted",
    "given_negatives_dropped": "Negatives of the data that were dropped",
}
COLUMNS = {"anchor": "Queries", "positive": "Documents", "group": "Kept together", "ignored": "Not used"}
SENTENCES = {"queries": "First sentences", "documents": "Second sentences"}
RETRIEVAL_COUNTS = ("queries", "documents", "with_negatives")
SHARES = ("hard_negative_share", "share")
SPLIT_COLUMNS = ("queries", "documents", "pairs")


def training(train: Mapping[str, Any]) -> list[Table]:
    """How the step was chosen that was kept, and how much was trained."""
    left = dict(train)

    def rows(*wanted: tuple[str, Callable[..., str], tuple[str, ...]]) -> list[tuple[str, str]]:
        taken = [(label, words, [left.pop(name, None) for name in names]) for label, words, names in wanted]
        return [(label, words(*found)) for label, words, found in taken if found[0] is not None]

    course = rows(
        ("Loss", count, ("loss",)),
        ("Training examples", count, ("examples",)),
        ("of these with a hard negative", percent, ("hard_negative_share",)),
        ("Batch size", count, ("batch_size",)),
        ("Peak learning rate", count, ("learning_rate",)),
        ("Learned temperature", count, ("temperature",)),
        ("Steps", _of_planned, ("steps", "planned_steps")),
        ("Step kept, the best on dev", count, ("best_step",)),
        ("Dev score before training", score, ("base_score",)),
        ("Dev score of the step kept", score, ("best_score",)),
        ("Texts not retained, because a test holds them", count, ("retained_excluded",)),
        ("Mined again, times", lambda found: count(found.get("times")), ("remined",)),
    )
    effort = rows(
        ("Trained parameters", _share_of, ("trainable", "total")),
        ("Tokens trained on", count, ("tokens",)),
        ("Tokens per second", count, ("tokens_per_s",)),
        ("Time in steps", duration, ("step_s",)),
        ("Processes", count, ("processes",)),
        ("CPU threads", count, ("threads",)),
        ("Number format", count, ("dtype",)),
    )
    course += _scale(left.get("scale") or {})
    course += [(_label(key), count(value)) for key, value in left.items() if _flat(value)]
    tables = (_list("Training", course), _list("Size and speed", effort))
    return [table for table in tables if table]


def data(dataset: Mapping[str, Any], kind: str) -> list[Table]:
    """The splits and how they were made, the counts, the lengths of the texts, and whatever else is known."""
    counts, made = dataset.get("counts", {}), dataset.get("splits", {})
    known = ("kind", "warnings", "counts", "splits", "lengths", "languages", "reading", "columns", "quoting", "made_by")
    rest = {key: value for key, value in dataset.items() if key not in known and value not in (None, {}, [])}
    tables = [
        _splits(counts, made),
        _list(
            "Counts",
            [(COUNTS.get(key, _label(key)), count(value)) for key, value in counts.items() if _shown(key, value, kind)],
        ),
        _lengths(dataset.get("lengths", {}), SENTENCES if kind == "pairs" else {}),
        _reading(dataset.get("reading", {}), SENTENCES if kind == "pairs" else {}),
        _list("Letters of the texts, by script", [(key, _shares(value)) for key, value in _languages(dataset)]),
        _list("Columns of the data", _columns(dataset.get("columns", {}), kind)),
    ]
    return [table for table in tables if table] + values("Data", rest)


def made_pairs(pairs: Mapping[str, Any]) -> list[Table]:
    """The sources of pairs that were made out of documents, each with its yield and its share; the endpoint."""
    rows = [
        Row(
            source,
            (
                Cell(count(found["made"]), f"{score(found['per_document'], 2)} per document"),
                Cell(count(found["kept"]), percent(found["share"])),
                *(Cell(count(found["splits"].get(split, 0))) for split in ("train", "dev", "test")),
            ),
            "; ".join(f"{count(number)} {why}" for why, number in found["dropped"].items()),
        )
        for source, found in pairs.get("sources", {}).items()
    ]
    by = pairs.get("split_by", "document")
    columns = ("Source", "Made", "Used", "Train", "Dev", "Test")
    llm = {key: value for key, value in pairs.get("llm", {}).items() if _flat(value)}
    made = [Table(f"Pairs made out of documents, split by {by}", columns, tuple(rows))] if rows else []
    return made + values("Queries written by a language model", llm)


def mining(audit: Mapping[str, Any]) -> list[Table]:
    """What mining looked at and took, and what each filter removed."""
    flat = {key: value for key, value in audit.items() if _flat(value) and value is not None}
    rows = [(MINED.get(key, _label(key)), _shares(flat[key]) if key in SHARES else count(flat[key])) for key in flat]
    removed = [
        (_label(key), _share_of(value, flat.get("candidates"))) for key, value in audit.get("removed", {}).items()
    ]
    filled = [(_label(key), count(value)) for key, value in audit.get("filled", {}).items()]
    tables = (
        _list("Mining", rows),
        _list("Candidates removed, by filter", removed),
        _list("Queries that got theirs with a filter loosened", filled),
        _list("Warnings of the mining", [("", text) for text in audit.get("warnings", [])]),
    )
    return [table for table in tables if table]


def _scale(scale: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the loss measured cosines by."""
    rows = [("Temperature", f"{count(scale['temperature'])}, {scale['temperature_from']}")] if scale else []
    if scale.get("spread"):
        rows.append(("Spread of the base's cosines", count(scale["spread"])))
    if scale.get("false_negative_margin") is not None:
        rows.append(("In-batch candidates are masked above the positive +", count(scale["false_negative_margin"])))
    return rows


def _splits(counts: Mapping[str, Any], made: Mapping[str, Any]) -> Table | None:
    parts = {split: counts[split] for split in ("train", "dev", "test") if isinstance(counts.get(split), Mapping)}
    names = [name for name in SPLIT_COLUMNS if any(name in part for part in parts.values())]
    rows = tuple(
        Row(split.capitalize(), tuple(Cell(count(part.get(name))) for name in names), str(made.get(split, "")))
        for split, part in parts.items()
    )
    return Table("Splits", ("Split", *(name.capitalize() for name in names)), rows) if rows else None


def _lengths(lengths: Mapping[str, Any], names: Mapping[str, str]) -> Table | None:
    """Rows by side and unit; of tokens also the share of the texts that the model does not read to their end."""
    rows = []
    for side, units in lengths.items():
        limit = units.get("longer_than_limit", {})
        for unit in ("characters", "tokens"):
            found = units.get(unit) or {}
            longer = f"{_shares(limit.get('share'))} are longer than {count(limit.get('max_tokens'))}" if limit else ""
            cells = tuple(Cell(count(found[name]) if name in found else ABSENT) for name in LENGTHS)
            if found:
                rows.append(Row(f"{names.get(side, _label(side))}, {unit}", cells, longer if unit == "tokens" else ""))
    return Table("Lengths of the texts", ("Texts", *LENGTHS.values()), tuple(rows)) if rows else None


def _reading(sides: Mapping[str, Any], names: Mapping[str, str]) -> Table | None:
    """What of the texts the model cannot tell: by side, and by script where there are several."""
    rows = []
    for side, found in sides.items():
        name, languages = names.get(side, _label(side)), found.get("languages", {})
        rows.append(Row(name, (Cell(_shares(found.get("unknown"))), Cell(_shares(found.get("alike"))))))
        for script, part in languages.items() if len(languages) > 1 else ():
            rows.append(Row(f"{name}, {script}", (Cell(_shares(part.get("unknown"))), Cell(ABSENT))))
    columns = ("Texts", "Unknown tokens", "The same to it as another")
    return Table("What the model cannot read", columns, tuple(rows)) if rows else None


def _columns(roles: Mapping[str, Sequence[str]], kind: str) -> list[tuple[str, str]]:
    """What the columns of the data were read as."""
    first = {"anchor": "First sentences", "positive": "Second sentences"} if kind == "pairs" else {}
    labels = {**COLUMNS, **first}
    named = {role: [name or "(without a name)" for name in names] for role, names in roles.items() if names}
    return [(labels.get(role, _label(role)), ", ".join(names)) for role, names in named.items()]


def _languages(dataset: Mapping[str, Any]) -> list[tuple[str, Any]]:
    found = dataset.get("languages") or {}
    return list(found.items()) if isinstance(found, Mapping) else []


def _list(caption: str, rows: Sequence[tuple[str, str]]) -> Table | None:
    return Table(caption, (), tuple(Row(head, (Cell(text),)) for head, text in rows)) if rows else None


def _of_planned(steps: Any, planned: Any) -> str:
    return f"{count(steps)} of {count(planned)} planned" if planned not in (None, steps) else count(steps)


def _share_of(part: Any, whole: Any) -> str:
    if not (is_number(part) and is_number(whole) and whole):
        return count(part)
    return f"{count(part)} of {count(whole)} ({percent(part / whole)})"


def _shares(value: Any) -> str:
    if is_number(value) and 0.9995 <= value < 1:  # which would be rounded to all
        return f"over {percent(0.999)}"
    return percent(value) if is_number(value) else count(value)


def _shown(name: str, value: Any, kind: str) -> bool:
    """Whether a count is shown: not what labelled pairs have none of."""
    return _flat(value) and not (kind == "pairs" and name in RETRIEVAL_COUNTS and not value)


def _flat(value: Any) -> bool:
    return not isinstance(value, Mapping | list)


def _label(key: str) -> str:
    words = plain(key)
    return words[:1].upper() + words[1:]
