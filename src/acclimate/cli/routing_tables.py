"""What `route` prints: a table for each set of queries, and what follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from acclimate.cli.tables import PERCENT, new_console, plain_table, shown_number
from acclimate.counting import counted

KINDS = {
    "own": "the expert {expert} should answer",
    "outside": "no expert was trained for these",
    "spanning": "two experts' queries in one; both answers are asked for",
}
MIXING = {
    "better": "mixing finds more than choosing one where a query spans two domains: ask for it (adapter: mix)",
    "worse": "mixing finds less than choosing one, also where a query spans two domains: leave it at auto",
    "no evidence": "no evidence that mixing finds more than choosing one where a query spans two domains: leave it at "
    "auto",
}


def show_routing(result: Mapping[str, Any]) -> None:
    """Print the scores of every set, their differences to base and router, and how often a router was right."""
    console = new_console()
    width = f"{PERCENT * result['confidence']:.0f} % interval"
    console.print(
        Text(f"{result['measure']} over one corpus of {counted(result['documents'], 'documents')}"), soft_wrap=True
    )
    for row in result["sets"]:
        console.print(_table(row, width))
    for name, count in result["left_out"].items():
        if count:
            console.print(Text(f"{name}: {counted(count, 'queries')} left out: an expert was trained on them"))
    if result["mix_on_spanning"] is not None:
        console.print(Text(MIXING[result["mix_on_spanning"]]), soft_wrap=True)


def _table(row: Mapping[str, Any], width: str) -> Table:
    said = KINDS[row["kind"]].format(expert=row["expert"]) if row["expert"] or row["kind"] != "own" else ""
    title = f"{row['set']}: {counted(row['queries'], 'queries')}" + (f"; {said}" if said else "")
    table = plain_table(Text(title))
    table.add_column("answered by", no_wrap=True)
    for name in ("score", "to base", width, "to auto", width, "right"):
        table.add_column(name, justify="right")
    accuracy = row.get("accuracy", {})
    for name, score in row["scores"].items():
        deltas = (row["from_base"].get(name), row["from_auto"].get(name))
        right = f"{PERCENT * accuracy[name]:.1f} %" if name in accuracy else ""
        table.add_row(Text(name), shown_number(score), *(cell for delta in deltas for cell in _cells(delta)), right)
    return table


def _cells(delta: Mapping[str, float] | None) -> tuple[str, str]:
    if delta is None:
        return "", ""
    return f"{delta['value']:+.3f}", f"{delta['low']:+.3f}…{delta['high']:+.3f}"
