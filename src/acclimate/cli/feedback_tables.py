"""What the commands about feedback print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from acclimate.cli.tables import new_console, shown_number


def show_feedback(report: Mapping[str, Any]) -> None:
    """Print what there is of a run's feedback."""
    out = new_console()
    for name, count in report["counts"].items():
        out.print(f"{name}: {count:,}")
    examined = report["examined"]
    if examined is None:
        out.print("looked at, as a share of rank 1: not known (serve with --swaps to measure it)")
        return
    shares = ", ".join(f"rank {rank}: {share:.2f}" for rank, share in enumerate(examined["shares"], start=1))
    severity = f"severity {examined['severity']:.2f} ± {examined['error']:.2f}, by {examined['clicks']:,} clicks"
    out.print(f"looked at, as a share of rank 1: {shares} ({severity})")


def show_imported(report: Mapping[str, Any]) -> None:
    """Print what became of a file."""
    out = new_console()
    counts = f"{report['marks']:,} marks, {report['impressions']:,} impressions"
    out.print(f"{counts} stored; {report['repeated']:,} marks were there already")
    for reason, count in report["rejected"].items():
        out.print(Text(f"  {count:,} rejected: {reason}"), soft_wrap=True)
    if report["rejected_rows"]:
        out.print(Text(f"  rejected rows: {report['rejected_rows']}"), soft_wrap=True)


def show_exported(report: Mapping[str, Any], path: Path) -> None:
    """Print how much was written, and where."""
    counts = ", ".join(f"{count:,} {name}" for name, count in report.items())
    new_console().print(Text(f"{path}: {counts}"), soft_wrap=True)


def show_decision(decision: Mapping[str, Any]) -> None:
    """Print what was decided, and by which numbers."""
    out = new_console()
    out.print(Text(f"{decision['outcome']}: {decision['reason']}", style="bold"), soft_wrap=True)
    measured = decision["measured"]
    table = Table(box=SIMPLE_HEAD)
    for name in ("", "measure", "queries", "in use", "candidate", "difference", "interval"):
        table.add_column(name)
    rows = {"gate": measured["gate"], **{f"guard {row['name']}": row for row in measured["guard"]}}
    rows["later feedback"] = measured["later"]
    if measured["test"]:
        rows["test (decides nothing)"] = measured["test"]
    for name, row in rows.items():
        delta = row["delta"]
        numbers = map(shown_number, (row["queries"], row["before"], row["candidate"]))
        interval = f"[{delta['low']:+.4f}, {delta['high']:+.4f}]"
        table.add_row(name, row["measure"], *numbers, f"{delta['value']:+.4f}", interval)
    out.print(table)
    out.print(f"in use before: {decision['before']}; candidate: {decision['version']}")


def show_rollback(decision: Mapping[str, Any]) -> None:
    """Print which version is in use again."""
    new_console().print(f"in use again: {decision['version']}; before: {decision['before']}")
