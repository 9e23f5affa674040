"""`export` of a reranker: its scores are compared with the model's, INT8 passes a gate on reranked held-out queries."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from acclimate.configs import RunConfig, effective
from acclimate.data.dataset import Dataset, load_dataset
from acclimate.errors import ModelError, UsageError
from acclimate.evaluation.compare import judged_queries
from acclimate.evaluation.gate import Gate, rerank_gate
from acclimate.evaluation.int8_choice import choose, refuse_unproven
from acclimate.evaluation.parity import SAME_SCORE, ScoreParity, parity_pairs, score_parity
from acclimate.files import hash_folder, hash_text, read_json, write_text
from acclimate.formats.engine_folder import GRAPHS, Engine, Precision, graph_bytes, write_engine
from acclimate.formats.facts import ADAPTER_FILE
from acclimate.formats.int8 import RECIPES, Recipe
from acclimate.formats.openvino_int8 import Batch
from acclimate.formats.sources import weight_files
from acclimate.formats.trained_on import write_trained_on
from acclimate.models.backends.graph import convert_to_openvino
from acclimate.models.backends.pair_graph import write_pair_graph
from acclimate.models.backends.readers import PairReader, cross_encoder_reader, pair_graph_reader
from acclimate.models.reranker import LOADERS, Reranker
from acclimate.models.reranker_kinds import YesNo
from acclimate.models.reranker_saving import save_reranker
from acclimate.report import reranker_card
from acclimate.report.reranker_card import RerankerExportReport
from acclimate.retrieval.own_documents import own_documents
from acclimate.retrieval.rank import rank
from acclimate.runs.exporting import (
    GraphForms,
    check_asked,
    check_calibration,
    dataset_for,
    drop_weights,
    pair_batches,
    training_pairs,
)
from acclimate.runs.opening import load_retriever, retriever_hash
from acclimate.runs.resolve import reranker_source
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.trained_on import reranker_trained_on
from acclimate.types import Run, Split


def export_reranker(
    model: Path, out: Path, config: RunConfig, *, data: Path | None = None, force: bool = False
) -> RerankerExportReport:
    """Write a reranker as other engines read it.

    Args:
        model: a folder of a reranker: trained (`RUN/reranker`), or a public cross-encoder.
        out: the folder to write.
        config: `export`; for INT8 also `evaluate.sign_flips`, `evaluate.confidence`, and `rerank.rerank_depth`,
            `rerank.retriever` and `model`, which say what is reranked in the gate.
        data: run or dataset whose texts are compared and whose splits the gate uses; the run around the folder if None.
        force: write an INT8 model that does not pass the gate too, marked as such.

    Returns:
        what report.json holds.

    Raises:
        UsageError: an export already, a format that rerankers do not have, or INT8 without data.
        DataError: too few training pairs to calibrate INT8 on.
        MissingExtraError: the engine's packages are not installed.
        ModelError: the base is another one; the architecture cannot be traced; the scores differ; the gate fails.
    """
    asked, source = config.export, reranker_source(str(model))
    if source.graph is not None:
        raise UsageError(f"{model} is an export already", fix="Export the reranker that it was made from.")
    if asked.format == "gguf":
        raise UsageError("--format gguf of a reranker", possible=f"sentence-transformers, {', '.join(GRAPHS)}")
    if source.headless:
        raise UsageError(f"{model} is an embedding model, no reranker: it has no head")
    check_asked(asked)
    dataset = dataset_for(model, data, needed=asked.int8)
    read = None if dataset is None else load_dataset(dataset)
    if read is not None:
        check_calibration(asked, len(training_pairs(read)))
    settings = {**effective(config, "export"), "force": force}
    inputs = {"model": hash_text(source.fingerprint)} | ({"dataset": hash_folder(dataset)} if dataset else {})
    if asked.int8 and dataset is not None:
        settings |= {name: getattr(config.evaluate, name) for name in ("sign_flips", "confidence")}
        settings |= {name: getattr(config.rerank, name) for name in ("rerank_depth", "retriever")}
        inputs["retriever"] = retriever_hash(_adapter(dataset), config.rerank.retriever, config.model)

    def write(folder: Path) -> RerankerExportReport:
        report = _Making(folder, model, config, dataset, read).finish(force=force)
        write_text(folder / "README.md", reranker_card.render(report))
        return report

    reads: list[str | Path] = [model, source.folder, *([dataset] if dataset else [])]
    return step("export reranker", out, settings, inputs, lambda: Work(write), seconds="export_s", reads=reads)


class _Making:
    """An export in the making: a whole model's folder, and the reranker that it is compared with."""

    def __init__(
        self, folder: Path, model: Path, config: RunConfig, dataset: Path | None, data: Dataset | None
    ) -> None:
        self.folder, self.config, self.dataset, self.data = folder, config, dataset, data
        source = reranker_source(str(model))
        self.made_from = hash_text(source.fingerprint)
        self.reference = Reranker.open(source, device="cpu", dtype="float32")
        self.kind = self.reference.kind
        facts = read_json(model / ADAPTER_FILE) if (model / ADAPTER_FILE).is_file() else {}
        self.base: Mapping[str, str] = facts.get("base") or source.base
        whole = Reranker.open(source, device="cpu", dtype="float32")  # another one: folding changes its weights
        save_reranker(folder, whole, facts.get("metrics", {}), self.base)
        write_trained_on(folder, reranker_trained_on(str(model)))
        self.pairs = parity_pairs(self.data, self._fits)
        self.expected = self.reference.score_pairs(*_sides(self.pairs))
        self.whole_bytes = sum(path.stat().st_size for path in weight_files(folder))

    def finish(self, *, force: bool) -> RerankerExportReport:
        """Leave in the folder what is asked for, and nothing else; say what it is."""
        asked = self.config.export
        precision: Precision = "float16" if asked.float16 else "float32"
        report: RerankerExportReport = {
            "kind": "reranker",
            "format": asked.format,
            "precision": precision,
            "base": self.base,
            "max_tokens": self.reference.max_tokens,
        }
        size = self.whole_bytes
        if asked.format in GRAPHS:
            report["parity"] = self._write_graph(asked.format)
            write_engine(self.folder, asked.format, precision, self.made_from, None)
            if asked.int8:
                self._write_int8(report, asked.format, force=force)
            size = graph_bytes(self.folder)
        else:
            report["parity"] = self._compared("sentence-transformers", cross_encoder_reader(self.folder))
        report["bytes"], report["float32_bytes"], report["size"] = size, self.whole_bytes, size / self.whole_bytes
        return report

    def scored(self) -> ScoreParity:
        """How near the graph's scores are, as they are read here."""
        found = Reranker.load(str(self.folder), device="cpu").score_pairs(*_sides(self.pairs))
        return score_parity(self.expected, found, self.pairs, "acclimate")

    def _write_graph(self, engine: Engine) -> ScoreParity:
        """A graph in the place of the weights."""
        graph = self.folder / GRAPHS["onnx"]
        answers = (self.kind.yes, self.kind.no) if isinstance(self.kind, YesNo) else None
        write_pair_graph(graph, self.folder, LOADERS[self.reference.source.kind], self.reference.max_tokens, answers)
        if engine == "openvino":
            convert_to_openvino(graph, self.folder / GRAPHS[engine], half=self.config.export.float16)
            shutil.rmtree(graph.parent)
        drop_weights(self.folder)
        return self._compared(engine, pair_graph_reader(self.folder, engine))

    def _compared(self, name: str, read: PairReader) -> ScoreParity:
        """Compare the folder with the model.

        Raises:
            ModelError: a pair has another score; which.
        """
        found = score_parity(self.expected, read(self.pairs), self.pairs, name)
        bound = SAME_SCORE * max(1.0, float(np.abs(self.expected).max()))
        if not found["max_difference"] <= bound:
            raise ModelError(
                f"{name} reads scores from the export that are not the model's: {found['max_difference']:.6f} apart "
                f"for the text {found['worst'][:60]!r}",
                possible=f"{bound:.6f} or less",
                fix="Nothing was written. Export it as sentence-transformers, or report this.",
            )
        return found

    def _write_int8(self, report: RerankerExportReport, engine: Engine, *, force: bool) -> None:
        """Choose on dev the first form that holds, prove it on test.

        Raises:
            ModelError: it is not proven, and not forced.
        """
        forms = _Int8(self, engine)
        report["gate"] = choose(forms)
        report["precision"], report["scores"] = "int8", self.scored()
        refuse_unproven(report["gate"], force)
        forms.graphs.discard()

    def _fits(self, query: str, text: str) -> bool:
        return bool(self.reference.tokenise([query], [text]).tokens.lengths[0] < self.reference.max_tokens)


class _Int8:
    """The export in the forms of INT8; see `evaluation.int8_choice.Forms`."""

    def __init__(self, made: _Making, engine: Engine) -> None:
        self.recipes = RECIPES[engine]
        self.graphs = GraphForms(made.folder, [made.folder], engine, self._calibration)
        self._made, self._engine = made, engine
        self._data = cast(Dataset, made.data)  # `dataset_for` has refused to go on without

    def write(self, recipe: Recipe, kept: Sequence[str]) -> float:
        """Write the graph; its share of float32's bytes."""
        self.graphs.write(recipe, kept)
        write_engine(self._made.folder, self._engine, "int8", self._made.made_from, None)
        return graph_bytes(self._made.folder) / self._made.whole_bytes

    def gate(self, split: Split) -> Gate | None:
        """What the gate measures; None where there is no dev split to choose by."""
        if split == "dev" and not self._data.qrels.get("dev"):
            return None
        config, candidate = self._made.config, Reranker.load(str(self._made.folder), device="cpu")
        return rerank_gate(
            self._made.reference,
            candidate,
            self._retrieved[split],
            self._data,
            split,
            config.evaluate,
            loss=config.export.max_loss,
            seed=config.seed,
        )

    def costly(self, recipe: Recipe) -> list[str]:
        """Layers, first the one that alone in INT8 changes the scores most."""

        return self.graphs.most_costly(recipe, lambda: self._made.scored()["mean_difference"])

    @cached_property
    def _retrieved(self) -> dict[Split, Run]:
        """Split -> what the run's embedding model finds for its queries: what is put in order."""
        config, dataset = self._made.config, cast(Path, self._made.dataset)
        retriever, _ = load_retriever(_adapter(dataset), config.rerank.retriever, config.model, device="cpu")
        found: dict[Split, Run] = {}
        for split in ("dev", "test"):
            asked = dataclasses.replace(self._data, qrels={"test": self._data.qrels.get(split, {})})
            if not asked.qrels["test"]:
                continue
            queries, qrels = judged_queries(asked)
            own = own_documents(queries, asked.corpus, qrels)
            cache = RunFolder.around(dataset).cache
            found[split] = rank(retriever, queries, asked.corpus, config.rerank.rerank_depth, own=own, cache=cache)
        return found

    def _calibration(self, _: int) -> list[Batch]:
        """Training pairs."""
        return pair_batches(self._made.reference.tokenise(*_sides(training_pairs(self._data))))


def _sides(pairs: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [query for query, _ in pairs], [text for _, text in pairs]


def _adapter(dataset: Path) -> Path:
    """The adapter of the run around a dataset, which may be missing."""
    return RunFolder(RunFolder.around(dataset).path).adapter
