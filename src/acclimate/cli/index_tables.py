"""What the commands about an index print."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from acclimate.cli.tables import new_console, shown_number, snippet
from acclimate.counting import counted
from acclimate.retrieval.index.pictures import PICTURE, PROJECTION

SHOWN_REASONS = 5
AGAIN = "name the sources that they are from again"
NOT_FACTS = ("title", PICTURE, PROJECTION)
"""Metadata that says nothing to people, or is shown elsewhere."""


def show_indexed(report: Mapping[str, Any]) -> None:
    """Print what became of the documents, and how many there are now."""
    out = new_console()
    counts = {
        "read": report["read"],
        "new or changed": report["encoded"],
        "with new metadata": report["relabelled"],
        "unchanged": report["unchanged"],
        "the same as an earlier one": report.get("twice", 0),
        "chunks of before removed": report["removed"],
        "deleted": report["deleted"],
        "rejected": sum(report["rejected"].values()),
    }
    shown = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name == "read")
    among = f", {counted(report['pictures'], 'pictures')} among them" if "pictures" in report else ""
    out.print(f"{report['place']}: {counted(report['documents'], 'documents')}{among}; {shown}", soft_wrap=True)
    for reason, count in list(report["rejected"].items())[:SHOWN_REASONS]:
        out.print(Text(f"  {count:,} rejected: {reason}"), soft_wrap=True)
    if report["rejected_rows"]:
        out.print(Text(f"  rejected rows: {report['rejected_rows']}"), soft_wrap=True)
    if report.get("stale"):
        out.print(Text(f"  {counted(report['stale'], 'pictures')} of an earlier projection: {AGAIN}"), soft_wrap=True)
    if report["ignored"]:
        out.print(Text(f"  columns that are no metadata: {', '.join(report['ignored'])}"), soft_wrap=True)
    if "fusion" in report:
        out.print(_fusion_line(report["fusion"]), soft_wrap=True)


def show_done(report: Mapping[str, Any], what: str) -> None:
    """Print one line: which index, how large, and what was done."""
    new_console().print(Text(f"{report['place']}: {counted(report['documents'], 'documents')}, {what}"), soft_wrap=True)


def show_moved(report: Mapping[str, Any]) -> None:
    """Print what came over, how alike both answer, and how to search there."""
    out = new_console()
    there = report["documents"] - report["written"]
    before = f", {there:,} of them in an earlier start" if there else ""
    alike = f"{report['recall']:.1%} of the neighbours of {report['sampled']} are the same"
    out.print(
        Text(f"{report['place']}: {counted(report['documents'], 'documents')} moved{before}; {alike}"), soft_wrap=True
    )
    if report["replaces"]:
        out.print(Text(f"  searched instead of {report['replaces']}, which is kept: delete it there"), soft_wrap=True)
    out.print(_searched_there(report["place"]), soft_wrap=True)


def show_adopted(report: Mapping[str, Any]) -> None:
    """Print what was compared, and how to search there."""
    cosines = f"median cosine {report['median_cosine']:.4f}, least {report['least_cosine']:.4f}"
    line = f"{report['place']}: {counted(report['documents'], 'documents')}, adopted; "
    line += f"of {counted(report['sampled'], 'texts')} {cosines}"
    out = new_console()
    out.print(Text(line), soft_wrap=True)
    out.print(_searched_there(report["place"]), soft_wrap=True)


def show_info(info: Mapping[str, Any]) -> None:
    """Print what an index says about itself."""
    table = Table(box=SIMPLE_HEAD, show_header=False, pad_edge=False)
    for name, value in info.items():
        if name == "space":
            for part, said in value.items():
                table.add_row(f"space: {part}", Text(shown_number(said)))
        elif isinstance(value, dict) and name != "fusion":
            table.add_row(name, Text(", ".join(f"{part} {said}" for part, said in value.items())))
        elif name == "fusion":
            table.add_row(name, _fusion_line(value) if value else Text("the default"))
        else:
            table.add_row(name.replace("_", " "), Text(shown_number(value)))
    new_console().print(table)


def show_hits(found: Mapping[str, Any]) -> None:
    """Print the texts that answer a query, and the pictures."""
    reranked = f", reranked by {found['reranker']}" if found["reranker"] else ""
    caption = f"{found['mode']} search of {counted(found['documents'], 'documents')} in {found['place']}{reranked}"
    if "route" in found:
        caption += f"; {found['route']['reason']}"
    out = new_console()
    for kind, name in (("hits", "document"), ("pictures", "picture")):
        if kind in found:
            table = _hits_table(found["query"], caption, name, found[kind])
            out.print(table if found[kind] else Text(f"no {name} found: {caption}"))


def _hits_table(query: str, caption: str, kind: str, hits: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(title=Text(query, style="bold"), caption=Text(caption), show_lines=True)
    table.add_column("#", justify="right")
    table.add_column("score", justify="right")
    table.add_column(kind, ratio=1)
    for place, hit in enumerate(hits, start=1):
        where = hit["id"] if "parent" not in hit else f"{hit['parent']} [{hit['start']}:{hit['end']}]"
        facts = ", ".join(f"{name}: {value}" for name, value in hit["metadata"].items() if name not in NOT_FACTS)
        lines = [Text(snippet(hit["text"])), Text(where, style="dim"), *([Text(facts, style="dim")] if facts else [])]
        table.add_row(str(place), f"{hit['score']:.3f}", Text("\n").join(lines))
    return table


class Telling:
    """Shows an answer while it is written, and then what it cites."""

    def __init__(self) -> None:
        self._out = new_console()
        self._told = False

    def text(self, piece: str) -> None:
        """Print a piece at once."""
        self._told = self._told or bool(piece)
        sys.stdout.write(piece)
        sys.stdout.flush()

    def end(self, found: Mapping[str, Any]) -> None:
        """Print what was not shown yet: a refusal, the cited documents, what was struck."""
        if self._told:
            sys.stdout.write("\n")
            sys.stdout.flush()
        if not self._told or not found["answered"]:
            self._out.print(Text(found["answer"]), soft_wrap=True)
        for one in found["citations"]:
            self._out.print(Text(f"[{one['number']}] {one['id']}: {snippet(one['text'])}", style="dim"), soft_wrap=True)
        if found["struck"]:
            told = f"{counted(found['struck'], 'citations')} of what was not retrieved: left out"
            self._out.print(Text(told, style="dim"), soft_wrap=True)


def show_index_evaluation(report: Mapping[str, Any]) -> None:
    """Print every mode's measures, and their differences to dense search with intervals."""
    title = f"through {report['place']}: {counted(report['queries'], 'queries')}, "
    title += counted(report["documents"], "documents")
    table = Table(title=title, box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("metric")
    for name in ("dense", "lexical", "hybrid", "hybrid - dense", f"{100 * report['confidence']:.0f} % interval", "p"):
        table.add_column(name, justify="right")
    modes = report["modes"]
    for metric in modes["dense"]:
        delta = report["delta"]["hybrid"][metric]
        interval = f"{delta['low']:+.4f} … {delta['high']:+.4f}"
        values = [shown_number(modes[mode][metric]) for mode in ("dense", "lexical", "hybrid")]
        table.add_row(metric, *values, f"{delta['value']:+.4f}", interval, f"{delta['p']:.4f}")
    out = new_console()
    out.print(table)
    out.print(f"recall@10 of dense search against exact search: {report['exact_recall']:.4f}")
    out.print(_fusion_line(report["fusion"]), soft_wrap=True)


def _searched_there(place: str) -> Text:
    return Text(f"  search it there: --at {shlex.quote(place)}")


def _fusion_line(choice: Mapping[str, Any]) -> Text:
    weights = f"dense {choice['dense_weight']:g}, lexical {choice['lexical_weight']:g}"
    return Text(f"hybrid: constant {choice['constant']:g}, weights {weights} ({choice['chosen']})")
