"""What a stage reports, as a mapping that a notebook shows as a table."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from acclimate.report.words import ABSENT, interval, is_number, metric_name, p_value, score, signed
from acclimate.runs.run_folder import RunFolder

COLOURS = {"better": "#1a7f37", "worse": "#cf222e"}
MAX_ROWS = 40


class Result(dict[str, Any]):
    """A report, and where it was written.

    Attributes:
        folder: what was written; None where nothing was.
        page: the report to read in a browser, its own or that of its run, if there is one.
    """

    def __init__(self, report: Mapping[str, Any], folder: Path | None = None) -> None:
        super().__init__(report)
        self.folder = folder
        places = [] if folder is None else [RunFolder(folder).page, RunFolder.around(folder).page]
        self.page = next((page for page in places if page.is_file()), None)

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict and base against adapted, where two models were compared."""
        parts = self.get("tasks") or {"": self}
        shown = [_compared(str(name), part) for name, part in parts.items() if _is_comparison(part)]
        body = "".join(shown) or _table(("", ""), [(name, _plain(value)) for name, value in _flat(self)[:MAX_ROWS]])
        if self.page is not None:
            body += f'<p><a href="{escape(str(self.page))}">{escape(str(self.page))}</a></p>'
        return f"<div>{body}</div>"


def _is_comparison(part: Any) -> bool:
    return isinstance(part, Mapping) and "delta" in part.get("test", {})


def _compared(name: str, report: Mapping[str, Any]) -> str:
    """The verdict, and a row for each measure."""
    test, found = report["test"], str(report.get("verdict", ""))
    lexical = test.get("bm25") or {}
    confidence = report.get("confidence")
    width = f"{100 * confidence:.0f} % interval" if is_number(confidence) else "interval"
    columns = ("", *(("BM25",) if lexical else ()), "base", "adapted", "change", width, "p")
    rows = []
    for measure, delta in test["delta"].items():
        values = [score(lexical.get(measure))] if lexical else []
        values += [score(test["base"].get(measure)), score(test["adapted"].get(measure))]
        rows.append((metric_name(measure), *values, signed(delta["value"]), interval(delta), p_value(delta.get("p"))))
    size = ", ".join(f"{test[noun]:,} {noun}" for noun in ("queries", "documents", "pairs") if noun in test)
    style = f' style="color:{COLOURS[found]}"' if found in COLOURS else ""
    heading = f"{escape(name)}: " if name else ""
    return f"<p>{heading}<b{style}>{escape(found)}</b> on the test split ({size})</p>" + _table(columns, rows)


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns) if any(columns) else ""
    lines = ("".join(f"<td>{escape(value)}</td>" for value in row) for row in rows)
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Numbers and words of nested mappings, each with the path to it."""
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name} ")
        elif isinstance(value, int | float | str):
            rows.append((f"{prefix}{name}".replace("_", " "), value))
    return rows


def _plain(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return score(value) if is_number(value) else ABSENT
