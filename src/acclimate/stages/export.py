"""`export`: a trained model for other engines. Its vectors are compared with the model's, by a reader that is not ours,
before anything is written; INT8 also passes a gate on held-out queries."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from acclimate.configs import ExportConfig, RunConfig, effective
from acclimate.data.dataset import Dataset, load_dataset
from acclimate.errors import ModelError, UsageError
from acclimate.evaluation.gate import Gate, gate
from acclimate.evaluation.int8_choice import choose, refuse_unproven
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
from acclimate.formats.int8 import RECIPES, Recipe
from acclimate.formats.openvino_int8 import Batch
from acclimate.formats.sources import resolve_model, weight_files
from acclimate.models.backends.engine_encoder import EngineEncoder
from acclimate.models.backends.graph import convert_to_openvino, write_onnx
from acclimate.models.backends.llama_cpp import INSTALL, has_llama_cpp, llama_cpp_reader
from acclimate.models.backends.readers import Reader, graph_reader, sentence_transformers_reader
from acclimate.progress import say
from acclimate.report import export_card, model_card
from acclimate.report.export_card import ExportReport
from acclimate.report.summary import MergeReport, summary_of
from acclimate.runs.exporting import (
    GraphForms,
    batches_of,
    calibration_texts,
    check_asked,
    check_calibration,
    dataset_for,
    drop_weights,
)
from acclimate.runs.folded import adapted_folder, write_folded
from acclimate.runs.resolve import load, resolve, trained_hash
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.types import ROLES, Role, Split


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
        DataError: too few training texts to calibrate INT8 on.
        MissingExtraError: the engine's packages are not installed.
        ModelError: the base is another one; the architecture cannot be traced; the vectors differ; the gate fails.
    """
    trained = adapted_folder(model)
    if is_engine_folder(trained):
        raise UsageError(f"{model} is an export already", fix="Export the run that it was made from.")
    check_asked(config.export)
    dataset = dataset_for(model, data, needed=config.export.int8)
    read = None if dataset is None else load_dataset(dataset)
    if read is not None:
        check_calibration(config.export, sum(map(len, calibration_texts(read).values())))
    settings = {**effective(config, "export"), "force": force}
    if config.export.int8:
        settings |= {name: getattr(config.evaluate, name) for name in ("sign_flips", "confidence")}
    inputs = {"model": resolve(trained, base=config.model).sha256}
    inputs |= {"dataset": hash_folder(dataset)} if dataset else {}

    def write(folder: Path) -> ExportReport:
        made = _Making(folder, trained, config, read)
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
            "precision": _precision(asked),
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
            write_engine(self.folder, "gguf", _precision(asked), self.made_from, self.reference.space)
            return self._sized(report, graph_bytes(self.folder))
        report["parity"] = self._write_graphs(asked.format)
        write_engine(self.folder, asked.format, _precision(asked), self.made_from, self.reference.space)
        if asked.int8:
            self._write_int8(report, asked.format, cache, force=force)
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
        for part in self.transformers:
            drop_weights(part)
        return self._compared(engine, graph_reader(self.folder, engine))

    def _write_gguf(self, report: ExportReport) -> None:
        """One file in the place of each transformer's weights; compared where llama.cpp is here."""
        source, use = resolve_model(str(self.folder), pooling=self.reference.use.pooling), self.reference.use
        check_gguf(source, use)
        for part in self.transformers:
            write_gguf(part / GGUF, part, source, use, half=self.config.export.float16)
            drop_weights(part)
        if not has_llama_cpp():
            say("warning: the file was not compared with the model, because llama.cpp is not here: " + INSTALL)
            return
        self.texts = below_limit(self.texts, self.reference)  # llama.cpp cuts none
        report["parity"] = self._compared("llama.cpp", llama_cpp_reader(self.folder, use.dim, use.max_tokens))

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

    def _write_int8(self, report: ExportReport, engine: Engine, cache: Path | None, *, force: bool) -> None:
        """Choose on dev the first form that holds, prove it on test.

        Raises:
            ModelError: it is not proven, and not forced.
        """
        forms = _Int8(self, engine, cache)
        proof = choose(forms)
        candidate = EngineEncoder.open(self.folder)
        report["precision"] = "int8"
        report["gate"] = proof
        report["cosine"] = parity(self.reference, candidate.encode, self.texts, f"{engine} in INT8")
        report["alone"] = parity(self.reference, candidate.encode_alone, self.texts, f"{engine} in INT8, text by text")
        refuse_unproven(proof, force)
        shared = proof["passed"] and proof["test"]["interchangeable"]
        write_engine(self.folder, engine, "int8", self.made_from, self.reference.space if shared else None)
        forms.graphs.discard()

    def _sized(self, report: ExportReport, size: int) -> ExportReport:
        report["bytes"] = size
        report["float32_bytes"] = self.whole_bytes
        report["size"] = size / self.whole_bytes
        return report


def _precision(asked: ExportConfig) -> Precision:
    """How the weights that are compared are stored; INT8 is made of float32."""
    return "float16" if asked.float16 else "float32"


class _Int8:
    """The export in the forms of INT8; see `evaluation.int8_choice.Forms`."""

    def __init__(self, made: _Making, engine: Engine, cache: Path | None) -> None:
        self.recipes = RECIPES[engine]
        self.graphs = GraphForms(made.folder, made.transformers, engine, self._calibration)
        self._made, self._engine, self._cache = made, engine, cache
        self._data = cast(Dataset, made.data)  # `dataset_for` has refused to go on without

    def write(self, recipe: Recipe, kept: Sequence[str]) -> float:
        """Write all graphs; the share of float32's bytes."""
        self.graphs.write(recipe, kept)
        write_engine(self._made.folder, self._engine, "int8", self._made.made_from, None)
        return graph_bytes(self._made.folder) / self._made.whole_bytes

    def gate(self, split: Split) -> Gate | None:
        """What the gate measures; None where there is no dev split to choose by."""
        data, config = self._data, self._made.config
        if split == "dev" and not (data.qrels.get("dev") or data.pairs.get("dev")):
            return None
        reference, candidate = self._made.reference, EngineEncoder.open(self._made.folder)
        loss, seed = config.export.max_loss, config.seed
        return gate(reference, candidate, data, split, config.evaluate, loss=loss, seed=seed, cache=self._cache)

    def costly(self, recipe: Recipe) -> list[str]:
        """Layers, first the one that alone in INT8 turns the vectors most."""
        return self.graphs.most_costly(recipe, self._error)

    def _error(self) -> float:
        """How far the export turns the vectors of the run's texts."""
        read = EngineEncoder.open(self._made.folder).encode
        return 1 - parity(self._made.reference, read, self._made.texts, "a layer")["mean_cosine"]

    def _calibration(self, number: int) -> list[Batch]:
        """Training texts of the roles whose texts go through a transformer."""
        made, texts = self._made, calibration_texts(self._data)
        roles: Sequence[Role] = ROLES if len(made.transformers) == 1 else (("document", "query")[number],)
        return [batch for role in roles for batch in batches_of(made.reference.tokenise(texts[role], role))]
