"""The three-stage recipe: weak pairs, labelled pairs, a merge; what does not help on dev is dropped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from acclimate import processes
from acclimate.configs import RunConfig
from acclimate.files import write_text
from acclimate.flows.mine_and_train import mine_and_train
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
from acclimate.runs.run_folder import METRICS_FILE, STAGES, open_dataset
from acclimate.runs.tasks import tasks_of
from acclimate.stages.blend import blend
from acclimate.stages.train import train
from acclimate.stages.weak import weak


def three_stages(
    run: Path, config: RunConfig
) -> tuple[list[dict[str, Any] | None], dict[str, Any], list[dict[str, Any]]]:
    """Train on weak pairs, go on with what that model mines, merge; what does not help on dev is dropped.

    Args:
        run: holds `dataset`; gets `stages`, `negatives` and `adapter`.
        config: the whole run.

    Returns:
        The reports of mining and of the second training, and a row per stage.
    """
    (task,) = tasks_of(run, config)
    dataset = task.dataset
    check_three_stages(open_dataset(dataset))
    first, second = run / STAGES / PRETRAIN, run / STAGES / FINETUNE
    pairs = processes.on_main(lambda: weak(dataset, first / "pairs", config))
    pretrained = train(dataset, first / "pairs", first / "adapter", pretraining(config))
    start = first / "adapter" if helped(pretrained) else None
    say(f"stage {PRETRAIN}: " + ("better on dev than the base, kept" if start else "no better on dev, dropped"))
    tuned = finetuning(config, start)
    mined, trained = mine_and_train([replace(task, config=tuned)], second / "adapter", tuned)
    processes.on_main(lambda: write_text(run / METRICS_FILE, (second / METRICS_FILE).read_text(encoding="utf-8")))
    adapters = {PRETRAIN: start} if start else {}
    merged = blend(dataset, {**adapters, FINETUNE: second / "adapter"}, run / "adapter", watched(config))
    timings = {"weak_pairs_s": pairs["timings"]["weak_pairs_s"], "pretrain_s": pretrained["timings"]["train_s"]}
    trained["timings"] = timings | trained["timings"] | merged["timings"]
    return mined, trained, stage_rows(pairs, pretrained, trained, merged)
