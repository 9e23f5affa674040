"""Where a model comes from and what its folder says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from acclimate.configs import DEFAULT_MODEL
from acclimate.errors import AcclimateError, ModelError
from acclimate.files import hash_file, hash_text
from acclimate.formats import sources
from acclimate.formats.sources import DEFAULT_SHA256, hash_weights, resolve_model
from tests.models import tiny


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    return tiny.tiny_bert(tmp_path / "my-bert")


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.real
@pytest.mark.parametrize("name", [DEFAULT_MODEL, "all-MiniLM-L6-v2"])
def test_packaged_default(name: str) -> None:
    source = resolve_model(name)
    assert source.id == DEFAULT_MODEL
    assert source.sha256 == DEFAULT_SHA256
    assert (source.use.pooling, source.files.normalise, source.files.dim) == ("mean", True, 384)
    assert (source.use.max_tokens, source.files.position_limit, source.files.architecture) == (
        256,
        512,
        "bidirectional",
    )


@pytest.mark.real
def test_packaged_default_given_by_folder_keeps_its_id(tmp_path: Path) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(resolve_model(DEFAULT_MODEL).files.folder, copied)
    assert resolve_model(str(copied)).id == DEFAULT_MODEL


def test_packaged_weights_are_verified(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.as_sentence_transformer(bert)
    monkeypatch.setattr(sources, "_packaged_default", lambda: bert)
    with pytest.raises(ModelError, match=f"sha256.*{DEFAULT_SHA256}"):
        resolve_model(DEFAULT_MODEL)


@pytest.mark.parametrize("new_keys", [False, True])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_sentence_transformers_folder(bert: Path, pooling: str, new_keys: bool) -> None:
    tiny.as_sentence_transformer(
        bert,
        pooling,
        new_keys=new_keys,
        normalise=False,
        prompts={"query": "q: "},
        max_seq_length=20,
        do_lower_case=True,
    )
    source = resolve_model(str(bert))
    assert (source.id, source.use.pooling, source.files.normalise, source.use.lowercase) == (
        "my-bert",
        pooling,
        False,
        True,
    )
    assert (source.use.prompts.prompt("query"), source.use.prompts.prompt("document")) == ("q: ", "")
    assert (source.use.max_tokens, source.files.position_limit, source.files.dim) == (20, 64, 32)
    assert source.sha256 == hash_file(bert / "model.safetensors")


def test_plain_folder_asks_for_the_pooling_unless_the_family_is_known(bert: Path) -> None:
    with pytest.raises(ModelError, match="--pooling mean"):
        resolve_model(str(bert))
    assert resolve_model(str(bert), pooling="cls").use.pooling == "cls"
    known = bert.rename(bert.parent / "bge-small-en-v1.5")
    source = resolve_model(str(known))
    assert (source.use.pooling, source.id) == ("cls", "bge-small-en-v1.5")
    assert source.use.prompts.prompt("query").startswith("Represent this sentence")
    assert resolve_model(str(known), pooling="mean").use.pooling == "mean"


def test_prompts_of_the_family_where_the_folder_is_silent(bert: Path) -> None:
    known = tiny.as_sentence_transformer(bert.rename(bert.parent / "e5-small-v2"))
    source = resolve_model(str(known))
    assert (source.use.prompts.prompt("query"), source.use.prompts.prompt("document")) == ("query: ", "passage: ")
    tiny.as_sentence_transformer(known, prompts={"query": "", "document": ""})
    assert resolve_model(str(known)).use.prompts.prompt("query") == ""


def test_embeddinggemma_needs_its_dense_layers(bert: Path) -> None:
    with pytest.raises(ModelError, match=r"without the Dense layers.*modules\.json"):
        resolve_model(str(bert.rename(bert.parent / "embeddinggemma-300m")))


def test_positions_of_roberta_begin_behind_the_padding(tmp_path: Path) -> None:
    source = resolve_model(str(tiny.tiny_xlm_roberta(tmp_path / "x", max_tokens=30)), pooling="mean")
    assert source.files.position_limit == 30


def test_hub_cache_folder_has_the_hubs_id(bert: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--acme--tiny-bert" / "snapshots" / "abc123"
    snapshot.parent.mkdir(parents=True)
    bert.rename(snapshot)
    assert resolve_model(str(snapshot), pooling="mean").id == "acme/tiny-bert"


def test_hub_cache_is_asked_first(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = tmp_path / "cache" / "models--acme--tiny-bert"
    (entry / "snapshots").mkdir(parents=True)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("a" * 40)
    bert.rename(entry / "snapshots" / ("a" * 40))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    source = resolve_model("acme/tiny-bert", pooling="mean")
    assert source.id == "acme/tiny-bert"
    assert source.files.folder.is_relative_to(tmp_path / "cache")


def test_several_weight_files(tmp_path: Path) -> None:
    hashes = []
    for number in (1, 2):
        path = tmp_path / f"model-0000{number}-of-00002.safetensors"
        path.write_bytes(bytes([number]))
        hashes.append(f"{path.name}\0{hash_file(path)}")
    assert hash_weights(tmp_path) == hash_text(*hashes)
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(b"changed")
    assert hash_weights(tmp_path) != hash_text(*hashes)


def test_cls_on_a_causal_model_is_refused(tmp_path: Path) -> None:
    folder = tiny.tiny_qwen3(tmp_path)
    with pytest.raises(ModelError, match=r"causal.*first token sees nothing but itself"):
        resolve_model(str(folder), pooling="cls")
    assert resolve_model(str(folder), pooling="last").files.architecture == "causal"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("./nowhere", "no such folder"),
        ("/nowhere/at all", "no such folder"),
        ("acme/no-such-model-anywhere", "nor in the hub's cache"),
    ],
)
def test_not_found(name: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=message):
        resolve_model(name)


def _add_dense(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))


def _add_truncation_last(folder: Path) -> None:
    """A cut after normalisation, as sentence-transformers' own `truncate_dim` makes it: not unit vectors."""
    _add_dense(folder)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps([*modules[:2], modules[3], modules[2]]))


def _add_router(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.models.Router"
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "router_config.json").write_text(json.dumps({"structure": {"query": ["a", "b"]}, "types": {}}))


BREAKAGES: dict[str, tuple[Any, str]] = {
    "dense": (_add_dense, r"2_Dense/config\.json"),
    "order": (_add_truncation_last, "has the order Transformer, Pooling, Normalize, Dense"),
    "router": (_add_router, r"router_config\.json: the route 'query'"),
    "code of its own": (
        lambda f: (f / "modules.json").write_text('[{"idx": 0, "path": "", "type": "custom_st.Transformer"}]'),
        "custom_st.Transformer.*code of its own",
    ),
    "prompt left out of pooling": (lambda f: edit(f / "1_Pooling/config.json", include_prompt=False), "include_prompt"),
    "max pooling": (
        lambda f: edit(f / "1_Pooling/config.json", pooling_mode_mean_tokens=False, pooling_mode_max_tokens=True),
        "pooling by max",
    ),
    "two poolings": (lambda f: edit(f / "1_Pooling/config.json", pooling_mode_cls_token=True), "cls . mean"),
    "no pooling file": (lambda f: (f / "1_Pooling/config.json").unlink(), "is missing"),
    "broken modules": (lambda f: (f / "modules.json").write_text("[{"), "cannot be read"),
    "modules no list": (lambda f: (f / "modules.json").write_text("{}"), "no list of modules"),
    "no config": (lambda f: (f / "config.json").unlink(), "not a model's folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no safetensors weights"),
    "pickle only": (lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"), "pytorch_model.bin, a pickle"),
    "encoder-decoder": (lambda f: edit(f / "config.json", is_encoder_decoder=True), "encoder-decoder"),
}


@pytest.mark.parametrize("name", BREAKAGES)
def test_unsupported_or_damaged_folders(name: str, bert: Path) -> None:
    tiny.as_sentence_transformer(bert)
    resolve_model(str(bert))
    damage, message = BREAKAGES[name]
    damage(bert)
    with pytest.raises(AcclimateError, match=message):
        resolve_model(str(bert))


def test_a_reranker_is_no_encoder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="reranker"):
        resolve_model(str(tiny.tiny_reranker(tmp_path)))
