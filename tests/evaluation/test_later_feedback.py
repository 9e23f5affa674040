"""Simulated searchers, whose truth is known: a ranking is judged by what it is worth, not by having been shown."""

from __future__ import annotations

import random
from functools import cache
from typing import NamedTuple

import pytest

from acclimate.configs import EvaluateConfig
from acclimate.evaluation.later_feedback import compare_by_feedback, depth_of
from acclimate.evaluation.promotion import Measured
from acclimate.feedback.opinions import Opinion
from acclimate.feedback.position import Examination
from acclimate.types import Run

DOCUMENTS, SHOWN, QUERIES = 20, 8, 300
EXAMINED = Examination(1.0, 0.05, 2000)
CONFIG = EvaluateConfig(sign_flips=400)


class World(NamedTuple):
    said: list[Opinion]
    before: Run
    candidate: Run


@cache
def world(noise: float, *, news: bool = True, judge: bool = False, seed: int = 0) -> World:
    """Rankings by how good documents are, with an error; searchers see the first, whose error is 0.5.

    One document answers, and is clicked on by nine in ten who look at it; of the others by one in twenty.

    Args:
        noise: the candidate's error.
        news: whether the searchers' clicks say more than where they have looked.
        judge: they judge the first document that they find good, wherever it stands, instead of clicking.
        seed: of it all.
    """
    draw = random.Random(seed)
    found = World([], {}, {})
    for number in range(QUERIES):
        query, good = f"q{number}", [0.9] + [0.05] * (DOCUMENTS - 1)
        for run, error in ((found.before, 0.5), (found.candidate, noise)):
            scores = {f"d{place}": value + draw.gauss(0, error) for place, value in enumerate(good)}
            run[query] = dict(sorted(scores.items(), key=lambda row: -row[1])[:SHOWN])
        shown = tuple(found.before[query])
        likes = [name for name in shown if draw.random() < (good[int(name[1:])] if news else 0.4)]
        if judge:
            judged = {draw.choice(likes): 1.0} if likes else {}
            found.said.append(Opinion(query, "ann", shown, judged, {}))
            continue
        ranks = {name: rank for rank, name in enumerate(shown, start=1) if name in likes and draw.random() < 1 / rank}
        found.said.append(Opinion(query, "ann", shown, {}, ranks))
    return found


def compared(one: World, examined: Examination | None = EXAMINED) -> Measured:
    return compare_by_feedback(one.said, one.before, one.candidate, examined, CONFIG, 0)


def test_a_better_ranking_that_nobody_has_seen_is_found_better() -> None:
    found = compared(world(0.2))
    assert found["delta"]["low"] > 0
    assert (found["queries"], found["measure"]) == (QUERIES, "dcg of marks")
    assert found["candidate"] - found["before"] == pytest.approx(found["delta"]["value"])


def test_clicks_as_they_are_would_have_called_it_worse() -> None:
    """What the judgement was before: it is what the weights are for."""
    assert compared(world(0.45), None)["delta"]["value"] < 0 < compared(world(0.45))["delta"]["value"]


def test_a_worse_ranking_is_found_worse() -> None:
    assert compared(world(1.5))["delta"]["high"] < 0


def test_a_better_ranking_is_found_better_by_judgements_without_weights() -> None:
    assert compared(world(0.2, judge=True), None)["delta"]["low"] > 0


@pytest.mark.parametrize("news", [True, False])
def test_an_equal_ranking_is_as_rarely_found_better_as_the_confidence_says(news: bool) -> None:
    """Both have the same error, each its own; or the clicks say nothing but places, whatever the rankings are worth."""
    found = [compared(world(0.5 if news else 0.2, news=news, seed=seed))["delta"] for seed in range(10)]
    assert sum(delta["low"] > 0 for delta in found) <= 1
    assert sum(delta["value"] > 0 for delta in found) in range(2, 9), "and not because the other is favoured"


def test_the_interval_counts_how_well_the_places_are_known() -> None:
    sure, unsure = compared(world(0.2)), compared(world(0.2), Examination(1.0, 0.2, 100))
    assert unsure["delta"]["low"] < sure["delta"]["low"] < sure["delta"]["high"] < unsure["delta"]["high"]
    assert unsure["delta"]["value"] == sure["delta"]["value"]
    assert unsure["delta"]["p"] >= sure["delta"]["p"]


def test_rankings_are_as_deep_as_what_was_shown() -> None:
    long = Opinion("q", "ann", tuple(f"d{number}" for number in range(25)), {}, {})
    assert depth_of([long]) == 25
    assert depth_of([]) == 10
