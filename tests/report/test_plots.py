"""What the figures show, and when there is none."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from acclimate.report import plots
from tests.report.sample_run import histograms, metric_rows, pairs_evaluation, retrieval_evaluation


def texts(plot: plots.Plot) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(plot.svg).iter("text")]


def test_bars_show_both_values_of_every_metric() -> None:
    test = retrieval_evaluation("better")["test"]
    plot = plots.metric_bars(test)
    assert plot is not None
    shown = texts(plot)
    for name in ("ndcg@10", "recall@5", "mrr@10", "map@100", "recall@100"):
        assert f"{test['base'][name]:.3f}" in shown and f"{test['adapted'][name]:.3f}" in shown
    assert [key.label for key in plot.keys] == ["base", "adapted", "interval of the difference", "BM25"]


def test_the_whisker_is_the_interval_of_the_difference_put_on_the_base() -> None:
    """base 0.5, difference 0.2 in [0.1, 0.4]: from 0.6 to 0.9, on an axis whose 0 and 1 are known from the ticks."""
    delta = {"value": 0.2, "low": 0.1, "high": 0.4, "p": 0.001}
    plot = plots.metric_bars({"base": {"map@100": 0.5}, "adapted": {"map@100": 0.7}, "delta": {"map@100": delta}})
    assert plot is not None
    places = {text.text: float(text.attrib["x"]) for text in ElementTree.fromstring(plot.svg).iter("text")}
    low, high = (places["0.00"] + share * (places["1.00"] - places["0.00"]) for share in (0.6, 0.9))
    lines = re.findall(r'd="M ([\d.]+) ([\d.]+)\s+L ([\d.]+) \2\s*"', plot.svg)
    assert any(abs(float(a) - low) < 0.01 and abs(float(b) - high) < 0.01 for a, _, b in lines)


def test_bars_leave_out_what_is_no_score() -> None:
    plot = plots.metric_bars(pairs_evaluation("worse")["test"])
    assert plot is not None
    assert "Spearman" in texts(plot) and not any("Threshold" in text for text in texts(plot))
    assert "BM25" not in [key.label for key in plot.keys]
    assert plots.metric_bars({}) is None
    assert plots.metric_bars({"base": {"spearman": None}, "adapted": {"spearman": 0.1}}) is None


def test_a_negative_correlation_has_room() -> None:
    plot = plots.metric_bars({"base": {"spearman": -0.3}, "adapted": {"spearman": 0.4}, "delta": {}})
    assert plot is not None and "-0.300" in texts(plot)


def test_running_mean_by_hand() -> None:
    assert plots._running_mean([2.0, 4.0, 9.0, 5.0], 2).tolist() == [2.0, 3.0, 6.5, 7.0]
    values = np.random.default_rng(0).normal(size=50).tolist()
    slow = [float(np.mean(values[max(0, end - 7) : end])) for end in range(1, 51)]
    np.testing.assert_allclose(plots._running_mean(values, 7), slow, atol=1e-12)


@pytest.mark.parametrize("kind", ["retrieval", "pairs"])
def test_curves_of_a_training(kind: Any) -> None:
    rows = metric_rows(kind)
    loss, dev = plots.loss_curve(rows), plots.dev_curve(rows, 80)
    assert loss is not None and dev is not None
    assert "dev" in [key.label for key in loss.keys]
    assert "step 80" in dev.caption
    names = ["Spearman", "Pearson"] if kind == "pairs" else ["NDCG@10", "Recall@5", "MRR@10"]
    assert [key.label for key in dev.keys] == names
    assert (plots.margin_curve(rows, 80) is None) == (kind == "pairs")


def test_curves_skip_values_that_are_no_numbers_and_need_two_points() -> None:
    rows = [{"step": step, "loss": value} for step, value in enumerate([2.0, math.nan, 1.0, math.inf])]
    plot = plots.loss_curve(rows)
    assert plot is not None and "nan" not in plot.svg.lower()
    assert plots.loss_curve(rows[:2]) is None
    assert plots.dev_curve([], None) is None and plots.margin_curve([], None) is None


def test_histograms_show_shares_over_the_used_range() -> None:
    """Ten positives and a thousand negatives are drawn equally high: the highest bins reach the same share."""
    counts = {"positive": [0, 0, 10, 0], "negative": [0, 1000, 0, 0]}
    edges = [-1.0, -0.5, 0.0, 0.5, 1.0]
    plot = plots.similarity_histograms({"edges": edges, "base": counts, "adapted": counts}, "retrieval")
    assert plot is not None
    assert texts(plot).count("base") == 1 and texts(plot).count("adapted") == 1
    assert plots._used_range(edges, [counts]) == (-0.5, 0.5)
    assert plots._shares([0, 0, 10, 0]).max() == plots._shares([0, 1000, 0, 0]).max() == 1.0


def test_histograms_name_pairs_by_their_labels_and_need_counts() -> None:
    shown = histograms((0.7, 0.1, 0.5, 0.1), (0.8, 0.1, 0.4, 0.1))
    plot = plots.similarity_histograms(shown, "pairs")
    assert plot is not None and [key.label for key in plot.keys] == ["similar pairs", "dissimilar pairs"]
    nothing = {"positive": [0], "negative": [0]}
    assert plots.similarity_histograms({"edges": [0, 1], "base": nothing, "adapted": nothing}, "pairs") is None
    assert plots.mining_histogram({}) is None


def test_the_margin_is_that_of_the_step_that_was_kept() -> None:
    cosines = {0: (0.5, 0.4), 10: (0.7, 0.3), 20: (0.6, 0.5)}
    rows = [
        {"step": step, "dev": {"positive_cosine": positive, "negative_cosine": negative, "ndcg@10": positive}}
        for step, (positive, negative) in cosines.items()
    ]
    margin, dev = plots.margin_curve(rows, 10), plots.dev_curve(rows, 10)
    assert margin is not None and "0.100 to 0.400 at the step that was kept, 10" in margin.caption
    assert dev is not None and "0.500 to 0.700 at the step that was kept" in dev.svg
    last = plots.margin_curve(rows, None)
    assert last is not None and "0.100 to 0.100." in last.caption
    for row in rows:
        row["dev"]["negative_cosine"] = 0.8
    below = plots.margin_curve(rows, None)
    assert below is not None and "−0.300 to −0.200." in below.caption
