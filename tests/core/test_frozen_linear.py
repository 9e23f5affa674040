"""A FrozenLinear gives what nn.Linear gives, forward and backward, and notices when its weight has changed."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from acclimate.core import frozen_linear, lora
from acclimate.core.frozen_linear import FrozenLinear, freeze_linears, thaw_linears

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="needs a torch with oneDNN")


def frozen(d_in: int, d_out: int, dtype: torch.dtype = torch.float32, *, bias: bool = True) -> FrozenLinear:
    """Whatever the processor: the layout is right on all, and faster on some."""
    return FrozenLinear(d_in, d_out, bias=bias, dtype=dtype).requires_grad_(False)


DTYPES = [torch.float32, torch.bfloat16] if torch.backends.cpu.get_cpu_capability() == "AVX512" else [torch.float32]
"""oneDNN lays out bfloat16 for no narrower CPU, and there `freeze_linears` changes nothing."""


def tolerance(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 2e-2


@settings(deadline=None, max_examples=30)
@given(
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 70)),
    dtype=st.sampled_from(DTYPES),
    bias=st.booleans(),
    batched=st.booleans(),
)
def test_equals_the_plain_product(sizes: tuple[int, int, int], dtype: torch.dtype, bias: bool, batched: bool) -> None:
    rows, d_in, d_out = sizes
    layer = frozen(d_in, d_out, dtype, bias=bias)
    shape = (2, rows, d_in) if batched else (rows, d_in)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    gradient = torch.randn(*shape[:-1], d_out, dtype=dtype)
    ours = layer(x)
    (our_gradient,) = torch.autograd.grad(ours, x, gradient)
    # The reference in float64, from the same rounded numbers.
    exact = x.detach().double().requires_grad_()
    theirs = functional.linear(exact, layer.weight.double(), None if layer.bias is None else layer.bias.double())
    (their_gradient,) = torch.autograd.grad(theirs, exact, gradient.double())
    close = {"rtol": tolerance(dtype), "atol": tolerance(dtype) * d_in**0.5, "check_dtype": False}
    torch.testing.assert_close(ours.double(), theirs, **close)
    torch.testing.assert_close(our_gradient.double(), their_gradient, **close)
    with torch.inference_mode():
        assert torch.equal(layer(x.detach()), ours.detach())


def test_a_changed_weight_is_laid_out_again() -> None:
    layer, x = frozen(8, 4), torch.randn(3, 8)
    before = layer(x)
    with torch.no_grad():
        layer.weight.mul_(2)
    torch.testing.assert_close(layer(x), 2 * before - layer.bias)
    layer.load_state_dict({"weight": torch.zeros(4, 8), "bias": torch.ones(4)})
    assert torch.equal(layer(x), torch.ones(3, 4))


def test_a_weight_that_trains_is_a_plain_linear() -> None:
    layer, x = frozen(8, 4), torch.randn(3, 8)
    layer(x)
    layer.requires_grad_(True)
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(4, 8))


def test_autocast_decides_the_format() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert frozen(8, 4)(torch.randn(3, 8)).dtype == torch.bfloat16


def test_a_model_made_double_computes_in_double() -> None:
    layer = frozen(8, 4).double()
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    assert torch.equal(layer(x), functional.linear(x, layer.weight, layer.bias))


def test_no_rows() -> None:
    layer = frozen(8, 4)
    x = torch.randn(0, 8, requires_grad=True)
    assert layer(x).shape == (0, 4)
    assert layer(x.detach()).shape == (0, 4)


def test_first_used_in_inference_mode_then_trained_through() -> None:
    layer, x = frozen(8, 4), torch.randn(3, 8)
    with torch.inference_mode():
        layer(x)
    x.requires_grad_()
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.weight.sum(0).expand(3, 8))


def test_copies_that_share_weights_share_layouts() -> None:
    layer, x = frozen(8, 4), torch.randn(3, 8)
    expected = layer(x)
    twin = copy.deepcopy(layer, {id(parameter): parameter for parameter in layer.parameters()})
    count = len(frozen_linear._layouts)
    assert torch.equal(twin(x), expected)
    assert len(frozen_linear._layouts) == count


def test_lora_over_it_equals_lora_over_a_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_linear, "_hardware", lambda: True)

    def gradients(freeze: bool) -> list[Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4)).requires_grad_(False)
        if freeze:
            freeze_linears(model)
            assert [type(module) for module in model if not isinstance(module, nn.GELU)] == [FrozenLinear] * 2
        layers = lora.attach(model, ["all-linear"], rank=2, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            for layer in layers.values():
                layer.B.fill_(0.1)
        x = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
        loss = model(x).square().sum()
        return [loss, *torch.autograd.grad(loss, list(lora.trainable_parameters(model).values()))]

    for ours, plain in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(ours, plain)


def test_only_frozen_plain_linears_of_small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_linear, "_hardware", lambda: True)
    trains, integers = nn.Linear(4, 4), nn.Linear(4, 4, dtype=torch.float64).requires_grad_(False)
    model = nn.ModuleList([nn.Linear(4, 4).requires_grad_(False), trains, integers])
    monkeypatch.setattr(frozen_linear, "PACKED_BYTES", 4 * 4 * 4 - 1)
    freeze_linears(model)
    assert type(model[0]) is nn.Linear
    monkeypatch.setattr(frozen_linear, "PACKED_BYTES", 4 * 4 * 4)
    freeze_linears(model)
    assert [type(module) for module in model] == [FrozenLinear, nn.Linear, nn.Linear]
    thaw_linears(model)
    assert type(model[0]) is nn.Linear
