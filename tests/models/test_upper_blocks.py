"""The last blocks over kept hidden states against the whole model: vectors, gradients, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from acclimate.core import lora
from acclimate.core.blocks import first_block_of, named_blocks
from acclimate.errors import UsageError
from acclimate.models import upper_blocks
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.layers import layers_of
from acclimate.models.upper_blocks import UpperBlocks
from tests.models.adapted import WORDS, write_model

TEXTS = [" ".join(WORDS[2 : 3 + length]) for length in (1, 5, 2, 7, 2)]
NUMBERS = np.array([3, 0, 4, 1])


def changed(encoder: Encoder, names: list[str]) -> None:
    """Attach LoRA that changes something, the same each time."""
    lora.attach(encoder.model, names, rank=2)
    generator = torch.Generator().manual_seed(3)
    for layer in lora.lora_layers(encoder.model).values():
        A, B = (0.3 * torch.randn(matrix.shape, generator=generator) for matrix in (layer.A, layer.B))
        layer.put(A.requires_grad_(), B.requires_grad_())


def gradient(encoder: Encoder, vectors: torch.Tensor) -> list[torch.Tensor]:
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(5))
    leaves = [layer.A for layer in lora.lora_layers(encoder.model).values()]
    return list(torch.autograd.grad((vectors * weights).sum(), leaves))


@pytest.mark.parametrize("family", ["bert", "qwen3"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vectors_and_gradients_are_those_of_the_whole_model(tmp_path: Path, family: Any, dtype: str) -> None:
    encoder = Encoder.load(str(write_model(tmp_path / "base", family)), device="cpu", dtype=dtype)
    names = [layer.name for layer in layers_of(encoder.model, last_blocks=1)]
    before = encoder.encode(TEXTS, "query")
    tokens = encoder.tokenise(TEXTS, "query")
    texts, whole = UpperBlocks(encoder, tokens, names, tmp_path / "kept"), encoder.fork()
    assert encoder.packed and texts.below == len(named_blocks(encoder.model)) - 1 > 0
    changed(texts.encoder, names)
    changed(whole, names)
    found, expected = texts.vectors(NUMBERS), whole.forward_tokens(tokens, NUMBERS, "query")
    tolerance = 1e-5 if dtype == "float32" else 2e-2
    assert torch.allclose(found, expected, atol=tolerance)
    assert not torch.allclose(found, torch.from_numpy(before[NUMBERS]), atol=5 * tolerance)
    for one, other in zip(gradient(texts.encoder, found), gradient(whole, expected), strict=True):
        assert torch.allclose(one, other, rtol=1e-2, atol=tolerance * float(other.abs().max()))
    assert np.array_equal(encoder.encode(TEXTS, "query"), before)  # the base stays as it was


def test_what_is_kept_is_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.load(str(write_model(tmp_path / "base", "bert")), device="cpu", dtype="float32")
    names = [layer.name for layer in layers_of(encoder.model, last_blocks=1)]
    first = UpperBlocks(encoder, encoder.tokenise(TEXTS, "query"), names, tmp_path / "kept").vectors(NUMBERS)
    monkeypatch.setattr(upper_blocks, "_write", None)
    again = UpperBlocks(encoder, encoder.tokenise(TEXTS, "query"), names, tmp_path / "kept").vectors(NUMBERS)
    assert torch.equal(first, again)
    with pytest.raises(TypeError):  # other texts have states of their own
        UpperBlocks(encoder, encoder.tokenise(TEXTS[:2], "query"), names, tmp_path / "kept")


def test_a_layer_of_the_first_block_leaves_nothing_to_keep(tmp_path: Path) -> None:
    encoder = Encoder.load(str(write_model(tmp_path / "base", "bert")), device="cpu", dtype="float32")
    names = [layer.name for layer in layers_of(encoder.model)]
    texts = UpperBlocks(encoder, encoder.tokenise(TEXTS, "query"), names, tmp_path / "kept")
    assert texts.below == 0 and not (tmp_path / "kept").exists()
    assert np.allclose(texts.vectors(NUMBERS).numpy(), encoder.encode(TEXTS, "query")[NUMBERS], atol=1e-6)


def test_layers_of_the_last_blocks(tmp_path: Path) -> None:
    encoder = Encoder.load(str(write_model(tmp_path / "base", "bert")), device="cpu", dtype="float32")
    blocks = len(named_blocks(encoder.model))
    last = layers_of(encoder.model, last_blocks=1)
    assert {layer.number for layer in last} == {blocks - 1}
    assert layers_of(encoder.model, last_blocks=blocks) == layers_of(encoder.model)
    assert first_block_of(encoder.model, [layer.name for layer in last]) == blocks - 1
    assert first_block_of(encoder.model, ["embeddings.word_embeddings", last[0].name]) == 0
    with pytest.raises(UsageError, match=f"1 to {blocks}, the blocks of this model"):
        layers_of(encoder.model, last_blocks=blocks + 1)
