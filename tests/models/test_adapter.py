"""Adapters on disk: PEFT reads what we write and computes the same, we read what PEFT writes, the rest is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import AutoModel

from acclimate.core import lora
from acclimate.errors import ModelError, StorageError
from acclimate.formats import peft
from acclimate.models.adapter import Adapter, load_adapter
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.runs.resolve import adapter_folder
from acclimate.runs.resolve import load as load_encoder
from tests.models.adapted import PROMPTS, TEXTS, random_adapter, write_model


def load(folder: Path) -> Encoder:
    return Encoder.load(str(folder), device="cpu", dtype="float32")


def saved(tmp_path: Path, family: str = "bert", **options: Any) -> tuple[Path, Path, Adapter]:
    """A base, an adapter folder inside a run, and what was saved there."""
    base = write_model(tmp_path / "base", family)
    encoder = load(base)
    adapter = random_adapter(encoder, **options)
    folder = tmp_path / "run" / "adapter"
    folder.mkdir(parents=True)
    save_adapter(folder, adapter, encoder.source)
    return base, folder, adapter


def hidden(model: nn.Module, **inputs: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        states: torch.Tensor = model.eval()(**inputs).last_hidden_state
    return states


IDS = {"input_ids": torch.tensor([[5, 7, 9, 11], [6, 8, 10, 12]]), "attention_mask": torch.ones(2, 4, dtype=torch.long)}


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("family", ["bert", "qwen3"])
def test_peft_reads_our_folder_and_computes_the_same(tmp_path: Path, family: str) -> None:
    base, folder, adapter = saved(tmp_path, family)
    model = AutoModel.from_pretrained(base)
    plain = hidden(model, **IDS)
    lora.attach_weights(model, adapter.modules)
    ours = hidden(model, **IDS)
    theirs = hidden(PeftModel.from_pretrained(AutoModel.from_pretrained(base), folder), **IDS)
    assert (ours - theirs).abs().max() < 1e-5
    assert (ours - plain).abs().max() > 1e-2


@pytest.mark.parametrize("family", ["bert", "qwen3"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"layer.0.attention.self.query": 2, "layers.0.self_attn.q_proj": 2}},
        {"alpha_pattern": {"query": 32, "q_proj": 32}, "rank_pattern": {r".*\.1\..*": 6}},
    ],
    ids=["plain", "rslora", "rank_pattern", "alpha_pattern"],
)
def test_we_read_pefts_folder_and_compute_the_same(tmp_path: Path, family: str, options: dict[str, Any]) -> None:
    base = write_model(tmp_path / "base", family)
    targets = ["query", "value"] if family == "bert" else ["q_proj", "down_proj"]
    config = LoraConfig(r=4, lora_alpha=12, target_modules=targets, **options)
    theirs = get_peft_model(AutoModel.from_pretrained(base), config)
    for name, parameter in theirs.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.2)
    theirs.save_pretrained(tmp_path / "peft")
    adapter = load_adapter(tmp_path / "peft", base=str(base))
    assert adapter.use.prompts == PROMPTS  # what PEFT's files do not say is the base's own
    model = AutoModel.from_pretrained(base)
    lora.attach_weights(model, adapter.modules)
    assert (hidden(model, **IDS) - hidden(theirs, **IDS)).abs().max() < 1e-5
    # Written again by us, it is still the same: other ranks and scales go into PEFT's patterns.
    (tmp_path / "again").mkdir()
    peft.write(tmp_path / "again", adapter.modules, adapter.base_id, adapter.rank, adapter.alpha)
    again = PeftModel.from_pretrained(AutoModel.from_pretrained(base), tmp_path / "again")
    assert (hidden(again, **IDS) - hidden(theirs, **IDS)).abs().max() < 1e-5


def test_save_then_load_is_the_identity(tmp_path: Path) -> None:
    _, folder, adapter = saved(tmp_path, sides="query", dim=16)
    again = load_adapter(folder)
    for name in (
        "base_id",
        "base_sha256",
        "rank",
        "alpha",
        "use",
        "sides",
        "metrics",
    ):
        assert getattr(again, name) == getattr(adapter, name), name
    for name, (A, B) in adapter.modules.items():
        assert torch.equal(again.modules[name][0], A)
        assert torch.equal(again.modules[name][1], B)  # alpha / rank is 2 here: dividing and multiplying are exact


def test_the_folder_names_no_path(tmp_path: Path) -> None:
    base, folder, adapter = saved(tmp_path)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base" == adapter.base_id
    assert config["target_modules"] == sorted(adapter.modules)
    assert config["task_type"] == "FEATURE_EXTRACTION"
    assert not (folder / "config.json").exists()  # transformers would take it for a whole model
    for path in folder.rglob("*.json"):
        assert str(base.parent) not in path.read_text(), path


def test_load_encoder_from_run_adapter_or_model(tmp_path: Path) -> None:
    base, folder, adapter = saved(tmp_path)
    plain = load(base)
    expected = plain.with_adapter(adapter).encode(TEXTS, "query")
    for name in (folder, folder.parent):
        loaded = load_encoder(name, base=str(base), device="cpu", dtype="float32")
        assert np.abs(loaded.encode(TEXTS, "query") - expected).max() < 1e-6
    assert np.abs(expected - plain.encode(TEXTS, "query")).max() > 1e-2
    assert np.array_equal(load_encoder(base, device="cpu", dtype="float32").encode(TEXTS), plain.encode(TEXTS))
    short = load_encoder(folder, base=str(base), dim=8, query_prompt="", device="cpu", dtype="float32")
    assert short.encode(TEXTS, "query").shape == (5, 8)
    assert np.abs(short.encode(TEXTS, "query") - short.encode(TEXTS, "document")).max() < 1e-6


def test_a_query_side_adapter_leaves_documents_alone(tmp_path: Path) -> None:
    base, folder, _ = saved(tmp_path, sides="query")
    adapted, plain = load_encoder(folder, base=str(base), device="cpu", dtype="float32"), load(base)
    assert np.array_equal(adapted.encode(TEXTS, "document"), plain.encode(TEXTS, "document"))
    assert np.abs(adapted.encode(TEXTS, "query") - plain.encode(TEXTS, "query")).max() > 1e-2


def test_another_base_is_refused(tmp_path: Path) -> None:
    _, folder, adapter = saved(tmp_path)
    other = write_model(tmp_path / "other", "bert", seed=1)
    with pytest.raises(ModelError, match=rf"made for base base \(sha256 {adapter.base_sha256[:12]}\), found other"):
        load_encoder(folder, base=str(other), device="cpu")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("bias", "all"),
        ("bias", "lora_only"),
        ("modules_to_save", ["pooler"]),
        ("fan_in_fan_out", True),
        ("lora_bias", True),
        ("target_parameters", ["experts.weight"]),
        ("layer_replication", [[0, 1]]),
        ("trainable_token_indices", [1]),
        ("megatron_config", {"tensor_model_parallel_size": 2}),
        ("ensure_weight_tying", True),
        ("use_qalora", True),
        ("alora_invocation_tokens", [3]),
        ("init_lora_weights", "pissa"),
        ("peft_type", "IA3"),
        ("r", 0),
        ("a_field_of_the_future", True),
    ],
)
def test_what_cannot_be_expressed_is_refused_by_its_name(tmp_path: Path, field: str, value: object) -> None:
    _, folder, _ = saved(tmp_path)
    edit_config(folder, **{field: value})
    with pytest.raises(ModelError, match=field):
        load_adapter(folder)


def test_every_field_of_pefts_config_at_its_default_is_accepted(tmp_path: Path) -> None:
    """So that a field PEFT adds is noticed here."""
    _, folder, _ = saved(tmp_path)
    ours = json.loads((folder / "adapter_config.json").read_text())
    config = LoraConfig(**{name: value for name, value in ours.items() if name != "peft_type"})
    config.save_pretrained(folder)
    assert load_adapter(folder).rank == 4


def test_damaged_folders(tmp_path: Path) -> None:
    _, folder, _ = saved(tmp_path)
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StorageError, match=r"adapter_model\.safetensors is damaged"):
        load_adapter(folder)
    weights.unlink()
    with pytest.raises(StorageError, match=r"adapter_model\.safetensors is missing"):
        load_adapter(folder)
    (folder / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match="a pickle"):
        load_adapter(folder)
    weights.write_bytes(whole)
    (folder / "acclimate.json").write_text("{")
    with pytest.raises(StorageError, match=r"acclimate\.json is damaged"):
        load_adapter(folder)
    (folder / "acclimate.json").write_text('{"base": {"id": "x", "sha256": "y"}, "pooling": "max"}')
    with pytest.raises(ModelError, match=r"acclimate\.json: pooling is 'max'"):
        load_adapter(folder)
    with pytest.raises(ModelError, match="no adapter folder"):
        load_adapter(tmp_path / "nothing")
    assert adapter_folder(tmp_path / "nothing") is None


def test_a_tensor_that_is_no_low_rank_matrix_is_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    _, folder, _ = saved(tmp_path)
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file({**tensors, "base_model.model.x.lora_magnitude_vector": torch.ones(3)}, weights)
    with pytest.raises(ModelError, match="lora_magnitude_vector"):
        load_adapter(folder)
    first = next(name for name in tensors if "lora_B" in name)
    save_file({name: tensor for name, tensor in tensors.items() if name != first}, weights)
    with pytest.raises(StorageError, match=r"has A \(4, 32\); A \[r, in\] and B"):
        load_adapter(folder)
