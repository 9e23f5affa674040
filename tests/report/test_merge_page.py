"""The page of a merge: what was tried and what was chosen, escaped, the same bytes every time."""

from __future__ import annotations

from typing import Any

from acclimate.report.merge_page import render
from acclimate.report.model_card import render as card

POINTS = [
    {"share": 0.0, "domain": 0.5, "guard": {"<general>": 0.8}, "loss": {"<general>": 0.0}},
    {"share": 0.5, "domain": 0.7, "guard": {"<general>": 0.79}, "loss": {"<general>": 0.0125}},
    {"share": 1.0, "domain": 0.75, "guard": {"<general>": 0.6}, "loss": {"<general>": 0.25}},
]
CURVE: dict[str, Any] = {
    "base": {"id": "acme/base", "sha256": "0" * 64},
    "method": "interpolate",
    "models": [{"name": "some/where/run", "weight": 0.5}],
    "kind": "adapter",
    "sides": "both",
    "dim": 8,
    "rank": 2,
    "discarded": {"total": 0.125, "modules": {}},
    "curve": {
        "measure": "ndcg@10",
        "split": "dev",
        "guards": {"<general>": {"measure": "spearman", "split": "test"}},
        "bound": 0.02,
        "points": POINTS,
        "chosen": 0.5,
        "rule": "the best on dev",
    },
}


def test_the_curve() -> None:
    page = render("mild", CURVE)
    assert page == render("mild", CURVE)
    assert "Chosen: the share 0.5" in page and "the best on dev" in page
    assert "<general>" not in page and "&lt;general&gt; (test), Spearman" in page
    assert page.count('class="bad"') == 1 and "−25.00 %" in page  # only the last is beyond the bound
    assert page.count("<svg") == 1 and "2 % below the base" in page


def test_the_soup() -> None:
    tried = [
        {"model": "a", "alone": 0.7, "soup": 0.7, "kept": True},
        {"model": "b", "alone": 0.6, "soup": 0.65, "kept": False},
    ]
    soup = {"measure": "spearman", "base": 0.5, "score": 0.7, "kept": ["a"], "tried": tried}
    report = {"base": None, "models": [{"name": "a", "weight": 1.0}, {"name": "b", "weight": 0.0}], "soup": soup}
    page = render("soup", report)
    assert "1 of 2 models are in the soup" in page and "left out" in page and "0.5000" in page
    assert "the base" not in render("soup", report | {"soup": soup | {"base": None}})


def test_the_card_says_what_was_merged_and_no_path() -> None:
    text = card(CURVE, {})
    assert "| run | 0.5 |" in text and "some/where" not in text
    assert "all but 12.50% of the merged update" in text
    assert "base_model: acme/base" in text
