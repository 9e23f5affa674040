"""What the commands about instant adapters print in the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from acclimate.cli.tables import new_console
from acclimate.counting import counted
from acclimate.report.words import interval, score, signed
from acclimate.runs.run_folder import PAGE_FILE


def show_tasks(report: Mapping[str, Any], out: Path) -> None:
    """How many tasks there are, and of which kinds."""
    console = new_console()
    groups = ", ".join(f"{group} {count}" for group, count in report["groups"].items())
    console.print(f"{counted(report['tasks'], 'tasks')} of {counted(report['definitions'], 'definitions')}: {groups}")
    console.print(f"library: {out}", soft_wrap=True)


def show_network(report: Mapping[str, Any], out: Path) -> None:
    """What was trained on how much, and how long it took."""
    train, console = report["train"], new_console()
    console.print(
        f"{train['generator']} through {train['through']}: {train['parameters']:,} parameters, "
        f"{counted(train['tasks'], 'tasks')}, {train['seconds'] / 60:.1f} minutes"
    )
    console.print(f"hypernetwork: {out}", soft_wrap=True)


def show_measured(report: Mapping[str, Any], out: Path) -> None:
    """Every arm over all held-out tasks; then what each hypernetwork gains over its rivals."""
    console = new_console()
    table = Table(box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("NDCG@10")
    for group, count in report["groups"].items():
        table.add_column(f"{group} ({count})", justify="right")
    for arm in next(iter(report["arms"].values())):
        found = [report["arms"][group].get(arm) for group in report["groups"]]
        table.add_row(Text(arm), *("" if one is None else score(one["ndcg"], 3) for one in found))
    console.print(table)
    for arm, rivals in next(iter(report["gains"].values())).items():
        for rival, delta in rivals.items():
            console.print(Text(f"{arm} less {rival}: {signed(delta['value'], 3)} ({interval(delta)})"))
    for name, groups in report["chosen"].items():
        for group, by_pairs in groups.items():
            for pairs, found in by_pairs.items():
                bar = "" if found["kept_bar"] else ": worse than the base by more than .01"
                gain = f"{signed(found['gain']['value'], 3)} ({interval(found['gain'])})"
                console.print(Text(f"{name}, {group}, chosen by {pairs} pairs, less base: {gain}{bar}"))
    console.print(f"report: {out / PAGE_FILE}", soft_wrap=True)


def show_generated(report: Mapping[str, Any], out: Path) -> None:
    """What the check found, what was kept, and how new the condition is."""
    console, check = new_console(), report["check"]
    if check is not None:
        others = counted(check["distractors"], "other documents")
        against = f"{counted(check['pairs'], 'pairs')}, each left out once, among {others}"
        table = Table(title=against, box=SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
        for column in ("", "NDCG@10", "less base (80 %)"):
            table.add_column(column)
        for name, value in check["ndcg"].items():
            delta = check["against_base"].get(name)
            change = "" if delta is None else f"{signed(delta['value'])} ({interval(delta)})"
            table.add_row(name, score(value), change)
        console.print(table)
        told = {"better": "better than the base", "worse": "worse than the base"}.get(check["verdict"], "no evidence")
        console.print(f"kept: {report['kept']}: {told}")
    for part, distance in report["distance"].items():
        console.print(f"{part}: {distance:.1f} times as far from the training tasks as these from each other")
    console.print(f"{report['kind']}: {out} ({1000 * report['generation_s']:.0f} ms)", soft_wrap=True)
