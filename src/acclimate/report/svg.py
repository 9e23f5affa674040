"""Matplotlib figures as inline SVG in the page's colours (light, dark, print) and font.

A figure is drawn in stand-in colours, one per role; in the SVG each becomes the CSS variable of that role. Labels stay
text (no glyph outlines), so that Chinese is drawn by the reader's own fonts and can be searched. Equal figures give
equal bytes, and ids are unique over all figures of a page.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree

from matplotlib import rc_context
from matplotlib.figure import Figure

COLOURS = {
    "ink": "#010101",
    "soft": "#020202",
    "rule": "#030303",
    "paper": "#040404",
    "base": "#050505",
    "adapted": "#060606",
    "second": "#070707",
    "third": "#080808",
    "positive": "#090909",
    "negative": "#0a0a0a",
}
"""Role -> the stand-in colour to draw in; the page's style sheet defines `--<role>`."""

FONT_SIZE = 10.5
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "acclimate",
    "text.parse_math": False,
    "font.size": FONT_SIZE,
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "text.color": COLOURS["ink"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.edgecolor": COLOURS["rule"],
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": COLOURS["rule"],
    "grid.linewidth": 0.6,
    "xtick.color": COLOURS["rule"],
    "ytick.color": COLOURS["rule"],
    "xtick.labelcolor": COLOURS["soft"],
    "ytick.labelcolor": COLOURS["soft"],
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
}
_NAMESPACE = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_STAND_IN = re.compile("|".join(COLOURS.values()))
_ROLE = {stand_in: role for role, stand_in in COLOURS.items()}
_REFERENCE = re.compile(r"#([^)]+)")


@contextmanager
def page_style() -> Iterator[None]:
    """Draw figures in the page's style; nothing global stays changed. Missing glyphs do not matter: text stays text."""
    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def to_svg(figure: Figure, name: str, description: str) -> str:
    """Turn a figure into one `<svg>` element for an HTML page.

    Args:
        figure: drawn under `page_style`, in `COLOURS` only.
        name: unique on the page; put before every id.
        description: what the figure shows, for those who cannot see it.
    """
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    root = ElementTree.fromstring(stream.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            # The style element holds a rule for `*`, which would reach the whole page.
            if child.tag in (f"{_NAMESPACE}metadata", f"{_NAMESPACE}style"):
                parent.remove(child)
    referenced = {name for element in root.iter() for name in _references(element)}
    for element in root.iter():
        element.tag = element.tag.removeprefix(_NAMESPACE)
        element.attrib = _page_attributes(element, name, referenced)
    root.attrib = {"class": "plot", "viewBox": root.attrib["viewBox"], "role": "img", "aria-label": description}
    return ElementTree.tostring(root, encoding="unicode")


def _references(element: ElementTree.Element) -> Iterator[str]:
    for key in (_HREF, "clip-path"):
        yield from _REFERENCE.findall(element.attrib.get(key, ""))


def _page_attributes(element: ElementTree.Element, name: str, referenced: set[str]) -> dict[str, str]:
    """Attributes for the page: used ids, made unique; colours as variables; the page's font instead of a named one."""
    attributes = {}
    for key, value in element.attrib.items():
        if key == "id":
            if value in referenced:
                attributes["id"] = f"{name}-{value}"
        elif key == _HREF:
            attributes["href"] = value.replace("#", f"#{name}-")
        elif key == "clip-path":
            attributes[key] = value.replace("#", f"#{name}-")
        elif key == "style":
            attributes[key] = _STAND_IN.sub(lambda found: f"var(--{_ROLE[found.group()]})", _page_font(value))
        else:
            attributes[key] = value
    return attributes


def _page_font(style: str) -> str:
    """Keep only the size of a font. Before 3.11 matplotlib wrote `font: 10px name`, since then two declarations."""
    style = re.sub(r"font-family: [^;]+;? ?", "", style)
    return re.sub(r"font: ([\d.]+px) [^;]+", r"font-size: \1", style)
