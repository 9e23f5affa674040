"""Encoder: equal to one text at a time, to sentence-transformers, with and without gradient."""

from __future__ import annotations

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModel, AutoTokenizer

from acclimate.core import lora
from acclimate.core.batching import chunks_by_tokens
from acclimate.errors import AcclimateError, ModelError, UsageError
from acclimate.models.adapter import Adapter
from acclimate.models.attention import PACKED_MODEL_TYPES
from acclimate.models.encoder import Encoder
from acclimate.models.loading import checkpoint_activations
from acclimate.prompts import Prompts
from acclimate.types import ROLES, Sides
from tests.models import tiny

TEXTS = [
    "list files in a folder",
    "水稻病虫害 防治方法",
    "",
    "x",
    "show disk usage " * 60,
    "find large files, sort lines by name",
    " leading and trailing \n",
    "hello WORLD ünï 🚜",
    "list [PAD] files <pad><pad> in a folder",
    "x",
    "list files in a folder",
]
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {},
    "roberta": {},
    "xlm-roberta": {},
    "camembert": {},
    "electra": {"embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "llama": {"num_key_value_heads": 2},
    "mistral": {"num_key_value_heads": 2, "sliding_window": None},
}
PADDED: dict[str, dict[str, Any]] = {
    "mpnet": {},
    "albert": {"embedding_size": 16},
    "mistral": {"num_key_value_heads": 2, "sliding_window": 4},
}


def one_at_a_time(folder: Path, texts: list[str], pooling: str, max_tokens: int) -> NDArray[np.float32]:
    """transformers' own eager model, one text after the other: no packing, no padding."""
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state[0]
        vector = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}[pooling]
        rows.append(nn.functional.normalize(vector, dim=0).numpy())
    return np.stack(rows)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.as_sentence_transformer(tiny.tiny_bert(tmp_path_factory.mktemp("bert")))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.as_sentence_transformer(tiny.tiny_qwen3(tmp_path_factory.mktemp("qwen")), "last")


def adapter_for(encoder: Encoder, sides: Sides = "both", **changes: Any) -> Adapter:
    """A random adapter for every linear layer, strong enough to be seen."""
    generator = torch.Generator().manual_seed(1)
    linears = {name: layer for name, layer in encoder.model.named_modules() if isinstance(layer, nn.Linear)}
    modules = {
        name: (
            torch.randn(2, layer.in_features, generator=generator),
            torch.randn(layer.out_features, 2, generator=generator) / 9,
        )
        for name, layer in linears.items()
    }
    settings: dict[str, Any] = {
        "base_id": encoder.source.id,
        "base_sha256": encoder.source.sha256,
        "rank": 2,
        "alpha": 2.0,
        "modules": modules,
        "use": encoder.use,
        "normalise": True,
        "sides": sides,
    }
    return Adapter(**settings | changes)


def test_every_packed_architecture_is_tested() -> None:
    assert set(ARCHITECTURES) == PACKED_MODEL_TYPES


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_packed_equals_one_text_at_a_time(model_type: str, tmp_path: Path) -> None:
    folder = tiny.tiny_model(tmp_path, model_type, **ARCHITECTURES[model_type])
    encoder = Encoder.load(str(folder), pooling="mean", device="cpu", dtype="float32")
    assert encoder.packed
    expected = one_at_a_time(folder, TEXTS, "mean", encoder.use.max_tokens)
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5


@pytest.mark.parametrize("model_type", PADDED)
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_padded_equals_one_text_at_a_time(model_type: str, pooling: Any, tmp_path: Path) -> None:
    folder = tiny.tiny_model(tmp_path, model_type, **PADDED[model_type])
    encoder = Encoder.load(str(folder), pooling=pooling, device="cpu", dtype="float32")
    assert not encoder.packed
    expected = one_at_a_time(folder, TEXTS, pooling, encoder.use.max_tokens)
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_qwen3_equals_one_text_at_a_time(qwen: Path, pooling: Any) -> None:
    encoder = Encoder.load(str(qwen), pooling=pooling, device="cpu", dtype="float32")
    expected = one_at_a_time(qwen, TEXTS, pooling, encoder.use.max_tokens)
    assert np.abs(encoder.encode(TEXTS) - expected).max() < 1e-5


def test_a_packed_row_may_be_longer_than_the_positions(bert: Path) -> None:
    encoder = Encoder.load(str(bert), device="cpu", dtype="float32")
    texts = ["show disk usage " * repeats for repeats in range(1, 40)]
    assert int(encoder.tokenise(texts).lengths.sum()) > 10 * encoder.source.files.position_limit
    expected = one_at_a_time(bert, texts, "mean", encoder.use.max_tokens)
    assert np.abs(encoder.encode(texts) - expected).max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "pooling"), [(tiny.tiny_bert, "mean"), (tiny.tiny_xlm_roberta, "cls"), (tiny.tiny_qwen3, "last")]
)
def test_equals_sentence_transformers_in_old_and_new_layout(make: Any, pooling: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    prompts = {"query": "Instruct: find words\nQuery:", "document": "text: "}
    lowercase = make is not tiny.tiny_qwen3  # transformers' Qwen2Tokenizer forgets it when saved
    folder = tiny.as_sentence_transformer(
        make(tmp_path / "old"), pooling, prompts=prompts, max_seq_length=32, do_lower_case=lowercase
    )
    theirs = SentenceTransformer(str(folder), device="cpu")
    theirs.save(str(tmp_path / "new"))
    ours = [Encoder.load(str(tmp_path / name), device="cpu", dtype="float32") for name in ("old", "new")]
    for encoder in ours:
        assert encoder.use.max_tokens == 32
        assert np.abs(encoder.encode(TEXTS, "query") - theirs.encode_query(TEXTS)).max() < 1e-5
        assert np.abs(encoder.encode(TEXTS, "document") - theirs.encode_document(TEXTS)).max() < 1e-5


@pytest.mark.real
@pytest.mark.slow
def test_real_minilm_equals_sentence_transformers() -> None:
    from sentence_transformers import SentenceTransformer

    encoder = Encoder.load(device="cpu", dtype="float32", query_prompt="query: ")
    theirs = SentenceTransformer(str(encoder.source.files.folder), device="cpu")
    texts = [
        *TEXTS,
        "The quick brown fox. " * 400,
        "地球绕太阳公转。",
        "\u200b\t",
        "e\u0301 é ﬁ ½",
        "[SEP] [MASK] </s>",
    ]
    assert np.abs(encoder.encode(texts) - theirs.encode_document(texts)).max() < 1e-5
    expected = theirs.encode_query(texts, prompt="query: ")
    assert np.abs(encoder.encode(texts, "query") - expected).max() < 1e-5


def test_repeated_texts_are_computed_once(bert: Path) -> None:
    encoder = Encoder.load(str(bert), device="cpu", dtype="float32")
    seen: list[int] = []
    encoder.model.register_forward_hook(
        lambda module, args, kwargs, out: seen.append(kwargs["input_ids"].numel()),  # noqa: ARG005
        with_kwargs=True,
    )
    vectors = encoder.encode(TEXTS)
    assert sum(seen) == encoder.tokenise(sorted(set(TEXTS))).lengths.sum()
    assert vectors.dtype == np.float32 and vectors.shape == (len(TEXTS), 32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)
    assert np.array_equal(vectors[0], vectors[-1])
    assert encoder.encode([]).shape == (0, 32)


def test_chunking_does_not_matter(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.load(str(bert), device="cpu", dtype="float32")
    whole = encoder.encode(TEXTS, "query")
    monkeypatch.setattr("acclimate.models.encoder.CHUNK_TOKENS", {"cpu": 24})
    assert np.abs(encoder.encode(TEXTS, "query") - whole).max() < 1e-5


@pytest.mark.parametrize("folder", ["bert", "qwen"])
def test_gradient_checkpointing_in_training_mode_changes_nothing(folder: str, request: pytest.FixtureRequest) -> None:
    encoder = Encoder.load(str(request.getfixturevalue(folder)), device="cpu", dtype="float32")
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    lora.attach_weights(encoder.model, adapter_for(encoder).modules)
    trained = [leaf for name, leaf in encoder.model.named_parameters() if name.endswith((".A", ".B"))]
    assert trained
    for leaf in trained:
        leaf.requires_grad_(True)
    tokens = encoder.tokenise(TEXTS)
    (chunk,) = chunks_by_tokens(tokens.lengths, 10_000)
    results = []
    for checkpointing in (False, True):
        encoder.model.train()  # dropout probabilities of 0.1 in the folder must not show
        if checkpointing:
            checkpoint_activations(encoder.model)
        vectors = encoder.forward_tokens(tokens, chunk)
        (vectors * torch.arange(vectors.numel()).view(vectors.shape).sin()).sum().backward()
        results.append([vectors.detach(), *(leaf.grad.clone() for leaf in trained if leaf.grad is not None)])
        encoder.model.zero_grad()
    assert len(results[0]) == 1 + len(trained)
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(expected, found, atol=1e-5)
    assert np.abs(encoder.encode(TEXTS)[chunk] - results[0][0].numpy()).max() < 1e-5


def test_matryoshka_dimensions(bert: Path) -> None:
    full, cut = (Encoder.load(str(bert), dim=dim, device="cpu", dtype="float32").encode(TEXTS) for dim in (None, 8))
    assert cut.shape == (len(TEXTS), 8)
    assert np.allclose(cut, full[:, :8] / np.linalg.norm(full[:, :8], axis=1, keepdims=True), atol=1e-6)


def test_bfloat16_is_close_and_returns_float32(bert: Path) -> None:
    exact = Encoder.load(str(bert), device="cpu", dtype="float32").encode(TEXTS)
    rough = Encoder.load(str(bert), device="cpu", dtype="bfloat16")
    assert {parameter.dtype for parameter in rough.model.parameters()} == {torch.bfloat16}
    vectors = rough.encode(TEXTS)
    assert vectors.dtype == np.float32
    assert (vectors * exact).sum(1).min() > 0.99


def test_no_pooler_is_built(bert: Path) -> None:
    assert Encoder.load(str(bert), device="cpu").model.pooler is None


def test_adapter_leaves_the_base_alone_and_shares_its_weights(bert: Path) -> None:
    base = Encoder.load(str(bert), device="cpu", dtype="float32")
    before = base.encode(TEXTS)
    prompts = Prompts({"": "find "}, {"": ""})
    use = dataclasses.replace(base.use, prompts=prompts, dim=16, max_tokens=9)
    adapted = base.with_adapter(adapter_for(base, use=use))
    assert np.array_equal(base.encode(TEXTS), before)
    assert adapted.use == use
    assert adapted.encode(TEXTS).shape == (len(TEXTS), 16)
    storages = {parameter.data_ptr() for parameter in base.model.parameters()}
    assert storages <= {parameter.data_ptr() for parameter in adapted.model.parameters()}


def test_query_side_adapter_keeps_documents(bert: Path) -> None:
    base = Encoder.load(str(bert), device="cpu", dtype="float32")
    adapted = base.with_adapter(adapter_for(base, "query"))
    assert np.abs(adapted.encode(TEXTS, "document") - base.encode(TEXTS, "document")).max() < 1e-6
    assert np.abs(adapted.encode(TEXTS, "query") - base.encode(TEXTS, "query")).max() > 0.01
    assert adapted.role_fingerprint("document") == base.role_fingerprint("document")
    assert adapted.role_fingerprint("query") != base.role_fingerprint("query")
    both = base.with_adapter(adapter_for(base, "both"))
    assert np.abs(both.encode(TEXTS, "document") - base.encode(TEXTS, "document")).max() > 0.01
    assert both.role_fingerprint("document") != base.role_fingerprint("document")


def test_queries_beside_a_thread_of_documents(bert: Path) -> None:
    """The adapter's side was a state of the model: 12 of 12 batches of queries came out wrong."""
    encoder = Encoder.load(str(bert), device="cpu", dtype="float32")
    encoder = encoder.with_adapter(adapter_for(encoder, "query"))
    expected = {role: encoder.encode(TEXTS, role) for role in ROLES}

    def wrong(thread: int) -> int:
        role = ROLES[thread % 2]
        return sum(not np.array_equal(encoder.encode(TEXTS, role), expected[role]) for _ in range(12))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wrong, range(8))) == 0


def test_encoding_waits_for_a_training_step(bert: Path) -> None:
    """What a step has switched off stays off until its backward pass is over, whoever wants documents meanwhile."""
    encoder = Encoder.load(str(bert), device="cpu", dtype="float32")
    encoder = encoder.with_adapter(adapter_for(encoder, "query"))
    tokens, chunk = encoder.tokenise(TEXTS, "query"), np.arange(len(TEXTS))
    expected = encoder.forward_tokens(tokens, chunk, "query")
    with ThreadPoolExecutor(1) as pool:
        with lora.held(encoder.model):
            waiting = pool.submit(encoder.encode, TEXTS, "document")
            found = [encoder.forward_tokens(tokens, chunk, "query") for _ in range(5)]
            assert not waiting.done()
        assert np.array_equal(waiting.result(timeout=60), encoder.encode(TEXTS, "document"))
    assert all(torch.equal(vectors, expected) for vectors in found)


def test_adapter_of_another_base_is_refused(bert: Path) -> None:
    base = Encoder.load(str(bert), device="cpu", dtype="float32")
    with pytest.raises(ModelError, match="made for base"):
        base.with_adapter(adapter_for(base, base_sha256="0" * 64))


def test_fingerprint_knows_all_that_decides_the_vectors(bert: Path, tmp_path: Path) -> None:
    other = tiny.as_sentence_transformer(tiny.tiny_bert(tmp_path / "other", seed=1))
    base = Encoder.load(str(bert), device="cpu", dtype="float32")
    variants: list[dict[str, Any]] = [
        {"pooling": "cls"},
        {"query_prompt": "q: "},
        {"document_prompt": "d: "},
        {"max_tokens": 20},
        {"dim": 8},
        {"dtype": "bfloat16"},
    ]
    loaded = [Encoder.load(str(bert), device="cpu", **{"dtype": "float32", **variant}) for variant in variants]
    prints = [encoder.fingerprint for encoder in (base, Encoder.load(str(other), device="cpu"), *loaded)]
    prints += [base.with_adapter(adapter_for(base, sides)).fingerprint for sides in ("both", "query")]
    assert len(set(prints)) == len(prints)
    assert Encoder.load(str(bert), device="cpu", dtype="float32").fingerprint == base.fingerprint


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 65}, "max_tokens = 65.*2 to 64"),
        ({"max_tokens": 1}, "max_tokens = 1"),
        ({"dim": 33}, "dim = 33.*1 to 32"),
        ({"device": "cuda:99"}, "cuda:99.*auto, cpu"),
        ({"dtype": "float8"}, "float8.*bfloat16"),
    ],
)
def test_impossible_options(bert: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Encoder.load(str(bert), **options)


def _drop_weight(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _unknown_architecture(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "no-such-architecture"}))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop_weight, r"1 weights are missing.*layer\.1\.output\.dense\.weight"),
        (_unknown_architecture, "cannot be loaded.*no-such-architecture"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x00" * 100), "cannot be loaded"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be loaded"),
    ],
)
def test_damaged_models(damage: Any, message: str, tmp_path: Path) -> None:
    folder = tiny.as_sentence_transformer(tiny.tiny_bert(tmp_path))
    damage(folder)
    with pytest.raises(AcclimateError, match=message):
        Encoder.load(str(folder), device="cpu")
