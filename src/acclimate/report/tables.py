"""The report's tables as data; the template only lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from acclimate.evaluation.reports import FoldRow, GuardRow, IndexEvaluation, RerankingReport
from acclimate.report.summary import StageRow
from acclimate.report.words import (
    ABSENT,
    METRIC_NAMES,
    SIMILARITY_METRICS,
    Tone,
    count,
    duration,
    interval,
    is_number,
    metric_name,
    p_value,
    percent,
    plain,
    primary_metric,
    score,
    signed,
    tone_of,
)
from acclimate.runs.refreshes import Decision

SHORT_LIST = 4
SHORT_NAME = 8
"""Characters by which a version is named."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A value, a smaller line under it, and whether it is good or bad news."""

    text: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row's heading, its cells, and a smaller line under the heading."""

    head: str
    cells: tuple[Cell, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page. `numeric` aligns the cells at the right, digit under digit."""

    caption: str
    columns: tuple[str, ...]
    """Headings of all columns, that of the row headings first; empty for a plain list of values."""
    rows: tuple[Row, ...]
    numeric: bool = True


def headline(test: Mapping[str, Any], confidence: float | None) -> Table | None:
    """Base, adapted, difference with interval and p, and BM25: one row per metric."""
    return _comparison(
        test, [name for name in _ordered(test) if name not in SIMILARITY_METRICS], confidence, "All measures"
    )


def similarity(test: Mapping[str, Any]) -> Table | None:
    """Mean cosines of positives and negatives, and the margin between them."""
    return _comparison(test, [name for name in SIMILARITY_METRICS if name in test.get("base", {})], None, "Cosines")


def domain(report: Mapping[str, Any], confidence: float | None) -> Table | None:
    """What the models know of the domain's terms and topics; a metric that was skipped has no row."""
    parts = [report.get(name, {}) for name in ("term_accuracy", "relatedness")]
    scores = {
        side: {name: value for part in parts for name, value in part.get(side, {}).items()}
        for side in ("base", "adapted", "delta")
    }
    return _comparison(scores, _ordered(scores), confidence, "Terms and topics")


def forgot(checks: Sequence[GuardRow]) -> bool:
    """Whether the loss exceeds the bound on any guard data."""
    return any(check.get("warn") for check in checks)


def guard(checks: Sequence[GuardRow]) -> Table | None:
    """Guard data: base and adapted, and whether the loss exceeds the bound."""
    rows = []
    for check in checks:
        key = primary_metric(check) or next(iter(check.get("base", {})), None)
        if key is None:
            continue
        delta = check.get("delta", {}).get(key, {})
        delta = delta if isinstance(delta, Mapping) else {"value": delta}
        lost = check.get("relative_loss")
        change_in_percent = f"{'+' * (lost < 0)}{percent(-lost)} of base".replace("-", "−") if is_number(lost) else ""
        state = (
            Cell("exceeds the bound", change_in_percent, "bad")
            if check.get("warn")
            else Cell("within the bound", change_in_percent, "good")
        )
        before, after = Cell(score(check["base"].get(key))), Cell(score(check.get("adapted", {}).get(key)))
        change = Cell(signed(delta.get("value")), _doubt(delta), tone_of(delta))
        rows.append(Row(str(check.get("name", "")), (before, after, change, state), metric_name(key)))
    columns = ("Data", "Base", "Adapted", "Difference", "Verdict")
    return Table("Guard data", columns, tuple(rows)) if rows else None


def folds(rows: Sequence[FoldRow], measure: str | None) -> Table | None:
    """Every fold of a cross-validation: how many it tested, and its adapter beside the base."""
    table_rows = []
    for row in rows:
        before, after = row["base"], row["adapted"]
        cells = (count(row["tested"]), score(before), score(after), signed(after - before))
        table_rows.append(Row(f"Fold {row['fold']}", tuple(map(Cell, cells))))
    columns = ("Fold", "Tested", "Base", "Adapted", "Difference")
    return Table(f"{metric_name(str(measure))} of each fold", columns, tuple(table_rows)) if table_rows else None


def stages(rows: Sequence[StageRow]) -> Table | None:
    """The scores on dev before and after each of three stages, and whether the stage was kept."""
    table_rows = []
    for row in rows:
        before, after = row.get("dev_before"), row.get("dev_after")
        change = after - before if is_number(after) and is_number(before) else None
        weights = ", ".join(f"{name} {percent(share)}" for name, share in row.get("weights", {}).items())
        detail = weights or f"{count(row.get('examples'))} examples"
        best_of = f"best of {row['best_of']}" if row.get("best_of", 1) > 1 else ""
        state = Cell("kept", tone="good") if row.get("kept") else Cell("dropped")
        table_rows.append(
            Row(row["stage"], (Cell(score(before)), Cell(score(after), best_of), Cell(signed(change)), state), detail)
        )
    columns = ("Stage", "Dev before", "Dev after", "Difference", "Outcome")
    return Table("Stages, by NDCG@10 on dev", columns, tuple(table_rows)) if table_rows else None


def reranking(report: RerankingReport | None) -> Table | None:
    """Scores of the retrieved and the reranked order."""
    if not report:
        return None
    rows = [
        Row(
            metric_name(name),
            (
                Cell(score(report["retrieved"].get(name))),
                Cell(score(report["reranked"].get(name))),
                Cell(signed(delta.get("value")), _doubt(delta), tone_of(delta)),
            ),
        )
        for name, delta in report["delta"].items()
    ]
    columns = ("Metric", "Retrieved", "Reranked", f"Difference ({percent(report['confidence'])} interval)")
    return Table("Reranking", columns, tuple(rows))


def index(report: IndexEvaluation | None) -> Table | None:
    """What each mode of search through the index finds, and the difference of both modes with words to dense search."""
    if not report:
        return None
    modes, delta = report["modes"], report["delta"]
    rows = [
        Row(
            metric_name(name),
            (
                *(Cell(score(modes[mode].get(name))) for mode in modes),
                *(
                    Cell(signed(delta[mode][name]["value"]), _doubt(delta[mode][name]), tone_of(delta[mode][name]))
                    for mode in delta
                ),
            ),
        )
        for name in modes["dense"]
    ]
    width = percent(report["confidence"])
    named = (
        *(mode.capitalize() for mode in modes),
        *(f"{mode.capitalize()} − dense ({width} interval)" for mode in delta),
    )
    return Table("Search through the index", ("Metric", *named), tuple(rows))


def values(caption: str, mapping: Mapping[str, Any]) -> list[Table]:
    """Lay out any JSON object: its plain values as one list, each object in it as a table of its own.

    An object of objects becomes a table with the inner keys as columns; an inner object that shares no key with the
    first one gets a list of its own.
    """
    flat = {key: value for key, value in mapping.items() if _is_plain(value)}
    tables = [_list(caption, flat)] if flat else []
    nested = {key: value for key, value in mapping.items() if isinstance(value, Mapping) and value}
    if nested and not flat and all(_is_flat(value) for value in nested.values()):
        keys = next(iter(nested.values())).keys()
        alike = {key: value for key, value in nested.items() if value.keys() & keys}
        tables.append(_matrix(caption, alike))
        nested = {f"{caption}: {plain(key)}": value for key, value in nested.items() if key not in alike}
    for key, value in nested.items():
        tables += values(plain(key).capitalize(), value)
    return tables


def reasons(rejected: Mapping[str, int]) -> Table | None:
    """The reasons why input rows were not used, and how many."""
    rows = tuple(Row(reason, (Cell(count(number)),)) for reason, number in rejected.items())
    return Table("Rows not used, by reason", ("Reason", "Rows"), rows) if rows else None


def timings(seconds: Mapping[str, Any]) -> Table | None:
    """Where the time went."""
    rows = tuple(
        Row("In all" if name == "total_s" else plain(name.removesuffix("_s")).capitalize(), (Cell(duration(value)),))
        for name, value in seconds.items()
        if is_number(value) and value  # nothing was mined in no time at all
    )
    return Table("Time", (), rows) if rows else None


def inputs(artifacts: Mapping[str, Mapping[str, str]]) -> Table | None:
    """The inputs of each artifact, with their hashes."""
    rows = tuple(
        Row(artifact, (Cell(name), Cell(value)))
        for artifact, sources in artifacts.items()
        for name, value in sources.items()
    )
    return (
        Table("What each artifact was made from", ("Artifact", "Input", "Hash"), rows, numeric=False) if rows else None
    )


def refreshes(rows: Sequence[Decision]) -> Table | None:
    """The decisions about what was learned from feedback, the newest first: a row each."""
    if not rows:
        return None
    columns = ("When", "Decision", "Gate", "Later feedback", "Guards: most forgotten", "Test, which decided nothing")
    return Table("Decisions", columns, tuple(map(_decision, reversed(rows))))


def _decision(row: Decision) -> Row:
    measured = row.get("measured", {})
    changes = f"{row['before'][:SHORT_NAME]} → {row['version'][:SHORT_NAME]}"
    tone: Tone = "good" if row["outcome"] == "promoted" else ""
    forgotten = [guard["forgotten"] for guard in measured.get("guard", [])]
    cells = [
        Cell(row["outcome"], row["reason"] if row["outcome"] == "kept aside" else changes, tone),
        _change(measured.get("gate", {})),
        _change(measured.get("later", {})),
        Cell(percent(max(forgotten)) if forgotten else ABSENT),
        _change(measured.get("test", {})),
    ]
    return Row(row["time"].replace("T", " ").partition("+")[0], tuple(cells))


def _change(measured: Mapping[str, Any]) -> Cell:
    """A difference of two versions, with its interval and margin."""
    delta = measured.get("delta", {})
    margin = f"; margin {score(measured['margin'])}" if "margin" in measured else ""
    return Cell(signed(delta.get("value")), interval(delta) + margin, tone_of(delta))


def _ordered(test: Mapping[str, Any]) -> list[str]:
    """The metrics of a report: the known ones in their order, then the others."""
    base = test.get("base", {})
    return [*(name for name in METRIC_NAMES if name in base), *(name for name in base if name not in METRIC_NAMES)]


def _comparison(test: Mapping[str, Any], names: list[str], confidence: float | None, caption: str) -> Table | None:
    if not names:
        return None
    lexical = test.get("bm25") or {}
    deltas = {name: test.get("delta", {}).get(name, {}) for name in names}
    with_bm25 = any(name in lexical for name in names)
    level = f" ({percent(confidence)} interval)" if confidence and any(map(interval, deltas.values())) else ""
    columns = ("Metric", "Base", "Adapted", f"Difference{level}", *(("BM25",) * with_bm25))
    rows = []
    for name in names:
        before, after, delta = test["base"].get(name), test.get("adapted", {}).get(name), deltas[name]
        change = delta.get("value", after - before if is_number(after) and is_number(before) else None)
        cells = [Cell(score(before)), Cell(score(after)), Cell(signed(change), _doubt(delta), tone_of(delta))]
        cells += [Cell(score(lexical.get(name)))] * with_bm25
        rows.append(Row(metric_name(name), tuple(cells)))
    return Table(caption, columns, tuple(rows))


def _doubt(delta: Mapping[str, Any]) -> str:
    """The interval and p of a difference."""
    return ", ".join(part for part in (interval(delta), p_value(delta.get("p"))) if part)


def _list(caption: str, flat: Mapping[str, Any]) -> Table:
    return Table(caption, (), tuple(Row(plain(key), (Cell(count(value)),)) for key, value in flat.items()))


def _matrix(caption: str, nested: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = list(dict.fromkeys(key for value in nested.values() for key in value))
    rows = tuple(
        Row(plain(key), tuple(Cell(count(value[name]) if name in value else ABSENT) for name in columns))
        for key, value in nested.items()
    )
    return Table(caption, ("", *map(plain, columns)), rows)


def _is_flat(value: Mapping[str, Any]) -> bool:
    return all(_is_plain(item) for item in value.values())


def _is_plain(value: Any) -> bool:
    """Whether a value fits a cell: no object, and no list of more than a few things."""
    if isinstance(value, list):
        return len(value) <= SHORT_LIST and not any(isinstance(item, Mapping | list) for item in value)
    return not isinstance(value, Mapping)
