"""`report.html` of a merged model: what was tried on dev, and what was kept. It loads nothing, and runs no script."""

from __future__ import annotations

from acclimate.report import html, plots
from acclimate.report.summary import Curve, MergeReport, Soup
from acclimate.report.tables import Cell, Row, Table
from acclimate.report.words import ABSENT, metric_name, score, signed


def render(name: str, report: MergeReport) -> str:
    """Render the page. Equal input gives equal bytes.

    Args:
        name: name of the merged folder.
        report: what `merge` reports, with a "curve" or a "soup".
    """
    curve, soup = report.get("curve"), report.get("soup")
    if curve:
        claim = f"Chosen: the share {curve['chosen']:g} of the adapted model."
        table, figures = _points(curve), [plots.interpolation_curve(curve, guard) for guard in curve["guards"]]
        rule = f"The rule: {curve['rule']}. 0 is the base, 1 the adapted model."
    else:
        claim = f"{len(soup['kept'])} of {len(soup['tried'])} models are in the soup."  # type: ignore[index]
        table, figures = _trials(soup), []  # type: ignore[arg-type]
        rule = (
            "The rule: models were added best first, and each was kept if the average did not get worse on the domain's"
            " dev split."
        )
    facts = [(f"weight of {model['name']}", f"{model['weight']:.4g}") for model in report["models"]]
    facts.append(("base", report["base"]["id"] if report["base"] else ABSENT))
    return html.fill("merge.html", name=name, claim=claim, rule=rule, tried=table, figures=figures, facts=facts)


def _points(curve: Curve) -> Table:
    guards = curve["guards"]
    heads = [f"{name} ({guard['split']}), {metric_name(guard['measure'])}" for name, guard in guards.items()]
    first = curve["points"][0]
    rows = []
    for point in curve["points"]:
        is_base = point is first
        cells = [Cell(score(point["domain"]), "" if is_base else signed(point["domain"] - first["domain"]))]
        for name in guards:
            change = f"{signed(-100 * point['loss'][name], 2)} %"
            beyond = point["loss"][name] > curve["bound"]
            cells.append(Cell(score(point["guard"][name]), "" if is_base else change, "bad" if beyond else ""))
        chosen = "chosen" if point["share"] == curve["chosen"] else ""
        rows.append(Row(f"{point['share']:g}", tuple(cells), chosen))
    domain = f"domain ({curve['split']}), {metric_name(curve['measure'])}"
    return Table("From the base to the adapted model", ("share", domain, *heads), tuple(rows))


def _trials(soup: Soup) -> Table:
    measure = metric_name(soup["measure"])
    rows = [Row("the base", (Cell(score(soup["base"])), Cell(""), Cell("")))] if soup["base"] is not None else []
    for trial in soup["tried"]:
        cells = (Cell(score(trial["alone"])), Cell(score(trial["soup"])), Cell("kept" if trial["kept"] else "left out"))
        rows.append(Row(trial["model"], cells))
    return Table("Models, best first", ("model", f"alone: dev {measure}", "in the soup", ""), tuple(rows))
