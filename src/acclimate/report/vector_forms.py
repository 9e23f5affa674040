"""The report's part about stored vectors: one table, one plot."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, ScalarFormatter

from acclimate.evaluation.reports import FormRow, VectorsReport
from acclimate.report.plots import ROUND_STEPS, WIDTH_INCHES, Key, Plot
from acclimate.report.svg import COLOURS, page_style, to_svg
from acclimate.report.tables import Cell, Row, Table
from acclimate.report.words import interval, percent, score, signed, tone_of

WORDS = {"binary": "binary, scored again by its signs", "binary, int8": "binary, scored again by INT8"}
_SHAPES = (("adapted", "solid", "-"), ("second", "dashed", (0, (5, 2))), ("third", "dotted", (0, (1.2, 1.6))))
"""Lines in the plot, which shows so many numbers of dimensions."""


def form_table(report: VectorsReport | None) -> Table | None:
    """What every form takes, finds and loses."""
    if not report:
        return None
    rows = [
        Row(
            WORDS.get(row["form"], row["form"]),
            (
                Cell(str(row["dim"])),
                Cell(
                    f"{row['bytes']:,}", f"{row['searched_bytes']:,} searched" * (row["searched_bytes"] < row["bytes"])
                ),
                Cell(score(row["recall@10"])),
                Cell(score(row["ndcg@10"])),
                _difference(row, first=number == 0),
                Cell(f"{row['ms']:.2f}"),
            ),
        )
        for number, row in enumerate(report["rows"])
    ]
    columns = ("Form", "Dimensions", "Bytes", "Recall@10 of float32's", "NDCG@10")
    difference = f"Difference ({percent(report['confidence'])} interval)"
    return Table("Stored vectors", (*columns, difference, "ms per query"), tuple(rows))


def _difference(row: FormRow, *, first: bool) -> Cell:
    if first:
        return Cell("")
    return Cell(signed(row["delta"]["value"]), interval(row["delta"]), tone_of(row["delta"]))


def form_plot(report: VectorsReport | None) -> Plot | None:
    """NDCG@10 against the bytes of a vector, a line for each number of dimensions."""
    if not report:
        return None
    dims = list(dict.fromkeys(row["dim"] for row in report["rows"]))
    keys = []
    with page_style():
        figure = Figure(figsize=(WIDTH_INCHES, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.axhline(report["rows"][0]["ndcg@10"], color=COLOURS["base"], linewidth=1.2)
        for dim, (role, shape, style) in zip(dims, _SHAPES, strict=False):
            of_dim = sorted((row["bytes"], row["ndcg@10"]) for row in report["rows"] if row["dim"] == dim)
            axes.plot(*zip(*of_dim, strict=True), color=COLOURS[role], linestyle=style, marker="o", markersize=5)
            keys.append(Key(role, shape, f"{dim} dimensions"))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=ROUND_STEPS))
        axes.set(xlabel="bytes of a vector", ylabel="NDCG@10")
        words = "; ".join(
            f"{row['form']}, {row['dim']}: {row['bytes']} bytes, {score(row['ndcg@10'])}" for row in report["rows"]
        )
        svg = to_svg(figure, "vector-forms", f"NDCG@10 by bytes of a stored vector. {words}.")
    return Plot("What a stored vector costs", svg, (*keys, Key("base", "thin", "float32, all dimensions")))
