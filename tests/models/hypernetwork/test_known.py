"""Distances from the training conditions in their own unit, by hand; a hypernetwork's further files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from acclimate.models.hypernetwork.condition import ConditionVectors
from acclimate.models.hypernetwork.condition_net import Whitening
from acclimate.models.hypernetwork.known import KnownConditions, summaries
from acclimate.models.hypernetwork.packaged import find_hypernetwork
from acclimate.models.hypernetwork.saving import load_network


def at(*degrees: float) -> np.ndarray:
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


KNOWN = KnownConditions({"description": (at(0, 2, 60, 62), np.array([0, 0, 1, 1]))})


def test_distances_by_hand(tmp_path: Path) -> None:
    """Conditions of two kinds lie 58 to 60 degrees apart; the nearest of the other kind is at 58 for half of them."""
    near, far = 1 - np.cos(np.radians(58)), 1 - np.cos(np.radians(60))
    unit = (near + far) / 2
    assert KNOWN.unit("description") == pytest.approx(unit, rel=1e-3)
    found = KNOWN.distances(ConditionVectors(description_D=at(180)[0], text_SD=at(0, 90)))
    assert found == {"description": pytest.approx((1 - np.cos(np.radians(118))) / unit, rel=1e-3)}
    assert KNOWN.distances(ConditionVectors(description_D=at(60)[0]))["description"] == pytest.approx(0, abs=1e-6)
    KNOWN.save(tmp_path)
    again = KnownConditions.load(tmp_path)
    assert again.distances(ConditionVectors(description_D=at(180)[0])) == pytest.approx(found, rel=1e-2)
    assert KnownConditions.load(tmp_path / "none").parts == {}


def test_descriptions_are_compared_as_the_network_reads_them() -> None:
    """Kinds apart along one axis, wordings along another one: whitened within kinds, another wording is no distance."""
    rows = np.array([[1, 1, 0], [1, -1, 0], [-1, 1, 0], [-1, -1, 0]], np.float32) / np.float32(np.sqrt(2))
    kinds = np.array([0, 0, 1, 1])
    described = Whitening(3)
    described.learn_within(100 * torch.from_numpy(rows), torch.from_numpy(kinds))
    described.mean_D.zero_()
    known = KnownConditions({"description": (rows, kinds)})
    put_otherwise = ConditionVectors(description_D=np.array([1, 0, 0], np.float32))
    assert known.distances(put_otherwise)["description"] > 0.2
    assert known.distances(put_otherwise, described)["description"] < 0.2


def test_one_kind_gives_no_unit() -> None:
    alone = KnownConditions({"pairs": (at(0, 10), np.array([3, 3]))})
    assert alone.distances(ConditionVectors(query_PD=at(50), document_PD=at(50))) == {}


def test_a_part_s_summary_is_the_direction_of_its_mean() -> None:
    found = summaries(ConditionVectors(query_PD=at(0, 90), document_PD=at(0, 90)))
    assert list(found) == ["pairs"]
    assert np.allclose(found["pairs"], at(45)[0], atol=1e-6)


def test_the_packaged_hypernetwork_is_of_the_default_model() -> None:
    from acclimate.formats.sources import DEFAULT_SHA256

    trained = load_network(find_hypernetwork("default"))
    assert trained.base_sha256 == DEFAULT_SHA256
    assert sum(path.stat().st_size for path in find_hypernetwork("default").iterdir()) < 10 * 2**20
    assert trained.shared and trained.known.parts and trained.sides == "both"
