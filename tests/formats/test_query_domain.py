"""The file of an adapter's query domain: what comes back, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from acclimate.errors import StorageError
from acclimate.formats.query_domain import QUERY_DOMAIN_FILE, QueryDomain, read_query_domain, write_query_domain

AXES = QueryDomain(np.eye(3, dtype=np.float32), 0.25, 40, 10, "space")


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    assert read_query_domain(tmp_path) is None
    write_query_domain(tmp_path, AXES)
    found = read_query_domain(tmp_path)
    assert found is not None
    np.testing.assert_array_equal(found.centroids, AXES.centroids)
    assert (found.radius, found.queries, found.measured_on, found.query_space) == (0.25, 40, 10, "space")


def test_the_distance_is_that_of_the_nearest_centroid() -> None:
    queries = np.array([[1, 0, 0], [0.6, 0.8, 0], [-1, 0, 0]], np.float32)
    np.testing.assert_allclose(AXES.distances(queries), [0.0, 0.2, 1.0], atol=1e-6)


@pytest.mark.parametrize(
    "domain",
    [
        dataclasses.replace(AXES, radius=float("nan")),
        dataclasses.replace(AXES, radius=2.5),
        dataclasses.replace(AXES, centroids=np.zeros((3, 3), np.float32)),
        dataclasses.replace(AXES, centroids=np.full((3, 3), np.nan, np.float32)),
        dataclasses.replace(AXES, centroids=np.ones(3, np.float32)),
    ],
    ids=["no radius", "radius", "zeros", "not finite", "one row"],
)
def test_what_no_training_writes_is_refused(tmp_path: Path, domain: QueryDomain) -> None:
    write_query_domain(tmp_path, domain)
    with pytest.raises(StorageError, match="damaged"):
        read_query_domain(tmp_path)


def test_damage_and_other_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / QUERY_DOMAIN_FILE
    path.write_bytes(b"nothing")
    with pytest.raises(StorageError, match="damaged"):
        read_query_domain(tmp_path)
    save_file({"centroids": AXES.centroids}, path)
    with pytest.raises(StorageError, match="format"):
        read_query_domain(tmp_path)


def test_a_merged_adapter_has_the_domains_of_all_that_it_was_merged_from() -> None:
    other = dataclasses.replace(AXES, centroids=-AXES.centroids, radius=0.5)
    joined = QueryDomain.joined([AXES, other, AXES])
    assert joined is not None
    assert (len(joined.centroids), joined.radius, joined.queries) == (6, 0.5, 120)
    assert QueryDomain.joined([AXES, None]) is None
    assert QueryDomain.joined([AXES, dataclasses.replace(AXES, query_space="another")]) is None
