"""The three-stage recipe: each stage's settings, whether it helped, and what is said of it. `adapt` runs the stages.

Weak pairs, then labelled pairs with negatives mined by the first model, then a merge: the order in which E5, GTE and
Qwen3-Embedding (Zhang et al. 2025, section 3) were trained, here over one adapter that the second stage goes on with.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from acclimate.configs import RunConfig
from acclimate.data.dataset import Dataset
from acclimate.data.reports import WeakReport
from acclimate.errors import DataError, UsageError
from acclimate.report.summary import BlendReport, StageRow
from acclimate.training.reports import TrainReport

PRETRAIN, FINETUNE, MERGE = "1-pretrain", "2-finetune", "3-merge"
DEV_DOCUMENTS = 1000
"""Dev pool of all stages, where `dev_documents` does not say: their scores are compared, so it must be one pool."""


def check_three_stages(dataset: Dataset) -> None:
    """Refuse data that the recipe cannot be used on.

    Raises:
        UsageError: labelled pairs, which have no corpus.
        DataError: no dev split, on which every choice is made.
    """
    if dataset.kind == "pairs":
        raise UsageError("--recipe three-stage needs a corpus, and labelled pairs have none", possible="one-stage")
    if not dataset.qrels.get("dev"):
        raise DataError("--recipe three-stage chooses on dev, and there is no dev split", fix="Raise --dev-fraction.")


def pretraining(config: RunConfig) -> RunConfig:
    """Stage 1: InfoNCE over weak pairs, which have no negatives of their own, and so none to mine again."""
    config = watched(config)
    train = replace(config.train, epochs=config.stages.weak_epochs, group_size=1, remine_steps=None)
    return replace(config, train=train, objective=replace(config.objective, loss="info-nce"))


def finetuning(config: RunConfig, start: Path | None) -> RunConfig:
    """Stage 2: go on from the first stage's adapter with negatives that it mined; as one stage where it is dropped."""
    config = watched(config)
    if start is None:
        return config
    train = replace(config.train, start_adapter=str(start))
    return replace(config, train=train, mine=replace(config.mine, teacher=config.mine.teacher or str(start)))


def watched(config: RunConfig) -> RunConfig:
    """The same as one training, with the size of the dev pool settled."""
    train = replace(config.train, dev_documents=config.train.dev_documents or DEV_DOCUMENTS)
    return replace(config, train=train, stages=replace(config.stages, recipe="one-stage"))


def helped(report: TrainReport) -> bool:
    """Whether a training's best moment is better on dev than where it began.

    The best of several evaluations is compared with one, so a training that changes nothing is kept more often than
    not: this chooses, it proves nothing. The proof is the test split.
    """
    best, base = report["train"]["best_score"], report["train"]["base_score"]
    return best is not None and base is not None and best > base


def stage_rows(pairs: WeakReport, pretrained: TrainReport, trained: TrainReport, merged: BlendReport) -> list[StageRow]:
    """What `report.json` says of the stages: dev scores before and after each, and whether it is part of the result.

    Args:
        pairs: the report of `weak`.
        pretrained: of the first training.
        trained: of the second.
        merged: of `blend`.
    """
    chosen = merged["merge"]["chosen"]
    alone = next(row for row in merged["merge"]["candidates"] if row[FINETUNE] == 1.0)
    rows: list[StageRow] = []
    for name, report in ((PRETRAIN, pretrained), (FINETUNE, trained)):
        numbers = report["train"]
        rows.append(
            {
                "stage": name,
                "examples": numbers["examples"],
                "tokens": numbers["tokens"],
                "seconds": numbers["step_s"],
                "dev_before": numbers["base_score"],
                "dev_after": numbers["best_score"],
                "best_of": numbers["evaluations"],
                "kept": chosen.get(name, 0.0) > 0,
            }
        )
    rows[0]["weak_pairs"] = dict(pairs["pairs"])
    merge: StageRow = {
        "stage": MERGE,
        "weights": {name: value for name, value in chosen.items() if name != "dev"},
        "dev_before": alone["dev"],
        "dev_after": chosen["dev"],
        "best_of": len(merged["merge"]["candidates"]),
        "kept": chosen[FINETUNE] != 1.0,
    }
    return [*rows, merge]
