"""`export`: what other engines read, what is refused, and what `load` makes of it."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import resource
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
from transformers import BertConfig, BertModel

from acclimate.cli.main import main
from acclimate.configs import EvaluateConfig, ExportConfig, RunConfig, dump_config
from acclimate.data.dataset import load_dataset
from acclimate.errors import DataError, MissingExtraError, ModelError, StorageError, UsageError
from acclimate.evaluation.gate import gate
from acclimate.evaluation.parity import parity, parity_texts
from acclimate.formats.int8 import RECIPES, Recipe, layers_of, write_form
from acclimate.formats.openvino_int8 import Batch, costs
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.backends.engine_encoder import EngineEncoder
from acclimate.models.encoder import Encoder
from acclimate.models.text_encoder import TextEncoder
from acclimate.runs.exporting import batches_of
from acclimate.runs.records import remembered
from acclimate.runs.resolve import load, resolve
from acclimate.runs.run_folder import RunFolder
from acclimate.stages.encode import encode
from acclimate.stages.evaluate import evaluate_model
from acclimate.stages.export import export
from acclimate.stages.index import index
from acclimate.stages.search import search_index
from acclimate.types import ROLES, Sides
from tests.models.adapted import TEXTS, random_adapter, write_model
from tests.models.tiny import as_sentence_transformer, tiny_model, tiny_xlm_roberta
from tests.stages.worlds import write_adapter
from tests.tiny_run import WORDS, write_tiny_bert, write_tiny_retrieval


def config(model: Path, format: str, **settings: object) -> RunConfig:
    return RunConfig(
        model=str(model),
        export=ExportConfig(format=format, **settings),  # type: ignore[arg-type]
        evaluate=EvaluateConfig(sign_flips=200),
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a tiny model whose embedding table is most of its weights, and its ONNX export, float32 and INT8."""
    folder = tmp_path_factory.mktemp("export")
    base = write_tiny_bert(folder / "base")
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    BertModel(BertConfig(vocab_size=4000, hidden_size=128, intermediate_size=256, **sizes)).save_pretrained(base)
    as_sentence_transformer(base, prompts={"query": "w1 w2 ", "document": ""})
    write_tiny_retrieval(folder / "run" / "dataset")
    write_adapter(folder / "run" / "adapter", base, strength=0.05)
    export(folder / "run", folder / "onnx", config(base, "onnx"))
    export(folder / "run", folder / "int8", config(base, "onnx", int8=True, max_loss=0.9))
    return folder


def live(world: Path) -> TextEncoder:
    return load(world / "run", base=str(world / "base"), device="cpu", dtype="float32")


def texts() -> list[str]:
    return [" ".join(WORDS[number : number + 1 + number % 9]) for number in range(40)] + [" ".join(WORDS)]


def test_a_graph_has_the_runs_vectors(world: Path) -> None:
    encoder, reference = load(world / "onnx"), live(world)
    assert isinstance(encoder, EngineEncoder)
    for role in ROLES:
        cosines = np.einsum("nd,nd->n", encoder.encode(texts(), role), reference.encode(texts(), role))
        assert cosines.min() > 0.99999
    assert encoder.encode([], "query").shape == (0, 128)
    assert [path.name for path in (world / "onnx").rglob("*.safetensors")] == ["trained_on.safetensors"]


def test_a_graph_lies_in_the_runs_space_and_has_cache_keys_of_its_own(world: Path) -> None:
    encoder, reference = load(world / "onnx"), live(world)
    assert encoder.space == reference.space
    keys = [one.role_fingerprint(role) for one in (encoder, reference, load(world / "int8")) for role in ROLES]
    assert len(set(keys)) == 6
    prompts = [encoder.role_fingerprint("query"), load(world / "onnx", query_prompt="w3 ").role_fingerprint("query")]
    assert prompts[0] != prompts[1]


def test_fewer_dimensions_are_the_leading_ones(world: Path) -> None:
    whole, cut = load(world / "onnx").encode(texts()), load(world / "onnx", dim=16).encode(texts())
    expected = whole[:, :16] / np.linalg.norm(whole[:, :16], axis=1, keepdims=True)
    assert np.abs(cut - expected).max() < 1e-6


@pytest.mark.parametrize(
    "settings", [{"pooling": "cls"}, {"dim": 129}, {"device": "cuda"}, {"dtype": "bfloat16"}, {"max_tokens": 33}]
)
def test_what_a_graph_cannot_be_changed_to(world: Path, settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        load(world / "onnx", **settings)  # type: ignore[arg-type]


def test_int8_is_smaller_proven_and_near(world: Path) -> None:
    report = json.loads((world / "int8" / "report.json").read_text())
    assert report["precision"] == "int8" and report["size"] < 0.4 and report["bytes"] < report["float32_bytes"]
    assert report["gate"]["passed"] and report["gate"]["recipe"] == "dynamic"
    assert report["gate"]["tried"][0]["dev"]["split"] == "dev" and report["gate"]["test"]["split"] == "test"
    assert report["parity"]["min_cosine"] > 0.9999 > report["cosine"]["min_cosine"] > 0.95
    cosines = np.einsum("nd,nd->n", load(world / "int8").encode(texts()), live(world).encode(texts()))
    assert 0.98 < cosines.mean() < 0.999999
    assert "INT8 has" in (world / "int8" / "README.md").read_text()


@pytest.mark.parametrize("recipe", RECIPES["onnx"])
def test_a_form_of_int8(world: Path, tmp_path: Path, recipe: Recipe) -> None:
    """Near to float32, the table in 8 bits; in blocks a text's vector does not depend on its neighbours."""
    shutil.copytree(world / "onnx", tmp_path / "out")
    write_form(world / "onnx" / "onnx" / "model.onnx", tmp_path / "out" / "onnx" / "model.onnx", recipe)
    sizes = [(folder / "onnx" / "model.onnx").stat().st_size for folder in (tmp_path / "out", world / "onnx")]
    assert sizes[0] < 0.4 * sizes[1]
    encoder = EngineEncoder.open(tmp_path / "out")
    cosines = np.einsum("nd,nd->n", encoder.encode(texts()), load(world / "onnx").encode(texts()))
    assert cosines.min() > 0.97 and cosines.mean() < 0.9999999
    apart = np.abs(encoder.encode(texts()) - encoder.encode_alone(texts())).max()
    assert (apart < 1e-5) == (recipe == "blocks")


def test_a_layer_that_is_kept_is_float32(world: Path, tmp_path: Path) -> None:
    """One layer has six products with a weight; those that are kept stay as they are."""
    graph, out = world / "onnx" / "onnx" / "model.onnx", tmp_path / "model.onnx"
    layers = layers_of(graph, "onnx")
    assert len(layers) == 6
    for kept in ([], layers[:2]):
        write_form(graph, out, "dynamic", kept=kept)
        left = [node.name for node in onnx.load(str(out)).graph.node if node.op_type == "MatMul"]
        assert set(layers) & set(left) == set(kept)


def test_the_stages_run_on_an_export(world: Path, tmp_path: Path) -> None:
    """evaluate, encode, index and search take one: alone, or in the place of the run's own model."""
    run = tmp_path / "run"
    shutil.copytree(world / "run", run)
    own = config(world / "base", "onnx")
    whole, graph = (evaluate_model(str(run), folder, own) for folder in (run, world / "onnx"))
    assert graph["queries"] == whole["queries"] and abs(graph["ndcg@10"] - whole["ndcg@10"]) < 1e-6
    with_export = dataclasses.replace(own, model=str(world / "onnx"))
    (tmp_path / "texts.txt").write_text("w1 w2\nw3\n")
    encode(tmp_path / "texts.txt", "document", None, tmp_path / "vectors.npy", with_export)
    assert np.array_equal(np.load(tmp_path / "vectors.npy"), load(world / "onnx").encode(["w1 w2", "w3"]))
    assert index(run, [], None, with_export)["documents"] == 40
    # Made by the export, searched by the run's own model: it is one space.
    hits = [search_index(run, "w7 w8", 5, one, mode="dense")["hits"] for one in (with_export, own)]
    assert [hit["id"] for hit in hits[0]] == [hit["id"] for hit in hits[1]]


def test_a_run_remembers_its_model_and_not_an_export(world: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    run.config.write_text(dump_config(RunConfig(model=str(world / "base"))))
    kept = remembered(run, RunConfig(model=str(world / "onnx"), seed=7))
    assert (kept.model, kept.seed) == (str(world / "base"), 7)
    assert remembered(run, RunConfig(model="another")).model == "another"


def test_a_full_disk_is_one_clear_line(world: Path, tmp_path: Path) -> None:
    """Files may be as large as the weights, which are written first, and a little smaller than the graph."""
    weights = (world / "base" / "model.safetensors").stat().st_size
    assert weights < (world / "onnx" / "onnx" / "model.onnx").stat().st_size - 10_000
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (weights + 10_000, before[1]))
    try:
        for format in ("onnx", "openvino"):
            with pytest.raises(StorageError, match="cannot be written"):
                export(world / "run", tmp_path / "out", config(world / "base", format))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out").exists()


def test_an_export_of_another_model_is_no_run_s(world: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "other", world / "base", strength=0.5)
    with pytest.raises(ModelError, match="is no export of"):
        load(tmp_path / "other", base=str(world / "onnx"))


def test_a_failing_gate_is_refused_or_marked(world: Path, tmp_path: Path) -> None:
    """A table of a few words leaves a graph larger than half of the weights."""
    base = as_sentence_transformer(write_tiny_bert(tmp_path / "base"))
    shutil.copytree(world / "run" / "dataset", tmp_path / "run" / "dataset")
    write_adapter(tmp_path / "run" / "adapter", base, strength=0.1)
    asked = config(base, "onnx", int8=True)
    with pytest.raises(ModelError, match=r"does not pass the gate: it has .* of float32's bytes"):
        export(tmp_path / "run", tmp_path / "out", asked)
    assert not (tmp_path / "out").exists()
    report = export(tmp_path / "run", tmp_path / "out", asked, force=True)
    assert not report["gate"]["passed"]
    assert "not passed: this model was written with --force" in (tmp_path / "out" / "README.md").read_text()
    reference = load(tmp_path / "run", base=str(base))
    assert load(tmp_path / "out").space != reference.space


def test_the_gate_measures_a_loss(world: Path) -> None:
    data = load_dataset(world / "run" / "dataset")
    base = Encoder.load(str(world / "base"), device="cpu", dtype="float32")
    settings = EvaluateConfig(sign_flips=200)
    same = gate(base, base, data, "test", settings, loss=0.02, seed=0)
    assert same["holds"] and same["interchangeable"] and same["delta"]["value"] == 0
    assert same["queries"] == 8 and same["bound"] == pytest.approx(0.02 * same["float32"])
    spoilt = base.with_adapter(random_adapter(base, rank=2, dim=128))
    found = gate(base, spoilt, data, "test", settings, loss=0.02, seed=0)
    assert not found["holds"] and not found["interchangeable"]
    assert found["delta"]["value"] == pytest.approx(found["int8"] - found["float32"])


def test_parity_names_the_text_that_differs(world: Path) -> None:
    reference = live(world)
    chosen = parity_texts(None, reference)
    assert all(reference.tokenise(chosen[role][-1:], role).lengths[0] == 32 for role in ROLES)

    def read(some: object, role: object) -> np.ndarray:
        vectors = reference.encode(some, role)  # type: ignore[arg-type]
        if role == "document":
            vectors[1] = -vectors[1]
        return vectors

    found = parity(reference, read, chosen, "a reader")
    assert found["min_cosine"] == pytest.approx(-1, abs=1e-5) and found["worst"] == chosen["document"][1]
    assert parity(reference, reference.encode, chosen, "itself")["min_cosine"] > 0.99999


def test_what_is_refused_before_anything_is_read(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, out = world / "base", tmp_path / "out"
    with pytest.raises(UsageError, match="--int8 with --format sentence-transformers"):
        export(world / "run", out, config(base, "sentence-transformers", int8=True))
    with pytest.raises(UsageError, match="is an export already"):
        export(world / "onnx", out, config(base, "onnx"))
    with pytest.raises(UsageError, match="holds no adapter"):
        export(tmp_path, out, config(base, "onnx"))
    shutil.copytree(world / "run" / "adapter", tmp_path / "alone")
    with pytest.raises(UsageError, match="holds no dataset that the gate of --int8 could measure on"):
        export(tmp_path / "alone", out, config(base, "onnx", int8=True))
    write_model(tmp_path / "other", "bert", seed=5)
    with pytest.raises(ModelError, match="was made for base"):
        export(world / "run", out, config(tmp_path / "other", "onnx"))
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "onnx" else found(name, *rest))
    with pytest.raises(MissingExtraError, match=r"pip install 'acclimate\[onnx\]'"):
        export(world / "run", out, config(base, "onnx"))
    with pytest.raises(MissingExtraError, match=r"pip install 'acclimate\[onnx\]'"):
        load(world / "onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "nncf" else found(name, *rest))
    with pytest.raises(MissingExtraError, match=r"A model for openvino in INT8.*pip install 'acclimate\[openvino\]'"):
        export(world / "run", out, config(base, "openvino", int8=True))
    assert not out.exists()


def test_a_damaged_export_is_one_clear_line(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "onnx", tmp_path / "onnx")
    graph = tmp_path / "onnx" / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(tmp_path / "onnx")
    graph.unlink()
    with pytest.raises(ModelError, match=r"model\.onnx is missing"):
        resolve(tmp_path / "onnx")


def test_the_command(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The second form of an export of the same run; a setting of the gate is refused where there is none."""
    run, out = str(world / "run"), str(tmp_path / "st")
    main(["export", run, "--out", out, "--model", str(world / "base")])
    shown = capsys.readouterr().out
    assert "read by sentence-transformers in float32: smallest cosine" in shown and shown.endswith(f"{out}\n")
    with pytest.raises(SystemExit, match="2"):
        main(["export", run, "--out", out, "--model", str(world / "base"), "--max-loss", "0.1"])
    assert "export in float32 does not read max_loss" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="5"):
        main(["export", run, "--out", out, "--model", str(world / "base"), "--push", "somebody/farm"])
    assert "is written, and could not be uploaded as somebody/farm" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "sides", "dim", "format"),
    [("qwen3", "query", 16, "onnx"), ("qwen3", "both", 32, "openvino"), ("bert", "query", 32, "openvino")],
)
def test_families_sides_and_engines(tmp_path: Path, family: str, sides: Sides, dim: int, format: str) -> None:
    base = write_model(tmp_path / "base", family)
    encoder = Encoder.load(str(base), dim=dim, device="cpu", dtype="float32")
    folder = tmp_path / "run" / "adapter"
    folder.mkdir(parents=True)
    save_adapter(folder, random_adapter(encoder, sides=sides, dim=dim), encoder.source)
    report = export(tmp_path / "run", tmp_path / "out", config(base, format))
    assert report["models"] == (2 if sides == "query" else 1)
    exported, reference = load(tmp_path / "out"), load(tmp_path / "run", base=str(base), device="cpu", dtype="float32")
    for role in ROLES:
        assert np.abs(exported.encode(TEXTS, role) - reference.encode(TEXTS, role)).max() < 1e-5
    assert exported.space == reference.space


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["xlm-roberta", "modernbert"])
def test_other_architectures(tmp_path: Path, model_type: str) -> None:
    """Positions that begin after the padding's id; layers that attend to their neighbourhood only."""
    folder = tmp_path / "base"
    made = tiny_xlm_roberta(folder) if model_type == "xlm-roberta" else tiny_model(folder, model_type)
    base = as_sentence_transformer(made, "cls")
    write_adapter(tmp_path / "adapter", base, strength=0.1)
    assert export(tmp_path / "adapter", tmp_path / "out", config(base, "onnx"))["parity"]["min_cosine"] > 0.9999


def change(graph: Path, other: Path, batches: Sequence[Batch]) -> float:
    """How far the token states of another graph are off, as a share of their square."""
    whole, changed = (openvino.Core().compile_model(str(path), "CPU") for path in (graph, other))
    pairs = [(whole(dict(batch))[0], changed(dict(batch))[0]) for batch in batches]
    return float(sum(np.square(b - a).sum() for a, b in pairs) / sum(np.square(a).sum() for a, _ in pairs))


@pytest.mark.slow
def test_int8_for_openvino_is_calibrated(world: Path, tmp_path: Path) -> None:
    """Smaller, near, found by `load`; a layer that is kept is left out of it."""
    report = export(world / "run", tmp_path / "out", config(world / "base", "openvino", int8=True, max_loss=0.9))
    assert report["gate"]["recipe"] == "calibrated" and report["gate"]["passed"] and report["size"] < 0.4
    assert report["parity"]["min_cosine"] > 0.9999
    cosines = np.einsum("nd,nd->n", load(tmp_path / "out").encode(texts()), live(world).encode(texts()))
    assert 0.95 < cosines.mean() < 0.999999
    export(world / "run", tmp_path / "float", config(world / "base", "openvino"))
    graph = tmp_path / "float" / "openvino" / "openvino_model.xml"
    layers = layers_of(graph, "openvino")
    assert len(layers) == 6
    batches = batches_of(live(world).tokenise(texts()))
    rounded = []
    for kept in ([], layers):
        write_form(graph, tmp_path / "again.xml", "calibrated", kept=kept, calibration=batches)
        operations = openvino.Core().read_model(str(tmp_path / "again.xml")).get_ordered_ops()
        rounded.append(sum(node.get_type_name() == "FakeQuantize" for node in operations))
    assert rounded[1] < rounded[0]
    write_form(graph, tmp_path / "again.xml", "calibrated", calibration=batches)
    found = costs(graph, tmp_path / "again.xml", batches)
    for layer in layers:
        others = [other for other in layers if other != layer]
        write_form(graph, tmp_path / "one.xml", "calibrated", kept=others, calibration=batches)
        assert found[layer] == pytest.approx(change(graph, tmp_path / "one.xml", batches), rel=0.1), layer


def test_what_cannot_be_folded_or_read(world: Path, tmp_path: Path) -> None:
    """An adapter that no sum of weights expresses, and a tokenizer that is not one of the tokenizers library."""
    shutil.copytree(world / "run" / "adapter", tmp_path / "dora")
    facts = json.loads((tmp_path / "dora" / "adapter_config.json").read_text())
    (tmp_path / "dora" / "adapter_config.json").write_text(json.dumps(facts | {"use_dora": True}))
    with pytest.raises(ModelError, match="use_dora"):
        export(tmp_path / "dora", tmp_path / "out", config(world / "base", "onnx"))
    shutil.copytree(world / "base", tmp_path / "bytes")
    for file in ("tokenizer.json", "vocab.txt"):
        (tmp_path / "bytes" / file).unlink(missing_ok=True)
    (tmp_path / "bytes" / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    with pytest.raises(ModelError, match="its tokenizer has no fast implementation"):
        export(world / "run", tmp_path / "out", config(tmp_path / "bytes", "onnx"))
    assert not (tmp_path / "out").exists()


def test_a_calibration_set_of_one_text(world: Path, tmp_path: Path) -> None:
    shutil.copytree(world / "run", tmp_path / "run")
    examples = tmp_path / "run" / "dataset" / "examples.jsonl"
    examples.write_text(examples.read_text().splitlines()[0] + "\n")
    with pytest.raises(DataError, match="is calibrated on training texts, and there are 2 texts"):
        export(tmp_path / "run", tmp_path / "out", config(world / "base", "openvino", int8=True))
    assert not (tmp_path / "out").exists()
