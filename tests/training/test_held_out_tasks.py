"""Held-out tasks: pairs as a user has them, the curve and the choices summed up by hand, mixtures by description."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from acclimate.data.relevance import ABSENT, RelevanceTask, TaskLibrary
from acclimate.models.hypernetwork.condition import ConditionVectors
from acclimate.models.hypernetwork.layers import of_task
from acclimate.training.chosen_by_pairs import Chosen, chosen_summary
from acclimate.training.held_out_tasks import evenly_drawn
from acclimate.training.own_adapters import mixed
from acclimate.training.quality_curve import GENERATED, SCRATCH, Point, curve_summary, few_pairs


def test_a_user_knows_one_document_of_each_query() -> None:
    keys = np.repeat(np.arange(5), 4)
    texts = tuple(map(str, range(20)))
    library = TaskLibrary(texts, texts, (RelevanceTask("t", ("d",), keys, keys),))
    (known,) = few_pairs(library, 6, seed=0).tasks
    assert len(known.usable) == 6
    for query in known.usable.tolist():
        (document,) = np.flatnonzero(known.relevant([query], np.arange(20))[0])
        assert keys[document] == keys[query]
    assert (known.document_M != ABSENT).sum() <= 6


def test_few_are_drawn_at_even_distances() -> None:
    assert evenly_drawn(range(10), 3) == [0, 4, 9]
    assert evenly_drawn([5, 6], 3) == [5, 6]


def test_choices_are_summed_up_by_group_and_number_of_pairs() -> None:
    found = [
        Chosen("a", 8, "base", 0.0, 0.1),
        Chosen("b", 8, "generated", -0.06, 0.02),
        Chosen("c", 8, "generated", 0.03, 0.03),
        *(Chosen(name, pairs, "generated", 0.05, 0.05) for name in "abc" for pairs in (16, 32)),
    ]
    summary = chosen_summary(found, {"all": ["a", "b", "c"], "some": ["a", "b"]}, flips=63, confidence=0.95, seed=0)
    assert summary["all"]["8"]["gain"]["value"] == pytest.approx(-0.01)
    assert summary["all"]["8"]["kept_bar"] and summary["all"]["8"]["worse"] == 1
    assert summary["all"]["8"]["chosen"] == {"generated": 2, "base": 1} and summary["all"]["8"]["best_gain"] == 0.05
    assert not summary["some"]["8"]["kept_bar"]  # -.03 on average
    assert summary["some"]["32"]["gain"]["value"] == pytest.approx(0.05)


def test_the_curve_has_a_mean_for_each_start_pairs_and_steps() -> None:
    points = [
        Point("a", "new-definition", SCRATCH, 16, 10, 1.0, 0.2),
        Point("b", "known-definition", SCRATCH, 16, 10, 3.0, 0.4),
        Point("c", "domain", GENERATED, 16, 10, 5.0, 0.7),
    ]
    summary = curve_summary(points)
    row = {"start": SCRATCH, "pairs": 16, "steps": 10, "tasks": 2, "ndcg": 0.3, "seconds": 2.0}
    assert summary["known attributes"] == [row]
    assert [one["ndcg"] for one in summary["domain"]] == [0.7]


def test_the_nearest_description_gives_its_adapter() -> None:
    rows = np.eye(4, dtype=np.float32)
    adapters = [{"layer": (torch.full((1, 4), float(number)), torch.ones(4, 1))} for number in range(3)]
    asked = [ConditionVectors(description_D=rows[2] + 0.1 * rows[3])]
    weights = mixed("nearest", asked, [rows[number : number + 1] for number in range(3)], adapters, rank=2)
    A_rI, B_Or = of_task(weights, 0)["layer"]
    assert torch.allclose(B_Or @ A_rI, torch.full((4, 4), 2.0), atol=1e-5)
