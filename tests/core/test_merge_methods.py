"""Ways to merge models: by hand, and by law."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from acclimate.core.merging import (
    BY_WEIGHTS,
    ELEMENTWISE,
    METHODS,
    OF_UPDATES,
    SIGNED,
    SPANNING,
    TAKES,
    drop,
    merge,
    trim,
)
from acclimate.errors import ModelError, UsageError

SEEDS = st.integers(0, 10_000)
AVERAGES = ("linear", "slerp", "multi-slerp")


def one(method: str, models: list[list[float]], weights: list[float], base: list[float] | None = None, **how: float):  # type: ignore[no-untyped-def]
    """Merge models of one tensor."""
    tensors = [{"w": torch.tensor(values)} for values in models]
    origin = None if base is None else {"w": torch.tensor(base)}
    return merge(tensors, origin, method, weights, **how)["w"].tolist()  # type: ignore[arg-type]


def random_models(seed: int, count: int, unit: bool = False) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    models = [
        {"a": torch.randn(3, 4, generator=generator), "b": torch.randn(5, generator=generator)} for _ in range(count)
    ]
    return [{name: value / value.norm() for name, value in model.items()} for model in models] if unit else models


def near(left: dict[str, Tensor], right: dict[str, Tensor], within: float = 1e-5) -> bool:
    return all(torch.allclose(left[name], right[name], atol=within) for name in left) and left.keys() == right.keys()


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_linear_by_hand() -> None:
    # (1 * [1, 0] + 3 * [5, 4]) / 4 = [16, 12] / 4
    assert one("linear", [[1.0, 0.0], [5.0, 4.0]], [1.0, 3.0]) == [4.0, 3.0]


def test_task_arithmetic_by_hand() -> None:
    # base [1, 1]; updates [1, 0] and [0, 2]; [1, 1] + 2 * [1, 0] - 0.5 * [0, 2] = [3, 0]
    assert one("task-arithmetic", [[2.0, 1.0], [1.0, 3.0]], [2.0, -0.5], [1.0, 1.0]) == [3.0, 0.0]
    # lambda 0.5 halves the update [2, -1]
    assert one("task-arithmetic", [[2.0, 1.0], [1.0, 3.0]], [2.0, -0.5], [1.0, 1.0], update_scale=0.5) == [2.0, 0.5]


def test_interpolation_by_hand() -> None:
    # 0.25 of the way from [0, 4] to [4, 0]
    assert one("interpolate", [[4.0, 0.0]], [0.25], [0.0, 4.0]) == [1.0, 3.0]


def test_slerp_by_hand() -> None:
    # A third of the quarter circle from [1, 0] to [0, 1] is 30 degrees: [cos 30, sin 30].
    assert one("slerp", [[1.0, 0.0], [0.0, 1.0]], [2.0, 1.0]) == pytest.approx([math.sqrt(3) / 2, 0.5])
    # Lengths 2 and 4: half of the way is 45 degrees at length 3.
    assert one("slerp", [[2.0, 0.0], [0.0, 4.0]], [1.0, 1.0]) == pytest.approx([3 / math.sqrt(2)] * 2)


def test_multi_slerp_by_hand() -> None:
    # The three axes are equally far from [1, 1, 1] / sqrt 3.
    axes = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert one("multi-slerp", axes, [1.0, 1.0, 1.0]) == pytest.approx([1 / math.sqrt(3)] * 3)
    # On one great circle angles average: 0, 30 and 90 degrees make 40.
    circle = [[1.0, 0.0], [math.cos(math.pi / 6), 0.5], [0.0, 1.0]]
    assert one("multi-slerp", circle, [1.0, 1.0, 1.0]) == pytest.approx(
        [math.cos(math.pi / 4.5), math.sin(math.pi / 4.5)]
    )


@pytest.mark.parametrize("method", ["slerp", "multi-slerp"])
@pytest.mark.parametrize("second", [[-1.0, 0.0], [2.0, 0.0], [0.0, 0.0]])
def test_without_a_great_circle_it_is_the_average(method: str, second: list[float]) -> None:
    # opposite, parallel, zero
    assert one(method, [[1.0, 0.0], second], [1.0, 1.0]) == pytest.approx([(1 + second[0]) / 2, 0.0], abs=1e-6)


def test_ties_by_hand() -> None:
    # Half of four elements: the two largest of each.        [ 4, -3,  1, 0] -> [4, -3, 0, 0]
    #                                                        [ 2,  5, -1, 0] -> [2,  5, 0, 0]
    #                                                        [ 0, -1,  6, 3] -> [0,  0, 6, 3]
    # Sums 6, 2, 6, 3: all signs are +. Means of the positive: (4+2)/2, 5, 6, 3.
    updates = [[4.0, -3.0, 1.0, 0.0], [2.0, 5.0, -1.0, 0.0], [0.0, -1.0, 6.0, 3.0]]
    assert one("ties", updates, [1.0, 1.0, 1.0], density=0.5) == [3.0, 5.0, 6.0, 3.0]
    # Weight 2 of the first: the second element's sum is -6 + 5 < 0, and -3 alone agrees. First: (2*4 + 2) / 3.
    assert one("ties", updates, [2.0, 1.0, 1.0], density=0.5) == pytest.approx([10 / 3, -3.0, 6.0, 3.0])
    # On a base, and with lambda 2: [1, 1, 1, 1] + 2 * [3, 5, 6, 3].
    models = [[1 + value for value in row] for row in updates]
    assert one("ties", models, [1.0] * 3, [1.0] * 4, density=0.5, update_scale=2.0) == [7.0, 11.0, 13.0, 7.0]


def test_ties_where_votes_cancel_out_is_the_base() -> None:
    assert one("ties", [[2.0, 1.0], [-2.0, 1.0]], [1.0, 1.0], density=1.0) == [0.0, 1.0]


def test_trim_keeps_the_largest_magnitudes_and_at_least_one() -> None:
    assert trim(torch.tensor([[1.0, -4.0, 3.0, 2.0]]), 0.5).tolist() == [[0.0, -4.0, 3.0, 0.0]]
    assert trim(torch.tensor([[1.0, -4.0, 3.0, 2.0]]), 0.01).tolist() == [[0.0, -4.0, 0.0, 0.0]]


def test_dare_by_hand() -> None:
    # What the generator keeps of 2 x 4 elements at density 0.5, kept values doubled.
    kept = torch.rand(2, 4, generator=seeded()) < 0.5
    updates = torch.tensor([[1.0, 2.0, 3.0, 4.0], [-8.0, 7.0, -6.0, 5.0]])
    doubled = 2 * updates * kept
    models = [{"w": row} for row in updates]
    found = merge(models, None, "dare-linear", [1.0, 0.5], density=0.5, generator=seeded())["w"]
    assert found.tolist() == (doubled[0] + 0.5 * doubled[1]).tolist()
    found = merge(models, None, "dare-ties", [1.0, 0.5], density=0.5, generator=seeded())["w"]
    # Element by element: the sum where the signs agree or only one is left, else the one of the larger vote.
    for column in range(4):
        first, second = float(doubled[0, column]), 0.5 * float(doubled[1, column])
        expected = first + second if first * second >= 0 else max(first, second, key=abs) * (first != -second)
        assert float(found[column]) == pytest.approx(expected)
    assert 0 < int(kept.sum()) < 8


def test_dropping_keeps_the_expected_value() -> None:
    dropped = drop(torch.ones(1, 40_000), 0.2, seeded())
    assert set(dropped.unique().tolist()) == {0.0, 5.0}
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)


@given(seed=SEEDS, method=st.sampled_from(METHODS))
def test_weight_one_and_all_others_zero_is_the_first(seed: int, method: str) -> None:
    models, base = random_models(seed, TAKES.get(method, 3)), random_models(seed + 1, 1)[0]
    weights = [1.0, *[0.0] * (len(models) - 1)]
    assert near(merge(models, base, method, weights, density=1.0), models[0])


@given(seed=SEEDS, method=st.sampled_from(METHODS), count=st.integers(1, 4))
def test_equal_models_merge_to_themselves(seed: int, method: str, count: int) -> None:
    model, base = random_models(seed, 2)
    count = TAKES.get(method, count)
    assert near(merge([model] * count, base, method, [1 / count] * count, density=1.0), model)


@given(seed=SEEDS, method=st.sampled_from([m for m in METHODS if m != "interpolate" and "dare" not in m]))
def test_the_order_of_the_models_does_not_matter(seed: int, method: str) -> None:
    models, base = random_models(seed, TAKES.get(method, 3)), random_models(seed + 1, 1)[0]
    weights = [0.2, 0.5, 0.3][: len(models)]
    forward = merge(models, base, method, weights)
    assert near(merge(models[::-1], base, method, weights[::-1]), forward)


@given(seed=SEEDS, share=st.floats(0, 1), count=st.integers(2, 4))
def test_slerp_stays_on_the_sphere(seed: int, share: float, count: int) -> None:
    models = random_models(seed, count, unit=True)
    weights = [share + 0.1, *[1.1 - share] * (count - 1)]
    for method in ("slerp", "multi-slerp")[count > 2 :]:
        merged = merge(models, None, method, weights)
        assert all(value.norm().item() == pytest.approx(1.0, abs=1e-5) for value in merged.values())


@given(seed=SEEDS, share=st.floats(0, 1))
def test_multi_slerp_of_two_is_slerp(seed: int, share: float) -> None:
    models = random_models(seed, 2)
    assert near(
        merge(models, None, "multi-slerp", [1 - share, share]), merge(models, None, "slerp", [1 - share, share])
    )


@given(seed=SEEDS)
def test_the_spherical_mean_is_least_in_squared_angles(seed: int) -> None:
    models = [{"a": (model["a"].abs() + 0.1)} for model in random_models(seed, 3)]  # one quarter of the sphere
    weights = [0.5, 0.3, 0.2]

    def cost(point: Tensor) -> float:
        units = [model["a"].double().flatten() / model["a"].double().norm() for model in models]
        direction = point.double().flatten() / point.double().norm()
        return sum(w * math.acos(min(1.0, float(u @ direction))) ** 2 for w, u in zip(weights, units, strict=True))

    found = merge(models, None, "multi-slerp", weights)["a"]
    generator = torch.Generator().manual_seed(seed)
    for _ in range(5):
        moved = found + 0.05 * torch.randn(found.shape, generator=generator)
        assert cost(found) <= cost(moved)


@given(seed=SEEDS, method=st.sampled_from(sorted(OF_UPDATES - {"interpolate"})))
def test_updates_and_models_on_a_base_are_merged_alike(seed: int, method: str) -> None:
    models, base = random_models(seed, 3), random_models(seed + 1, 1)[0]
    updates = [{name: model[name] - base[name] for name in model} for model in models]
    weights = [0.2, 0.5, 0.3]
    whole = merge(models, base, method, weights, generator=seeded())
    update = merge(updates, None, method, weights, generator=seeded())
    assert near(whole, {name: base[name] + update[name] for name in base})


def test_results_are_float32_and_whole_numbers_are_kept() -> None:
    model = {"w": torch.ones(2, dtype=torch.bfloat16), "position_ids": torch.arange(3)}
    merged = merge([model, model], None, "linear", [1.0, 1.0])
    assert merged["w"].dtype == torch.float32
    assert merged["position_ids"].tolist() == [0, 1, 2]
    with pytest.raises(ModelError, match="position_ids holds whole numbers"):
        merge([model, model | {"position_ids": torch.arange(1, 4)}], None, "linear", [1.0, 1.0])


@pytest.mark.parametrize(
    ("method", "weights", "models", "density", "message"),
    [
        ("average", [1.0], 1, 0.5, "method = 'average'.*linear.*multi-slerp.*dare-ties"),
        ("slerp", [1.0], 1, 0.5, "slerp of 1 models.*2"),
        ("slerp", [1.0, 1.0, 1.0], 3, 0.5, "slerp of 3 models.*multi-slerp"),
        ("interpolate", [0.5, 0.5], 2, 0.5, "interpolate of 2 models"),
        ("linear", [1.0, 1.0, 1.0], 2, 0.5, "3 weights for 2 models"),
        ("linear", [1.0, math.nan], 2, 0.5, "finite"),
        ("linear", [1.0, -1.0], 2, 0.5, "weights = 1,-1 with linear"),
        ("ties", [0.0, 0.0], 2, 0.5, "not all 0"),
        ("ties", [1.0, 1.0], 2, 0.0, r"density = 0\.0.*above 0, up to 1"),
        ("dare-linear", [1.0, 1.0], 2, 1.5, r"density = 1\.5"),
    ],
)
def test_what_cannot_be_is_named(method: str, weights: list[float], models: int, density: float, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        merge([{"w": torch.ones(2)}] * models, None, method, weights, density=density)


def test_models_of_another_shape_are_refused() -> None:
    with pytest.raises(ModelError, match=r"w has the shape \(2,\) in the first model, \(3,\) in number 2"):
        merge([{"w": torch.ones(2)}, {"w": torch.ones(3)}], None, "linear", [1.0, 1.0])
    with pytest.raises(ModelError, match="only number 2 has v"):
        merge([{"w": torch.ones(2)}, {"w": torch.ones(2), "v": torch.ones(1)}], None, "linear", [1.0, 1.0])


def test_every_method_is_in_one_table() -> None:
    assert not SPANNING.keys() & ELEMENTWISE.keys()
    assert OF_UPDATES | SIGNED | TAKES.keys() <= set(METHODS)
    assert set(AVERAGES) == set(METHODS) - OF_UPDATES


@pytest.mark.parametrize("method", sorted(BY_WEIGHTS))
def test_coefficients_by_weights_are_the_same_whatever_the_tensors(method: str) -> None:
    weight_K, gram_KK = torch.tensor([0.5, 0.2, 0.3]).double(), torch.randn(3, 3).double()
    assert torch.equal(SPANNING[method](gram_KK, weight_K), SPANNING[method](torch.zeros_like(gram_KK), weight_K))
