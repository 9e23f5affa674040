"""Low-rank updates merged: equal to the merge of the full matrices, and the discarded share is what is missing."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from acclimate.core.low_rank import compress, merge_dense, merge_low_rank, truncate
from acclimate.core.merging import ELEMENTWISE, SPANNING, TAKES, merge

SEEDS = st.integers(0, 10_000)


def adapter(seed: int, rank: int, names: tuple[str, ...] = ("up", "down")) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {"up": (6, 9), "down": (9, 6)}
    return {
        name: (
            torch.randn(rank, sizes[name][0], generator=generator),
            torch.randn(sizes[name][1], rank, generator=generator),
        )
        for name in names
    }


def product(pair: tuple[Tensor, Tensor]) -> Tensor:
    return pair[1] @ pair[0]


def test_linear_by_hand_has_no_cross_terms() -> None:
    # Updates [[2, 0], [0, 0]] and [[0, 0], [0, 6]]; their mean is diag(1, 3). Averaging A and B apart would give
    # [[1], [3]] [[0.5, 0.5]] = [[0.5, 0.5], [1.5, 1.5]].
    first = (torch.tensor([[1.0, 0.0]]), torch.tensor([[2.0], [0.0]]))
    second = (torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0], [6.0]]))
    modules, discarded = merge_low_rank([{"m": first}, {"m": second}], "linear", [1.0, 1.0])
    assert product(modules["m"]).tolist() == [[1.0, 0.0], [0.0, 3.0]]
    assert len(modules["m"][0]) == 2 and discarded["m"].share == 0.0
    # Rank 1 keeps the 3: it discards 1 of 1 + 9.
    modules, discarded = merge_low_rank([{"m": first}, {"m": second}], "linear", [1.0, 1.0], rank=1)
    assert torch.allclose(product(modules["m"]), torch.tensor([[0.0, 0.0], [0.0, 3.0]]), atol=1e-6)
    assert discarded["m"].share == pytest.approx(0.1)


@given(seed=SEEDS, method=st.sampled_from([*SPANNING]), ranks=st.lists(st.integers(1, 4), min_size=3, max_size=3))
def test_low_rank_is_the_merge_of_the_full_updates(seed: int, method: str, ranks: list[int]) -> None:
    count = TAKES.get(method, 3)
    adapters = [adapter(seed + k, rank) for k, rank in enumerate(ranks[:count])]
    weights = [0.5, 0.2, 0.3][:count]
    modules, _ = merge_low_rank(adapters, method, weights)
    updates = [{name: product(pair) for name, pair in modules.items()} for modules in adapters]
    dense = merge(updates, None, method, weights)
    assert all(torch.allclose(product(modules[name]), dense[name], atol=1e-4) for name in dense)
    assert all(len(modules[name][0]) == sum(ranks[:count]) for name in modules)


@given(seed=SEEDS, method=st.sampled_from([*ELEMENTWISE]))
def test_methods_by_element_come_back_by_svd(seed: int, method: str) -> None:
    adapters = [adapter(seed, 2), adapter(seed + 1, 3)]

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(seed)

    dense = merge_dense(adapters, method, [0.5, 0.5], generator=generator())
    exact, nothing_lost = merge_low_rank(adapters, method, [0.5, 0.5], rank=6, generator=generator())
    assert all(torch.allclose(product(exact[name]), dense[name], atol=1e-4) for name in dense)
    lossy, discarded = merge_low_rank(adapters, method, [0.5, 0.5], generator=generator())
    for name, matrix in dense.items():
        assert nothing_lost[name].share < 1e-9
        assert len(lossy[name][0]) == 5
        missing = (product(lossy[name]) - matrix).square().sum().item()
        assert discarded[name].lost == pytest.approx(missing, abs=1e-4)
        assert discarded[name].whole == pytest.approx(matrix.square().sum().item(), rel=1e-4)


@given(seed=SEEDS, rank=st.integers(1, 12), wanted=st.integers(1, 12))
def test_compress_is_the_best_of_its_rank(seed: int, rank: int, wanted: int) -> None:
    (A, B) = adapter(seed, rank)["up"]
    (small_A, small_B), discarded = compress(A, B, wanted)
    U, values, V = torch.linalg.svd((B @ A).double(), full_matrices=False)
    best = (U[:, :wanted] * values[:wanted]) @ V[:wanted]
    assert len(small_A) <= wanted
    assert torch.allclose(small_B @ small_A, best.float(), atol=1e-4)
    assert discarded.share == pytest.approx(float(values[wanted:].square().sum() / values.square().sum()), abs=1e-6)


def test_truncate_is_close_to_the_best_of_its_rank() -> None:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(120, 80, generator=generator)  # a flat spectrum is the hardest
    (A, B), discarded = truncate(matrix, 10)
    values = torch.linalg.svdvals(matrix.double())
    best = float(values[10:].square().sum() / values.square().sum())
    assert best <= discarded.share < best + 0.01
    assert discarded.lost == pytest.approx((B @ A - matrix).square().sum().item(), rel=1e-3)


def test_a_module_that_one_adapter_lacks_has_no_update_there() -> None:
    first, second = adapter(0, 2), adapter(1, 3, ("up",))
    modules, _ = merge_low_rank([first, second], "linear", [1.0, 1.0])
    assert torch.allclose(product(modules["down"]), product(first["down"]) / 2, atol=1e-6)
    assert [len(modules[name][0]) for name in ("up", "down")] == [5, 2]


def test_weight_zero_costs_no_rank_and_all_zero_is_no_update() -> None:
    modules, _ = merge_low_rank([adapter(0, 2), adapter(1, 3)], "linear", [1.0, 0.0])
    assert len(modules["up"][0]) == 2
    modules, discarded = merge_low_rank([adapter(0, 2)], "interpolate", [0.0], rank=1)
    assert product(modules["up"]).abs().max() == 0 and discarded["up"].share == 0.0
