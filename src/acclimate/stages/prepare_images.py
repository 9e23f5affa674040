"""`prepare` of images: a source of images -> a folder of normalised images, their texts and splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig
from acclimate.data.images.build import build_images
from acclimate.data.images.dataset import write_image_dataset
from acclimate.data.images.pictures import require_pillow
from acclimate.data.images.rows import source_files
from acclimate.errors import DataError
from acclimate.files import hash_file, hash_text
from acclimate.models.image_encoder import DECODERS
from acclimate.progress import say
from acclimate.runs.step import Work, step

OF_PREPARE = (
    "image_templates",
    "held_out_classes",
    "image_test_fraction",
    "image_dev_fraction",
    "image_side",
    "max_megapixels",
    "frames",
)
"""The settings of images on which the prepared ones depend."""


def prepare_images(source: str, out: Path, config: RunConfig) -> Mapping[str, Any]:
    """Read, normalise and split the images of a source, and write them to `out`.

    Args:
        source: a folder per class, a folder with a table, a table, or a folder that `datasets` saved.
        out: `RUN/images`; kept where source and settings are unchanged.
        config: its `images` section, `seed` and `limit`.

    Returns:
        what `out/report.json` holds.

    Raises:
        DataError: the source cannot be used.
        MissingExtraError: Pillow is not installed.
        StorageError: `out` cannot be written.
    """
    require_pillow()
    place = Path(source).expanduser()
    if not place.exists():
        raise DataError(f"{source}: no such file or folder", fix="Images are read from disk: check the path.")
    own = asdict(config.images)
    settings = {"images": {name: own[name] for name in OF_PREPARE}, "seed": config.seed, "limit": config.limit}
    inputs = {"source": _source_hash(place)}

    def make() -> Work[Mapping[str, Any]]:
        return Work(write)

    def write(folder: Path) -> Mapping[str, Any]:
        dataset, rejected = build_images(
            place, folder, config.images, seed=config.seed, limit=config.limit, threads=DECODERS
        )
        write_image_dataset(folder, dataset, rejected)
        for warning in dataset.info["warnings"]:
            say(f"warning: {warning}")
        return {"source": source, "kind": dataset.kind, **dataset.info}

    plain = json.loads(json.dumps(settings))
    return step("prepare images", out, plain, inputs, make, seconds="prepare_images_s", reads=[place], alone=True)


def _source_hash(place: Path) -> str:
    files = source_files(place)
    return hash_text(*(f"{file.relative_to(place.parent)}\0{hash_file(file)}" for file in files))
