"""`report.html` of a run with several tasks: a summary of all. Each task also has a page of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acclimate.data.made import by_stand_ins, proven_on
from acclimate.report import details, html, plots, tables
from acclimate.report.folder import RunParts
from acclimate.report.tables import Cell, Row, Table
from acclimate.report.words import count, interval, metric_name, p_value, primary_metric, score, signed, tone_of

VERDICTS = {"better": Cell("better", tone="good"), "worse": Cell("worse", tone="bad")}


def render(run: RunParts) -> str:
    """Render the page. Equal input gives equal bytes.

    Args:
        run: its summary has `tasks`.
    """
    summary = run.summary or {}
    train, tasks = summary["train"], summary["tasks"]
    better = sum(part["verdict"] == "better" for part in tasks.values())
    rows = [row for row in run.metrics or [] if "dev" in row]
    curves = [
        plots.task_losses(run.metrics or [], list(tasks)),
        plots.tasks_curve(rows, dev_names(tasks), train.get("best_step")),
    ]
    values = {name: value for name, value in train.items() if name != "tasks"}
    return html.fill(
        "tasks.html",
        run=run,
        tasks=tasks,
        claim=f"The adapted model is better on {better} of {len(tasks)} tasks.",
        result=_result(tasks),
        curves=[curve for curve in curves if curve],
        trained=_trained(train["tasks"]),
        training=details.training(values),
        timings=tables.timings(summary.get("timings", {})),
        guard=tables.guard(summary.get("guard", [])),
        guard_bound=summary.get("config", {}).get("evaluate", {}).get("guard_bound"),
        forgot=tables.forgot(summary.get("guard", [])),
        command=summary.get("command"),
        made=summary.get("made", {}),
        versions=tables.values("Versions", summary.get("versions", {})),
    )


def dev_names(tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Label of a line in the dev plot -> score in `metrics.jsonl`: the mean, then each task's main measure."""
    measures = {name: primary_metric(part["test"]) for name, part in tasks.items()}
    by_task = {f"{name}: {metric_name(str(key))}": f"{name}/{key}" for name, key in measures.items()}
    return {"mean of the tasks": "mean", **by_task}


def _result(tasks: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = []
    for name, part in tasks.items():
        test, key = part["test"], primary_metric(part["test"])
        delta = test["delta"].get(key, {})
        doubt = ", ".join(words for words in (interval(delta), p_value(delta.get("p"))) if words)
        cells = (
            Cell(metric_name(str(key)), f"{count(test.get('queries', test.get('pairs')))} in the test split"),
            Cell(score(test["base"].get(key))),
            Cell(score(test["adapted"].get(key))),
            Cell(signed(delta.get("value")), doubt, tone_of(delta)),
            _verdict(part),
        )
        rows.append(Row(name, cells, part["source"]))
    return Table("Tasks", ("Task", "Measure", "Base", "Adapted", "Difference", "Verdict"), tuple(rows))


def _verdict(part: Mapping[str, Any]) -> Cell:
    """The comparison, and below it what matters more."""
    found = VERDICTS.get(part["verdict"], Cell(part["verdict"]))
    notes = {"bm25": "BM25 is better than either", "other": "the model cannot read these texts"}
    note = notes.get(str(part.get("recommend")))
    if note:
        return Cell(found.text, note, "bad")
    rests_on = proven_on(part.get("made_by") or {})
    if not rests_on:
        return found
    return Cell(found.text, f"on {rests_on}", "" if by_stand_ins(part["made_by"]) else found.tone)


def _trained(tasks: Mapping[str, Mapping[str, Any]]) -> Table:
    columns = ("Task", "Loss", "Weight", "Examples", "Steps", "First loss", "Last loss", "Dev, base", "Dev, kept")
    rows = [
        Row(
            name,
            (
                Cell(str(part["loss"])),
                *(Cell(count(part[key])) for key in ("weight", "examples", "steps")),
                *(Cell(score(part[key])) for key in ("first_loss", "last_loss", "base_score", "best_score")),
            ),
        )
        for name, part in tasks.items()
    ]
    return Table("Tasks in training", columns, tuple(rows))
