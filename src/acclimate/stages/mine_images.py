"""`mine` of images: hard negative texts for every training image, across both modalities."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig
from acclimate.errors import DataError
from acclimate.files import hash_folder, write_json, write_jsonl
from acclimate.mining.image_negatives import NEGATIVES_FILE, mine_texts
from acclimate.models.image_encoder import ImageEncoder
from acclimate.runs.images import image_features, image_model, numbered_texts, open_images, text_vectors, texts_before
from acclimate.runs.run_folder import AUDIT_FILE, RunFolder
from acclimate.runs.step import Work, step

SHOWN = 20
"""Images whose negatives are written out as texts, for people."""


def mine_images(images: Path, out: Path, config: RunConfig, tower: ImageEncoder) -> Mapping[str, Any]:
    """Mine hard negative texts, and write them to `out`.

    Args:
        images: a folder that `prepare_images` wrote.
        out: `RUN/image_negatives`.
        config: `images.image_negatives`, the texts' model.
        tower: gives the features by which images look alike.

    Raises:
        DataError: there is no image to train on.
    """
    run = RunFolder(out.parent)
    encoder = texts_before(run, config, tower)
    settings = {"image_negatives": config.images.image_negatives, "image_model": image_model(config)}
    inputs = {"images": hash_folder(images), "texts": encoder.fingerprint, "tower": tower.tower.fingerprint}

    def make() -> Work[Mapping[str, Any]]:
        dataset, pictures = open_images(images)
        rows = dataset.rows("train")
        if not len(rows):
            raise DataError(f"{images} holds no image to train on")
        features_NF = image_features(run, dataset, pictures, tower)[rows]
        own, texts = numbered_texts(dataset, rows)
        vectors = text_vectors(encoder, [dataset.texts[text].text for text in own])
        count = config.images.image_negatives
        found = mine_texts(features_NF, vectors.document_TD, texts, dataset.group_N[rows], count)
        pictures.close()

        def write(folder: Path) -> Mapping[str, Any]:
            mined = [[int(own[text]) for text in one.texts] for one in found]
            table = zip(rows, mined, strict=True)
            write_jsonl(folder / NEGATIVES_FILE, ({"image": int(row), "texts": texts} for row, texts in table))
            shown = [
                {
                    "image": dataset.items[row].name,
                    "own": dataset.texts[dataset.items[row].texts[0]].text,
                    "negatives": [dataset.texts[text].text for text in texts],
                }
                for row, texts in list(zip(rows, mined, strict=True))[:: max(1, len(rows) // SHOWN)]
            ]
            report = {
                "images": len(rows),
                "negatives": sum(map(len, mined)),
                "by_look": sum(one.by_look for one in found),
                "without": sum(not texts for texts in mined),
            }
            write_json(folder / AUDIT_FILE, {**report, "examples": shown})
            return report

        return Work(write)

    return step("mine for images", out, settings, inputs, make, seconds="mine_images_s", alone=True)
