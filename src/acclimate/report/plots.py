"""The report's figures. Each function takes plain numbers and returns a `Plot`, or None where there is nothing to show.

Keys (legends) are HTML beside the SVG, not inside it: they wrap on a phone and never cover a line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from acclimate.report.svg import COLOURS, page_style, to_svg
from acclimate.report.words import METRIC_NAMES, interval, is_number, metric_name, score

WIDTH_INCHES = 5.0
"""360 units of the SVG: a phone's width, so that labels keep their size there."""
CURVE_WIDTH_INCHES = 4.3
"""Curves stand three in a row."""
LINE_HEIGHT_INCHES = 0.52
BARS_LEFT_OUT = ("best_f1_threshold", "positive_cosine", "negative_cosine", "margin")
ROUND_STEPS = [1, 2, 2.5, 5, 10]
_SERIES = (("adapted", "solid", "-"), ("second", "dashed", (0, (5, 2))), ("third", "dotted", (0, (1.2, 1.6))))


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of a legend: the role of its colour, its shape, its words."""

    role: str
    shape: str
    label: str


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure of the page."""

    title: str
    svg: str
    keys: tuple[Key, ...]
    caption: str = ""


def verdict_plot(test: Mapping[str, Any], key: str | None) -> Plot | None:
    """The verdict's measure on one axis: base, adapted with the interval of the difference, and BM25."""
    base, adapted = test.get("base", {}).get(key), test.get("adapted", {}).get(key)
    delta, lexical = test.get("delta", {}).get(key, {}), (test.get("bm25") or {}).get(key)
    if not (
        key and is_number(base) and is_number(adapted) and is_number(delta.get("low")) and is_number(delta["high"])
    ):
        return None
    low, high = base + delta["low"], base + delta["high"]
    with page_style():
        figure = Figure(figsize=(WIDTH_INCHES, 0.9), layout="constrained")
        axes = figure.subplots()
        axes.axvline(base, color=COLOURS["base"], linewidth=2.4)
        axes.plot([low, high], [0, 0], color=COLOURS["adapted"], linewidth=6, alpha=0.35, solid_capstyle="butt")
        axes.plot(adapted, 0, "o", color=COLOURS["adapted"], markersize=9)
        if is_number(lexical):
            axes.axvline(lexical, color=COLOURS["ink"], linewidth=1.4, linestyle=":")
        ends = [base, low, high, adapted, *([lexical] if is_number(lexical) else [])]
        room = 0.12 * max(max(ends) - min(ends), 0.02)
        axes.set(xlim=(min(ends) - room, max(ends) + room), ylim=(-1, 1), yticks=[])
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=ROUND_STEPS))
        words = f"base {score(base)}, adapted {score(adapted)}, interval of the difference {interval(delta)}"
        svg = to_svg(figure, "verdict", f"{metric_name(key)}: {words}.")
    keys = [Key("base", "upright", "base"), Key("adapted", "dot", "adapted, with the interval of the difference")]
    keys += [Key("ink", "upright-dotted", "BM25")] if is_number(lexical) else []
    return Plot(f"{metric_name(key)}, base and adapted", svg, tuple(keys))


def metric_bars(test: Mapping[str, Any]) -> Plot | None:
    """Base and adapted per metric; the whisker is the interval of the difference, drawn at the adapted value."""
    base, adapted = test.get("base", {}), test.get("adapted", {})
    names = [
        name for name in base if name not in BARS_LEFT_OUT and is_number(base[name]) and is_number(adapted.get(name))
    ]
    if not names:
        return None
    with page_style():
        figure = Figure(figsize=(WIDTH_INCHES, 0.45 + LINE_HEIGHT_INCHES * len(names)), layout="constrained")
        axes = figure.subplots()
        for row, name in enumerate(names):
            _metric_row(axes, row, base[name], adapted[name], test.get("delta", {}).get(name, {}))
        lexical = {
            row: value for row, name in enumerate(names) if is_number(value := (test.get("bm25") or {}).get(name))
        }
        for row, value in lexical.items():
            axes.plot([value, value], [row - 0.42, row + 0.42], color=COLOURS["ink"], linewidth=1.4, linestyle=":")
        axes.set_yticks(range(len(names)), [metric_name(name) for name in names])
        axes.tick_params(axis="y", labelcolor=COLOURS["ink"])
        low = min(0.0, *(value for name in names for value in (base[name], adapted[name])))
        axes.set(xlim=(low, 1.12 if low == 0 else 1.0), ylim=(len(names) - 0.45, -0.55), xticks=np.arange(0, 1.1, 0.25))
        axes.grid(visible=False, axis="y")
        axes.spines["bottom"].set_visible(False)
        words = "; ".join(f"{metric_name(n)}: base {score(base[n])}, adapted {score(adapted[n])}" for n in names)
        svg = to_svg(figure, "metric-bars", f"Bars of base and adapted per metric. {words}.")
    keys = [Key("base", "block", "base"), Key("adapted", "block", "adapted")]
    if any(is_number(delta.get("low")) for delta in test.get("delta", {}).values()):
        keys.append(Key("ink", "whisker", "interval of the difference"))
    if lexical:
        keys.append(Key("ink", "dotted", "BM25"))
    return Plot("Base and adapted", svg, tuple(keys))


def _metric_row(axes: Axes, row: int, base: float, adapted: float, delta: Mapping[str, Any]) -> None:
    axes.barh(row - 0.19, base, height=0.3, color=COLOURS["base"])
    axes.barh(row + 0.19, adapted, height=0.3, color=COLOURS["adapted"])
    end = max(adapted, 0.0)
    if is_number(delta.get("low")) and is_number(delta.get("high")):
        low, high = base + delta["low"], base + delta["high"]
        whisker = [[max(adapted - low, 0.0)], [max(high - adapted, 0.0)]]
        axes.errorbar(adapted, row + 0.19, xerr=whisker, color=COLOURS["ink"], linewidth=1.2, capsize=2.5)
        end = max(end, high)
    axes.text(end + 0.015, row + 0.2, f"{adapted:.3f}", va="center", fontsize=9.5)
    axes.text(max(base, 0) + 0.015, row - 0.18, f"{base:.3f}", va="center", fontsize=9.5, color=COLOURS["soft"])


def loss_curve(rows: Sequence[Mapping[str, Any]]) -> Plot | None:
    """Training loss per step, faint as logged and bold as a running mean; the dev loss where it was measured."""
    steps, losses = _column(rows, "loss")
    if len(steps) < 2:
        return None
    dev_steps, dev_losses = _dev_column(rows, "loss")
    window = max(1, len(losses) // 20)
    with page_style():
        figure, axes = _curve_axes()
        if window > 1:
            axes.plot(steps, losses, color=COLOURS["base"], linewidth=0.8, alpha=0.8)
        axes.plot(steps, _running_mean(losses, window), color=COLOURS["adapted"])
        if dev_steps:
            axes.plot(dev_steps, dev_losses, color=COLOURS["second"], linestyle=(0, (5, 2)), marker="o", markersize=3)
        svg = to_svg(figure, "loss-curve", f"Training loss, from {losses[0]:.3f} to {losses[-1]:.3f}.")
    keys = [Key("adapted", "solid", f"mean of {window} logged steps" if window > 1 else "training")]
    keys += [Key("base", "thin", "as logged")] if window > 1 else []
    keys += [Key("second", "dashed", "dev")] if dev_steps else []
    return Plot("Loss", svg, tuple(keys))


def task_losses(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> Plot | None:
    """Training loss of the tasks (at most one per line style), as running means over each task's steps."""
    columns = {name: _column([row for row in rows if row.get("task") == name], "loss") for name in tasks}
    columns = {name: column for name, column in columns.items() if len(column[0]) > 1}
    if not columns:
        return None
    keys, ends = [], []
    with page_style():
        figure, axes = _curve_axes()
        for (name, (steps, losses)), (role, shape, dashes) in zip(columns.items(), _SERIES, strict=False):
            smooth = _running_mean(losses, max(1, len(losses) // 20))
            axes.plot(steps, smooth, color=COLOURS[role], linestyle=dashes)
            keys.append(Key(role, shape, name))
            ends.append(f"{name} {smooth[0]:.3f} to {smooth[-1]:.3f}")
        svg = to_svg(figure, "task-losses", f"Training loss of each task: {'; '.join(ends)}.")
    return Plot("Loss", svg, tuple(keys), "Running means. Losses of different kinds cannot be compared.")


def dev_curve(rows: Sequence[Mapping[str, Any]], best_step: int | None) -> Plot | None:
    """The metrics on dev during training, with the step whose weights were kept."""
    names = [name for name in ("ndcg@10", "recall@5", "mrr@10", "spearman", "pearson") if _dev_column(rows, name)[0]]
    return _dev_lines(rows, names, "dev-curve", "Metrics on dev", best_step) if names else None


def tasks_curve(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], best_step: int | None) -> Plot | None:
    """Every task's main measure on dev during training, and their mean, by which a step is kept.

    Args:
        rows: rows of `metrics.jsonl` with "dev".
        names: label of a line -> name of the score; at most one per line style is shown.
        best_step: the step that was kept.
    """
    shown = [name for name in names.values() if _dev_column(rows, name)[0]]
    if not shown:
        return None
    called = {score: label for label, score in names.items()}
    return _dev_lines(rows, shown, "tasks-curve", "Tasks on dev", best_step, called)


def margin_curve(rows: Sequence[Mapping[str, Any]], best_step: int | None) -> Plot | None:
    """Mean cosine of positives and of negatives on dev; the area between them is the margin."""
    steps, positive = _dev_column(rows, "positive_cosine")
    negative_steps, negative = _dev_column(rows, "negative_cosine")
    if not steps or steps != negative_steps:
        return None
    with page_style():
        figure, axes = _curve_axes()
        axes.fill_between(steps, negative, positive, color=COLOURS["positive"], alpha=0.12, linewidth=0)
        axes.plot(steps, positive, color=COLOURS["positive"], marker="o", markersize=3)
        axes.plot(steps, negative, color=COLOURS["negative"], marker="o", markersize=3, linestyle=(0, (5, 2)))
        _mark_step(axes, best_step)
        kept = _kept(steps, best_step)
        margins = f"{score(positive[0] - negative[0], 3)} to {score(positive[kept] - negative[kept], 3)}"
        svg = to_svg(
            figure,
            "margin-curve",
            f"Mean cosines on dev during training; the margin went from {margins}{_at_step(best_step)}.",
        )
    keys = (Key("positive", "solid", "positives"), Key("negative", "dashed", "hardest negatives"))
    return Plot(
        "Margin on dev", svg, keys, f"Mean cosines. The margin between them went from {margins}{_at_step(best_step)}."
    )


def interpolation_curve(curve: Mapping[str, Any], guard: str) -> Plot:
    """Score in the domain against score on guard data, a point per share of the adapted model; the chosen one is
    marked.

    Args:
        curve: as `merge` reports it.
        guard: name of the guard data.
    """
    points, measure = curve["points"], metric_name(curve["guards"][guard]["measure"])
    outside, domain = [point["guard"][guard] for point in points], [point["domain"] for point in points]
    chosen = next(point for point in points if point["share"] == curve["chosen"])
    with page_style():
        figure = Figure(figsize=(WIDTH_INCHES, 3.6), layout="constrained")
        axes = figure.subplots()
        limit = outside[0] - curve["bound"] * abs(outside[0])
        axes.axvline(limit, color=COLOURS["negative"], linewidth=1.2, linestyle=(0, (5, 2)))
        axes.plot(outside, domain, color=COLOURS["adapted"], marker="o", markersize=4.5)
        axes.plot(chosen["guard"][guard], chosen["domain"], "o", color=COLOURS["ink"], markersize=10, fillstyle="none")
        for point, x, y in zip(points, outside, domain, strict=True):
            axes.annotate(f"{point['share']:g}", (x, y), xytext=(7, 5), textcoords="offset points", fontsize=9.5)
        axes.set(xlabel=f"{guard}: {measure}", ylabel=f"domain (dev): {metric_name(curve['measure'])}")
        axes.margins(0.12)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS))
        words = "; ".join(f"{p['share']:g}: {score(p['domain'])} and {score(p['guard'][guard])}" for p in points)
        svg = to_svg(figure, f"curve-{list(curve['guards']).index(guard)}", f"Domain and {guard} by share: {words}.")
    keys = (
        Key("adapted", "solid", "from the base (0) to the adapted model (1)"),
        Key("ink", "ring", "chosen"),
        Key("negative", "dashed", f"{100 * curve['bound']:g} % below the base"),
    )
    return Plot(f"The domain against {guard}", svg, keys)


def similarity_histograms(histograms: Mapping[str, Any], kind: str) -> Plot | None:
    """Cosines of positives and negatives, base above adapted, on one scale; each histogram sums to one."""
    rows = [(name, histograms[name]) for name in ("base", "adapted") if histograms.get(name)]
    words = ("similar pairs", "dissimilar pairs") if kind == "pairs" else ("positives", "hardest negatives")
    return _histograms("similarity", "Cosines before and after", histograms.get("edges"), rows, words, "cosine")


def mining_histogram(histograms: Mapping[str, Any]) -> Plot | None:
    """The teacher's scores of the positives and of the mined negatives."""
    words = ("positives", "mined negatives")
    return _histograms("mining", "The teacher's scores", histograms.get("edges"), [("", histograms)], words, "score")


def _histograms(
    name: str, title: str, edges: Sequence[float] | None, rows: list[tuple[str, Any]], words: tuple[str, str], unit: str
) -> Plot | None:
    rows = [(label, row) for label, row in rows if edges and any([*row["positive"], *row["negative"]])]
    if not edges or not rows:
        return None
    with page_style():
        figure = Figure(figsize=(WIDTH_INCHES, 0.6 + 1.35 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), sharex=True, squeeze=False)[:, 0]
        for axes, (label, row) in zip(grid, rows, strict=True):
            for side in ("negative", "positive"):
                shares = _shares(row[side])
                axes.stairs(shares, edges, fill=True, color=COLOURS[side], alpha=0.35, linewidth=0)
                axes.stairs(shares, edges, color=COLOURS[side], linewidth=1.3)
            axes.set_title(label, loc="left", fontsize=10.5, color=COLOURS["ink"])
            axes.set_yticks([])
            axes.grid(visible=False, axis="y")
        first, last = _used_range(edges, [row for _, row in rows])
        grid[-1].set(xlim=(first, last), xlabel=unit)
        grid[-1].xaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS))
        svg = to_svg(figure, f"{name}-histogram", f"{title}: histograms of {words[0]} and {words[1]} by {unit}.")
    return Plot(title, svg, (Key("positive", "block", words[0]), Key("negative", "block", words[1])))


def _used_range(edges: Sequence[float], rows: list[Mapping[str, Any]]) -> tuple[float, float]:
    """The edges around the bins that are not empty."""
    filled = np.zeros(len(edges) - 1, dtype=bool)
    for row in rows:
        for side in ("positive", "negative"):
            filled |= np.asarray(row[side]) > 0
    used = np.flatnonzero(filled)
    return float(edges[used[0]]), float(edges[used[-1] + 1])


def _shares(counts: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    values = np.asarray(counts, dtype=np.float64)
    return np.divide(values, max(values.sum(), 1.0), dtype=np.float64)


def _dev_lines(
    rows: Sequence[Mapping[str, Any]],
    names: list[str],
    identity: str,
    title: str,
    best_step: int | None,
    called: Mapping[str, str] = METRIC_NAMES,
) -> Plot:
    keys, ends = [], []
    with page_style():
        figure, axes = _curve_axes()
        for name, (role, shape, dashes) in zip(names, _SERIES, strict=False):
            steps, values = _dev_column(rows, name)
            axes.plot(steps, values, color=COLOURS[role], linestyle=dashes, marker="o", markersize=3)
            keys.append(Key(role, shape, called[name]))
            ends.append(f"{called[name]} {values[0]:.3f} to {values[_kept(steps, best_step)]:.3f}")
        _mark_step(axes, best_step)
        svg = to_svg(figure, identity, f"{title} during training: {'; '.join(ends)}{_at_step(best_step)}.")
    caption = f"The weights of step {best_step:,} were kept (vertical line)." if best_step is not None else ""
    return Plot(title, svg, tuple(keys), caption)


def _curve_axes() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(CURVE_WIDTH_INCHES, 2.9), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=ROUND_STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND_STEPS))
    axes.grid(visible=False, axis="x")
    return figure, axes


def _mark_step(axes: Axes, step: int | None) -> None:
    if step is not None:
        axes.axvline(step, color=COLOURS["soft"], linewidth=0.9)


def _kept(steps: Sequence[int], best_step: int | None) -> int:
    """The place of the step whose weights were kept; the last where none was chosen."""
    return steps.index(best_step) if best_step in steps else -1


def _at_step(best_step: int | None) -> str:
    return "" if best_step is None else f" at the step that was kept, {best_step:,}"


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    """Steps and finite values of a training column."""
    points = [(int(row["step"]), float(row[name])) for row in rows if is_number(row.get(name)) and "step" in row]
    return [step for step, _ in points], [value for _, value in points]


def _dev_column(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[int], list[float]]:
    return _column([{"step": row["step"], **row["dev"]} for row in rows if "dev" in row and "step" in row], name)


def _running_mean(values: list[float], window: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Mean of the last `window` values (fewer at the start)."""
    sums = np.cumsum([0.0, *values])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return np.asarray((sums[ends] - sums[starts]) / (ends - starts), dtype=np.float64)
