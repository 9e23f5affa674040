"""From a condition to an ordinary adapter; reference points by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModel

from acclimate.core import lora
from acclimate.errors import ModelError, UsageError
from acclimate.models.adapter import Adapter, load_adapter
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.condition import Condition, ConditionVectors
from acclimate.models.hypernetwork.generate import Hypernetwork, MixedAdapters, NetworkHypernetwork, PairsMap
from acclimate.models.hypernetwork.layers import QUERY_VECTOR, Layer, layers_of, query_vector_layers
from acclimate.models.hypernetwork.network import Architecture, GeneratorName, Network
from acclimate.models.hypernetwork.reference_points import (
    map_from_pairs,
    map_from_texts,
    mixture,
    nearest,
    ridge,
    softmax,
)
from acclimate.models.hypernetwork.saving import TrainedNetwork, load_network, save_network
from acclimate.models.query_map import QueryMap
from tests.models.adapted import TEXTS, random_adapter, write_model

ASKED = Condition(
    description="find wheat in the field",
    pairs=(("wheat", "wheat grows"), ("rain", "rain in the field")),
    texts=("soil",),
)


def base(tmp_path: Path, family: str = "bert") -> Encoder:
    folder = write_model(tmp_path / "base", family)
    return Encoder.load(str(folder), device="cpu", dtype="float32")


def trained(encoder: Encoder, generator: GeneratorName, layers: tuple[Layer, ...], sides: Any) -> TrainedNetwork:
    sizes = Architecture(generator=generator, dim=32, width=16, directions=8, shared_rank=4, own_rank=3)
    network = Network(sizes, layers)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return TrainedNetwork(
        network=network,
        base_id=encoder.source.id,
        base_sha256=encoder.source.sha256,
        use=encoder.use,
        normalise=encoder.source.files.normalise,
        sides=sides,
    )


@pytest.mark.parametrize("family", ["bert", "qwen3"])
@pytest.mark.parametrize("generator", ["core-modulation", "text-to-lora", "drag-and-drop"])
def test_a_generated_adapter_is_an_ordinary_one(tmp_path: Path, family: str, generator: GeneratorName) -> None:
    """Saved, loaded again, and read by PEFT, it does what the generated weights do."""
    encoder = base(tmp_path, family)
    (tmp_path / "hypernetwork").mkdir()
    save_network(tmp_path / "hypernetwork", trained(encoder, generator, layers_of(encoder.model), "both"))
    hypernetwork: Hypernetwork = NetworkHypernetwork(load_network(tmp_path / "hypernetwork"), encoder)
    adapter = hypernetwork.generate(ASKED)
    assert isinstance(adapter, Adapter)
    expected = encoder.with_adapter(adapter).encode(TEXTS, "query")
    assert np.abs(expected - encoder.encode(TEXTS, "query")).max() > 1e-2

    folder = tmp_path / "adapter"
    folder.mkdir()
    save_adapter(folder, adapter, encoder.source)
    again = encoder.with_adapter(load_adapter(folder)).encode(TEXTS, "query")
    assert np.abs(again - expected).max() < 1e-6
    ids = {"input_ids": torch.tensor([[5, 7, 9, 11]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    ours = AutoModel.from_pretrained(tmp_path / "base")
    lora.attach_weights(ours, adapter.modules)
    theirs = PeftModel.from_pretrained(AutoModel.from_pretrained(tmp_path / "base"), folder)
    with torch.no_grad():
        difference = ours.eval()(**ids).last_hidden_state - theirs.eval()(**ids).last_hidden_state
    assert difference.abs().max() < 1e-5


def test_another_condition_gives_another_adapter(tmp_path: Path) -> None:
    encoder = base(tmp_path)
    hypernetwork = NetworkHypernetwork(trained(encoder, "core-modulation", layers_of(encoder.model), "query"), encoder)
    adapters = [
        hypernetwork.generate(condition)
        for condition in (
            ASKED,
            ASKED,
            Condition(description="soil"),
            Condition(texts=("soil",)),
            dataclasses.replace(ASKED, texts=()),
        )
    ]
    hashes = [adapter.sha256 for adapter in adapters if isinstance(adapter, Adapter)]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 4
    assert {adapter.sides for adapter in adapters if isinstance(adapter, Adapter)} == {"query"}


def test_a_network_over_query_vectors_gives_their_map(tmp_path: Path) -> None:
    encoder = base(tmp_path)
    network = trained(encoder, "core-modulation", query_vector_layers(32), "query")
    query_map = NetworkHypernetwork(network, encoder).generate(ASKED)
    assert isinstance(query_map, QueryMap)
    vectors = encoder.encode(TEXTS, "query")
    mapped = query_map(vectors)
    assert np.allclose(np.linalg.norm(mapped, axis=1), 1, atol=1e-5)
    dense = torch.nn.functional.normalize(
        torch.from_numpy(vectors) @ (torch.eye(32) + query_map.B_Dr @ query_map.A_rD).T, dim=1
    )
    assert np.allclose(mapped, dense.numpy(), atol=1e-5)
    assert np.abs(mapped - vectors).max() > 1e-2


def test_a_hypernetwork_of_another_base_is_refused(tmp_path: Path) -> None:
    encoder = base(tmp_path)
    made = trained(encoder, "core-modulation", layers_of(encoder.model), "query")
    other = dataclasses.replace(made, base_id="elsewhere/other", base_sha256="0" * 64)
    with pytest.raises(ModelError, match="the hypernetwork was made for base elsewhere/other"):
        NetworkHypernetwork(other, encoder)
    shorter = dataclasses.replace(made, use=dataclasses.replace(encoder.use, max_tokens=8))
    with pytest.raises(ModelError, match="trained with max_tokens = 8, the base is loaded with 20"):
        NetworkHypernetwork(shorter, encoder)
    with pytest.raises(ModelError, match="the encoder carries an adapter"):
        NetworkHypernetwork(made, encoder.with_adapter(random_adapter(encoder)))


def test_mixtures_by_hand() -> None:
    """Likeness .9 and .1 to two training tasks that have nothing in common."""
    likeness, apart = torch.tensor([[0.9, 0.1]]), torch.eye(2)
    assert nearest(likeness, apart).tolist() == [[1.0, 0.0]]
    share = 1 / (1 + np.exp(-8))  # (.9 - .1) / temperature .1
    assert softmax(likeness, apart)[0].tolist() == pytest.approx([share, 1 - share])
    assert ridge(likeness, apart)[0].tolist() == pytest.approx([0.9 / 1.3, 0.1 / 1.3])  # 1 + ridge .3
    adapters = [{"layer": (torch.eye(4)[:2], torch.eye(4)[:, :2])}, {"layer": (torch.eye(4)[2:], torch.eye(4)[:, 2:])}]
    described = torch.tensor([[0.9, 0.1]]) @ torch.eye(2)
    A_TrI, B_TOr = mixture("ridge", described, torch.eye(2), adapters, rank=4)["layer"]
    cosines = np.array([0.9, 0.1]) / np.hypot(0.9, 0.1)
    assert torch.allclose(B_TOr[0] @ A_TrI[0], torch.diag(torch.tensor(np.repeat(cosines / 1.3, 2))).float(), atol=1e-5)
    A_TrI, B_TOr = mixture("nearest", described, torch.eye(2), adapters, rank=2)["layer"]
    assert torch.allclose(B_TOr[0] @ A_TrI[0], torch.diag(torch.tensor([1.0, 1.0, 0.0, 0.0])), atol=1e-5)


def test_mixed_adapters_read_a_description(tmp_path: Path) -> None:
    encoder = base(tmp_path)
    generator = torch.Generator().manual_seed(0)
    adapters = [
        {layer.name: (torch.randn(2, layer.d_in, generator=generator), torch.randn(layer.d_out, 2, generator=generator))
         for layer in layers_of(encoder.model, ["query"])}
        for _ in TEXTS
    ]  # fmt: skip
    training = [ConditionVectors(description_D=row) for row in encoder.encode(TEXTS, "query")]
    hypernetwork: Hypernetwork = MixedAdapters("nearest", encoder, training, adapters, 2, "query")
    adapter = hypernetwork.generate(Condition(description=TEXTS[2]))
    assert isinstance(adapter, Adapter)
    for name, (A_rI, B_Or) in adapter.modules.items():
        expected = adapters[2][name][1] @ adapters[2][name][0]
        assert torch.allclose(B_Or @ A_rI, expected, atol=1e-3)
    with pytest.raises(UsageError, match="the condition has no description"):
        hypernetwork.generate(Condition(texts=("soil",)))


def test_the_map_from_pairs_is_the_ridge_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    query, document = (torch.nn.functional.normalize(torch.randn(5, 8, generator=generator), dim=1) for _ in range(2))
    A_rD, B_Dr = (matrix[0] for matrix in map_from_pairs(query, document)[QUERY_VECTOR])
    dense = torch.linalg.solve(query.T @ query + torch.eye(8), query.T @ (document - query))  # [D, D], rows times it
    assert torch.allclose(B_Dr @ A_rD, dense.T, atol=1e-5)
    alone = map_from_pairs(query[:1], document[:1])[QUERY_VECTOR]
    assert torch.allclose(query[0] + alone[1][0] @ (alone[0][0] @ query[0]), (query[0] + document[0]) / 2, atol=1e-5)
    with pytest.raises(UsageError, match="without a pair"):
        map_from_pairs(query[:0], document[:0])


def test_centring_takes_the_domains_direction_out() -> None:
    texts = torch.tensor([[0.8, 0.6, 0.0], [0.8, -0.6, 0.0]])
    A_rD, B_Dr = (matrix[0] for matrix in map_from_texts(texts)[QUERY_VECTOR])
    assert torch.allclose(torch.eye(3) + B_Dr @ A_rD, torch.diag(torch.tensor([0.0, 1.0, 1.0])), atol=1e-6)
    with pytest.raises(UsageError, match="without a text"):
        map_from_texts(texts[:0])


def test_the_map_from_pairs_needs_pairs(tmp_path: Path) -> None:
    encoder = base(tmp_path)
    hypernetwork: Hypernetwork = PairsMap(encoder)
    query_map = hypernetwork.generate(ASKED)
    assert isinstance(query_map, QueryMap)
    queries, documents = (list(side) for side in zip(*ASKED.pairs, strict=True))
    before, target = encoder.encode(queries, "query"), encoder.encode(documents, "document")
    assert ((query_map(before) * target).sum(1) > (before * target).sum(1)).all()
    with pytest.raises(UsageError, match="the condition has no example pairs"):
        hypernetwork.generate(Condition(description="soil"))
