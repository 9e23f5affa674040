"""What commands print about images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from acclimate.cli.tables import new_console, plain_table, shown_number, snippet
from acclimate.counting import counted
from acclimate.evaluation.compare import MAIN_MEASURE
from acclimate.runs.run_folder import RunFolder

DIRECTIONS = ("text_to_image", "image_to_text", "image_to_image", "image_to_image_by_tower")


def show_images(summary: Mapping[str, Any], run: Path) -> None:
    """Print the last word of `adapt` on images: what was measured, with intervals, and the report's path."""
    found, out = summary["images"], new_console()
    counts, train = found["dataset"]["counts"], found["train"]
    table = plain_table()
    for name in ("groups", "measure", "score", f"{100 * found['confidence']:.0f} % interval", "by chance"):
        table.add_column(name, justify="left" if name in ("groups", "measure") else "right")
    for part in ("unseen", "seen"):
        for direction in DIRECTIONS:
            if measured := found.get(part, {}).get(direction, {}).get("precision@10"):
                _row(table, part, f"{direction.replace('_', ' ')}: precision@10", measured)
        if measured := found.get(part, {}).get("class_accuracy"):
            _row(table, part, f"class accuracy among {found[part]['groups']}", measured)
        if measured := found.get("all", {}).get("class_accuracy", {}).get(part):
            _row(table, part, f"class accuracy among all {found['all']['classes']}", measured)
        for measured in found.get("all", {}).get("calibrated", {}).values():
            _row(table, part, f"the same, {measured['offset']:.2f} off the trained classes", measured[part])
    if measured := found.get("all", {}).get("text_to_image", {}).get("precision@10"):
        _row(table, "unseen", "text to image among all images: precision@10", measured)
    out.print(table)
    for guard in found.get("guard", []):
        before, after = (guard[side][MAIN_MEASURE[guard["kind"]]] for side in ("base", "adapted"))
        out.print(
            f"searches among texts, {guard['name']}: {MAIN_MEASURE[guard['kind']]} {shown_number(before)} before, "
            f"{shown_number(after)} after" + ", a loss beyond the bound" * guard["warn"],
            soft_wrap=True,
        )
    out.print(
        f"trained {train['trainable']:,} parameters on {counted(counts['train'], 'images')}; "
        f"{counted(counts['held_out'], 'groups')} never seen; minutes: "
        + ", ".join(f"{name.removesuffix('_s')} {value / 60:.1f}" for name, value in summary["timings"].items())
    )
    out.print(f"report: {RunFolder(run).page}", soft_wrap=True)


def _row(table: Table, part: str, name: str, measured: Mapping[str, Any]) -> None:
    doubt = f"{measured['low']:.4f} … {measured['high']:.4f}"
    table.add_row(part, name, shown_number(measured["value"]), doubt, shown_number(measured["chance"]))


def show_pictures(found: Mapping[str, Any]) -> None:
    """Print a run's own images and texts that answer a query or a picture."""
    for kind in ("images", "texts"):
        table = Table(title=Text(found["query"], style="bold"), caption=kind, show_lines=False, box=SIMPLE_HEAD)
        table.add_column("#", justify="right")
        table.add_column("score", justify="right")
        table.add_column("image" if kind == "images" else "class")
        table.add_column("of" if kind == "images" else "text", ratio=1)
        for place, hit in enumerate(found[kind], start=1):
            table.add_row(str(place), f"{hit['score']:.3f}", Text(snippet(hit["id"])), Text(snippet(hit["text"])))
        new_console().print(table)
