"""Routes by hand and by law; centroids, and a router by tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.errors import UsageError
from acclimate.models.encoder import Encoder
from acclimate.retrieval import routing
from acclimate.retrieval.centroids import FEWEST, MOST, fitted, query_domain, query_space
from acclimate.retrieval.index.records import Document, Hit
from acclimate.retrieval.routing import BASE, LEAST_SHARE, ROUTE_MODES, CentroidRouter, check_route_mode, fuse_hits
from acclimate.retrieval.routing import route as decide
from acclimate.retrieval.token_router import TokenRouter
from tests.models.adapted import write_model

RADII = {"bank": 0.4, "farm": 0.5}
FARM = ["wheat grows", "rice grows in the field", "seed soil", "wheat seed", "soil field", "rice seed", "wheat field"]
SKY = ["rain", "the sun", "sun rain", "water in the rain", "the rain water", "sun water", "leaf in the sun"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(str(write_model(tmp_path_factory.mktemp("base") / "bert", "bert")), device="cpu")


def test_auto_takes_the_nearest_within_its_radius_else_the_base() -> None:
    near = decide("auto", {"farm": 0.3, "bank": 0.2}, RADII)
    assert (near.weights, near.shares) == ({"bank": 1.0}, {"bank": 1.0})
    assert near.reason == "bank is nearest, at 0.200; its radius is 0.400: the query is within it"
    far = decide("auto", {"farm": 0.49, "bank": 0.41}, RADII)  # within farm's, but bank is nearer
    assert (far.weights, far.shares) == ({}, {BASE: 1.0})
    assert "beyond it, and the base answers" in far.reason
    assert far.to_json()["weights"] == {BASE: 1.0}
    assert decide("auto", {}, {}).shares == {BASE: 1.0}


def test_mixed_shares_by_hand() -> None:
    """Distances 0.2 and 0.24, radius 0.4 of the nearest: 1, e^-1 and e^-5 of the base, which is too little."""
    found = decide("mix", {"farm": 0.24, "bank": 0.2}, RADII)
    first, second = 1 / (1 + math.exp(-1)), math.exp(-1) / (1 + math.exp(-1))
    assert found.weights == pytest.approx({"bank": first, "farm": second})
    assert found.base_weight == 0
    # At the radius the base counts as much as the nearest: e^0, e^-1 and e^0.
    edge = decide("mix", {"farm": 0.44, "bank": 0.4}, RADII)
    total = 2 + math.exp(-1)
    assert edge.shares == pytest.approx({"bank": 1 / total, "farm": math.exp(-1) / total, BASE: 1 / total})
    assert decide("mix", {"farm": 0.44, "bank": 0.4}, RADII, most=1).shares == pytest.approx({"bank": 0.5, BASE: 0.5})
    assert decide("mix", {"farm": 1.1, "bank": 1.0}, RADII).shares == {BASE: 1.0}


DISTANCES = st.dictionaries(st.sampled_from("abcdef"), st.floats(0, 2), min_size=1)


@given(distances=DISTANCES, radius=st.floats(0.01, 1), most=st.integers(1, 5))
def test_shares_add_up_and_the_nearest_has_the_largest(distances: dict[str, float], radius: float, most: int) -> None:
    found = decide("mix", distances, dict.fromkeys(distances, radius), most)
    assert math.fsum(found.shares.values()) == pytest.approx(1)
    assert len(found.weights) <= most
    assert all(share > LEAST_SHARE * 0.99 for share in found.weights.values())
    if found.weights:
        nearest = min(distances, key=lambda name: (distances[name], name))
        assert found.weights[nearest] == max(found.weights.values())
    assert decide("auto", distances, dict.fromkeys(distances, radius)).distances == distances


@given(distances=st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 20).map(lambda n: n / 10), min_size=1))
def test_the_limit_of_a_sharp_mixture_is_auto(distances: dict[str, float]) -> None:
    if len(set(distances.values())) < len(distances):
        return  # equally near ones share the query
    radii = dict.fromkeys(distances, 0.95)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routing, "SHARPNESS", 1e-4)
        assert decide("mix", distances, radii).weights == pytest.approx(decide("auto", distances, radii).weights)


def test_fused_hits_are_documents_by_id_and_text() -> None:
    a, b, other_b = (Document("a", "x"), Document("b", "y"), Document("b", "another text of that id"))
    lists = {"farm": [Hit(a, 0.9), Hit(b, 0.8)], "bank": [Hit(b, 0.7)], "sky": [Hit(other_b, 0.3)]}
    found = fuse_hits(lists, {"farm": 0.5, "bank": 0.4, "sky": 0.1})
    assert [hit.document for hit in found] == [b, a, other_b]
    assert [hit.score for hit in found] == pytest.approx([0.5 / 62 + 0.4 / 61, 0.5 / 61, 0.1 / 61])


def test_modes_are_named() -> None:
    assert [check_route_mode(mode) for mode in ROUTE_MODES] == list(ROUTE_MODES)
    with pytest.raises(UsageError, match="auto, mix, fuse"):
        check_route_mode("best")


@pytest.mark.parametrize(("queries", "centroids"), [(3, 3), (20, FEWEST), (600, 20), (5000, MOST)])
def test_centroids_are_8_to_32_unit_rows_and_the_same_each_time(queries: int, centroids: int) -> None:
    draw = np.random.default_rng(0)
    vectors = draw.normal(size=(queries + 100, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    first, again = (fitted(vectors[:queries], vectors[queries:], "s") for _ in range(2))
    assert first.centroids.shape == (centroids, 16)
    np.testing.assert_array_equal(first.centroids, again.centroids)
    np.testing.assert_allclose(np.linalg.norm(first.centroids, axis=1), 1, atol=1e-5)
    assert np.mean(first.distances(vectors[queries:]) <= first.radius + 1e-6) == pytest.approx(0.95, abs=0.01)


def test_a_domain_is_of_the_bases_own_query_vectors(base: Encoder) -> None:
    domain = query_domain(base, FARM, SKY)
    assert domain is not None and domain.query_space == query_space(base)
    assert (domain.queries, domain.measured_on) == (len(FARM), len(SKY))
    np.testing.assert_allclose(domain.distances(base.encode(FARM, "query")), 0, atol=1e-5)
    assert domain.radius > 1e-3
    without = query_domain(base, FARM, [])  # every fifth stands for unseen queries
    assert without is not None and (without.queries, without.measured_on) == (5, 2)
    assert query_domain(base, [], []) is None
    both = {"farm": domain, "sky": query_domain(base, SKY, FARM)}
    router = CentroidRouter({name: one for name, one in both.items() if one is not None})
    routes = [decide("auto", found, router.radii) for found in router.distances(base.encode([*FARM, *SKY], "query"))]
    assert [list(found.weights) for found in routes] == [["farm"]] * len(FARM) + [["sky"]] * len(SKY)


def test_a_router_by_tokens(base: Encoder) -> None:
    router = TokenRouter.fit(base.tokenizer, {"farm": FARM, "sky": SKY}, {"farm": ["rice soil"]})
    assert set(router.radii) == {"farm", "sky"}
    farm, sky = router.distances(["wheat soil seed", "rain sun"])
    assert farm["farm"] < 0.5 < farm["sky"] and sky["sky"] < 0.5 < sky["farm"]
    assert math.fsum(farm.values()) == pytest.approx(1)  # two probabilities
    three = TokenRouter.fit(base.tokenizer, {"farm": FARM, "sky": SKY, "find": ["find", "find :"]}, {})
    assert min(three.distances(["find"])[0].items(), key=lambda item: item[1])[0] == "find"
    for queries in ({"farm": FARM}, {"farm": FARM, "sky": []}):
        with pytest.raises(UsageError, match="router by tokens"):
            TokenRouter.fit(base.tokenizer, queries, {})
