"""`adapt` on images: prepare, mine, train a projection, evaluate, report."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from acclimate import processes
from acclimate.configs import RunConfig, check_settings
from acclimate.data.dataset import has_test, is_dataset
from acclimate.errors import UsageError
from acclimate.files import read_json
from acclimate.flows.adapt import timings
from acclimate.flows.record import stage_of
from acclimate.models.image_encoder import ImageEncoder
from acclimate.ownership import check_replaceable, marker, written_by
from acclimate.progress import say
from acclimate.retrieval.index.of_run import has_index
from acclimate.runs.images import image_model, texts_before, trains_text_model
from acclimate.runs.resolve import adapter_folder, with_base_of
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import Task, one_task
from acclimate.stages.evaluate_images import evaluate_images
from acclimate.stages.mine_images import mine_images
from acclimate.stages.prepare_images import prepare_images
from acclimate.stages.train_projection import check_texts_may_train, publish_texts, train_projection


def adapt_images(
    source: str | None, run: Path, config: RunConfig, settings: Iterable[str] = (), *, dry_run: bool = False
) -> Mapping[str, Any]:
    """Prepare images, mine, train a projection into the texts' space, evaluate and report; what is current is kept.

    The texts' space is that of the run's adapter, where it has one (adapt on texts before, in the same folder), else of
    its model; it is not changed, so an index of it stays valid. With LoRA on the texts' model it is: the model's new
    adapter becomes the run's, and is refused where the run has one for its own texts.

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
    trains_texts = trains_text_model(config)
    how = " with LoRA on the texts' model" if trains_texts else " with --image-lora" if config.images.image_lora else ""
    check_settings(f"adapt on images{how}", settings)
    if source is None or config.datasets:
        raise UsageError("images are one data set, named on the command line", fix="Leave [[datasets]] out.")
    if dry_run:
        raise UsageError(
            "--dry-run with --image-model", fix="Leave it out: a head takes seconds, once its features are computed."
        )
    if config.model is None:  # a run's adapter says which base it needs
        config = with_base_of(run, config)
    started, folder = time.monotonic(), RunFolder(run)
    if trains_texts:
        check_texts_may_train(folder, config)
        config = _guarded(folder, config)
    tower = ImageEncoder.load(image_model(config), device=config.device)
    texts_before(folder, config, tower)  # what cannot be used is refused before any work
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
        if trains_texts:
            publish_texts(folder.projection, folder.adapter, config)
        evaluated = evaluate_images(folder.images, folder.projection, folder.image_evaluation, config, tower)
        reports = [report for report in (prepared, mined, trained, evaluated) if report is not None]
        more["timings"] = timings(reports, started)
    if trains_texts:
        say(_moved(folder, one_task(run, config)))
    return processes.on_main(lambda: read_json(folder.report))


def _guarded(run: RunFolder, config: RunConfig) -> RunConfig:
    """The settings, with the texts that the run, or the one whose adapter it starts from, was prepared for as guards:
    their searches shall not get worse unnoticed."""
    start = None if config.train.start_adapter is None else adapter_folder(config.train.start_adapter)
    datasets = [run.dataset, *(() if start is None else (RunFolder.around(start).dataset,))]
    own = [str(dataset) for dataset in datasets if is_dataset(dataset) and has_test(dataset)]
    guard = tuple(dict.fromkeys((*config.evaluate.guard, *own)))
    if not guard:
        say(
            "LoRA on the texts' model changes all searches among texts, and nothing here measures them: "
            "--guard DATA would"
        )
    return replace(config, evaluate=replace(config.evaluate, guard=guard))


def _moved(run: RunFolder, task: Task) -> str:
    """What has to be done, now that the texts' vectors lie in another space."""
    why = f"{run.adapter} is the texts' model now, whose vectors lie in another space than before"
    if not has_index(task):
        return f"{why}: an index of texts that was made before does not fit it, and has to be built again"
    return f"{why}: build the index again (acclimate index {run.path} --reencode), then its pictures (--images)"


def _parts(run: RunFolder) -> dict[Path, str]:
    """The folders that are written, and by which step."""
    return {
        run.images: "prepare_images",
        run.image_negatives: "mine_images",
        run.projection: "train_projection",
        run.image_evaluation: "evaluate_images",
    }
