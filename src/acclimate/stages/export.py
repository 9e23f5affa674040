"""`export`: a trained model for other engines. Its vectors are compared with the model's, by a reader that is not ours,
before anything is written; INT8 also passes a gate on held-out queries."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

from acclimate.configs import RunConfig, effective
from acclimate.data.dataset import Dataset, is_dataset, load_dataset
from acclimate.errors import ModelError, UsageError
from acclimate.evaluation.gate import Gate, gate
from acclimate.evaluation.parity import SAME, Parity, below_limit, parity, parity_texts
from acclimate.files import hash_folder, write_text
from acclimate.formats.engine_folder import (
    GGUF,
    GRAPHS,
    Engine,
    Precision,
    graph_bytes,
    is_engine_folder,
    transformer_folders,
    write_engine,
)
from acclimate.formats.folders import read_folder
from acclimate.formats.gguf_file import check_gguf, write_gguf
from acclimate.formats.onnx_int8 import RECIPES, Recipe, quantise
from acclimate.formats.sources import resolve_model, weight_files
from acclimate.models.backends.engine_encoder import EngineEncoder
from acclimate.models.backends.graph import convert_to_openvino, write_onnx
from acclimate.models.backends.llama_cpp import INSTALL, has_llama_cpp, llama_cpp_reader
from acclimate.models.backends.readers import Reader, graph_reader, sentence_transformers_reader
from acclimate.models.backends.sessions import require
from acclimate.progress import say
from acclimate.report import export_card, model_card
from acclimate.report.export_card import ExportReport, Tried
from acclimate.report.summary import MergeReport, summary_of
from acclimate.runs.folded import adapted_folder, write_folded
from acclimate.runs.resolve import load, resolve, trained_hash
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.types import Split

HALVES = ("openvino", "gguf")
"""Formats with a form in float16."""
MAX_SIZE = 0.5
"""INT8: the largest share of float32's bytes."""


def export(model: Path, out: Path, config: RunConfig, *, data: Path | None = None, force: bool = False) -> ExportReport:
    """Write a model as other engines read it.

    Args:
        model: a run, an adapter folder, or a folder of a fully trained or merged model.
        out: the folder to write.
        config: shared fields (`model` names the base where no folder's id leads to it), `export`, and for INT8
            `evaluate.sign_flips` and `evaluate.confidence`.
        data: run or dataset whose texts are compared and whose splits the gate uses; the model's own run if None.
        force: write an INT8 model that does not pass the gate too, marked as such.

    Returns:
        what report.json holds.

    Raises:
        UsageError: nothing to export, an export already, INT8 of a format that has none, or without data.
        MissingExtraError: the engine's packages are not installed.
        ModelError: the base is another one; the architecture cannot be traced; the vectors differ; the gate fails.
    """
    trained = adapted_folder(model)
    _check(model, trained, config)
    dataset = _dataset_of(model, data, needed=config.export.int8)
    settings = {**effective(config, "export"), "force": force}
    if config.export.int8:
        settings |= {name: getattr(config.evaluate, name) for name in ("sign_flips", "confidence")}
    inputs = {"model": resolve(trained, base=config.model).sha256}
    inputs |= {"dataset": hash_folder(dataset)} if dataset else {}

    def write(folder: Path) -> ExportReport:
        made = _Making(folder, trained, config, None if dataset is None else load_dataset(dataset))
        report = made.finish(RunFolder.around(dataset).cache if dataset else None, force=force)
        card = model_card.render(cast(MergeReport, made.facts), summary_of(model))
        write_text(folder / "README.md", card + export_card.render(report))
        return report

    reads: list[str | Path] = [model, trained, *config.named, *([dataset] if dataset else [])]
    return step("export", out, settings, inputs, lambda: Work(write), seconds="export_s", reads=reads)


class _Making:
    """An export in the making: a self-contained folder, and the model that it is compared with."""

    def __init__(self, folder: Path, trained: Path, config: RunConfig, data: Dataset | None) -> None:
        self.folder, self.config, self.data = folder, config, data
        self.made_from = trained_hash(trained)
        self.facts = write_folded(trained, folder, config)
        self.reference = load(trained, base=config.model, device="cpu", dtype="float32")
        self.texts = parity_texts(data, self.reference)
        files = read_folder(folder)
        self.transformers = transformer_folders(files)
        self.whole_bytes = sum(path.stat().st_size for part in self.transformers for path in weight_files(part))

    def finish(self, cache: Path | None, *, force: bool) -> ExportReport:
        """Leave in the folder what is asked for, and nothing else; say what it is."""
        asked = self.config.export
        report: ExportReport = {
            "format": asked.format,
            "precision": "float16" if asked.float16 else "float32",
            "base": self.facts["base"],
            "sides": self.facts["sides"],
            "models": len(self.transformers),
            "dim": self.facts["dim"],
        }
        if asked.format == "sentence-transformers":
            report["parity"] = self._compared("sentence-transformers", sentence_transformers_reader(self.folder))
            return self._sized(report, self.whole_bytes)
        if asked.format == "gguf":
            self._write_gguf(report)
        else:
            report["parity"] = self._write_graphs(asked.format)
        precision: Precision = "float16" if asked.float16 else "float32"
        write_engine(self.folder, asked.format, precision, self.made_from, self.reference.space)
        if asked.int8:
            self._write_int8(report, cache, force=force)
        return self._sized(report, graph_bytes(self.folder))

    def _write_graphs(self, engine: Engine) -> Parity:
        """Graphs in the place of the transformers' weights."""
        source = resolve_model(str(self.folder), pooling=self.reference.use.pooling)
        for part in self.transformers:
            graph = part / GRAPHS["onnx"]
            write_onnx(graph, part, source, self.reference.use)
            if engine == "openvino":
                convert_to_openvino(graph, part / GRAPHS["openvino"], half=self.config.export.float16)
                shutil.rmtree(graph.parent)
        self._drop_weights()
        return self._compared(engine, graph_reader(self.folder, engine))

    def _write_gguf(self, report: ExportReport) -> None:
        """One file in the place of each transformer's weights; compared where llama.cpp is here."""
        source, use = resolve_model(str(self.folder), pooling=self.reference.use.pooling), self.reference.use
        check_gguf(source, use)
        for part in self.transformers:
            write_gguf(part / GGUF, part, source, use, half=self.config.export.float16)
        self._drop_weights()
        if not has_llama_cpp():
            say("warning: the file was not compared with the model, because llama.cpp is not here: " + INSTALL)
            return
        self.texts = below_limit(self.texts, self.reference)  # llama.cpp cuts none
        report["parity"] = self._compared("llama.cpp", llama_cpp_reader(self.folder, use.dim, use.max_tokens))

    def _drop_weights(self) -> None:
        for part in self.transformers:
            for weights in (*weight_files(part), part / "model.safetensors.index.json"):
                weights.unlink(missing_ok=True)

    def _compared(self, name: str, read: Reader) -> Parity:
        """Compare the folder with the model.

        Raises:
            ModelError: a text has another vector; which.
        """
        found = parity(self.reference, read, self.texts, name)
        if found["min_cosine"] < SAME:
            raise ModelError(
                f"{name} reads vectors from the export that are not the model's: cosine {found['min_cosine']:.6f} for "
                f"the text {found['worst'][:60]!r}",
                possible=f"{SAME} or more",
                fix="Nothing was written. Export it as sentence-transformers, or report this.",
            )
        return found

    def _write_int8(self, report: ExportReport, cache: Path | None, *, force: bool) -> None:
        """Choose on dev the smallest form that holds, prove it on test.

        Raises:
            ModelError: it is not proven, and not forced.
        """
        data = cast(Dataset, self.data)  # `_dataset_of` has refused to go on without
        whole = self.folder.with_name("float32")
        shutil.rmtree(whole, ignore_errors=True)
        for number, part in enumerate(self.transformers):
            shutil.move(part / "onnx", whole / str(number))
        tried: list[Tried] = []
        for recipe in RECIPES:
            candidate = self._quantised(whole, recipe)
            share = graph_bytes(self.folder) / self.whole_bytes
            tried.append({"recipe": recipe, "size": share, "dev": self._gate(candidate, data, "dev", cache)})
            if _chosen(tried) is tried[-1] and (tried[-1]["dev"] or {"holds": True})["holds"]:
                break
        chosen = _chosen(tried)
        candidate = candidate if chosen is tried[-1] else self._quantised(whole, chosen["recipe"])
        proof = cast(Gate, self._gate(candidate, data, "test", cache))
        passed = proof["holds"] and chosen["size"] <= MAX_SIZE
        report["precision"] = "int8"
        report["gate"] = {"passed": passed, "recipe": chosen["recipe"], "tried": tried, "test": proof}
        report["cosine"] = parity(self.reference, candidate.encode, self.texts, "onnx in INT8")
        report["alone"] = parity(self.reference, candidate.encode_alone, self.texts, "onnx in INT8, text by text")
        if not passed:
            _refuse(report, force)
        shared = passed and proof["interchangeable"]
        write_engine(self.folder, "onnx", "int8", self.made_from, self.reference.space if shared else None)
        shutil.rmtree(whole)

    def _quantised(self, whole: Path, recipe: Recipe) -> EngineEncoder:
        for number, part in enumerate(self.transformers):
            graph = part / GRAPHS["onnx"]
            shutil.rmtree(graph.parent, ignore_errors=True)
            quantise(whole / str(number) / graph.name, graph, recipe)
        write_engine(self.folder, "onnx", "int8", self.made_from, None)
        return EngineEncoder.open(self.folder)

    def _gate(self, candidate: EngineEncoder, data: Dataset, split: Split, cache: Path | None) -> Gate | None:
        """What the gate measures; None where there is no dev split to choose by."""
        if split == "dev" and not (data.qrels.get("dev") or data.pairs.get("dev")):
            return None
        loss, seed = self.config.export.max_loss, self.config.seed
        found = gate(self.reference, candidate, data, split, self.config.evaluate, loss=loss, seed=seed, cache=cache)
        say(f"export: {split} {found['measure']}: {found['float32']:.4f} in float32, {found['int8']:.4f} in INT8")
        return found

    def _sized(self, report: ExportReport, size: int) -> ExportReport:
        report["bytes"] = size
        report["float32_bytes"] = self.whole_bytes
        report["size"] = size / self.whole_bytes
        return report


def _chosen(tried: list[Tried]) -> Tried:
    """The first form that is small enough and holds on dev; else the best of those that are small enough."""
    small = [row for row in tried if row["size"] <= MAX_SIZE] or tried[:1]
    holding = [row for row in small if row["dev"] is None or row["dev"]["holds"]]
    return holding[0] if holding else max(small, key=lambda row: row["dev"]["int8"] if row["dev"] else 0.0)


def _refuse(report: ExportReport, force: bool) -> None:
    """Say why an INT8 model does not pass.

    Raises:
        ModelError: unless forced.
    """
    found = report["gate"]
    test, size = found["test"], next(row["size"] for row in found["tried"] if row["recipe"] == found["recipe"])
    low, bound = test["delta"]["low"], test["bound"]
    why = [f"it has {size:.0%} of float32's bytes, more than {MAX_SIZE:.0%}"] if size > MAX_SIZE else []
    if not test["holds"]:
        why.append(
            f"its {test['measure']} on the test split may be {-low:.4f} lower, by the interval, "
            f"which is more than {bound:.4f}"
        )
    reason = f"INT8 does not pass the gate: {', and '.join(why)}"
    if not force:
        raise ModelError(reason, fix="Nothing was written. Export float32, or write it all the same with --force.")
    say(f"warning: {reason}")


def _check(model: Path, trained: Path, config: RunConfig) -> None:
    """Everything that can be refused before a model is read."""
    asked = config.export
    if is_engine_folder(trained):
        raise UsageError(f"{model} is an export already", fix="Export the run that it was made from.")
    if asked.int8 and asked.format != "onnx":
        raise UsageError(f"--int8 with --format {asked.format}", possible="--int8 with --format onnx")
    if asked.float16 and (asked.int8 or asked.format not in HALVES):
        other = "--int8" if asked.int8 else f"--format {asked.format}"
        raise UsageError(f"--float16 with {other}", possible=f"--float16 with --format {' or '.join(HALVES)}")
    if asked.format != "sentence-transformers":
        require("gguf" if asked.format == "gguf" else "onnx")
        require(asked.format)


def _dataset_of(model: Path, data: Path | None, *, needed: bool) -> Path | None:
    """The dataset whose texts are compared: the given one, or that of the model's run, if there is one.

    Raises:
        UsageError: there is none, and the given folder, or the gate, needs one.
    """
    places = [data] if data else [model, RunFolder.around(model).path]
    found = (folder for place in places for folder in (RunFolder(place).dataset, place) if is_dataset(folder))
    dataset = next(found, None)
    if dataset is None and (data or needed):
        what = " that the gate of --int8 could measure on" if needed else ""
        raise UsageError(f"{places[0]} holds no dataset{what}", fix="Name a run or a dataset with --data.")
    return dataset
