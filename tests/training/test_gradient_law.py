"""The law of GradCache for every loss: computed in chunks, twice over, the gradient is the one of the whole batch.

In float64, with dropout, with every mask, block, temperature and addition. The reference keeps every chunk's graph
(a chunk is needed for its dropout's random numbers) and calls `loss.backward()` on the whole, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from acclimate.configs import RunConfig, with_overrides
from acclimate.core.lora import attach, trainable_parameters
from acclimate.models import devices
from acclimate.models.encoder import Encoder
from acclimate.training import step_texts
from acclimate.training.gradcache import activation_bytes_per_token
from acclimate.training.objectives import GROUP_LOSSES, LOSSES, PAIR_LOSSES
from acclimate.training.references import load_references, temperature_lexicon
from acclimate.training.schedule import TaskSchedule
from acclimate.training.step_texts import Options
from acclimate.types import Example
from tests.models.tiny import as_sentence_transformer
from tests.tiny_run import write_tiny_bert

SCHEDULE = TaskSchedule(examples=6, batch_size=6, epochs=1, seed=7, learning_rate=1e-3, warmup_fraction=0.1)
TRIPLES = [
    Example("w0 w1", "w10 w11 w12", ("w20", "w21 w22"), scores=(0.9, 0.2, 0.4)),
    Example("w0 w1", "w13", ("w23",), scores=(0.8, 0.1)),
    Example("w2 w3 w4", "w10 w11 w12", ("w24 w25", "w0 w1"), scores=(0.5, 0.6, 0.1)),
    Example("w5", "w14 w15", ("w5", "w26"), scores=(0.9, 0.3, 0.3)),
    Example("w6 w7", "w16", ("w27 w28 w29",), scores=(0.7, 0.5)),
    Example("w8", "w2 w3 w4", ("w17", "w18"), scores=(0.7, 0.2, 0.1)),
]
PAIRS = [Example(e.anchor, e.positive, label=label) for e, label in zip(TRIPLES, (1, 0, 0.8, 0.2, 0.6, 0), strict=True)]
BLOCKS = ("query-document", "query-query", "document-document", "document-query")
TERMS = "w0\nw1\nw5\nw8\n"

CASES: dict[str, dict[str, Any]] = {
    "every block": {"loss": "info-nce", "blocks": BLOCKS},
    "joint": {"loss": "info-nce", "blocks": BLOCKS, "partition": "joint"},
    **{f"only {block}": {"loss": "info-nce", "blocks": (block,)} for block in BLOCKS},
    "relative": {"loss": "info-nce", "blocks": BLOCKS, "false_negative_relative_margin": -0.3},
    "mined too": {"loss": "info-nce", "blocks": BLOCKS, "false_negative_margin": -0.1, "mask_mined": True},
    "guide": {"loss": "info-nce", "blocks": BLOCKS, "guide": "GUIDE", "guide_margin": -0.1},
    "learned": {"loss": "info-nce", "blocks": BLOCKS[1:], "temperature_kind": "learned"},
    "adaptive": {"loss": "info-nce", "blocks": BLOCKS, "temperature_kind": "adaptive"},
    "hardness": {"loss": "info-nce", "blocks": BLOCKS, "hardness_strength": 9.0},
    "dimensions": {"loss": "info-nce", "blocks": BLOCKS, "matryoshka_dims": (4, 8), "matryoshka_weights": (0.3, 2.0)},
    "retained": {"loss": "info-nce", "retain_data": "RETAINED", "matryoshka_dims": (8,)},
    "retained, pairs": {"loss": "cosent", "retain_data": "RETAINED", "retain_weight": 0.7},
    "own texts retained": {"loss": "info-nce", "retain_weight": 0.7, "matryoshka_dims": (8,)},
    "all at once": {
        "loss": "info-nce",
        "blocks": BLOCKS,
        "guide": "GUIDE",
        "temperature_kind": "learned",
        "hardness_strength": 5.0,
        "false_negative_relative_margin": 0.05,
        "matryoshka_dims": (8,),
        "retain_weight": 0.5,
    },
    **{loss: {"loss": loss, "retain_weight": 0.1} for loss in (*PAIR_LOSSES, *GROUP_LOSSES)},
    "imitation": {"loss": "embedding-distillation", "embedding_teacher": "GUIDE", "matryoshka_dims": (8,)},
}


@dataclass(frozen=True)
class World:
    """A model in float64, forked for every step, and the name of another one."""

    base: Encoder
    guide: str
    lexicon: str
    retained: str

    def config(self, settings: dict[str, Any]) -> RunConfig:
        files = {"GUIDE": self.guide, "RETAINED": self.retained}
        named = {name: files[value] if value in ("GUIDE", "RETAINED") else value for name, value in settings.items()}
        return with_overrides(RunConfig(), {"group_size": 3, "temperature": 0.1, "lexicon": self.lexicon, **named})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("models")
    base = Encoder.load(str(write_tiny_bert(folder / "model")), pooling="mean", device="cpu", dtype="float32")
    base.model.double()
    guide = as_sentence_transformer(write_tiny_bert(folder / "guide", initializer_range=0.3))
    (folder / "terms.txt").write_text(TERMS)
    (folder / "other.txt").write_text("w30 w31\nw0 w1\nw32\nw33 w34 w35\n")
    return World(base, str(guide), str(folder / "terms.txt"), str(folder / "other.txt"))


def full_backward(
    encode: Callable[[np.ndarray], Tensor],
    chunks: Sequence[np.ndarray],
    loss_of: Callable[[Tensor], Tensor],
    blank_ND: Tensor,
    *,
    seed_of: Callable[[int], int],
    **_: Any,
) -> float:
    """The whole graph at once: what `chunked_backward` has to equal."""
    parts = []
    for number, chunk in enumerate(chunks):
        torch.manual_seed(seed_of(number))
        parts.append(encode(chunk).to(blank_ND.dtype))
    loss = loss_of(torch.cat(parts)[torch.from_numpy(np.argsort(np.concatenate(chunks)))])
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def step(world: World, settings: dict[str, Any]) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the first step, on a model made anew."""
    config, encoder = world.config(settings), world.base.fork()
    generator = torch.Generator().manual_seed(1)
    layers = attach(encoder.model, ["all-linear"], rank=2, dropout=0.4, generator=generator)
    lexicon = (
        temperature_lexicon([], config.domain, (), seed=0) if settings.get("temperature_kind") == "adaptive" else None
    )
    references = load_references(config.objective, encoder, lexicon=lexicon)
    for layer in layers.values():
        layer.double()
        nn.init.normal_(layer.B, std=0.3, generator=generator)
    trainable = trainable_parameters(encoder.model)
    examples = PAIRS if config.objective.loss in PAIR_LOSSES else TRIPLES
    recipe = LOSSES[config.objective.loss]
    loss_fn = recipe(
        encoder, examples, SCHEDULE, config.objective, config.train, Options(references=references, learned=trainable)
    )
    result = loss_fn(0)
    found = {name: parameter.grad for name, parameter in trainable.items() if parameter.grad is not None}
    assert len(found) == len(trainable)
    return result.loss, found


@pytest.mark.parametrize("case", CASES)
def test_the_chunked_gradient_is_the_full_one(case: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(devices.CHUNK_TOKENS, "cpu", 12)
    memory_gb = 12.5 * activation_bytes_per_token(world.base.model.config, 8, False) / 1e9
    loss, found = step(world, {"activation_memory_gb": memory_gb, **CASES[case]})
    monkeypatch.setattr(step_texts, "chunked_backward", full_backward)
    expected_loss, expected = step(world, CASES[case])
    assert loss == pytest.approx(expected_loss, rel=1e-12)
    assert any(gradient.abs().max() > 0 for gradient in expected.values())
    for name, gradient in found.items():
        tolerance = 1e-12 if gradient.dtype == torch.float64 else 1e-6  # the learned temperature is float32
        torch.testing.assert_close(gradient, expected[name], rtol=tolerance, atol=tolerance)


def test_a_hypernetworks_step_of_many_chunks(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the recipe itself: A and B made by one layer, the gradient at that layer."""
    config = {"loss": "info-nce", "blocks": BLOCKS}
    memory_gb = 12.5 * activation_bytes_per_token(world.base.model.config, 8, False) / 1e9

    def gradient(settings: dict[str, Any]) -> tuple[float, Tensor]:
        encoder = world.base.fork()
        layers = attach(encoder.model, ["query", "value"], rank=2)
        sizes = [matrix.numel() for layer in layers.values() for matrix in (layer.A, layer.B)]
        torch.manual_seed(3)
        maker = nn.Linear(2, sum(sizes)).double()
        parts = iter(torch.split(maker(torch.ones(2, dtype=torch.float64)), sizes))
        for layer in layers.values():
            layer.set_weights(next(parts).view(layer.A.shape), next(parts).view(layer.B.shape))
        loss = LOSSES["info-nce"](
            encoder, TRIPLES, SCHEDULE, world.config(settings).objective, world.config(settings).train
        )(0).loss
        assert maker.weight.grad is not None and maker.weight.grad.abs().max() > 0
        return float(loss), maker.weight.grad

    expected = gradient(config)
    monkeypatch.setitem(devices.CHUNK_TOKENS, "cpu", 12)
    found = gradient({"activation_memory_gb": memory_gb, **config})
    assert found[0] == pytest.approx(expected[0], rel=1e-12)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-10, atol=1e-12)


def test_every_case_differs(world: World) -> None:
    losses = {case: step(world, settings)[0] for case, settings in CASES.items()}
    assert len({round(loss, 9) for loss in losses.values()}) == len(losses)
