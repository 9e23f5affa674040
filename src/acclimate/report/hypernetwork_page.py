"""`report.html` of an evaluation of hypernetworks: the headroom, the bars of all arms, the gains and the controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from acclimate.counting import counted
from acclimate.data.task_library import GROUPS
from acclimate.report import html
from acclimate.report.plots import LINE_HEIGHT_INCHES, WIDTH_INCHES, Key, Plot
from acclimate.report.svg import COLOURS, page_style, to_svg
from acclimate.report.tables import Cell, Row, Table
from acclimate.report.words import interval, percent, score, signed, tone_of

CONTROLS = ("shuffled", "mean")
MAIN = "description + 8 pairs"
CLAIMS = (
    ("Text-to-LoRA is 5.2 % better than LoRA", "text-to-lora"),
    ("Drag-and-Drop is within 3 % of LoRA", "drag-and-drop"),
)
"""What was claimed of generators, and of which; shown beside what was found."""
MEASURES = {"ndcg": "NDCG@10", "recall": "Recall@5", "mrr": "MRR@10"}


def render(name: str, report: Mapping[str, Any]) -> str:
    """Render the page. Equal input gives equal bytes.

    Args:
        name: name of the evaluation's folder.
        report: what `hypernetwork-evaluate` reports.
    """
    groups = {group: counted(count, "tasks") for group, count in report["groups"].items()}
    return html.fill(
        "hypernetwork.html",
        name=name,
        claim=_claim(report),
        bars=[_bars(group, report["arms"][group]) for group in groups],
        scores=[_scores(f"{group}: {count}", report["arms"][group]) for group, count in groups.items()],
        gains=[_gains(group, rows, report["confidence"]) for group, rows in report["gains"].items()],
        network=_networks(report),
        claims=_claims(report),
        chart=_chart(report),
        curves=[_curve(f"{name}, {group}", rows) for name, by in report["curve"].items() for group, rows in by.items()],
        chosen=[_chosen(name, found) for name, found in report["chosen"].items()],
        facts=[("base", report["base"]["id"]), ("held-out tasks", _held_out(report["groups"]))],
    )


def _held_out(groups: Mapping[str, int]) -> str:
    """How many tasks were held out; the pooled group holds tasks of others, which count once."""
    return f"{sum(count for group, count in groups.items() if group in GROUPS):,}"


def _claim(report: Mapping[str, Any]) -> str:
    """Which hypernetworks gain by their conditions: above base, multi-task adapter, shuffled and mean."""
    proven = [
        arm
        for arm, rivals in next(iter(report["gains"].values())).items()
        if all(delta["low"] > 0 for delta in rivals.values())
    ]
    if proven:
        subject = proven[0] if len(proven) == 1 else f"{'; '.join(proven)}: each"
        return f"{subject} is better than every rival and both controls."
    return "No hypernetwork is better than all rivals and both controls."


def _bars(group: str, arms: Mapping[str, Mapping[str, Any]]) -> Plot:
    """NDCG@10 of each arm as a bar."""
    with page_style():
        figure = Figure(figsize=(WIDTH_INCHES, 0.45 + 0.6 * LINE_HEIGHT_INCHES * len(arms)), layout="constrained")
        axes = figure.subplots()
        for row, (arm, found) in enumerate(arms.items()):
            role = "third" if arm.endswith(CONTROLS) else "adapted" if "," in arm and "map" not in arm else "base"
            axes.barh(row, found["ndcg"], height=0.6, color=COLOURS[role])
            axes.text(found["ndcg"] + 0.01, row, f"{found['ndcg']:.3f}", va="center", fontsize=8.5)
        axes.set_yticks(range(len(arms)), list(arms), fontsize=8)
        axes.set(xlim=(0, 1.1), ylim=(len(arms) - 0.4, -0.6))
        axes.grid(visible=False, axis="y")
        words = "; ".join(f"{arm} {score(found['ndcg'], 3)}" for arm, found in arms.items())
        svg = to_svg(figure, f"bars-{group.replace(' ', '-')}", f"NDCG@10, {group}: {words}.")
    keys = (
        Key("base", "block", "without a condition"),
        Key("adapted", "block", "generated"),
        Key("third", "block", "control"),
    )
    return Plot(f"NDCG@10, {group}", svg, keys)


def _scores(caption: str, arms: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = tuple(
        Row(
            arm,
            tuple(Cell(score(found[name], 3)) for name in MEASURES),
            counted(found["tasks"], "tasks"),
        )
        for arm, found in arms.items()
    )
    return Table(caption, ("arm", *MEASURES.values()), rows)


def _gains(group: str, rows: Mapping[str, Mapping[str, Any]], confidence: float) -> Table:
    rivals = list(dict.fromkeys(_short(rival) for found in rows.values() for rival in found))
    table_rows = []
    for arm, found in rows.items():
        deltas = {_short(rival): delta for rival, delta in found.items()}
        cells = tuple(
            Cell(signed(deltas[rival]["value"], 3), interval(deltas[rival]), tone_of(deltas[rival]))
            if rival in deltas
            else Cell("")
            for rival in rivals
        )
        table_rows.append(Row(arm, cells))
    caption = f"{group}: difference in NDCG@10 ({percent(confidence)} interval over tasks)"
    return Table(caption, ("arm", *(f"less {rival}" for rival in rivals)), tuple(table_rows))


def _short(rival: str) -> str:
    """A control without the name of its hypernetwork."""
    return rival.rpartition(", ")[2] if rival.endswith(CONTROLS) else rival


def _networks(report: Mapping[str, Any]) -> Table:
    rows = []
    for name, seconds in report["generation_s"].items():
        found = report["collapse"].get(name)
        same = Cell("one adapter for all", tone="bad") if found and found["collapsed"] else Cell("adapters differ")
        numbers = (score(found["cosine"], 3), score(found["spread"], 3)) if found else ("", "")
        cells = (*(Cell(number) for number in numbers), same, Cell(f"{1000 * seconds['later']:.1f} ms"))
        rows.append(Row(name, cells))
    columns = ("hypernetwork", "cosine of two updates", "their spread", "collapse", "a generation")
    return Table("What is generated", columns, tuple(rows))


def _chart(report: Mapping[str, Any]) -> Plot | None:
    """Base, own adapter and what is generated, on the tasks that all were measured on: each measure a group of bars."""
    chart = report.get("chart")
    if not chart:
        return None
    arms = chart["means"]
    height = 0.8 / len(arms)
    with page_style():
        figure = Figure(figsize=(WIDTH_INCHES, 0.6 + 0.3 * len(arms) * len(MEASURES)), layout="constrained")
        axes = figure.subplots()
        for place, (arm, found) in enumerate(arms.items()):
            for row, measure in enumerate(MEASURES):
                at = row - 0.4 + (place + 0.5) * height
                axes.barh(at, found[measure], height=0.9 * height, color=COLOURS[_role(place)])
                axes.text(found[measure] + 0.01, at, f"{arm} {found[measure]:.3f}", va="center", fontsize=7.5)
        axes.set_yticks(range(len(MEASURES)), list(MEASURES.values()), fontsize=8.5)
        axes.set(xlim=(0, 1.25), ylim=(len(MEASURES) - 0.5, -0.5))
        axes.grid(visible=False, axis="y")
        words = "; ".join(f"{arm}: " + ", ".join(f"{label} {score(found[name], 3)}" for name, label in MEASURES.items())
                          for arm, found in arms.items())  # fmt: skip
        svg = to_svg(figure, "chart", words + ".")
    keys = (
        Key("base", "block", "base"),
        Key("second", "block", "trained on the task (LoRA)"),
        Key("adapted", "block", "generated"),
    )
    title = f"LoRA and what is generated ({MAIN}), {counted(chart['tasks'], 'tasks')} on which all were measured"
    return Plot(title, svg, keys)


def _role(place: int) -> str:
    return ("base", "second")[place] if place < 2 else "adapted"


def _chosen(name: str, groups: Mapping[str, Mapping[str, Any]]) -> Table:
    """What `generate` would have chosen by so many pairs of a user's own, and what that gains over the base."""
    rows = []
    for group, found in groups.items():
        for pairs, one in found.items():
            gain = one["gain"]
            bar = Cell("kept", tone="good") if one["kept_bar"] else Cell("missed", tone="bad")
            picked = ", ".join(f"{candidate} {count}" for candidate, count in one["chosen"].items())
            cells = (
                Cell(signed(gain["value"], 3), interval(gain), tone_of(gain)),
                bar,
                Cell(f"{one['worse']} of {one['tasks']}"),
                Cell(signed(one["best_gain"], 3)),
                Cell(picked),
            )
            rows.append(Row(f"{group}, {pairs} pairs", cells))
    columns = (
        "tasks",
        "chosen less base",
        "no worse than .01",
        "tasks worse by .01",
        "a perfect choice",
        "how often chosen",
    )
    return Table(f"{name}: chosen by a user's own pairs", columns, tuple(rows))


def _curve(caption: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Quality against seconds: a row for each start and number of pairs, a column for each number of steps."""
    steps = list(dict.fromkeys(row["steps"] for row in rows))
    found = {(row["start"], row["pairs"], row["steps"]): row for row in rows}
    table_rows = []
    for start, pairs in dict.fromkeys((row["start"], row["pairs"]) for row in rows):
        points = [found[start, pairs, count] for count in steps]
        cells = tuple(Cell(score(one["ndcg"], 3), f"{one['seconds']:.1f} s" if one["steps"] else "") for one in points)
        table_rows.append(Row(f"{start}, {pairs} pairs", cells, counted(points[0]["tasks"], "tasks")))
    columns = ("NDCG@10 after", *(counted(count, "steps") for count in steps))
    return Table(f"Trained on labelled pairs instead: {caption}", columns, tuple(table_rows))


def _claims(report: Mapping[str, Any]) -> Table | None:
    """What was claimed, beside what was found: own adapter as "LoRA", on the tasks that both were measured on."""
    chart, rows = report.get("chart"), []
    if not chart:
        return None
    own = chart["means"]["own adapter"]["ndcg"]
    for claim, generator in CLAIMS:
        for name in (name for name, kind in report["generators"].items() if kind == generator):
            made = chart["means"][name]["ndcg"]
            found = f"{signed(100 * (made / own - 1), 1)} %" if own else ""
            rows.append(Row(claim, (Cell(score(own, 3)), Cell(score(made, 3)), Cell(found)), name))
    columns = ("claim", "own adapter, NDCG@10", "generated", "found")
    return Table("Claimed and found", columns, tuple(rows)) if rows else None
