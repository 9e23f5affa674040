"""`adapt --final`: a training on all data, with settings that another run has proven on a part of it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from acclimate import processes
from acclimate.configs import RunConfig, load_config
from acclimate.errors import StorageError, UsageError
from acclimate.files import INPUTS_FILE, REPORT_FILE, hash_file, read_json
from acclimate.flows.adapt import timings, train_adapter, whole_run
from acclimate.flows.from_documents import paired
from acclimate.progress import say
from acclimate.report.summary import Proof, RunSummary
from acclimate.runs.resolve import resolve, with_base_of
from acclimate.runs.run_folder import PAGE_FILE, RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.tasks import all_tasks
from acclimate.stages.prepare import prepare_together
from acclimate.stages.report import report

FROM_THE_PROOF = ("verdict", "recommend", "unsuited", "against_bm25", "confidence", "test", "kind", "made_by")


@dataclass(frozen=True, slots=True)
class Proven:
    """A finished run whose adapted model was found better."""

    folder: RunFolder
    config: RunConfig
    """Its settings."""
    evaluation: dict[str, Any]
    """What its evaluation reported."""
    steps_kept: float
    """Share of its training's steps that the weights which it kept had been through."""


def proven_run(run: Path) -> Proven:
    """Read a finished run, and make sure that it proves something.

    Raises:
        StorageError: it is not finished.
        UsageError: its adapted model was not found better; it has several tasks, three stages, or folds.
    """
    folder = RunFolder(run)
    path = folder.evaluation / REPORT_FILE
    if not path.is_file() or not folder.config.is_file():
        raise StorageError(
            f"{run} is no finished run: --final takes settings that were proven",
            fix=f"Finish it with: acclimate adapt DATA --out {run}",
        )
    if folder.tasks.is_dir():
        raise UsageError(f"{run} has several tasks", possible="--final with a run of one dataset")
    config = with_base_of(run, load_config(folder.config))
    if config.stages.recipe == "three-stage":
        raise UsageError(
            f"{run} has three stages, and its mixture was chosen on dev, of which nothing would be left",
            possible="--final with a run of one stage",
        )
    evaluation = read_json(path)
    if "folds" in evaluation:
        raise UsageError(
            f"{run} was proven by folds, and its adapter is trained on all of its data already",
            possible="--final with a run that has a test split",
            fix=f"Use {folder.adapter}; for more data, run adapt --folds on it.",
        )
    adapter = resolve(folder.adapter, base=config.model).sha256
    if read_json(folder.evaluation / INPUTS_FILE).get("adapter") != adapter:
        raise StorageError(
            f"{run} was trained again after it was evaluated", fix=f"Evaluate it: acclimate evaluate {run}"
        )
    if evaluation["verdict"] != "better":
        raise UsageError(
            f"the verdict on {run} is {evaluation['verdict']!r}: its settings are not proven",
            possible="a run whose adapted model was found better",
            fix="Change the settings, or bring more data, until a run is.",
        )
    trained = read_json(folder.adapter / REPORT_FILE)["train"]
    return Proven(folder, config, evaluation, trained["best_step"] / trained["steps"])


def final_config(proven: Proven, machine: RunConfig) -> RunConfig:
    """The proven settings, for a training on everything.

    There is no dev split to choose a step by, so the number of passes is that after which the proven training had its
    best step.

    Args:
        proven: the finished run.
        machine: its settings, with what the user says of this machine.
    """
    epochs = machine.train.epochs * proven.steps_kept
    if proven.steps_kept < 1:
        say(f"{proven.folder.path} kept the weights after {proven.steps_kept:.0%} of its steps: epochs = {epochs:.4g}")
    if machine.limit is not None:
        say(f"{proven.folder.path} was made with limit = {machine.limit:,}; this training takes everything")
    return replace(
        machine,
        limit=None,
        prepare=replace(machine.prepare, test_fraction=0.0, dev_fraction=0.0),
        index=replace(machine.index, index_at=None),  # that place holds the vectors of the proven model
        train=replace(machine.train, epochs=epochs),
    )


def final(source: str | None, run: Path, proven: Proven, machine: RunConfig) -> RunSummary:
    """Prepare, mine and train with proven settings on all data; the model has no proof of its own, and says so.

    Args:
        source: what the proven run was made of, perhaps with more rows by now; None where the settings have datasets.
        run: the folder of the new run; made if it is not there.
        proven: the finished run.
        machine: its settings, with what the user says of this machine.

    Returns:
        what `run/report.json` holds: no test, and in "final" what the proven run's test was.

    Raises:
        UsageError: `run` is the proven run, or another one that was evaluated.
        AcclimateError: whatever a stage raises; finished stages stay on disk.
    """
    started, folder = time.monotonic(), RunFolder(run)
    if folder.evaluation.is_dir():
        raise UsageError(f"{run} holds a run with a proof of its own", fix="Give --out a new folder.")
    config = final_config(proven, machine)
    source = paired(source, run, config)
    tasks = all_tasks(run, config, source)
    config = replace(config, model=config.base_model)
    with whole_run(tasks, run, config) as more:
        prepared = prepare_together([(task.source, task.dataset, task.config) for task in tasks], whole="train")
        trained = train_adapter(tasks, run, config)
        _keep_proof(proven, folder, same_data=_same_data(proven.folder, folder))
        more["timings"] = timings([*prepared, *trained.reports], started)
    return cast(RunSummary, processes.on_main(lambda: read_json(folder.report)))


def _same_data(proven: RunFolder, run: RunFolder) -> bool:
    """Whether both runs were made of the same files."""
    return bool(read_json(proven.dataset / INPUTS_FILE) == read_json(run.dataset / INPUTS_FILE))


def _keep_proof(proven: Proven, run: RunFolder, *, same_data: bool) -> Proof:
    """Copy the proven run's page and scores beside the new model, so that the link to them holds wherever it goes."""
    found: Any = {name: proven.evaluation[name] for name in FROM_THE_PROOF if name in proven.evaluation}
    found |= {"run": proven.folder.path.resolve().name, "same_data": same_data}
    page = proven.folder.page
    if processes.is_main() and not page.is_file():
        report(proven.folder.path)

    def write(folder: Path) -> Proof:
        shutil.copyfile(page, folder / PAGE_FILE)
        return dict(found)  # type: ignore[return-value]

    inputs = {"evaluation": hash_file(proven.folder.evaluation / REPORT_FILE)}
    return step("proof", run.proof, {"same_data": same_data}, inputs, lambda: Work(write), seconds="copy_s")
