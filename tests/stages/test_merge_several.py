"""`merge` of several adapters or models: by folders, against live adapters and arithmetic on the weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from acclimate.configs import MergeConfig, RunConfig
from acclimate.core import lora
from acclimate.core.low_rank import merge_dense
from acclimate.core.merging import merge as merge_tensors
from acclimate.errors import ModelError, UsageError
from acclimate.files import read_json
from acclimate.formats.full_model import save_weights
from acclimate.models.adapter import Adapter, load_adapter
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.prompts import Prompts
from acclimate.runs.resolve import load as load_encoder
from acclimate.stages.merge import merge
from tests.models.adapted import TEXTS, random_adapter, write_model


def config_of(base: Path, **settings: Any) -> RunConfig:
    return RunConfig(model=str(base), device="cpu", dtype="float32", merge=MergeConfig(**settings))


def write_adapters(tmp_path: Path, *ranks: int, family: str = "bert", **changes: Any) -> tuple[list[Path], Path]:
    """Adapters of these ranks on one tiny base; `changes` are made to the last of them."""
    base = write_model(tmp_path / "base", family)
    encoder = Encoder.load(str(base), device="cpu", dtype="float32")
    folders = []
    for number, rank in enumerate(ranks):
        generator = torch.Generator().manual_seed(number)
        adapter = random_adapter(encoder, rank=rank, alpha=2.0 * rank)
        modules = {
            name: (A + torch.randn(A.shape, generator=generator) / 8, B + torch.randn(B.shape, generator=generator) / 8)
            for name, (A, B) in adapter.modules.items()
        }
        last = dict(changes) if number == len(ranks) - 1 else {}
        used = {name: last.pop(name) for name in ("prompts", "pooling", "dim", "max_tokens") if name in last}
        last["use"] = dataclasses.replace(adapter.use, **used)
        folders.append(tmp_path / f"run{number}")
        (folders[-1] / "adapter").mkdir(parents=True)
        save_adapter(folders[-1] / "adapter", dataclasses.replace(adapter, modules=modules, **last), encoder.source)
    return folders, base


def live(base: Path, adapters: list[Adapter], weights: list[float]) -> np.ndarray:
    """Vectors of stacked adapters under a soft gate: what every merge of adapters by weighted sum must give."""
    encoder = Encoder.load(str(base), device="cpu", dtype="float32")
    lora.attach_set(encoder.model, [adapter.modules for adapter in adapters])
    rows = []
    for text in TEXTS:  # one text at a time, so that one gate row stands for all of its tokens
        with lora.gate(encoder.model, torch.tensor([weights])):
            rows.append(encoder.encode([text], "query")[0])
    return np.stack(rows)


@pytest.mark.parametrize("family", ["bert", "qwen3"])
@pytest.mark.parametrize("folded", [False, True])
def test_merged_equals_the_live_adapters_under_a_soft_gate(tmp_path: Path, family: str, folded: bool) -> None:
    folders, base = write_adapters(tmp_path, 2, 3, 4, family=family)
    weights = (0.5, 0.2, 0.3)
    report = merge(folders, tmp_path / "out", config_of(base, method="linear", weights=weights, folded=folded))
    adapters = [load_adapter(folder / "adapter", str(base)) for folder in folders]
    found = load_encoder(tmp_path / "out", base=str(base), device="cpu", dtype="float32").encode(TEXTS, "query")
    assert np.abs(found - live(base, adapters, list(weights))).max() < 1e-5
    assert np.abs(found - live(base, adapters, [0.0, 0.0, 0.0])).max() > 1e-3
    assert report["kind"] == ("merged" if folded else "adapter")
    assert report["rank"] == 9 and report["discarded"]["total"] == 0.0


def test_a_merged_adapter_is_an_adapter_again(tmp_path: Path) -> None:
    folders, base = write_adapters(tmp_path, 2, 3)
    merge(folders, tmp_path / "both", config_of(base, method="task-arithmetic", weights=(1.0, -0.5)))
    # ... so it can be merged in turn, and folded.
    merge([tmp_path / "both"], tmp_path / "folded", config_of(base))
    merge([tmp_path / "both", folders[0]], tmp_path / "again", config_of(base))
    adapters = [load_adapter(folder / "adapter", str(base)) for folder in folders]
    folded = load_encoder(tmp_path / "folded", device="cpu", dtype="float32").encode(TEXTS, "query")
    assert np.abs(folded - live(base, adapters, [1.0, -0.5])).max() < 1e-5
    again = load_encoder(tmp_path / "again", base=str(base), device="cpu", dtype="float32").encode(TEXTS, "query")
    assert np.abs(again - live(base, adapters, [1.0, -0.25])).max() < 1e-5


def test_a_lower_rank_states_what_it_discards(tmp_path: Path) -> None:
    folders, base = write_adapters(tmp_path, 3, 4)
    report = merge(folders, tmp_path / "out", config_of(base, merged_rank=2))
    merged = load_adapter(tmp_path / "out", str(base))
    adapters = [load_adapter(folder / "adapter", str(base)).modules for folder in folders]
    whole = merge_dense(adapters, "linear", [0.5, 0.5])
    missing = {name: (B @ A - whole[name]).square().sum().item() for name, (A, B) in merged.modules.items()}
    lengths = {name: update.square().sum().item() for name, update in whole.items()}
    assert merged.rank == 2 and all(len(A) == 2 for A, _ in merged.modules.values())
    assert 0.0 < report["discarded"]["total"] < 1.0
    assert report["discarded"]["total"] == pytest.approx(sum(missing.values()) / sum(lengths.values()), rel=1e-3)
    for name, share in report["discarded"]["modules"].items():
        assert share == pytest.approx(missing[name] / lengths[name], rel=1e-2)
    assert f"all but {report['discarded']['total']:.2%}" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize("method", ["ties", "dare-linear", "dare-ties"])
def test_methods_by_element_fold_without_a_rank(tmp_path: Path, method: str) -> None:
    folders, base = write_adapters(tmp_path, 2, 3)
    merge(folders, tmp_path / "out", config_of(base, method=method, density=0.4, folded=True))
    adapters = [load_adapter(folder / "adapter", str(base)).modules for folder in folders]
    generator = torch.Generator().manual_seed(RunConfig().seed)
    updates = merge_dense(adapters, method, [0.5, 0.5], density=0.4, generator=generator)
    before, after = load_file(base / "model.safetensors"), load_file(tmp_path / "out" / "model.safetensors")
    assert before.keys() == after.keys()
    for name, weight in before.items():
        expected = weight + updates.get(name.removesuffix(".weight"), 0.0)
        assert torch.allclose(after[name], expected, atol=1e-6), name


@pytest.fixture
def full_models(tmp_path: Path) -> tuple[list[Path], Path]:
    """Two fully trained runs of one base, with weights moved at random."""
    base = write_model(tmp_path / "base", "bert")
    folders = []
    for seed in (1, 2):
        encoder = Encoder.load(str(base), device="cpu", dtype="float32")
        generator = torch.Generator().manual_seed(seed)
        for parameter in encoder.model.parameters():
            parameter.data += torch.randn(parameter.shape, generator=generator) / 50
        folders.append(tmp_path / f"full{seed}")
        (folders[-1] / "adapter").mkdir(parents=True)
        save_weights(
            folders[-1] / "adapter", encoder.model.state_dict(), encoder.source, encoder.use, encoder.source.identity
        )
    return folders, base


@pytest.mark.parametrize("method", ["linear", "slerp", "multi-slerp", "task-arithmetic", "ties", "dare-ties"])
def test_whole_models_are_merged_tensor_by_tensor(
    tmp_path: Path, full_models: tuple[list[Path], Path], method: str
) -> None:
    folders, base = full_models
    report = merge(folders, tmp_path / "out", config_of(base, method=method, weights=(0.75, 0.25)))
    names = [name for name in load_file(base / "model.safetensors") if not name.startswith("pooler")]
    origin, *models = (
        {name: load_file(folder / "model.safetensors")[name] for name in names}
        for folder in (base, *(folder / "adapter" for folder in folders))
    )
    generator = torch.Generator().manual_seed(RunConfig().seed)
    expected = merge_tensors(models, origin, method, [0.75, 0.25], generator=generator)
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in names)
    assert report["kind"] == "model" and report["base"]["id"] == "base"
    assert read_json(tmp_path / "out" / "config.json")["hidden_dropout_prob"] == 0.1


def test_folded_and_plain_models_merge_too(tmp_path: Path, full_models: tuple[list[Path], Path]) -> None:
    folders, base = full_models
    middle = tmp_path / "middle"
    merge(folders, middle, config_of(base))
    other = write_model(tmp_path / "plain", "bert", seed=5)  # a sentence-transformers folder of no run
    report = merge([middle, other], tmp_path / "out", config_of(base, weights=(0.0, 1.0)))
    assert report["base"]["id"] == "base"
    encoders = [load_encoder(name, device="cpu", dtype="float32") for name in (tmp_path / "out", other)]
    assert np.abs(encoders[0].encode(TEXTS) - encoders[1].encode(TEXTS)).max() < 1e-6
    # Of models that no folder knows the base of, --model names it.
    report = merge([other], tmp_path / "half", config_of(base, method="interpolate", weights=(0.5,)))
    assert report["base"] is None
    before, after = load_file(base / "model.safetensors"), load_file(other / "model.safetensors")
    name = "encoder.layer.0.output.dense.weight"
    found = load_file(tmp_path / "half" / "model.safetensors")[name]
    assert torch.allclose(found, (before[name] + after[name]) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "cls"}, "pooling: 'mean' in .*run0, 'cls' in .*run1"),
        ({"dim": 16}, "dim: 32 in .*run0, 16 in .*run1"),
        ({"sides": "query"}, "sides: 'both' in .*run0, 'query' in .*run1"),
        ({"max_tokens": 9}, "max_tokens: 20 in .*run0, 9 in .*run1"),
        ({"prompts": Prompts({"": "seek : "}, {"": ""})}, "prompts: .*find : .*run0, .*seek : .*run1"),
        (
            {"base_sha256": "f" * 64},
            r"run0 was made for base base \(sha256 [0-9a-f]{12}\), .*run1 for base \(sha256 ffff",
        ),
    ],
)
def test_adapters_that_do_not_belong_together_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    folders, base = write_adapters(tmp_path, 2, 2, **change)
    with pytest.raises(ModelError, match=message):
        merge(folders, tmp_path / "out", config_of(base))
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_merged_is_named(tmp_path: Path, full_models: tuple[list[Path], Path]) -> None:
    (full, other), base = full_models
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="slerp of 1 models"):
        merge([full], out, config_of(base, method="slerp"))
    with pytest.raises(UsageError, match=r"slerp of 3 models.*multi-slerp"):
        merge([full, other, other], out, config_of(base, method="slerp"))
    with pytest.raises(UsageError, match="3 weights for 2 models"):
        merge([full, other], out, config_of(base, weights=(1.0, 1.0, 1.0)))
    with pytest.raises(UsageError, match=r"density = 1\.5.*up to 1"):
        config_of(base, method="ties", density=1.5)
    with pytest.raises(UsageError, match="whole model, which has no rank"):
        merge([full, other], out, config_of(base, merged_rank=4))
    with pytest.raises(UsageError, match="lies inside"):
        merge([full, other], other / "adapter" / "merged", config_of(base))
    adapter = write_adapters(tmp_path / "more", 2)[0][0]
    with pytest.raises(UsageError, match=r"run0 is an adapter, .*full1 is a whole model.*acclimate merge"):
        merge([full, adapter], out, config_of(base))
    with pytest.raises(ModelError, match=r"only .* has"):
        merge([full, write_model(tmp_path / "qwen", "qwen3")], out, RunConfig(pooling="mean", device="cpu"))
    assert not out.exists()


@pytest.mark.slow
def test_sentence_transformers_reads_a_merged_adapter_by_peft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one whose layers have different ranks, because one adapter has a layer that the other has not."""
    from sentence_transformers import SentenceTransformer

    (first, second), base = write_adapters(tmp_path, 2, 3)
    adapter = load_adapter(second / "adapter", str(base))
    fewer = {name: pair for name, pair in adapter.modules.items() if name.endswith("query")}
    encoder = Encoder.load(str(base), device="cpu", dtype="float32")
    save_adapter(second / "adapter", dataclasses.replace(adapter, modules=fewer), encoder.source)
    merge([first, second], tmp_path / "out", config_of(base, method="slerp", weights=(0.4, 0.6)))
    merged = load_adapter(tmp_path / "out", str(base))
    assert {len(A) for A, _ in merged.modules.values()} == {2, 5}
    monkeypatch.chdir(tmp_path)  # the base's id, base, leads to it from here, as a hub id would
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    ours = encoder.with_adapter(merged)
    assert np.abs(model.encode_query(TEXTS) - ours.encode(TEXTS, "query")).max() < 1e-5
    assert np.abs(model.encode_document(TEXTS) - ours.encode(TEXTS, "document")).max() < 1e-5


def test_adapters_for_the_query_side_stay_there(tmp_path: Path) -> None:
    folders, base = write_adapters(tmp_path, 2)
    adapter = load_adapter(folders[0] / "adapter", str(base))
    source = Encoder.load(str(base), device="cpu", dtype="float32").source
    for number in (0, 1):
        folder = tmp_path / f"side{number}"
        folder.mkdir()
        save_adapter(folder, dataclasses.replace(adapter, sides="query"), source)
    merge([tmp_path / "side0", tmp_path / "side1"], tmp_path / "out", config_of(base, method="multi-slerp"))
    merge([tmp_path / "side0", tmp_path / "side1"], tmp_path / "model", config_of(base, folded=True))
    plain = Encoder.load(str(base), device="cpu", dtype="float32")
    live = load_encoder(folders[0], base=str(base), device="cpu", dtype="float32")
    for name in ("out", "model"):
        found = load_encoder(tmp_path / name, base=str(base), device="cpu", dtype="float32")
        assert np.abs(found.encode(TEXTS, "query") - live.encode(TEXTS, "query")).max() < 1e-5
        assert np.abs(found.encode(TEXTS) - plain.encode(TEXTS)).max() < 1e-6
