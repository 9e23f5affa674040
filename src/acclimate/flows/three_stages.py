"""The three-stage recipe: weak pairs, labelled pairs, a merge; what does not help on dev is dropped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.files import write_text
from acclimate.flows.mine_and_train import MineReports, mine_and_train
from acclimate.flows.stage_settings import (
    FINETUNE,
    PRETRAIN,
    check_three_stages,
    finetuning,
    helped,
    pretraining,
    stage_rows,
    watched,
)
from acclimate.progress import say
from acclimate.report.summary import StageRow
from acclimate.runs.opening import open_dataset
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import tasks_of
from acclimate.stages.blend import blend
from acclimate.stages.train import train
from acclimate.stages.weak import weak
from acclimate.training.reports import TrainReport


def three_stages(run: Path, config: RunConfig) -> tuple[MineReports, TrainReport, list[StageRow]]:
    """Train on weak pairs, go on with what that model mines, merge; what does not help on dev is dropped.

    Args:
        run: holds `dataset`; gets `stages`, `negatives` and `adapter`.
        config: the whole run.

    Returns:
        The reports of mining and of the second training, and a row per stage.
    """
    (task,) = tasks_of(run, config)
    whole, dataset = RunFolder(run), task.dataset
    check_three_stages(open_dataset(dataset))
    first, second = whole.stage(PRETRAIN), whole.stage(FINETUNE)
    pairs = weak(dataset, first.weak_pairs, config)
    pretrained = train(dataset, first.weak_pairs, first.adapter, pretraining(config))
    start = first.adapter if helped(pretrained) else None
    say(f"stage {PRETRAIN}: " + ("better on dev than the base, kept" if start else "no better on dev, dropped"))
    tuned = finetuning(config, start)
    mined, trained = mine_and_train([replace(task, config=tuned)], second.adapter, tuned)
    processes.on_main(lambda: write_text(whole.metrics, second.metrics.read_text(encoding="utf-8")))
    adapters = {PRETRAIN: start} if start else {}
    merged = blend(dataset, {**adapters, FINETUNE: second.adapter}, whole.adapter, watched(config))
    timings = {"weak_pairs_s": pairs["timings"]["weak_pairs_s"], "pretrain_s": pretrained["timings"]["train_s"]}
    trained["timings"] = timings | trained["timings"] | merged["timings"]
    return mined, trained, stage_rows(pairs, pretrained, trained, merged)
