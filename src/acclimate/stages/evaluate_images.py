"""`evaluate` of a projection: text -> image, image -> text, image -> image, classes; seen and unseen groups apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.configs import RunConfig
from acclimate.data.images.dataset import ImageDataset
from acclimate.errors import DataError
from acclimate.evaluation.compare import score
from acclimate.evaluation.guarding import guard_rows, unseen_guards
from acclimate.evaluation.image_measures import (
    Doubt,
    Measured,
    by_gain,
    class_accuracy,
    class_vectors,
    harmonic,
    per_query_precision,
    retrieval,
)
from acclimate.evaluation.reports import GuardRow
from acclimate.files import hash_folder
from acclimate.models.image_encoder import ImageEncoder
from acclimate.models.image_text import ImageTexts
from acclimate.models.projection import OFFSETS, ProjectedImages, load_projection, project
from acclimate.models.text_encoder import TextEncoder
from acclimate.runs.guards import guard_hashes
from acclimate.runs.images import (
    TEXTS_FOLDER,
    TextVectors,
    image_features,
    open_images,
    text_vectors,
    texts_after,
    texts_to_train,
    trains_text_model,
)
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.trained_on import trained_on

METHOD = 3
"""Changes when the same vectors would get other numbers."""
MAX_QUERIES = 2000
"""Images that are queries, at most, drawn evenly."""
SHOWN = 6
"""Queries of a kind that the page shows."""
TOP = 8
"""Results that it shows of each."""
MAIN = "precision@10"
FORGETS_LESS = "without LoRA on the texts' model it forgets nothing"


@dataclass(frozen=True, slots=True, eq=False)
class TestPart:
    """The test images of seen or of unseen groups, with the vectors of images and texts.

    Shapes: N images, T texts, D dimensions, F features.
    """

    rows: NDArray[np.int64]
    """Numbers of the images."""
    texts: NDArray[np.int64]
    """Numbers of the texts of these images' groups."""
    image_ND: NDArray[np.float32]
    tower_NF: NDArray[np.float32]
    """Unit rows: the tower's own features, which the projection is compared with among images."""
    document_TD: NDArray[np.float32]
    query_TD: NDArray[np.float32]
    belongs_NT: NDArray[np.bool_]
    """Which text belongs to which image."""
    group_N: NDArray[np.int64]
    group_T: NDArray[np.int64]


def evaluate_images(
    images: Path, projection: Path, out: Path, config: RunConfig, tower: ImageEncoder
) -> Mapping[str, Any]:
    """Measure a projection on the test images, and write it to `out`.

    Args:
        images: a folder that `prepare_images` wrote.
        projection: a folder that `train_projection` wrote.
        out: `RUN/image_evaluation`.
        config: `evaluate.sign_flips`, `evaluate.confidence`, seed, the texts' model.
        tower: gives the features.

    Returns:
        what `out/report.json` holds.

    Raises:
        DataError: there is no test image.
        ModelError: the tower is not the one that the projection was trained on.
    """
    run = RunFolder(out.parent)
    own = ProjectedImages(tower, load_projection(projection), str(projection))
    encoder, trained_texts = texts_after(projection, config, own), projection / TEXTS_FOLDER
    doubt = Doubt(config.evaluate.sign_flips, config.evaluate.confidence, config.seed)
    settings = {"sign_flips": doubt.flips, "confidence": doubt.confidence, "seed": doubt.seed, "method": METHOD}
    inputs = {
        "images": hash_folder(images),
        "projection": hash_folder(projection),
        "texts": encoder.fingerprint,
        "tower": tower.tower.fingerprint,
    }
    guarded = config.evaluate.guard if trained_texts.is_dir() and trains_text_model(config) else ()
    if guarded:
        settings["guard_bound"] = config.evaluate.guard_bound
        inputs |= guard_hashes(guarded) | {"texts before": texts_to_train(config)[1].fingerprint}

    def make() -> Work[Mapping[str, Any]]:
        dataset, pictures = open_images(images)
        features_NF = image_features(run, dataset, pictures, tower)
        adapted_NF = image_features(run, dataset, pictures, own.encoder)
        pictures.close()
        vectors = text_vectors(encoder, [text.text for text in dataset.texts])
        image_ND = project(own.projection.head, adapted_NF)
        parts = {
            name: part
            for name, held_out in (("unseen", True), ("seen", False))
            if (part := _part(dataset, held_out, features_NF, image_ND, vectors)) is not None
        }
        if not parts:
            raise DataError(f"{images} holds no test image", fix="Hold some out: --image-test-fraction above 0.")
        report = _report(dataset, parts, vectors, doubt, own.projection.metrics)
        lora = own.projection.lora
        report["texts_trained"] = trained_texts.is_dir() or (lora is not None and lora.text_sha256 is not None)
        if guarded:
            assert not isinstance(encoder, ImageTexts)  # it has an adapter of its own
            report["guard"] = _guarded(encoder, trained_texts, run.cache, config)
        return Work(lambda _: report)

    return step("evaluate images", out, settings, inputs, make, seconds="evaluate_images_s", alone=True)


def _report(
    dataset: ImageDataset,
    parts: Mapping[str, TestPart],
    vectors: TextVectors,
    doubt: Doubt,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """All that is measured on images, and what of it the page shows."""
    report: dict[str, Any] = {
        "kind": dataset.kind,
        "confidence": doubt.confidence,
        **{name: _measured(dataset, part, doubt) for name, part in parts.items()},
        "shown": {name: _shown(part) for name, part in parts.items()},
    }
    if dataset.kind == "classes" and len(parts) == 2:
        report["all"] = _among_all(dataset, parts, vectors, doubt, metrics)
    return {**report, "verdict": _verdict(report)}


def _guarded(adapted: TextEncoder, trained: Path, cache: Path, config: RunConfig) -> list[GuardRow]:
    """What the training of the texts' model, whose adapter is in a folder, has done to searches among texts."""
    before = texts_to_train(config)[1]
    guards, _ = unseen_guards(config.evaluate.guard, trained_on([trained]), seed=config.seed, limit=config.limit)
    base, after = (
        [score(one.for_task(None), data, config.evaluate, cache=cache, label=label) for data in guards]
        for one, label in ((before, "before"), (adapted, "after"))
    )
    return guard_rows(guards, base, after, config.evaluate, config.seed, FORGETS_LESS)


def _part(
    dataset: ImageDataset,
    held_out: bool,
    features_NF: NDArray[np.float32],
    image_ND: NDArray[np.float32],
    vectors: TextVectors,
) -> TestPart | None:
    rows = dataset.rows("test", held_out=held_out)
    if not len(rows):
        return None
    texts = dataset.texts_of(int(row) for row in rows)
    belongs_NT = _belongs(dataset, rows, texts)
    tower_NF = np.asarray(features_NF[rows])
    tower_NF = tower_NF / np.maximum(np.linalg.norm(tower_NF, axis=1, keepdims=True), 1e-12)
    return TestPart(
        rows=rows,
        texts=texts,
        image_ND=image_ND[rows],
        tower_NF=tower_NF,
        document_TD=vectors.document_TD[texts],
        query_TD=vectors.query_TD[texts],
        belongs_NT=belongs_NT,
        group_N=dataset.group_N[rows],
        group_T=np.array([dataset.texts[text].group for text in texts], np.int64),
    )


def _belongs(dataset: ImageDataset, rows: NDArray[np.int64], texts: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which text is true of which image [N, T]: what is said of two classes is true of the images of both."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys(one.text for one in dataset.texts))}
    words_T = np.array([numbers[one.text] for one in dataset.texts])
    return np.stack([np.isin(words_T[texts], words_T[list(dataset.items[row].texts)]) for row in rows])


def _measured(dataset: ImageDataset, part: TestPart, doubt: Doubt) -> dict[str, Any]:
    queries = _sample(len(part.rows), doubt.seed)
    same_NN = part.group_N[queries, None] == part.group_N[None, queries]
    np.fill_diagonal(same_NN, False)
    groups = part.group_N[queries].tolist()
    found: dict[str, Any] = {
        "images": len(part.rows),
        "texts": len(part.texts),
        "groups": len(np.unique(part.group_N)),
        "text_to_image": retrieval(part.query_TD, part.image_ND, part.belongs_NT.T, part.group_T.tolist(), doubt),
        "image_to_text": retrieval(part.image_ND[queries], part.document_TD, part.belongs_NT[queries], groups, doubt),
    }
    if same_NN.any():
        for name, vectors in (("image_to_image", part.image_ND), ("image_to_image_by_tower", part.tower_NF)):
            own = vectors[queries]
            found[name] = retrieval(own, own, same_NN, groups, doubt, among_themselves=True)
    if dataset.kind == "classes":
        found["class_accuracy"] = _accuracy(part, np.unique(part.group_N), part.document_TD, part.group_T, doubt)
    return found


def _accuracy(
    part: TestPart,
    classes: NDArray[np.int64],
    text_TD: NDArray[np.float32],
    group_T: NDArray[np.int64],
    doubt: Doubt,
    bias_C: NDArray[np.float32] | None = None,
) -> Measured:
    """Zero-shot accuracy among some classes, each by the mean of its texts."""
    class_CD = class_vectors(text_TD, group_T, classes.tolist())
    return class_accuracy(part.image_ND, class_CD, np.searchsorted(classes, part.group_N), doubt, bias_C)


def _among_all(
    dataset: ImageDataset,
    parts: Mapping[str, TestPart],
    vectors: TextVectors,
    doubt: Doubt,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """Accuracy with the texts of all classes to choose from: what was trained on attracts what was not; and how well
    texts of unseen groups find their images among those of all.

    Once more with an offset taken off the cosines of the classes that were trained on: with each of those that the
    training has chosen on classes that it held out of a head of its own (`training.projection_training.offsets_of`).
    """
    group_T = np.array([text.group for text in dataset.texts], np.int64)
    classes = np.unique(group_T)
    accuracy = {name: _accuracy(part, classes, vectors.document_TD, group_T, doubt) for name, part in parts.items()}
    found: dict[str, Any] = {"classes": len(classes), "class_accuracy": accuracy, "harmonic_mean": _both(accuracy)}
    calibrated: dict[str, dict[str, Any]] = {}
    for kind, metric in OFFSETS.items():
        if metric in metrics:
            offset = float(metrics[metric])
            bias_C = np.array([0.0 if dataset.groups[group].held_out else offset for group in classes], np.float32)
            with_it = {
                name: _accuracy(part, classes, vectors.document_TD, group_T, doubt, bias_C)
                for name, part in parts.items()
            }
            calibrated[kind] = {"offset": offset, **with_it, "harmonic_mean": _both(with_it)}
    unseen, images_ND = parts["unseen"], np.concatenate([parts["unseen"].image_ND, parts["seen"].image_ND])
    belongs_NT = _belongs(dataset, np.concatenate([unseen.rows, parts["seen"].rows]), unseen.texts)
    found["text_to_image"] = retrieval(unseen.query_TD, images_ND, belongs_NT.T, unseen.group_T.tolist(), doubt)
    return {**found, "calibrated": calibrated}


def _both(accuracy: Mapping[str, Measured]) -> float:
    return harmonic(accuracy["seen"]["value"], accuracy["unseen"]["value"])


def _shown(part: TestPart) -> dict[str, Any]:
    """What the page shows: the text queries that find most and least, images, and images against the tower's order."""
    precision = per_query_precision(part.query_TD, part.image_ND, part.belongs_NT.T)
    order = np.argsort(-precision, kind="stable")
    chosen = list(dict.fromkeys([*order[:SHOWN].tolist(), *order[::-1][:SHOWN].tolist()]))
    text_rows = [
        {
            "text": int(part.texts[number]),
            "precision": float(precision[number]),
            "images": [
                {"image": int(part.rows[place]), "relevant": bool(part.belongs_NT[place, number])}
                for place in np.argsort(-(part.image_ND @ part.query_TD[number]), kind="stable")[:TOP]
            ],
        }
        for number in chosen
    ]
    image_rows = [
        {
            "image": int(part.rows[number]),
            "texts": [
                {"text": int(part.texts[place]), "relevant": bool(part.belongs_NT[number, place])}
                for place in np.argsort(-(part.document_TD @ part.image_ND[number]), kind="stable")[:3]
            ],
        }
        for number in np.linspace(0, len(part.rows) - 1, min(2 * SHOWN, len(part.rows))).astype(int)
    ]
    return {"text_to_image": text_rows, "image_to_text": image_rows, **_changes(part)}


def _changes(part: TestPart) -> dict[str, Any]:
    """Image queries that the projection most wins and most loses against the tower's own features."""
    queries = _sample(len(part.rows), 0)
    same_NN = part.group_N[queries, None] == part.group_N[None, queries]
    np.fill_diagonal(same_NN, False)
    scores = {}
    for name, vectors in (("tower", part.tower_NF[queries]), ("projected", part.image_ND[queries])):
        scores[name] = per_query_precision(vectors, vectors, same_NN, among_themselves=True)
    won, lost = by_gain(scores["tower"], scores["projected"], SHOWN)

    def top(vectors: NDArray[np.float32], number: int) -> list[dict[str, Any]]:
        score = vectors @ vectors[number]
        score[number] = -np.inf
        order = np.argsort(-score, kind="stable")[: min(TOP, len(queries) - 1)]
        return [{"image": int(part.rows[queries[it]]), "relevant": bool(same_NN[number, it])} for it in order]

    return {
        name: [
            {
                "image": int(part.rows[queries[number]]),
                "tower": float(scores["tower"][number]),
                "projected": float(scores["projected"][number]),
                "by_tower": top(part.tower_NF[queries], number),
                "by_projection": top(part.image_ND[queries], number),
            }
            for number in numbers
        ]
        for name, numbers in (("won", won), ("lost", lost))
    }


def _sample(count: int, seed: int) -> NDArray[np.int64]:
    if count <= MAX_QUERIES:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).permutation(count)[:MAX_QUERIES])


def _verdict(report: Mapping[str, Any]) -> str:
    """Whether texts find images better than chance does: of unseen groups, where there are some."""
    part = report.get("unseen") or report["seen"]
    found = part["text_to_image"][MAIN]
    return "better" if found["low"] > found["chance"] else "no evidence"
