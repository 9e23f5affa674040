"""LoraLinear by arithmetic and by law: against PEFT, over quantised bases, one-hot = alone, soft = weighted sum."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from acclimate.core import lora
from acclimate.core.linears import linear_names
from acclimate.core.lora_linear import CPU_CALL_COST, GatedLinear, LoraLinear
from acclimate.errors import ModelError, UsageError


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(6, 10)
        self.down = nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.tanh(self.up(x)))


class Tower(nn.Module):
    def __init__(self, blocks: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.recompute = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.recompute else block(x)
        return x


class Int8Linear(nn.Module):
    """Linear-like, weight in int8 with a scale per row: what a weight-only quantised base looks like."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = plain.in_features, plain.out_features
        scale = plain.weight.detach().abs().amax(1, keepdim=True) / 127
        self.register_buffer("scale", scale)
        self.register_buffer("codes", (plain.weight.detach() / scale).round().to(torch.int8))
        self.register_buffer("offset", plain.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.codes * self.scale).t() + self.offset


@pytest.fixture(autouse=True)
def _seed() -> Iterator[None]:
    torch.manual_seed(0)
    yield


def random_modules(model: nn.Module, rank: int, seed: int) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    sizes = {name: model.get_submodule(name) for name in linear_names(model)}
    return {
        name: (
            torch.randn(rank, linear.in_features, generator=generator),
            torch.randn(linear.out_features, rank, generator=generator) / 3,
        )
        for name, linear in sizes.items()
    }


def alone(model: nn.Module, modules: dict[str, tuple[Tensor, Tensor]], x: Tensor) -> Tensor:
    """The slow reference: one adapter by itself on one sample."""
    lora.attach_weights(model, modules)
    with torch.no_grad():
        y = model(x)
    lora.detach(model)
    return y


def test_by_hand() -> None:
    base = nn.Linear(2, 2, bias=False)
    base.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    layer = LoraLinear(base, torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0], [-1.0]]]), scaling=0.5)
    # Ax = 1*10 + 2*1 = 12; B(12) = (36, -12), half of it = (18, -6); Wx = (10, 1).
    assert layer(torch.tensor([[10.0, 1.0]])).tolist() == [[28.0, -5.0]]
    A, B = layer.weights()
    assert B.tolist() == [[[1.5], [-0.5]]]
    assert A.tolist() == [[[1.0, 2.0]]]


def test_starts_as_the_base_and_draws_what_peft_draws() -> None:
    model = Tower()
    x = torch.randn(3, 5, 6)
    before = model(x)
    layers = lora.attach(model, ["all-linear"], rank=4, generator=torch.Generator().manual_seed(1))
    assert list(layers) == ["blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down"] == linear_names(model)
    assert torch.equal(model(x), before)
    # kaiming-uniform with a = sqrt(5): the bound is 1 / sqrt(d_in).
    reference = torch.empty(4, 6)
    nn.init.kaiming_uniform_(reference, a=math.sqrt(5), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(layers["blocks.0.up"].A[0], reference)
    lora.detach(model)
    assert torch.equal(model(x), before)
    assert type(model.blocks[0].up) is nn.Linear


def test_targets_are_endings_and_a_wrong_one_lists_the_names() -> None:
    model = Tower()
    assert list(lora.attach(model, ["up", "blocks.1.down"], rank=2)) == ["blocks.0.up", "blocks.1.up", "blocks.1.down"]
    with pytest.raises(UsageError, match="carries an adapter already"):
        lora.attach(model, ["up"], rank=2)
    lora.detach(model)
    # "own" ends "down" as a string, but is no name.
    with pytest.raises(UsageError, match=r"'own'.*up, down"):
        lora.attach(model, ["own"], rank=2)
    assert not lora.lora_layers(model)


@pytest.mark.parametrize("alpha", [8.0, 16.0])
def test_gradients_are_pefts(alpha: float) -> None:
    """Same loss, same gradients on raw A and B, so Adam takes the same steps, whatever alpha / rank is."""
    from peft import LoraConfig, get_peft_model

    model, x = Tower(), torch.randn(7, 6)
    layers = lora.attach(model, ["all-linear"], rank=4, alpha=alpha)
    for layer in layers.values():
        nn.init.normal_(layer.B)
    model(x).square().sum().backward()

    theirs_base = Tower()
    plain = {name.replace(".base.", "."): value for name, value in model.state_dict().items() if name[-1] not in "AB"}
    theirs_base.load_state_dict(plain)
    theirs = get_peft_model(theirs_base, LoraConfig(r=4, lora_alpha=int(alpha), target_modules=["up", "down"]))
    wrapped = {name: theirs.get_submodule(f"base_model.model.{name}") for name in layers}
    for name, layer in layers.items():
        wrapped[name].lora_A["default"].weight.data = layer.A.detach()[0].clone()
        wrapped[name].lora_B["default"].weight.data = layer.B.detach()[0].clone()
    theirs(x).square().sum().backward()
    for name, layer in layers.items():
        assert torch.allclose(layer.A.grad[0], wrapped[name].lora_A["default"].weight.grad, rtol=1e-4, atol=1e-5)
        assert torch.allclose(layer.B.grad[0], wrapped[name].lora_B["default"].weight.grad, rtol=1e-4, atol=1e-5)


def dynamic_int8(plain: nn.Linear) -> nn.Module:
    torch.backends.quantized.engine = next(e for e in torch.backends.quantized.supported_engines if e != "none")
    return torch.ao.nn.quantized.dynamic.Linear.from_float(_with_qconfig(plain), use_precomputed_fake_quant=False)


def _with_qconfig(plain: nn.Linear) -> nn.Linear:
    plain.qconfig = torch.ao.quantization.default_dynamic_qconfig
    return plain


@pytest.mark.parametrize("quantise", [Int8Linear, dynamic_int8])
@pytest.mark.filterwarnings("ignore")
def test_over_a_quantised_base(quantise: Callable[[nn.Linear], nn.Module]) -> None:
    """The base is only ever called: y - base(x) is exactly B A x, and training moves A and B."""
    quantised = quantise(nn.Linear(16, 8))
    model = nn.Sequential(quantised)
    assert linear_names(model) == ["0"]
    layer = lora.attach(model, ["all-linear"], rank=2)["0"]
    nn.init.normal_(layer.B)
    x = torch.randn(5, 16)
    delta = x @ layer.A[0].t() @ layer.B[0].t()
    assert torch.allclose(model(x), quantised(x) + delta, atol=1e-5)
    model(x).sum().backward()
    assert layer.A.grad is not None and layer.A.grad.abs().sum() > 0
    lora.detach(model)
    assert model[0] is quantised


@given(
    adapter_of=st.lists(st.integers(-1, 3), min_size=1, max_size=6),
    lengths=st.lists(st.integers(1, 5), min_size=6, max_size=6),
)
@pytest.mark.parametrize("call_cost", [0, 10**9])
def test_one_hot_batch_is_each_adapter_alone(call_cost: int, adapter_of: list[int], lengths: list[int]) -> None:
    """Packed rows, adapters of ranks 1 to 4 each as it is, and -1 for a text that stays with the base.

    Both ways of computing it: a product for each adapter's rows, and one for all of them.
    """
    torch.manual_seed(1)
    model = Tower()
    adapters = [random_modules(model, rank=k + 1, seed=k) for k in range(4)]
    texts = [torch.randn(length, 6) for length in lengths[: len(adapter_of)]]
    with torch.no_grad():
        expected = [
            alone(model, adapters[k], text) if k >= 0 else model(text)
            for k, text in zip(adapter_of, texts, strict=True)
        ]
        lora.attach_set(model, adapters)
        gate_NK = torch.zeros(len(texts), 4)
        for row, k in enumerate(adapter_of):
            if k >= 0:
                gate_NK[row, k] = 1
        costs = dict.fromkeys(CPU_CALL_COST, call_cost)
        with mock.patch.dict(CPU_CALL_COST, costs), lora.gate(model, gate_NK, [len(text) for text in texts]):
            mixed = model(torch.cat(texts))
    assert torch.allclose(mixed, torch.cat(expected), atol=1e-4)


def test_a_padded_batch_shares_rows_equally() -> None:
    model = Tower()
    adapters = [random_modules(model, rank=2, seed=k) for k in range(2)]
    x = torch.randn(2, 5, 6)
    expected = torch.stack([alone(model, adapters[1], x[0]), alone(model, adapters[0], x[1])])
    lora.attach_set(model, adapters)
    with lora.gate(model, torch.eye(2).flip(0)):
        assert torch.allclose(model(x), expected, atol=1e-4)


def test_soft_gate_is_the_weighted_sum_and_carries_gradient() -> None:
    layer_base = nn.Linear(6, 4)
    model = nn.Sequential(layer_base)
    adapters = [random_modules(model, rank=k + 1, seed=k) for k in range(3)]
    lora.attach_set(model, adapters)
    gate_NK = torch.softmax(torch.randn(2, 3), 1).requires_grad_()
    x = torch.randn(5, 6)
    of_row = [0, 0, 1, 1, 1]
    expected = torch.stack(
        [
            layer_base(row) + sum(gate_NK[n, k] * (B @ (A @ row)) for k, (A, B) in enumerate(a["0"] for a in adapters))
            for n, row in zip(of_row, x, strict=True)
        ]
    )
    with lora.gate(model, gate_NK, torch.tensor([2, 3])):
        mixed = model(x)
        (ours,) = torch.autograd.grad(mixed.square().sum(), gate_NK)
    assert torch.allclose(mixed, expected, atol=1e-5)
    (reference,) = torch.autograd.grad(expected.square().sum(), gate_NK)
    assert torch.allclose(ours, reference, rtol=1e-4, atol=1e-4)


def attached_in_training(model: nn.Module, adapters: int) -> dict[str, nn.Parameter]:
    """LoRA of rank 3 that trains, and is no longer at its start: B is not zero."""
    lora.attach(model, ["all-linear"], rank=3, adapters=adapters, alpha=6.0)
    parameters = lora.trainable_parameters(model)
    for name, parameter in parameters.items():
        if name.endswith(".B"):
            nn.init.normal_(parameter)
    return parameters


def test_hard_and_soft_path_agree_in_value_and_gradient() -> None:
    model = Tower()
    parameters = attached_in_training(model, adapters=2)
    x, one_hot = torch.randn(7, 6), torch.eye(2)[[1, 0, 1]]
    outcomes = []
    for gate_NK in (one_hot, one_hot.clone().requires_grad_()):
        with lora.gate(model, gate_NK, [3, 1, 3]):
            y = model(x)
            outcomes.append([y, *torch.autograd.grad(y.square().sum(), list(parameters.values()))])
    for hard, soft in zip(*outcomes, strict=True):
        assert torch.allclose(hard, soft, rtol=1e-4, atol=1e-4)


def test_texts_of_many_adapters_are_one_product_where_calls_are_dear() -> None:
    """As in training on a GPU: the same values and gradients as with a product for each text, in one product."""
    model = Tower()
    parameters = attached_in_training(model, adapters=4)
    x, one_hot = torch.randn(9, 6), torch.eye(4)[[3, 0, 2, 0]]
    outcomes = []
    for cost in (0, 10**9):
        with (
            mock.patch.object(LoraLinear, "_call_cost", return_value=cost),
            mock.patch.object(LoraLinear, "_add", autospec=True, side_effect=LoraLinear._add) as added,
            lora.gate(model, one_hot, [3, 1, 3, 2]),
        ):
            y = model(x)
            outcomes.append([y, *torch.autograd.grad(y.square().sum(), list(parameters.values()))])
        assert added.call_count == len(lora.lora_layers(model)) * (1 if cost else 4)
    for separate, joined in zip(*outcomes, strict=True):
        assert torch.allclose(separate, joined, rtol=1e-4, atol=1e-4)


def test_one_hot_never_pays_k_times() -> None:
    """Counted, not timed: a one-hot batch over 8 adapters does the work of one adapter."""
    from torch.utils.flop_counter import FlopCounterMode

    model = nn.Sequential(nn.Linear(32, 32))
    lora.attach(model, ["all-linear"], rank=4, adapters=8)
    with FlopCounterMode(display=False) as counter, lora.gate(model, torch.eye(8)):
        model(torch.randn(128, 32))
    # A multiplication and an addition each: the base 128 * 32 * 32, one adapter's A and B 128 * 32 * 4 each.
    assert counter.get_total_flops() == 2 * (128 * 32 * 32 + 2 * 128 * 32 * 4)


def test_a_soft_gate_costs_the_adapters_of_each_row_alone() -> None:
    """Counted: two of eight adapters in every row cost two, whatever the others' ranks are."""
    from torch.utils.flop_counter import FlopCounterMode

    model = nn.Sequential(nn.Linear(32, 32))
    ranks = [4, 8, 2, 16, 1, 3, 5, 32]
    lora.attach_set(model, [random_modules(model, rank, rank) for rank in ranks])
    gate_NK = torch.zeros(2, 8)
    gate_NK[0, [0, 3]], gate_NK[1, [2, 4]] = 0.5, 0.3
    costs = dict.fromkeys(CPU_CALL_COST, 0)
    with (
        FlopCounterMode(display=False) as counter,
        mock.patch.dict(CPU_CALL_COST, costs),
        lora.gate(model, gate_NK, [100, 28]),  # under gradient: the counter does not see products in place
    ):
        model(torch.randn(128, 32))
    assert counter.get_total_flops() == 2 * (128 * 32 * 32 + 2 * 32 * (100 * (4 + 16) + 28 * (2 + 1)))


@given(
    weights=st.lists(st.lists(st.sampled_from([0.0, 0.25, 1.0, -0.5]), min_size=3, max_size=3), min_size=1, max_size=5),
    lengths=st.lists(st.integers(1, 4), min_size=5, max_size=5),
    skipped=st.integers(0, 3),
)
@pytest.mark.parametrize("call_cost", [0, 10**9])
@pytest.mark.parametrize("gradient", [False, True])
def test_a_set_under_any_gate_is_the_sum_by_hand(
    call_cost: int, gradient: bool, weights: list[list[float]], lengths: list[int], skipped: int
) -> None:
    """Row by row: base(x) + sum_k g_k B_k A_k x; ranks differ, and one adapter has nothing for the layer."""
    torch.manual_seed(2)
    base = nn.Linear(6, 4)
    model = nn.Sequential(base)
    adapters = [random_modules(model, rank=k + 1, seed=k) if k != skipped else {} for k in range(3)]
    texts = [torch.randn(length, 6) for length in lengths[: len(weights)]]
    expected = [
        base(row) + sum(w * (B @ (A @ row)) for w, a in zip(of_text, adapters, strict=True) for A, B in a.values())
        for of_text, text in zip(weights, texts, strict=True)
        for row in text
    ]
    lora.attach_set(model, adapters)
    costs = dict.fromkeys(CPU_CALL_COST, call_cost)
    gate = lora.gate(model, torch.tensor(weights), [len(text) for text in texts])
    with mock.patch.dict(CPU_CALL_COST, costs), gate, torch.set_grad_enabled(gradient):
        found = model(torch.cat(texts))
    assert torch.allclose(found, torch.stack(expected), atol=1e-4)


def test_a_set_is_cast_once_and_keeps_true_ranks() -> None:
    model = Tower().to(torch.bfloat16)
    plain = sum(parameter.numel() for parameter in model.parameters())
    lora.attach_set(model, [random_modules(model, rank, rank) for rank in (1, 7)], torch.bfloat16)
    added = sum(parameter.numel() for parameter in model.parameters()) - plain
    assert added == 2 * (1 + 7) * 2 * (6 + 10)  # blocks * ranks * linears * (d_in + d_out)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    with pytest.raises(UsageError, match="carries an adapter already"):
        lora.attach_set(model, [])


def test_gates_of_two_threads_do_not_meet() -> None:
    """Each thread runs with its own gate while the other wants to: a gate that both could set would be overwritten."""
    model = Tower(4)
    adapters = [random_modules(model, rank=2, seed=k) for k in range(2)]
    x = torch.randn(4, 6)
    expected = [alone(model, modules, x) for modules in adapters]
    lora.attach_set(model, adapters)

    def wrong(number: int) -> int:
        found = 0
        for _ in range(60):
            with torch.no_grad(), lora.gate(model, torch.eye(2)[[number % 2]]):
                time.sleep(0.0002)
                found += not torch.allclose(model(x), expected[number % 2], atol=1e-4)
        return found

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wrong, range(4))) == 0


def test_the_recomputation_sees_the_gate_from_another_thread() -> None:
    """On CUDA autograd runs the backward pass, and so the recomputation, in threads of its own."""
    model = Tower().requires_grad_(False)
    lora.attach(model, ["all-linear"], rank=2, adapters=2)
    parameters = list(lora.trainable_parameters(model).values())
    for parameter in parameters:
        nn.init.normal_(parameter)
    x, gate_NK = torch.randn(6, 6), torch.eye(2)
    with lora.gate(model, gate_NK, [4, 2]):
        expected = torch.autograd.grad(model(x).square().sum(), parameters)
    model.recompute = True
    with lora.gate(model, gate_NK, [4, 2]), ThreadPoolExecutor(1) as pool:
        loss = model(x).square().sum()
        found = pool.submit(torch.autograd.grad, loss, parameters).result(timeout=60)
    for plain, recomputed in zip(expected, found, strict=True):
        assert torch.equal(plain, recomputed)


def test_a_copy_of_a_model_has_its_own_gate() -> None:
    model = Tower()
    lora.attach_set(model, [random_modules(model, rank=2, seed=k) for k in range(2)])
    twin, x = copy.deepcopy(model), torch.randn(1, 6)
    slots = {layer.slot for layer in twin.modules() if isinstance(layer, GatedLinear)}
    assert slots == {lora.gate_slot(twin)} and lora.gate_slot(twin) is not lora.gate_slot(model)
    with torch.no_grad(), lora.gate(model, torch.eye(2)[[0]]):
        first = model(x)
        with lora.gate(twin, torch.eye(2)[[1]]):
            assert not torch.allclose(twin(x), first)
        assert torch.equal(model(x), first)
        with lora.adapters_off(model):
            assert not torch.allclose(model(x), first)
        assert torch.equal(model(x), first)


def test_gate_reaches_the_recomputation() -> None:
    """Gradient checkpointing runs forward again in backward: the gate must still be there, and gradients be equal."""
    model = Tower()
    model.requires_grad_(False)
    lora.attach(model, ["all-linear"], rank=2, adapters=2)
    parameters = lora.trainable_parameters(model)
    for parameter in parameters.values():
        nn.init.normal_(parameter)
    x, gate_NK = torch.randn(6, 6), torch.eye(2)
    grads = []
    for recompute in (False, True):
        model.recompute = recompute
        with lora.gate(model, gate_NK, [4, 2]):
            grads.append(torch.autograd.grad(model(x).square().sum(), list(parameters.values())))
    for plain, recomputed in zip(*grads, strict=True):
        assert torch.equal(plain, recomputed)
    with lora.gate(model, gate_NK, [4, 2]):
        loss = model(x).square().sum()
    with pytest.raises(UsageError, match="no gate says"):
        loss.backward()


def test_generated_matrices_pass_gradients_to_their_maker() -> None:
    model = nn.Sequential(nn.Linear(6, 4))
    layer = lora.attach(model, ["all-linear"], rank=2)["0"]
    maker = nn.Linear(3, 3 * 2 * 6 + 3 * 4 * 2)
    made = maker(torch.randn(3))
    layer.set_weights(made[:36].view(3, 2, 6), made[36:].view(3, 4, 2))
    assert not lora.trainable_parameters(model)
    with lora.gate(model, torch.eye(3)):
        model(torch.randn(3, 6)).square().sum().backward()
    assert maker.weight.grad is not None and maker.weight.grad.abs().sum() > 0


def test_dropout_is_a_function_of_the_rng_state_and_costs_nothing_at_zero() -> None:
    model, x = Tower(), torch.randn(50, 6)
    layers = lora.attach(model, ["all-linear"], rank=4, dropout=0.5)
    for layer in layers.values():
        nn.init.normal_(layer.B)

    def run(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return model(x)

    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))
    model.eval()
    assert torch.equal(run(3), run(4))
    lora.detach(model)
    lora.attach(model.train(), ["all-linear"], rank=4)
    state = torch.get_rng_state()
    model(x)
    assert torch.equal(torch.get_rng_state(), state)


def test_masters_stay_float32_over_a_bf16_base() -> None:
    model = Tower().to(torch.bfloat16)
    layers = lora.attach(model, ["all-linear"], rank=4)
    for layer in layers.values():
        nn.init.normal_(layer.B, std=0.1)
    y = model(torch.randn(5, 6, dtype=torch.bfloat16))
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert {parameter.dtype for parameter in lora.trainable_parameters(model).values()} == {torch.float32}
    assert all(parameter.grad.dtype == torch.float32 for parameter in lora.trainable_parameters(model).values())


def test_adapters_off_is_the_base_and_ends() -> None:
    model, x = Tower(), torch.randn(4, 6)
    base = model(x)
    lora.attach_weights(model, random_modules(model, 2, 0))
    adapted = model(x)
    assert not torch.allclose(adapted, base)
    with lora.adapters_off(model):
        assert torch.equal(model(x), base)
    assert torch.equal(model(x), adapted)


def test_misuse_is_named() -> None:
    model = Tower()
    with pytest.raises(ModelError, match=r"'blocks\.9\.up'.*does not have.*up, down"):
        lora.attach_weights(model, {"blocks.9.up": (torch.zeros(2, 6), torch.zeros(10, 2))})
    with pytest.raises(ModelError, match=r"do not fit a linear layer from 6 to 10"):
        lora.attach_weights(model, {"blocks.0.up": (torch.zeros(2, 7), torch.zeros(10, 2))})
    assert not lora.lora_layers(model)
    lora.attach(model, ["up"], rank=2, adapters=2)
    with pytest.raises(UsageError, match="no gate says"):
        model(torch.randn(4, 6))
    with pytest.raises(UsageError, match="gate speaks of 3"), lora.gate(model, torch.eye(3)):
        pass
    with pytest.raises(UsageError, match="add up to 5 rows, the batch has 4"), lora.gate(model, torch.eye(2), [2, 3]):
        model(torch.randn(4, 6))
    with pytest.raises(UsageError, match="3 rows cannot be shared equally"), lora.gate(model, torch.eye(2)):
        model(torch.randn(3, 6))
