"""Photographs of groceries beside texts: 20 of 81 classes never seen, five draws of them.

    python benchmarks/images.py GROCERY_IMAGES --tower FOLDER --out results/images [--variants plain default …]
        [--seeds 0 1 …] [--guard NL2BASH SCIFACT]
    python benchmarks/images.py GROCERY_IMAGES --tower FOLDER --out results/images --speed
    python benchmarks/images.py GROCERY_IMAGES --tower FOLDER --out results/images --passages RUN [--mixed]

GROCERY_IMAGES has images.jsonl and classes.json; FOLDER an ONNX image encoder with its preprocessor_config.json. Every
variant of every seed is a run of `acclimate adapt`; features are computed in the first and taken over by the others.
What is done is kept: started again, it goes on, and prints the table of what is there.

grocery_looks.json says what each product looks like. It was written from general knowledge of the products, without a
look at the photographs. grocery_names_zh.json has the Chinese names of crops, by class, and of what cartons hold, by
coarse class. RUN of `--passages` has an index of passages in Chinese; a projection is trained into its space, onto
these names, and what photographs of unseen crops find there is counted by which passages have one of their names.
`--mixed`: then the photographs become documents of that index, and texts and photographs are searched for together and
apart.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

import acclimate
from acclimate.configs import RunConfig
from acclimate.data.images.dataset import ImageBytes, load_image_dataset
from acclimate.data.images.pictures import decode
from acclimate.models.image_encoder import BATCH_IMAGES, ImageEncoder
from acclimate.models.projection import ProjectedImages, project
from acclimate.ownership import claim_work
from acclimate.retrieval.index.of_run import index_for
from acclimate.retrieval.index.pictures import PICTURES, TEXTS, is_picture, picture_id
from acclimate.retrieval.index.records import Query
from acclimate.runs.images import image_features
from acclimate.runs.run_folder import RunFolder
from common import machine, once, read_beir, table

SEEDS = range(5)
HERE = Path(__file__).resolve().parent
SHORT: dict[str, Any] = {"image_epochs": 12.0, "head_dropout": 0.1}
PLAIN: dict[str, Any] = {**SHORT, "image_negatives": 0, "image_templates": ("{class}", "{description}")}
LOOKS: dict[str, Any] = {"image_templates": ("{look}", "{class}, {coarse}: {look}")}
CHINESE: dict[str, Any] = {**LOOKS, "image_templates": ("{zh}",)}
TEXTS_TRAIN: dict[str, Any] = {"image_lora": "texts"}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": PLAIN,
    "default": {},
    "looks": LOOKS,
    "looks, 12 passes": {**LOOKS, **SHORT},
    "12 passes": SHORT,
    "default, texts": TEXTS_TRAIN,
    "looks, texts": {**LOOKS, **TEXTS_TRAIN},
    "looks, texts, slow": {**LOOKS, **TEXTS_TRAIN, "image_learning_rate": 1e-4},
}
"""Name -> settings beside the defaults. plain is the prototype: names and descriptions, 12 passes, none mined. texts:
LoRA on the texts' model, too."""
EACH = 20
"""Photographs of a class that search."""
TOGETHER, NAMED, LIKE_IT, CHANCE = MIXED = (
    "photographs among ten of one ranking",
    "passages apart: P@10",
    "photographs apart: P@10",
    "by chance",
)
COLUMNS: dict[str, tuple[str, ...]] = {
    "class of unseen among 20": ("unseen", "class_accuracy"),
    "text → image P@10, unseen": ("unseen", "text_to_image", "precision@10"),
    "the same among all images": ("all", "text_to_image", "precision@10"),
    "class of seen among 61": ("seen", "class_accuracy"),
    "unseen among 81": ("all", "class_accuracy", "unseen"),
    "seen among 81": ("all", "class_accuracy", "seen"),
    "mild: unseen": ("all", "calibrated", "mild", "unseen"),
    "mild: seen": ("all", "calibrated", "mild", "seen"),
    "balanced: unseen": ("all", "calibrated", "balanced", "unseen"),
    "balanced: seen": ("all", "calibrated", "balanced", "seen"),
    "image → image P@10, unseen": ("unseen", "image_to_image", "precision@10"),
    "the same by the tower": ("unseen", "image_to_image_by_tower", "precision@10"),
}
GUARD_QUERIES, GUARD_DOCUMENTS = 300, 2000
"""Of each data set that guards."""
RESAMPLES = 2000
"""Of the bootstrap over seeds behind an interval."""
SPEED_IMAGES = 512


def source(data: Path, out: Path) -> Path:
    """The data set with what each class looks like, in a folder of its own; the images stay where they are."""
    folder = out / "source"
    folder.mkdir(parents=True, exist_ok=True)
    looks = json.loads((HERE / "grocery_looks.json").read_text(encoding="utf-8"))
    names = json.loads((HERE / "grocery_names_zh.json").read_text(encoding="utf-8"))
    classes = json.loads((data / "classes.json").read_text(encoding="utf-8"))
    for entry in classes:
        name = entry["class"]
        crop = names["crops"].get(name)
        entry |= {"look": looks[name], "zh": crop[0] if crop else names["cartons"][entry["coarse"]]}
    (folder / "classes.json").write_text(json.dumps(classes), encoding="utf-8")
    rows = [json.loads(line) for line in (data / "images.jsonl").open(encoding="utf-8")]
    placed = [{**row, "image": str((data / row["image"]).resolve())} for row in rows]
    (folder / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in placed), encoding="utf-8")
    return folder


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
    """A measure of a result, by its place; NaN where it is not measured, as offsets beside LoRA."""
    found: Any = result
    for name in path:
        found = found.get(name, {})
    return float(found.get("value", "nan"))


def interval(values: Sequence[float]) -> str:
    """Mean over the seeds with its 95 % interval: seeds drawn anew."""
    array, draw = np.array(values), np.random.default_rng(0)
    if np.isnan(array).any():
        return "–"
    means = array[draw.integers(len(array), size=(RESAMPLES, len(array)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{array.mean():.3f} [{low:.3f}, {high:.3f}]"


def place_of(out: Path, name: str, seed: int) -> Path:
    """Where a run and its result lie."""
    return out / f"{name.replace(',', '').replace(' ', '-')}-{seed}"


def compared(
    out: Path, data: Path, tower: Path, variants: Sequence[str], seeds: Sequence[int], guard: Sequence[str]
) -> None:
    """Run the variants with these seeds, and print a table of what is there."""
    for seed in seeds:
        for name in variants:
            place, settings = place_of(out, name, seed), VARIANTS[name]
            place.mkdir(parents=True, exist_ok=True)
            if "image_lora" in settings and guard:
                settings = {**settings, "guard": tuple(str(smaller(Path(one), out)) for one in guard)}

            def work(
                place: Path = place, seed: int = seed, settings: Mapping[str, Any] = settings
            ) -> Mapping[str, object]:
                return adapt(data, tower, place / "run", seed, settings, out / "features")

            once(place, work)
    results = {
        name: {
            seed: json.loads(path.read_text())
            for seed in SEEDS
            if (path := place_of(out, name, seed) / "result.json").is_file()
        }
        for name in VARIANTS
    }
    done = {name: found for name, found in results.items() if found}
    rows = [
        [column, *(interval([value(result, path) for result in found.values()]) for found in done.values())]
        for column, path in COLUMNS.items()
    ]
    print(table(["", *(f"{name} ({len(found)} seeds)" for name, found in done.items())], rows))
    plain = done.get("plain", {})
    for name, found in done.items():
        both = sorted(plain.keys() & found.keys())
        if name != "plain" and both:
            rows = [
                [column, interval([value(found[seed], path) - value(plain[seed], path) for seed in both])]
                for column, path in COLUMNS.items()
            ]
            print(f"\n{name}, above plain, the same draws ({len(both)} seeds):\n" + table(["", "difference"], rows))
    forgotten(done)


def smaller(guard: Path, out: Path) -> Path:
    """Some test queries of a BEIR folder, the documents that answer them, and others up to `GUARD_DOCUMENTS`."""
    folder = out / guard.name
    if (folder / "qrels").is_dir():
        return folder
    corpus, queries, qrels = read_beir(guard)
    test = dict(islice(qrels["test"].items(), GUARD_QUERIES))
    kept = dict.fromkeys(document for judged in test.values() for document in judged)
    kept |= dict.fromkeys(islice((one for one in corpus if one not in kept), max(0, GUARD_DOCUMENTS - len(kept))))
    folder.mkdir(parents=True, exist_ok=True)
    for name, texts in (
        ("corpus", {one: corpus[one] for one in kept}),
        ("queries", {one: queries[one] for one in test}),
    ):
        rows = (json.dumps({"_id": key, "text": text}) + "\n" for key, text in texts.items())
        (folder / f"{name}.jsonl").write_text("".join(rows), encoding="utf-8")
    (folder / "qrels").mkdir()
    rows = (f"{query}\t{document}\t{grade}\n" for query, judged in test.items() for document, grade in judged.items())
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows), encoding="utf-8")
    return folder


def forgotten(done: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> None:
    """Print what training the texts' model has done to searches among other texts."""
    rows = []
    for name, found in done.items():
        for guard in sorted({row["name"] for result in found.values() for row in result.get("guard", [])}):
            own = [row for result in found.values() for row in result["guard"] if row["name"] == guard]
            scores = (interval([row[side]["ndcg@10"] for row in own]) for side in ("base", "adapted"))
            rows.append([name, guard, *scores])
    if rows:
        print("\n" + table(["", "searches among texts, NDCG@10", "before", "after"], rows))


def speed(out: Path, data: Path, tower: Path) -> None:
    """Print images per second: decoding and preparing by threads, the tower alone, and both as `features` does."""
    rows = [json.loads(line) for line in (data / "images.jsonl").open(encoding="utf-8")]
    pictures = [Path(row["image"]).read_bytes() for row in rows[:: len(rows) // SPEED_IMAGES][:SPEED_IMAGES]]
    encoder = ImageEncoder.load(str(tower), device="cpu")
    prepared = encoder.pixels(pictures, range(len(pictures)))

    def alone() -> None:
        for start in range(0, len(pictures), BATCH_IMAGES):
            encoder.tower.forward(prepared[start : start + BATCH_IMAGES])

    parts: dict[str, Callable[[], object]] = {
        "decode": lambda: [decode(data) for data in pictures],
        "decode and prepare": lambda: encoder.pixels(pictures, range(len(pictures))),
        "the tower alone": alone,
        "the whole": lambda: encoder.features(pictures),
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(3):
        for name, work in parts.items():
            started = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - started)
    found = [[name, f"{len(pictures) / statistics.median(taken):.0f}"] for name, taken in seconds.items()]
    print(table(["", "images/s"], found))
    (out / "speed.json").write_text(json.dumps(seconds))


def passages(out: Path, data: Path, tower: Path, run: Path) -> None:
    """Search the index of a run by photographs of unseen classes: precision@10 by the passages' naming of the crop."""
    names = json.loads((HERE / "grocery_names_zh.json").read_text(encoding="utf-8"))["crops"]
    for seed in SEEDS:
        place = out / f"passages-{seed}"
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "run").exists():
            subprocess.run(["cp", "-a", str(run), str(place / "run")], check=True)

        def work(place: Path = place, seed: int = seed) -> Mapping[str, object]:
            adapt(data, tower, place / "run", seed, CHINESE, out / "features")
            return _searched(place / "run", names)

        once(place, work)
    results = [json.loads(path.read_text()) for path in sorted(out.glob("passages-*/result.json"))]
    if not results:
        return
    shown = []
    for result in results:
        for name, one in result["classes"].items():
            row = [f"{one[key]:.3f}" for key in ("precision", "chance", "possible")]
            shown.append([name, str(one["photographs"]), *row])
    print(table(["unseen class", "photographs", "precision@10", "by chance", "possible"], shown))
    means = [
        interval([statistics.mean(one[key] for one in result["classes"].values()) for result in results])
        for key in ("precision", "chance", "possible")
    ]
    print(table(["mean over classes", "by chance", "possible"], [means]))
    print("texts encoded for it:", {result["encoded"] for result in results})


def _searched(run: Path, names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    folder = RunFolder(run)
    dataset = load_image_dataset(folder.images)
    pictures = ImageBytes(folder.images, dataset.items)
    images = ProjectedImages.open(folder.projection, device="cpu")
    vectors = project(images.projection.head, image_features(folder, dataset, pictures, images.encoder))
    found: dict[str, Any] = {}
    with index_for(str(folder.index), images, run) as index:
        texts = [stored.document.text for stored in index.iterate()]
        for group, one in enumerate(dataset.groups):
            named = [text for text in texts if any(alias in text for alias in names.get(one.name, ()))]
            rows = [row for row in dataset.rows("test", held_out=True) if dataset.items[row].group == group]
            if not rows or not named:  # of a crop that no passage names, nothing can be found
                continue
            hits = [index.search(Query(None, vectors[row], "dense", 10)) for row in rows]
            right = [[any(alias in hit.text for alias in names[one.name]) for hit in ten] for ten in hits]
            found[one.name] = {
                "photographs": len(rows),
                "precision": float(np.mean(right)),
                "chance": len(named) / len(texts),
                "possible": min(10, len(named)) / 10,
            }
    return {"classes": found, "passages": len(texts), "encoded": len(dataset.texts)}


def mixed(out: Path) -> None:
    """Search indexes of passages and photographs by photographs of unseen classes: in one ranking, and apart."""
    names = json.loads((HERE / "grocery_names_zh.json").read_text(encoding="utf-8"))["crops"]
    for seed in SEEDS:
        place = out / f"mixed-{seed}"
        place.mkdir(parents=True, exist_ok=True)
        if not (place / "run").exists():
            subprocess.run(["cp", "-a", str(out / f"passages-{seed}" / "run"), str(place / "run")], check=True)

        def work(place: Path = place) -> Mapping[str, object]:
            indexed = acclimate.index(place / "run", images=True, device="cpu")
            counts = {name: indexed[name] for name in ("documents", "pictures", "twice")}
            return {**counts, **_mixed(place / "run", names)}

        once(place, work)
    results = [json.loads(path.read_text()) for path in sorted(out.glob("mixed-*/result.json"))]
    print(table(list(MIXED), [[interval([result[name] for result in results]) for name in MIXED]]))
    print({name: [result[name] for result in results] for name in ("documents", "pictures", "twice", "photographs")})


def _mixed(run: Path, names: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What test photographs of unseen classes find, at most `EACH` of a class; means over the classes."""
    folder = RunFolder(run)
    dataset = load_image_dataset(folder.images)
    images = ProjectedImages.open(folder.projection, device="cpu")
    means: dict[str, list[float]] = {name: [] for name in MIXED}
    asked = 0
    with index_for(str(folder.index), images, run) as index:
        stored = {one.document.id: one for one in index.iterate()}
        count = Counter(one.document.metadata["class"] for one in stored.values() if is_picture(one.document))
        texts = [one.document.text for one in stored.values() if not is_picture(one.document)]
        for number, group in enumerate(dataset.groups):
            aliases = names.get(group.name, ())
            rows = [row for row in dataset.rows("test", held_out=True) if dataset.items[row].group == number][:EACH]
            found: dict[str, list[bool]] = {name: [] for name in MIXED}
            for own in (picture_id(dataset.items[row].sha256) for row in rows):
                vector = stored[own].vector
                together, passages, pictures = (
                    [hit for hit in index.search(Query(None, vector, "dense", 11, kind)) if hit.id != own][:10]
                    for kind in (None, TEXTS, PICTURES)
                )
                found[TOGETHER] += [is_picture(hit.document) for hit in together]
                found[LIKE_IT] += [hit.metadata["class"] == group.name for hit in pictures]
                if any(alias in text for text in texts for alias in aliases):  # else nothing can be found
                    found[NAMED] += [any(alias in hit.text for alias in aliases) for hit in passages]
            if rows:
                found[CHANCE] = [True] * (count[group.name] - 1) + [False] * (count.total() - count[group.name])
            asked += len(rows)
            for name, right in found.items():
                means[name] += [float(np.mean(right))] if right else []
    return {name: statistics.mean(values) for name, values in means.items()} | {"photographs": asked}


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--tower", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("results/images"))
    parser.add_argument("--variants", nargs="*", default=["plain", "default", "looks"], choices=list(VARIANTS))
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS))
    parser.add_argument("--guard", nargs="*", default=[])
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--passages", type=Path)
    parser.add_argument("--mixed", action="store_true")
    arguments = parser.parse_args()
    data = source(arguments.data, arguments.out)
    print(machine())
    if arguments.speed:
        speed(arguments.out, data, arguments.tower)
    elif arguments.passages is not None:
        passages(arguments.out, data, arguments.tower, arguments.passages)
        if arguments.mixed:
            mixed(arguments.out)
    else:
        compared(arguments.out, data, arguments.tower, arguments.variants, arguments.seeds, arguments.guard)


if __name__ == "__main__":
    main()
