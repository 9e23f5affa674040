"""Defaults only: every data set with every model, base beside adapted, by the command that a user types.

    python benchmarks/domains.py PATH/TO/DATA … --out FOLDER [--model NAME …] [--limit NAME=800 …] [--table]

`acclimate adapt DATA --out RUN --model MODEL` runs in a process of its own, with `--limit` where a data set is given
one (its name is that of its folder). What is finished is kept, an interrupted run goes on; `--table` prints what there
is. "Too few" is the share of training queries with fewer negatives than wanted.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import machine, processor, table

HEADER = ["data", "model", "queries", "measure", "base", "adapted", "gain [95 %]", "verdict", "too few", "seconds"]

STAGES = ("prepare_s", "mine_s", "train_s", "evaluate_s")


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="+", help="BEIR folders, or folders of labelled pairs")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", action="append", help="a model; give it again for another one")
    parser.add_argument("--limit", action="append", default=[], metavar="NAME=N", help="cut this data set")
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    limits = dict(it.split("=", 1) for it in arguments.limit)
    models = arguments.model or ["sentence-transformers/all-MiniLM-L6-v2"]
    rows = []
    for data in arguments.data:
        for model in models:
            out = arguments.out / f"{data.name}-{Path(model).name}"
            if not arguments.table:
                adapt(data, model, out, limits.get(data.name))
            report = json.loads((out / "report.json").read_text()) if (out / "report.json").exists() else {}
            if "verdict" in report:
                rows.append(row(data.name, Path(model).name, report))
    print(f"{processor()}; {machine()}\n")
    print(table(HEADER, rows))


def adapt(data: Path, model: str, out: Path, limit: str | None) -> None:
    """Adapt by the command line; a finished run is kept by the command itself."""
    command = [sys.executable, "-m", "acclimate", "adapt", str(data), "--out", str(out), "--model", model]
    print(" ".join(command[2:]), file=sys.stderr, flush=True)
    subprocess.run([*command, *(["--limit", limit] if limit else [])], check=True, stdout=sys.stderr)


def row(data: str, model: str, report: dict[str, Any]) -> list[str]:
    """One line of the table, from a run's report."""
    test = report["test"]
    measure = "ndcg@10" if "ndcg@10" in test["base"] else "spearman"
    gain = test["delta"][measure]
    mining = report.get("mining") or {}
    lacking = f"{mining['queries_with_too_few'] / mining['queries']:.1%}" if mining else ""
    return [
        data,
        model,
        str(report["dataset"]["counts"]["train"]["queries" if mining else "pairs"]),
        measure,
        f"{test['base'][measure]:.4f}",
        f"{test['adapted'][measure]:.4f}",
        f"{gain['value']:+.4f} [{gain['low']:+.4f}, {gain['high']:+.4f}]",
        report["verdict"],
        lacking,
        f"{sum(report['timings'].get(name, 0.0) for name in STAGES):.0f}",
    ]


if __name__ == "__main__":
    main()
