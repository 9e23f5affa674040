"""What an export is made of: what can be asked for, the data that it is compared on, its graphs in INT8."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from acclimate.configs import ExportConfig
from acclimate.counting import are, counted
from acclimate.data.dataset import Dataset, is_dataset
from acclimate.data.facts import evenly
from acclimate.errors import DataError, UsageError
from acclimate.formats.engine_folder import GRAPHS, Engine
from acclimate.formats.int8 import Recipe, layers_of, write_form
from acclimate.formats.openvino_int8 import Batch, costs
from acclimate.formats.sources import weight_files
from acclimate.models.backends.sessions import require
from acclimate.models.reranker_kinds import Pairs
from acclimate.models.tokens import Tokens
from acclimate.runs.run_folder import RunFolder
from acclimate.types import PAIR_ROLE, ROLES, Role

HALVES = ("openvino", "gguf")
"""Formats with a form in float16."""
CALIBRATION = 300
"""Training texts that ranges of activations are measured on."""
LEAST = 32
"""Fewest of them."""
PROBED = 32
"""Number of them for a look at one layer."""


def check_asked(asked: ExportConfig) -> None:
    """Refuse what no format has, before a model is read.

    Raises:
        UsageError: INT8 or float16 of a format without.
        MissingExtraError: the engine's packages are not installed.
    """
    if asked.int8 and asked.format not in GRAPHS:
        raise UsageError(f"--int8 with --format {asked.format}", possible=f"--int8 with --format {' or '.join(GRAPHS)}")
    if asked.float16 and (asked.int8 or asked.format not in HALVES):
        other = "--int8" if asked.int8 else f"--format {asked.format}"
        raise UsageError(f"--float16 with {other}", possible=f"--float16 with --format {' or '.join(HALVES)}")
    if asked.format == "gguf":
        require("gguf")
    elif asked.format != "sentence-transformers":
        require("onnx")
        require(asked.format, int8=asked.int8)


def dataset_for(model: Path, data: Path | None, *, needed: bool) -> Path | None:
    """Find the dataset whose texts are compared: the given one, or that of the model's run, if there is one.

    Args:
        model: what is exported.
        data: a run or a dataset.
        needed: a gate measures on it.

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


def check_calibration(asked: ExportConfig, texts: int) -> None:
    """Refuse a calibration on too few training texts.

    Args:
        asked: what is exported.
        texts: how many texts, or pairs, there are.

    Raises:
        DataError: they are too few to measure ranges on.
    """
    if asked.int8 and asked.format == "openvino" and texts < LEAST:
        raise DataError(
            f"INT8 for OpenVINO is calibrated on training texts, and there {are(texts)} {counted(texts, 'texts')}",
            possible=f"{LEAST} or more",
            fix="Name a run or a dataset with more of them with --data, or export --format onnx, which needs none.",
        )


def drop_weights(transformer: Path) -> None:
    """Remove torch's weights from a folder that holds a graph in their place."""
    for weights in (*weight_files(transformer), transformer / "model.safetensors.index.json"):
        weights.unlink(missing_ok=True)


class GraphForms:
    """The graphs of an export, written in one form of INT8 after the other.

    Args:
        folder: of the export; its float32 graphs are moved aside, beside it.
        transformers: the folders of its transformers.
        engine: runs them.
        calibration: number of a transformer -> batches of training texts, for the forms that need them.
    """

    def __init__(
        self, folder: Path, transformers: Sequence[Path], engine: Engine, calibration: Callable[[int], Sequence[Batch]]
    ) -> None:
        self.engine = engine
        self._graphs, self._calibration = [part / GRAPHS[engine] for part in transformers], calibration
        self._aside = folder.with_name("float32")
        shutil.rmtree(self._aside, ignore_errors=True)
        self._whole = [self._aside / str(number) / graph.name for number, graph in enumerate(self._graphs)]
        for graph, whole in zip(self._graphs, self._whole, strict=True):
            shutil.move(graph.parent, whole.parent)

    def write(self, recipe: Recipe, kept: Sequence[str] = ()) -> None:
        """Write all graphs in this form.

        Args:
            recipe: see `formats.int8`.
            kept: layers that stay in float32, in all graphs.
        """
        for number, (whole, graph) in enumerate(zip(self._whole, self._graphs, strict=True)):
            shutil.rmtree(graph.parent, ignore_errors=True)
            batches = self._calibration(number) if recipe == "calibrated" else []
            write_form(whole, graph, recipe, kept=kept, calibration=batches)

    def most_costly(self, recipe: Recipe, error: Callable[[], float]) -> list[str]:
        """Sort the layers, first the one whose INT8 alone changes the results most.

        Args:
            recipe: see `formats.int8`.
            error: of the results of the graphs as they are written; not asked where the engine can tell.
        """
        found = dict.fromkeys(self.layers, 0.0)
        if recipe == "calibrated":
            self.write(recipe, ())
            for number, (whole, graph) in enumerate(zip(self._whole, self._graphs, strict=True)):
                for layer, cost in costs(whole, graph, evenly(self._calibration(number), PROBED)).items():
                    found[layer] += cost
        else:
            for layer in self.layers:
                self.write(recipe, [other for other in self.layers if other != layer])
                found[layer] = error()
        return sorted(self.layers, key=lambda layer: -found[layer])

    @cached_property
    def layers(self) -> list[str]:
        """Names of the layers; two graphs of one export are of one architecture, and have the same."""
        return layers_of(self._whole[0], self.engine)

    def discard(self) -> None:
        """Remove the float32 graphs."""
        shutil.rmtree(self._aside)


def calibration_texts(data: Dataset) -> dict[Role, list[str]]:
    """Choose training texts on which the ranges of activations are measured.

    Args:
        data: with a train split; of labelled pairs both sentences count.
    """
    if data.kind == "pairs":
        sentences = [text for pair in data.pairs.get("train", []) for text in (pair.sentence1, pair.sentence2)]
        found: dict[Role, list[str]] = {role: [] for role in ROLES}
        return {**found, PAIR_ROLE: evenly(list(dict.fromkeys(sentences)), CALIBRATION)}
    sides: dict[Role, list[str]] = {
        "query": [example.anchor for example in data.examples],
        "document": [example.positive for example in data.examples],
    }
    return {role: evenly(list(dict.fromkeys(texts)), CALIBRATION // 2) for role, texts in sides.items()}


def batches_of(tokens: Tokens) -> list[Batch]:
    """Turn tokens of texts into batches of one text each."""
    rows = (tokens.row(number).astype(np.int64)[None] for number in range(len(tokens)))
    return [
        {"input_ids": ids_1L, "attention_mask": np.ones_like(ids_1L), "token_type_ids": np.zeros_like(ids_1L)}
        for ids_1L in rows
    ]


def training_pairs(data: Dataset) -> list[tuple[str, str]]:
    """Choose training pairs, relevant and not, on which the ranges of a reranker's activations are measured."""
    pairs = [(row.anchor, text) for row in data.examples for text in (row.positive, *row.negatives[:1])]
    return evenly(list(dict.fromkeys(pairs)), CALIBRATION)


def pair_batches(pairs: Pairs) -> list[Batch]:
    """Turn tokens of pairs into batches of one pair each."""
    batches = batches_of(pairs.tokens)
    for batch, first in zip(batches, pairs.first.tolist(), strict=True):
        batch["token_type_ids"][:, first:] = 1
    return batches
