"""What the commands about stored vectors, exports and this machine's backends print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acclimate.cli.tables import PERCENT, new_console, plain_table, shown_number
from acclimate.counting import counted
from acclimate.runs.run_folder import RunFolder


def show_vectors(report: Mapping[str, Any], run: Path) -> None:
    """What each form of stored vectors takes, finds and loses."""
    table = plain_table(f"test split: {report['queries']:,} queries, {report['documents']:,} documents")
    table.add_column("form")
    for name in ("dim", "bytes", "recall@10", "ndcg@10", "change", "interval", "ms/query"):
        table.add_column(name, justify="right")
    for number, row in enumerate(report["rows"]):
        delta = row["delta"]
        change = ["", ""] if number == 0 else [f"{delta['value']:+.4f}", f"{delta['low']:+.4f} … {delta['high']:+.4f}"]
        table.add_row(
            row["form"],
            str(row["dim"]),
            f"{row['bytes']:,}",
            shown_number(row["recall@10"]),
            shown_number(row["ndcg@10"]),
            *change,
            f"{row['ms']:.2f}",
        )
    console = new_console()
    console.print(table)
    console.print(str(RunFolder(run).vectors), soft_wrap=True)


def show_tuned(report: Mapping[str, Any], run: Path) -> None:
    """How fast each backend is, and which one is chosen."""
    table = plain_table(f"{report['machine']}, {counted(report['cores'], 'cores')}: texts per second")
    table.add_column("backend")
    for name in ("threads", "one text", "64 texts", "bulk"):
        table.add_column(name, justify="right")
    table.add_column("gate")
    for row in report["measured"]:
        rates = [f"{row['speeds'][name]:,.1f}" for name in ("one", "batch", "bulk")]
        verdict = ("holds" if row["holds"] else "does not hold") if "gate" in row else ""
        style = "bold" if row == report["chosen"] else ""
        table.add_row(row["backend"], str(row["threads"]), *rates, verdict, style=style)
    console = new_console()
    console.print(table)
    for name, why in report["skipped"].items():
        console.print(f"{name} is left out: {why}", soft_wrap=True)
    chosen = report["chosen"]
    console.print(f"chosen for {report['tuned_for']}: {chosen['backend']}, {counted(chosen['threads'], 'threads')}")
    console.print(str(RunFolder(run).tuned), soft_wrap=True)


def show_export(report: Mapping[str, Any], folder: Path) -> None:
    """How near an export is to the model, how large it is, and what the gate says."""
    console = new_console()
    lines = [
        f"{report['format']}, {report['precision']}: {report['bytes'] / 1e6:.1f} MB of weights, "
        f"{PERCENT * report['size']:.0f} % of float32's" + ("; two models" if report.get("models", 1) > 1 else "")
    ]
    reranks = report.get("kind") == "reranker"
    if parity := report.get("parity"):
        precision = "float32" if "gate" in report else report["precision"]
        found = (
            f"largest difference {parity['max_difference']:.6f} of {parity['pairs']} scores"
            if reranks
            else f"smallest cosine {parity['min_cosine']:.6f} of {parity['texts']} texts"
        )
        lines.append(f"read by {parity['reader']} in {precision}: {found}")
    else:
        lines.append("not compared with the model: what reads it is not here")
    if proof := report.get("gate"):
        test, kept = proof["test"], len(proof["kept"])
        near = (
            f"mean difference of scores {report['scores']['mean_difference']:.4f}"
            if reranks
            else f"mean cosine {report['cosine']['mean_cosine']:.4f}"
        )
        form = proof["recipe"] + (f", {counted(kept, 'layers')} in float32" if kept else "")
        lines.append(
            f"INT8 ({form}): test "
            f"{test['measure']} {shown_number(test['int8'])}, in float32 {shown_number(test['float32'])}; {near}; gate "
            + ("passed" if proof["passed"] else "NOT passed")
        )
    for line in [*lines, str(folder)]:
        console.print(line, soft_wrap=True)
