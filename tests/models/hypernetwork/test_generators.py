"""Generators: where they start, what sizes they have, how they train, what is kept on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from acclimate.configs.hypernetwork import RIVALS
from acclimate.errors import ModelError, StorageError
from acclimate.models.hypernetwork.condition import ConditionBatch
from acclimate.models.hypernetwork.layers import QUERY_VECTOR, Layer, Weights, mapped, query_vector_layers
from acclimate.models.hypernetwork.network import GENERATORS, Architecture, GeneratorName, Network
from acclimate.models.hypernetwork.saving import TrainedNetwork, load_network, save_network
from acclimate.prompts import Prompts
from acclimate.text_use import TextUse

DIM, TASKS = 12, 3
LAYERS = (
    Layer("layer.0.query", 0, "layer.query", 12, 12),
    Layer("layer.0.up", 0, "layer.up", 12, 20),
    Layer("layer.1.query", 1, "layer.query", 12, 12),
    Layer("layer.1.up", 1, "layer.up", 12, 20),
)
MADE = [name for name in GENERATORS if name not in RIVALS]


def sizes(generator: GeneratorName) -> Architecture:
    return Architecture(generator=generator, dim=DIM, width=16, directions=8, shared_rank=4, own_rank=3)


def shared(layers: tuple[Layer, ...] = LAYERS) -> dict[str, tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(5)
    return {
        layer.name: (
            torch.randn(4, layer.d_in, generator=generator),
            torch.randn(layer.d_out, 4, generator=generator),
        )
        for layer in layers
    }


def conditions(tasks: int = TASKS, seed: int = 0) -> ConditionBatch:
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, DIM, generator=generator), dim=-1)

    present = torch.ones(tasks, 4, dtype=torch.bool)
    return ConditionBatch(
        unit(tasks),
        torch.ones(tasks, dtype=torch.bool),
        unit(tasks, 4),
        unit(tasks, 4),
        present,
        unit(tasks, 4),
        present,
    )


def updates(weights: Weights) -> dict[str, Tensor]:
    return {name: B_TOr @ A_TrI for name, (A_TrI, B_TOr) in weights.items()}


@pytest.mark.parametrize("generator", GENERATORS)
def test_the_start_is_exactly_the_multi_task_adapter(generator: GeneratorName) -> None:
    network = Network(sizes(generator), LAYERS, shared())
    for name, update in updates(network(conditions())).items():
        A_rI, B_Or = shared()[name]
        assert torch.allclose(update, (B_Or @ A_rI).expand_as(update), atol=1e-5), name


@pytest.mark.parametrize("generator", MADE)
def test_one_step_makes_the_tasks_different(generator: GeneratorName) -> None:
    """Every task's weights depend on its own condition, in every layer."""
    network = Network(sizes(generator), LAYERS, shared())
    optimizer = torch.optim.AdamW(network.trainable().values(), 1e-2)
    target = {name: torch.randn(update.shape) for name, update in updates(network(conditions())).items()}
    for _ in range(3):
        optimizer.zero_grad()
        loss = sum(((update - target[name]) ** 2).sum() for name, update in updates(network(conditions())).items())
        loss.backward()
        optimizer.step()
    for name, update in updates(network(conditions())).items():
        assert (update[0] - update[1]).abs().max() > 1e-4, name
    alone = updates(network(take(conditions(), 1)))
    for name, update in updates(network(conditions())).items():  # no task looks at another
        assert torch.allclose(update[1], alone[name][0], atol=1e-5), name


def take(batch: ConditionBatch, task: int) -> ConditionBatch:
    return ConditionBatch(*(getattr(batch, name)[task : task + 1] for name in ConditionBatch.__dataclass_fields__))


@pytest.mark.parametrize("generator", ["text-to-lora", "drag-and-drop"])
def test_generated_rows_of_a_have_loras_own_length(generator: GeneratorName) -> None:
    """Ten times that length is what made trainings go to NaN: PEFT's rows of A have a length of 0.58."""
    layers = (Layer("wide", 0, "wide", 384, 384),)
    architecture = Architecture(generator=generator, dim=DIM, shared_rank=4, own_rank=8)
    network = Network(architecture, layers)
    A_TRI, B_TOR = network(conditions(8))["wide"]
    own = A_TRI[:, 4:].norm(dim=-1)
    assert own.shape == (8, 8)
    assert ((own > 0.4) & (own < 0.8)).all()
    assert B_TOR[..., 4:].abs().max() == 0


@pytest.mark.parametrize("generator", MADE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_high_rate_stays_finite(generator: GeneratorName, dtype: torch.dtype) -> None:
    """Sixty steps at ten times the usual rate, also where the generator itself computes in bfloat16."""
    network = Network(sizes(generator), LAYERS, shared()).to(dtype)
    optimizer = torch.optim.AdamW(network.trainable().values(), 1e-2)
    batch = conditions().to("cpu", dtype)
    x = torch.randn(TASKS, 5, 12, dtype=dtype)
    for _ in range(60):
        optimizer.zero_grad()
        outputs = [x @ update.mT for update in updates(network(batch)).values()]
        loss = torch.stack([(output.float() - 1).square().mean() for output in outputs]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.trainable().values(), 1.0)
        optimizer.step()
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
    assert torch.isfinite(loss)


@pytest.mark.parametrize("generator", GENERATORS)
def test_save_then_load_is_the_identity(tmp_path: Path, generator: GeneratorName) -> None:
    trained = saved(tmp_path, generator)
    again = load_network(tmp_path)
    expected = trained.network(conditions())
    for name, (A_TrI, B_TOr) in again.network(conditions()).items():
        assert torch.allclose(A_TrI, expected[name][0], atol=1e-5)
        assert torch.allclose(B_TOr, expected[name][1], atol=1e-5)
    state = trained.network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.network.state_dict().items())
    assert again.network.architecture == trained.network.architecture
    assert (again.base, again.use, again.sides, again.metrics) == (trained.base, trained.use, "query", {"steps": 3})
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def saved(folder: Path, generator: GeneratorName) -> TrainedNetwork:
    network = Network(sizes(generator), LAYERS, shared(), seed=3)
    network.learn_statistics([torch.randn(4, DIM) for _ in range(5)], torch.randn(20, DIM), torch.randn(20, DIM))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    trained = TrainedNetwork(
        network=network.eval(),
        base_id="base",
        base_sha256="0" * 64,
        use=TextUse(Prompts({"": ""}, {"": ""}), "mean", DIM, 20),
        normalise=True,
        sides="query",
        metrics={"steps": 3},
    )
    save_network(folder, trained)
    return trained


def test_what_is_no_hypernetwork_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds no hypernetwork"):
        load_network(tmp_path)
    saved(tmp_path, "core-modulation")
    facts = json.loads((tmp_path / "hypernetwork.json").read_text())
    for change, message in [
        ({"version": 2}, "version is 2"),
        ({"architecture": {"generator": "magic"}}, "generator is 'magic'.*core-modulation"),
        ({"architecture": facts["architecture"] | {"width": 8}}, "do not fit"),
    ]:
        (tmp_path / "hypernetwork.json").write_text(json.dumps(facts | change))
        with pytest.raises(ModelError, match=message):
            load_network(tmp_path)
    (tmp_path / "hypernetwork.json").write_text(json.dumps(facts))
    (tmp_path / "network.safetensors").write_bytes(b"\0" * 30)
    with pytest.raises(StorageError, match=r"network\.safetensors cannot be read"):
        load_network(tmp_path)


def test_a_query_map_by_hand() -> None:
    """(1, 0) gets half of what B A v = (0, 1) says more: (1, 1) / sqrt 2."""
    weights = {QUERY_VECTOR: (torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0], [1.0]]]))}
    vectors = mapped(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), weights)
    half = 0.5**0.5
    assert torch.allclose(vectors, torch.tensor([[[half, half], [0.0, 1.0]]]))
    (layer,) = query_vector_layers(5)
    assert (layer.d_in, layer.d_out) == (5, 5)
