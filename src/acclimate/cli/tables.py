"""What a command prints in the end: one table, and where things are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from acclimate.counting import counted
from acclimate.data.made import by_stand_ins, proven_on
from acclimate.report.words import (
    ASK_USERS,
    MADE_QUERIES,
    STAND_INS_PROVE_LITTLE,
    final,
    folds_note,
    lexical_note,
    verdict,
)
from acclimate.runs.run_folder import PAGE_FILE, RunFolder

PERCENT = 100.0
SNIPPET_CHARS = 160


def plain_table(title: str | Text | None = None) -> Table:
    """A table as all commands print one: a line below the heads, no frame."""
    return Table(title=title, box=SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)


def show_run(summary: Mapping[str, Any], run: Path) -> None:
    """The last word of `adapt`: base against adapted, the verdict, the report's path."""
    if "final" in summary:
        _show_final(summary["final"], run)
    else:
        show_evaluations(summary.get("tasks") or {None: summary})
    timings, train = summary["timings"], summary["train"]
    minutes = {name.removesuffix("_s"): value / 60 for name, value in timings.items()}
    console = new_console()
    for row in summary.get("stages", []):
        outcome = "kept" if row["kept"] else "dropped"
        after = f"{row['dev_after']:.4f} (best of {row['best_of']})"
        console.print(f"stage {row['stage']}: dev {row['dev_before']:.4f} -> {after}, {outcome}")
    console.print(
        f"trained {train['trainable']:,} of {train['total']:,} parameters on {train['tokens']:,} tokens "
        f"({train['tokens_per_s']:,.0f}/s); minutes: "
        + ", ".join(f"{name} {value:.1f}" for name, value in minutes.items())
    )
    if unjudged := summary.get("unjudged"):
        console.print(
            f"{counted(unjudged['queries'], 'real queries')} without judgements: the same first document for "
            f"{PERCENT * unjudged['same_first']:.0f} %; what both models find: {RunFolder(run).unjudged}",
            soft_wrap=True,
        )
    if "tasks" in train:
        console.print(_task_table(train["tasks"]))
    console.print(f"report: {RunFolder(run).page}", soft_wrap=True)


def _show_final(proof: Mapping[str, Any], run: Path) -> None:
    words, console = final(proof), new_console()
    console.print(Text(words.claim, style="bold yellow").append(f" {words.reason} {words.advice}", style="not bold"))
    console.print(f"proof: {RunFolder(run).proof / PAGE_FILE}", soft_wrap=True)


def _task_table(tasks: Mapping[str, Mapping[str, Any]]) -> Table:
    """How each task of a training went."""
    table = plain_table("training")
    table.add_column("task")
    columns = list(dict.fromkeys(name for values in tasks.values() for name in values))
    for name in columns:
        table.add_column(name.replace("_", " "), justify="right")
    for task, values in tasks.items():
        table.add_row(Text(task), *(shown_number(values.get(name)) for name in columns))
    return table


def show_evaluations(reports: Mapping[str | None, Mapping[str, Any]]) -> None:
    """The evaluation of every task of a run, by name."""
    for name, report in reports.items():
        show_evaluation(report, name)


def show_evaluation(report: Mapping[str, Any], task: str | None = None) -> None:
    """Base, adapted and their difference with its interval, and the verdict in words."""
    test = report["test"]
    sizes = {name: test[name] for name in ("queries", "pairs", "documents") if name in test}
    clusters = [delta["clusters"] for delta in test["delta"].values() if "clusters" in delta]
    folds = len(report.get("folds", ()))
    title = (f"tests of {folds} folds: " if folds else "test split: ") + ", ".join(
        counted(value, name) for name, value in sizes.items()
    )
    title += f", {counted(clusters[0], 'clusters')}" if clusters else ""
    title = f"{task}, {title}" if task else title
    table = plain_table(title)
    table.add_column("metric")
    lexical = test.get("bm25")
    for name in ("BM25",) * bool(lexical) + ("base", "adapted", "change", "95 % interval", "p"):
        table.add_column(name, justify="right")
    table.columns[-2].header = f"{PERCENT * report.get('confidence', 0.95):.0f} % interval"
    domain = report.get("domain", {})
    for part in (test, domain.get("term_accuracy", {}), domain.get("relatedness", {})):
        table.add_section()
        for metric, delta in part.get("delta", {}).items():
            row = [metric, *([shown_number((part.get("bm25") or {}).get(metric))] if lexical else [])]
            row += [shown_number(part["base"].get(metric)), shown_number(part["adapted"].get(metric))]
            row += [f"{delta['value']:+.4f}", f"{delta['low']:+.4f} … {delta['high']:+.4f}", f"{delta['p']:.4f}"]
            table.add_row(*row)
    console = new_console()
    console.print(table)
    for name in ("term_accuracy", "relatedness"):
        if why := domain.get(name, {}).get("skipped"):
            console.print(f"{name.replace('_', ' ')} is not measured: {why}")
    if note := lexical_note(report.get("lexical", {})):
        console.print(Text(note))
    console.print(_verdict(report))
    if folds:
        console.print(Text(folds_note(folds)), soft_wrap=True)
    for guard in report.get("guard", []):
        console.print(_guard_line(guard))


def _verdict(report: Mapping[str, Any]) -> Text:
    style = {"better": "bold green", "worse": "bold red"}.get(report["verdict"], "bold yellow")
    if report["recommend"] in ("base", "adapted"):
        text = Text("verdict: ").append(report["verdict"], style=style)
        text.append(f"; recommended: the {report['recommend']} model")
        if rests_on := proven_on(report.get("made_by") or {}):
            proven = MADE_QUERIES if report["verdict"] == "better" else "tested on made queries"
            text.append(f"; {proven}: {rests_on}, not a user's", style="bold")
        if by_stand_ins(report.get("made_by") or {}):
            text.append(f". {STAND_INS_PROVE_LITTLE} {ASK_USERS}")
    else:
        words = verdict(report["verdict"], report["test"], report.get("confidence"), report)
        text = Text("verdict: ").append(words.claim, style="bold red").append(f" {words.reason} {words.advice}")
    if report.get("sides") == "query":
        text.append(". " if text.plain[-1] != "." else " ")
        text.append("Documents stay with the base: an index of base vectors stays valid")
    return text


def _guard_line(guard: Mapping[str, Any]) -> Text:
    metric = "ndcg@10" if "ndcg@10" in guard["base"] else "spearman"
    base, adapted = guard["base"][metric], guard["adapted"][metric]
    line = f"guard {guard['name']}: {metric} {base:.4f} -> {adapted:.4f} ({adapted - base:+.4f})"
    return Text(line + ("  worse beyond the bound" if guard["warn"] else ""), style="red" if guard["warn"] else "")


def show_reranking(report: Mapping[str, Any]) -> None:
    """Retrieval alone, reranked, and the difference with its interval."""
    delta = next(iter(report["delta"].values()))
    clusters = f", {counted(delta['clusters'], 'clusters')}" if "clusters" in delta else ""
    title = f"test split: {counted(report['queries'], 'queries')}{clusters}; {report['retriever']} model, "
    title += f"top {report['depth']} reranked"
    table = plain_table(title)
    table.add_column("metric")
    interval = f"{PERCENT * report['confidence']:.0f} % interval"
    for name in ("retrieved", "reranked", "change", interval, "p"):
        table.add_column(name, justify="right")
    for metric, delta in report["delta"].items():
        change = (f"{delta['value']:+.4f}", f"{delta['low']:+.4f} … {delta['high']:+.4f}", f"{delta['p']:.4f}")
        table.add_row(
            metric, shown_number(report["retrieved"][metric]), shown_number(report["reranked"][metric]), *change
        )
    console = new_console()
    console.print(table)
    console.print(f"verdict on reranking: {report['verdict']}")


def show_ranked(result: Mapping[str, Any]) -> None:
    """Texts in a reranker's order, with their scores."""
    table = Table(title=Text(result["query"], style="bold"))
    table.add_column("#", justify="right")
    for name in ("row", "score", "probability"):
        table.add_column(name, justify="right")
    table.add_column("text", ratio=1)
    for place, found in enumerate(result["results"], start=1):
        text = " ".join(found["text"].split())
        snippet = text if len(text) <= SNIPPET_CHARS else text[: SNIPPET_CHARS - 1] + "…"
        numbers = (str(place), str(found["row"]), shown_number(found["score"]), shown_number(found["probability"]))
        table.add_row(*numbers, Text(snippet))
    new_console().print(table)


def show_metrics(metrics: Mapping[str, Any]) -> None:
    """One value per line, with its interval where there is one."""
    low, high = metrics.get("low", {}), metrics.get("high", {})
    table = Table(show_header=False)
    for name, value in metrics.items():
        if name not in ("low", "high"):
            ends = [f"{low[name]:.4f} … {high[name]:.4f}" if name in low else ""] if low else []
            table.add_row(name, shown_number(value), *ends)
    new_console().print(table)


def by_task(result: Mapping[str, Any], run: Path) -> list[tuple[RunFolder, Mapping[str, Any]]]:
    """List each task's folder and the report of what was made there; a run with one task is that folder itself."""
    folder = RunFolder(run)
    if "tasks" not in result:
        return [(folder, result)]
    return [(folder.task(name), report) for name, report in result["tasks"].items()]


def show_comparison(result: Mapping[str, Any]) -> None:
    """Every run's measure, and its difference to the first one."""
    nouns = "pairs" if result["kind"] == "pairs" else "queries"
    title = f"{result['measure']} on the {counted(result['shared'], f'test {nouns}')} that all runs share"
    clusters = {row["delta"][result["measure"]]["clusters"] for row in result["runs"] if "delta" in row}
    title += "".join(f", {counted(number, 'clusters')}" for number in clusters)  # the same for all
    table = plain_table(title)
    table.add_column("run")
    interval = f"{PERCENT * result['confidence']:.0f} % interval"
    for name in (f"test {nouns}", result["measure"], "change", interval, "p", "verdict"):
        table.add_column(name, justify="right")
    for row in result["runs"]:
        delta = row.get("delta", {}).get(result["measure"])
        change = ("", "", "", "")
        if delta:
            numbers = (f"{delta['value']:+.4f}", f"{delta['low']:+.4f} … {delta['high']:+.4f}", f"{delta['p']:.4f}")
            change = (*numbers, row["verdict"])
        table.add_row(
            Text(row["run"]), shown_number(row["tested"]), shown_number(row["measures"][result["measure"]]), *change
        )
    console = new_console()
    console.print(table)
    for warning in result["warnings"]:
        console.print(Text(f"warning: {warning}"), soft_wrap=True)


def show_versions(result: Mapping[str, Any]) -> None:
    """Every version of an adapter, what it scored on dev, and which one is in use."""
    table = plain_table()
    for name in ("version", "in use", "step", "dev score"):
        table.add_column(name, justify="left" if name in ("version", "in use") else "right")
    for row in result["versions"]:
        metrics = row["metrics"]
        used = f"by {row['set_by']}" if row["set_by"] else ""
        table.add_row(
            row["name"], used, shown_number(metrics.get("best_step")), shown_number(metrics.get("best_score"))
        )
    new_console().print(table)


def show_doctor(result: Mapping[str, Any]) -> None:
    """What was found, part by part, then what could be done."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for part, found in result.items():
        if part == "advice":
            continue
        rows = found.items() if isinstance(found, Mapping) else [("", found)]
        for place, (name, value) in enumerate(rows):
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            table.add_row(Text("" if place else part, style="bold"), str(name).replace("_", " "), Text(shown))
    console = new_console()
    console.print(table)
    for line in result["advice"]:
        console.print(Text(f"advice: {line}"), soft_wrap=True)


def show_dataset(report: Mapping[str, Any], folder: Path) -> None:
    """What `prepare` made of the data."""
    _show_counts(report, "dataset")
    new_console().print(f"dataset: {folder}", soft_wrap=True)


def show_mining(report: Mapping[str, Any], folder: Path) -> None:
    """What `mine` found."""
    _show_counts(report, "hard negatives")
    new_console().print(f"negatives: {folder}", soft_wrap=True)


def show_training(report: Mapping[str, Any], folder: Path) -> None:
    """What `train` did; the folder's name says what came out."""
    _show_counts(report["train"], "training")
    new_console().print(f"{folder.name}: {folder}", soft_wrap=True)


def show_merge(report: Mapping[str, Any], folder: Path) -> None:
    """What was merged in which shares, what was tried to find them, and where the result is."""
    console = new_console()
    if "method" in report:
        table = Table(title=f"merged by {report['method']}", box=SIMPLE_HEAD)
        table.add_column("model")
        table.add_column("weight", justify="right")
        for model in report["models"]:
            table.add_row(model["name"], shown_number(float(model["weight"])))
        console.print(table)
    if curve := report.get("curve"):
        console.print(_curve(curve))
        console.print(f"chosen: {curve['chosen']:g}, {curve['rule']}", soft_wrap=True)
    if soup := report.get("soup"):
        base = "" if soup["base"] is None else f"; the base: {shown_number(soup['base'])}"
        table = Table(title=f"dev {soup['measure']}{base}", box=SIMPLE_HEAD)
        for name in ("model", "alone", "in the soup", ""):
            table.add_column(name)
        for row in soup["tried"]:
            table.add_row(row["model"], shown_number(row["alone"]), shown_number(row["soup"]), "kept" * row["kept"])
        console.print(table)
    if "discarded" in report:
        lost = PERCENT * report["discarded"]["total"]
        console.print(f"rank {report['rank']}; discarded {lost:.2f} % of the update's squared norm", soft_wrap=True)
    # The bare path on a line of its own, for scripts.
    console.print(str(folder), soft_wrap=True)


def _curve(curve: Mapping[str, Any]) -> Table:
    table = Table(title="from the base (0) to the model (1)", box=SIMPLE_HEAD)
    for name in (
        "share",
        f"dev {curve['measure']}",
        *(f"{name} {g['measure']}" for name, g in curve["guards"].items()),
    ):
        table.add_column(name, justify="right")
    for point in curve["points"]:
        style = "bold" if point["share"] == curve["chosen"] else ""
        cells = [point["domain"], *point["guard"].values()]
        table.add_row(f"{point['share']:g}", *map(shown_number, cells), style=style)
    return table


def show_plan(plan: Mapping[str, Any]) -> None:
    """What `adapt --dry-run` expects."""
    _show_counts(plan, "plan (nothing was written)")


def _show_counts(values: Mapping[str, Any], title: str) -> None:
    table = Table(title=title, show_header=False)
    for name, value in _flat(values):
        table.add_row(name, shown_number(value))
    new_console().print(table)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name} ")
        elif isinstance(value, int | float | str) and not isinstance(value, bool):
            rows.append((f"{prefix}{name}".replace("_", " "), value))
    return rows


def show_search(result: Mapping[str, Any]) -> None:
    """Top documents of base and adapted, side by side."""
    table = Table(title=Text(result["query"], style="bold"), show_lines=True)
    table.add_column("#", justify="right")
    table.add_column("base", ratio=1)
    table.add_column("adapted", ratio=1)
    for place, (base, adapted) in enumerate(zip(result["base"], result["adapted"], strict=True), start=1):
        table.add_row(str(place), _hit(base), _hit(adapted))
    new_console().print(table)


def _hit(hit: Mapping[str, Any]) -> Text:
    return Text.assemble((f"{hit['score']:.3f} ", "cyan"), snippet(hit["text"]))


def snippet(text: str) -> str:
    """The beginning of a text, in one line."""
    text = " ".join(text.split())
    return text if len(text) <= SNIPPET_CHARS else text[: SNIPPET_CHARS - 1] + "…"


def shown_number(value: Any) -> str:
    """A value of a report as a table shows it."""
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def new_console() -> Console:
    """A console that prints every text as it is: in a path, a name or a query, brackets and colons are no mark-up."""
    return Console(highlight=False, markup=False, emoji=False)
