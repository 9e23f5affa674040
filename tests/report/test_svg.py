"""Figures as inline SVG: the page's colours and font, unique ids, equal bytes."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from acclimate.report.svg import COLOURS, page_style, to_svg


def draw(name: str = "probe", label: str = "步骤 & step") -> str:
    with page_style():
        figure = Figure(figsize=(3, 2))
        axes = figure.subplots()
        axes.plot([1, 2, 3], color=COLOURS["adapted"])
        axes.fill_between([0, 1, 2], [0, 1, 2], color=COLOURS["positive"], alpha=0.3)
        axes.set_xlabel(label)
        return to_svg(figure, name, 'a "curve" <b>')


def test_it_is_one_element_that_names_what_it_shows() -> None:
    root = ElementTree.fromstring(draw())
    assert (root.tag, root.attrib["role"], root.attrib["aria-label"]) == ("svg", "img", 'a "curve" <b>')
    assert root.attrib["viewBox"] == "0 0 216 144"
    assert "width" not in root.attrib  # the page decides


def test_every_colour_is_a_variable_of_the_page() -> None:
    svg = draw()
    painted = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg))
    assert {"var(--adapted)", "var(--positive)", "var(--soft)"} <= painted
    assert all(paint == "none" or paint.startswith("var(--") for paint in painted)


def test_labels_are_text_in_the_page_s_font() -> None:
    svg = draw()
    texts = [element.text for element in ElementTree.fromstring(svg).iter("text")]
    assert "步骤 & step" in texts
    assert "font-family" not in svg and "DejaVu" not in svg and "<style" not in svg
    assert "font-size: 10.5px" in svg


def test_dollars_are_no_formula() -> None:
    assert "a $x^2$ b" in draw(label="a $x^2$ b")


def test_equal_figures_give_equal_bytes_and_ids_never_meet() -> None:
    assert draw() == draw()
    ids = [set(re.findall(r'id="([^"]+)"', draw(name))) for name in ("one", "two")]
    assert ids[0] and not ids[0] & ids[1]
    svg = draw("one")
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    assert used == ids[0]  # every reference has its target, and no id is there for nothing


def test_nothing_global_changes() -> None:
    before = matplotlib.rcParams["svg.fonttype"], matplotlib.rcParams["font.size"]
    draw()
    assert (matplotlib.rcParams["svg.fonttype"], matplotlib.rcParams["font.size"]) == before
