"""`adapt` on images: prepare, mine, train a projection, evaluate, report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from acclimate import processes
from acclimate.configs import RunConfig, check_settings
from acclimate.errors import UsageError
from acclimate.files import read_json
from acclimate.flows.adapt import timings
from acclimate.flows.record import stage_of
from acclimate.models.image_encoder import ImageEncoder
from acclimate.ownership import check_replaceable, marker, written_by
from acclimate.runs.images import image_model, text_encoder
from acclimate.runs.resolve import with_base_of
from acclimate.runs.run_folder import RunFolder
from acclimate.stages.evaluate_images import evaluate_images
from acclimate.stages.mine_images import mine_images
from acclimate.stages.prepare_images import prepare_images
from acclimate.stages.train_projection import train_projection


def adapt_images(
    source: str | None, run: Path, config: RunConfig, settings: Iterable[str] = (), *, dry_run: bool = False
) -> Mapping[str, Any]:
    """Prepare images, mine, train a projection into the texts' space, evaluate and report; what is current is kept.

    The texts' space is that of the run's adapter, where it has one (adapt on texts before, in the same folder), else of
    its model; it is not changed, so an index of it stays valid.

    Args:
        source: of the images, see `stages.prepare_images`.
        run: the folder of the run; made if it is not there.
        config: every setting of every stage.
        settings: the names of those that were given; one that is not read for images is refused.
        dry_run: refused: what a training on images takes is seconds, once its features are computed.

    Returns:
        what `run/report.json` holds; what is said of images is under "images".

    Raises:
        UsageError: a setting of trainings on texts, several data sets, or a dry run.
        AcclimateError: whatever a stage raises; finished stages stay on disk.
    """
    check_settings(f"adapt on images{' with --image-lora' if config.images.image_lora else ''}", settings)
    if source is None or config.datasets:
        raise UsageError("images are one data set, named on the command line", fix="Leave [[datasets]] out.")
    if dry_run:
        raise UsageError(
            "--dry-run with --image-model", fix="Leave it out: a head takes seconds, once its features are computed."
        )
    if config.model is None:  # a run's adapter says which base it needs
        config = with_base_of(run, config)
    started, folder = time.monotonic(), RunFolder(run)
    tower = ImageEncoder.load(image_model(config), device=config.device)
    text_encoder(folder, config, tower)  # what cannot be used is refused before any work
    with stage_of(run, config, "acclimate.adapt", page=True) as more:
        for part, kind in _parts(folder).items():
            if marker(part) is None:
                check_replaceable(part, written_by(kind))
        prepared = prepare_images(source, folder.images, config)
        mined = None
        if config.images.image_negatives:
            mined = mine_images(folder.images, folder.image_negatives, config, tower)
        negatives = folder.image_negatives if mined is not None else None
        trained = train_projection(folder.images, negatives, folder.projection, config, tower)
        evaluated = evaluate_images(folder.images, folder.projection, folder.image_evaluation, config, tower)
        reports = [report for report in (prepared, mined, trained, evaluated) if report is not None]
        more["timings"] = timings(reports, started)
    return processes.on_main(lambda: read_json(folder.report))


def _parts(run: RunFolder) -> dict[Path, str]:
    """The folders that are written, and by which step."""
    return {
        run.images: "prepare_images",
        run.image_negatives: "mine_images",
        run.projection: "train_projection",
        run.image_evaluation: "evaluate_images",
    }
