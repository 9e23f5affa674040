"""Photographs of groceries beside texts: 20 of 81 classes never seen, five draws of them.

    python benchmarks/images.py --data GROCERY_IMAGES --tower FOLDER --out results/images [--variants default …]

GROCERY_IMAGES has images.jsonl and classes.json; FOLDER an ONNX image encoder with its preprocessor_config.json. Every
variant of every seed is a run of `acclimate adapt`; features are computed in the first and taken over by the others.
With `--index CORPUS` (JSONL of passages) and `--index-model` an index is searched by photographs of unseen classes, and
what they find is counted by the names in `--names` (JSON: class -> names in the passages' language).
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import acclimate
from acclimate.configs import RunConfig
from acclimate.data.images.dataset import ImageBytes, load_image_dataset
from acclimate.models.projection import ProjectedImages, project
from acclimate.ownership import claim_work
from acclimate.retrieval.index.of_run import index_for
from acclimate.retrieval.index.records import Query
from acclimate.runs.images import image_features
from acclimate.runs.run_folder import RunFolder
from common import machine, once, table

SEEDS = range(5)
PLAIN = {"image_negatives": 0, "image_templates": ("{class}", "{description}")}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "linear head": {"head": "linear"},
    "no mined negatives": {"image_negatives": 0},
    "no templates": {"image_templates": ("{class}", "{description}")},
}
"""Name -> settings beside the defaults."""
COLUMNS: dict[str, tuple[str, ...]] = {
    "class of unseen among 20": ("unseen", "class_accuracy"),
    "text → image P@10, unseen": ("unseen", "text_to_image", "precision@10"),
    "class of seen among 61": ("seen", "class_accuracy"),
    "class of unseen among 81": ("all", "class_accuracy", "unseen"),
    "class of seen among 81": ("all", "class_accuracy", "seen"),
    "calibrated: unseen among 81": ("all", "calibrated", "unseen"),
    "calibrated: seen among 81": ("all", "calibrated", "seen"),
    "image → image P@10, unseen": ("unseen", "image_to_image", "precision@10"),
    "the same by the tower": ("unseen", "image_to_image_by_tower", "precision@10"),
}
RESAMPLES = 2000
"""Of the bootstrap over seeds behind an interval."""


def adapt(data: Path, tower: Path, run: Path, seed: int, settings: Mapping[str, Any], features: Path) -> dict[str, Any]:
    """One run; the features of an earlier one are put into its cache."""
    cache = RunFolder(run).cache / "features"
    if features.is_dir() and not cache.exists():
        claim_work(RunFolder(run).work)
        shutil.copytree(features, cache)
    started = time.monotonic()
    result = acclimate.adapt(
        data,
        out=run,
        config=RunConfig(device="cpu", dtype="float32"),
        image_model=str(tower),
        held_out_classes=20,
        seed=seed,
        **settings,
    )
    if not features.is_dir():
        shutil.copytree(cache, features)
    return {"seconds": time.monotonic() - started, **result["images"]}


def value(result: Mapping[str, Any], path: tuple[str, ...]) -> float:
    """A measure of a result, by its place."""
    found: Any = result
    for name in path:
        found = found[name]
    return float(found["value"])


def interval(values: list[float]) -> str:
    """Mean over the seeds with its 95 % interval: seeds drawn anew."""
    array, draw = np.array(values), np.random.default_rng(0)
    means = array[draw.integers(len(array), size=(RESAMPLES, len(array)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{array.mean():.3f} [{low:.3f}, {high:.3f}]"


def compared(out: Path, data: Path, tower: Path, variants: list[str]) -> None:
    """Run the variants with all seeds, and print a table of them."""
    for name in variants:
        for seed in SEEDS:
            run = out / f"{name.replace(' ', '-')}-{seed}"
            run.mkdir(parents=True, exist_ok=True)
            once(
                run,
                lambda run=run, seed=seed, name=name: adapt(
                    data, tower, run / "run", seed, VARIANTS[name], out / "features"
                ),
            )
    rows = []
    for name in variants:
        results = [json.loads((out / f"{name.replace(' ', '-')}-{seed}" / "result.json").read_text()) for seed in SEEDS]
        rows.append([name, *(interval([value(result, path) for result in results]) for path in COLUMNS.values())])
    print(table(["", *COLUMNS], rows))


def searched(run: Path, corpus: Path, names: Path, model: str | None) -> None:
    """Search an index of passages by the photographs of unseen classes: precision@10 against chance."""
    aliases = json.loads(names.read_text(encoding="utf-8"))
    settings: dict[str, Any] = {"device": "cpu", "dtype": "float32"} | ({"model": model} if model else {})
    acclimate.index(run, corpus, **settings)
    texts = [json.loads(line)["text"] for line in corpus.open(encoding="utf-8")]
    folder = RunFolder(run)
    dataset = load_image_dataset(folder.images)
    pictures = ImageBytes(folder.images, dataset.items)
    images = ProjectedImages.open(folder.projection, device="cpu")
    vectors = project(images.projection.head, image_features(folder, dataset, pictures, images.encoder))
    rows = [
        row for row in dataset.rows("test", held_out=True) if dataset.groups[dataset.items[row].group].name in aliases
    ]
    precision: dict[str, list[float]] = {}
    with index_for(str(folder.index), images, run) as index:
        for row in rows:
            name = dataset.groups[dataset.items[row].group].name
            hits = index.search(Query(None, vectors[row], "dense", 10))
            right = [any(alias in hit.text for alias in aliases[name]) for hit in hits]
            precision.setdefault(name, []).append(float(np.mean(right)))
    shown = []
    for name, values in sorted(precision.items()):
        share = np.mean([any(alias in text for alias in aliases[name]) for text in texts])
        shown.append([name, str(len(values)), f"{np.mean(values):.3f}", f"{share:.3f}"])
    print(table(["unseen class", "photographs", "precision@10", "by chance"], shown))


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tower", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/images"))
    parser.add_argument("--variants", nargs="*", default=["default"], choices=list(VARIANTS))
    parser.add_argument("--index", type=Path)
    parser.add_argument("--index-model")
    parser.add_argument("--names", type=Path)
    arguments = parser.parse_args()
    print(machine())
    compared(arguments.out, arguments.data, arguments.tower, arguments.variants)
    if arguments.index is not None:
        searched(arguments.out / "default-0" / "run", arguments.index, arguments.names, arguments.index_model)


if __name__ == "__main__":
    main()
