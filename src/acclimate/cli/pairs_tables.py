"""What `pairs` prints in the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acclimate.cli.tables import PERCENT, new_console, plain_table
from acclimate.counting import counted


def show_pairs(report: Mapping[str, Any], out: Path) -> None:
    """Every source with its share and its yield, what the endpoint cost, how far experts agree, where things are."""
    title = f"{counted(report['pairs'], 'pairs')} of {counted(report['documents'], 'documents')}, split by "
    table = plain_table(title + report["split_by"])
    table.add_column("source")
    for name in ("made", "per document", "used", "share", "train", "dev", "test"):
        table.add_column(name, justify="right")
    for source, row in report["sources"].items():
        splits = (f"{row['splits'].get(split, 0):,}" for split in ("train", "dev", "test"))
        numbers = (
            f"{row['made']:,}",
            f"{row['per_document']:.2f}",
            f"{row['kept']:,}",
            f"{PERCENT * row['share']:.0f} %",
        )
        table.add_row(source, *numbers, *splits)
    console = new_console()
    console.print(table)
    for line in (*_written(report.get("llm")), *_experts(report), *_real(report.get("real"))):
        console.print(line, soft_wrap=True)
    console.print(f"pairs: {out}", soft_wrap=True)
    made = out.with_suffix(".made")
    console.print(f"passages, report: {made}; adapt on both: acclimate adapt {made} --out RUN", soft_wrap=True)


def _written(llm: Mapping[str, Any] | None) -> list[str]:
    if llm is None:
        return []
    dropped = "; ".join(f"{count:,} {why}" for why, count in llm["dropped"].items())
    cost = f", cost {llm['cost']:g}" if "cost" in llm else ""
    return [
        f"{llm['model']}: {counted(llm['written'], 'queries')} for {counted(llm['passages'], 'passages')}, "
        f"{llm['kept']:,} kept" + (f" ({dropped})" if dropped else ""),
        f"{counted(llm['requests'], 'requests')}, {llm['from_log']:,} answered before; {llm['prompt_tokens']:,} tokens "
        f"asked, {llm['completion_tokens']:,} answered{cost}",
    ]


def _experts(report: Mapping[str, Any]) -> list[str]:
    lines = []
    if decided := report.get("experts"):
        lines.append("experts: " + ", ".join(f"{count:,} {what}" for what, count in decided.items()))
    for row in report.get("agreement", ()):
        kappa = "chance alone would agree as often" if row["kappa"] is None else f"Cohen's kappa {row['kappa']:.2f}"
        shared = counted(row["pairs"], "pairs")
        lines.append(f"{' and '.join(row['experts'])} agree on {PERCENT * row['agreed']:.0f} % of {shared}: {kappa}")
    if asked := report.get("annotate"):
        lines.append(f"for experts: {asked['file']}, {counted(asked['pairs'], 'pairs')}; give it back by --annotated")
    return lines


def _real(real: Mapping[str, int] | None) -> list[str]:
    if real is None:
        return []
    proof = "the test consists of them" if real["judged"] else "the test consists of made ones"
    return [f"{counted(real['queries'], 'real queries')}, {real['judged']:,} with judgements: {proof}"]
