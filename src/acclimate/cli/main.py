"""The commands: parse, call one stage, print one table, turn our errors into one line.

Stages are imported inside the commands: `--help` answers without loading torch.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError

from acclimate import __version__, processes
from acclimate.cli.options import configured, flags
from acclimate.cli.rerank import rerank
from acclimate.errors import AcclimateError, Interrupted, StorageError, UsageError
from acclimate.files import locked, storage_error
from acclimate.runs.run_folder import RunFolder

app = App(
    name="acclimate",
    version=__version__,
    help_format="plaintext",
    help="Adapt a text-embedding model to a domain, prove that it got better, and use it.",
)

SHARED = ("adapt", "prepare", "mine", "train", "evaluate")
"""What several processes can do together; the others are done by one."""

Options = Parameter(name="*")
ConfigFile = Annotated[Path | None, Parameter(help="TOML file with settings; flags win over it.")]
PrepareFlags = flags("PrepareFlags", "prepare")
MineFlags = flags("MineFlags", "mine", "rerank")
TrainFlags = flags("TrainFlags", "train", "objective", "domain", "rerank")
EvaluateFlags = flags("EvaluateFlags", "evaluate", "domain", "rerank")
AdaptFlags = flags("AdaptFlags", "prepare", "mine", "train", "stages", "objective", "evaluate", "domain")
MergeFlags = flags("MergeFlags", "merge", "evaluate")
SharedFlags = flags("SharedFlags")


@app.command
def adapt(
    data: str | None = None,
    /,
    *,
    out: Path,
    config: ConfigFile = None,
    dry_run: bool = False,
    options: Annotated[AdaptFlags | None, Options] = None,  # type: ignore[valid-type]
) -> None:
    """Everything in a row: prepare, mine, train, evaluate, report.

    Args:
        data: a file of pairs, a BEIR folder, or a hub id; left out where --config has tables [[datasets]].
        out: the run's folder; a second start keeps what is still right and goes on.
        dry_run: only say how much there is to do: pairs, tokens, steps, minutes, memory.
    """
    from acclimate.cli import tables
    from acclimate.flows.adapt import adapt as stage
    from acclimate.flows.plan import plan

    settings = configured(options, config)
    if dry_run:
        tables.show_plan(plan(data, settings))
    else:
        tables.show_run(stage(data, out, settings), out)


@app.command
def prepare(
    data: str | None = None,
    /,
    *,
    out: Path,
    config: ConfigFile = None,
    options: Annotated[PrepareFlags | None, Options] = None,  # type: ignore[valid-type]
) -> None:
    """Read domain data in any common form; write a clean, leak-free dataset to OUT/dataset.

    Args:
        data: a file of pairs, a BEIR folder, or a hub id; left out where --config has tables [[datasets]].
        out: the run's folder.
    """
    from acclimate.cli import tables
    from acclimate.runs.tasks import all_tasks
    from acclimate.stages.prepare import prepare as stage

    tasks = all_tasks(out, configured(options, config, out), data)
    with locked(out):
        for task in tasks:
            tables.show_dataset(stage(task.source, task.dataset, task.config), task.dataset)


@app.command
def mine(
    run: Path,
    /,
    *,
    config: ConfigFile = None,
    options: Annotated[MineFlags | None, Options] = None,  # type: ignore[valid-type]
) -> None:
    """Find hard negatives in the corpus of RUN; write them to RUN/negatives."""
    from acclimate.cli import tables
    from acclimate.runs.tasks import minable_tasks
    from acclimate.stages.mine import mine as stage

    with _at_work_in(run):
        for task in minable_tasks(run, configured(options, config, run)):
            tables.show_mining(stage(task.dataset, task.negatives, task.config), task.negatives)


@app.command
def train(
    run: Path,
    /,
    *,
    reranker: str | None = None,
    config: ConfigFile = None,
    options: Annotated[TrainFlags | None, Options] = None,  # type: ignore[valid-type]
) -> None:
    """Train an adapter on RUN's dataset and negatives; write it to RUN/adapter.

    Args:
        run: the run's folder.
        reranker: train a reranker instead, from this model, and write it to RUN/reranker: a cross-encoder,
            Qwen3-Reranker, or an embedding model of the BERT family, which gets a new head.
    """
    from acclimate.cli import tables
    from acclimate.flows.reranker import train_reranker
    from acclimate.runs.tasks import all_tasks
    from acclimate.stages.train import train_tasks as stage

    settings = configured(options, config, run)
    with _at_work_in(run):
        if reranker is not None:
            tables.show_training(train_reranker(run, reranker, settings), RunFolder(run).reranker)
            return
        tasks = [replace(task, mined=task.negatives.is_dir()) for task in all_tasks(run, settings)]
        report = stage(tasks, RunFolder(run).adapter, settings)
    tables.show_training(report, RunFolder(run).adapter)


@app.command
def evaluate(
    data: str,
    /,
    *,
    adapter: Path | None = None,
    reranker: str | None = None,
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
    config: ConfigFile = None,
    options: Annotated[EvaluateFlags | None, Options] = None,  # type: ignore[valid-type]
) -> None:
    """Base against adapted on the test split of a run, or one model on any data.

    Args:
        data: a run's folder (base against adapted), or any data (one model on its test split).
        adapter: adapter or run folder to put on the model.
        reranker: measure instead what this reranker makes of the run's retrieval: a run with one, a folder, a hub id.
        json_output: print the metrics of one model as one JSON object and nothing else.
    """
    from acclimate.cli import tables
    from acclimate.runs.run_folder import is_run
    from acclimate.runs.tasks import tasks_of
    from acclimate.stages import evaluate as stage

    run = Path(data)
    if reranker is not None:
        from acclimate.flows.reranker import evaluate_reranker

        with _at_work_in(run):
            reranking = evaluate_reranker(run, reranker, configured(options, config, run))
        if json_output:
            sys.stdout.write(json.dumps(reranking["reranked"]) + "\n")
        else:
            tables.show_reranking(reranking)
        return
    settings = configured(options, config, run if is_run(run) else None)
    found = RunFolder(run).adapter
    compares = adapter is None and found.is_dir() and stage.is_base(found, settings)
    if not compares:
        metrics = stage.evaluate_model(data, adapter, settings)
        show = partial(tables.show_metrics, metrics)
    else:
        with _at_work_in(run):
            reports = {
                task.name: stage.evaluate(task.dataset, found, task.evaluation, task.config)
                for task in tasks_of(run, settings)
            }
        metrics = {str(name): report["test"]["adapted"] for name, report in reports.items()}
        metrics = metrics if len(metrics) > 1 else metrics.popitem()[1]
        show = partial(tables.show_evaluations, reports)
    if json_output:
        sys.stdout.write(json.dumps(metrics) + "\n")
    else:
        show()


@app.command
def report(run: Path, /) -> None:
    """Write RUN/report.html from what the stages left in RUN."""
    from acclimate.stages.report import report as stage

    sys.stdout.write(f"{stage(run)}\n")


@app.command
def merge(
    *models: str,
    out: Path,
    data: Path | None = None,
    config: ConfigFile = None,
    options: Annotated[MergeFlags | None, Options] = None,  # type: ignore[valid-type]
) -> None:
    """Fold the adapter of a run into its base, or make one of several adapters or models.

    Args:
        models: runs, adapter folders, or whole models. One of them alone becomes a self-contained model.
        out: the folder to write.
        data: run or dataset whose dev split decides, where something is chosen (greedy-soup, interpolate without
            weights); the first model's run if not given.
    """
    from acclimate.cli import tables
    from acclimate.stages.merge import merge as stage

    if not models:
        raise UsageError("nothing to merge", possible="one or more runs, adapter folders or models")
    tables.show_merge(stage(models, out, configured(options, config, Path(models[0])), data=data), out)


@app.command
def search(
    run: Path,
    query: str,
    /,
    *,
    top: int = 5,
    options: Annotated[SharedFlags | None, Options] = None,  # type: ignore[valid-type]
) -> None:
    """Top documents of RUN's corpus by base and adapted, side by side.

    Args:
        run: the run's folder.
        query: what to search for.
        top: how many documents to show.
    """
    from acclimate.cli import tables
    from acclimate.stages.search import search as stage

    tables.show_search(stage(run, query, configured(options, None, run), top=top))


@app.command
def similarity(
    run: Path,
    text_a: str,
    text_b: str,
    /,
    *,
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
    options: Annotated[SharedFlags | None, Options] = None,  # type: ignore[valid-type]
) -> None:
    """Cosine of two texts by base and by adapted.

    Args:
        run: the run's folder.
        text_a: one text.
        text_b: another text.
        json_output: print one JSON object and nothing else.
    """
    from acclimate.cli import tables
    from acclimate.stages.similarity import similarity as stage

    result = stage(run, text_a, text_b, configured(options, None, run))
    if json_output:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        tables.show_metrics(result)


@app.command
def encode(
    texts: Path,
    /,
    *,
    out: Path,
    role: Literal["query", "document"] = "document",
    adapter: Path | None = None,
    options: Annotated[SharedFlags | None, Options] = None,  # type: ignore[valid-type]
) -> None:
    """Texts in, vectors out.

    Args:
        texts: a text file with one text per line, or JSONL with a "text" field.
        out: .npy or .safetensors file to write.
        role: which prompt (and side of the adapter) to use.
        adapter: adapter or run folder to put on the model.
    """
    from acclimate.stages.encode import encode as stage

    result = stage(texts, out, configured(options, None), role=role, adapter=adapter)
    sys.stdout.write(f"{out}: {result['texts']} vectors of {result['dim']} dimensions\n")


app.command(rerank)


@contextmanager
def _at_work_in(run: Path) -> Iterator[None]:
    """One process at a time in a run that has a dataset."""
    from acclimate.runs.run_folder import is_run

    if not is_run(run):
        raise StorageError(f"{run} holds no dataset", fix=f"Make it with: acclimate prepare DATA --out {run}")
    with locked(run):
        yield


def main(arguments: list[str] | None = None) -> None:
    """Run one command; every failure is one line on standard error and a non-zero exit code.

    Of several processes the first one speaks; where one fails it says why, and the launcher ends the others.
    """
    try:
        _join(sys.argv[1:] if arguments is None else arguments)
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except AcclimateError as error:
        _fail(error)
    except CycloptsError as error:
        _fail(UsageError(str(error), fix="See --help."))
    except KeyboardInterrupt:
        _fail(Interrupted("stopped", fix="Start the same command again; it goes on from what is finished."))
    except BrokenPipeError:
        # The reader of our output (head, less) is gone: not our failure, but nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(storage_error(Path(error.filename or "a file"), error))
    except Exception as error:
        _fail(_internal(error))
    else:
        processes.stop()


def _join(arguments: list[str]) -> None:
    """Meet the processes that `torchrun` has started beside this one, if any.

    Raises:
        UsageError: the command is not one that processes can share.
    """
    if processes.count() == 1:
        return
    if not set(SHARED) & set(arguments[:1]):
        raise UsageError(
            f"{processes.count()} processes were started for {shlex.join(['acclimate', *arguments[:1]])}",
            possible=", ".join(SHARED),
            fix="Start this command alone.",
        )
    processes.start()
    if not processes.is_main():
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115  (for as long as the process lives)


def _fail(error: AcclimateError) -> None:
    if processes.fails_first():
        sys.stderr.write(f"acclimate: {error}\n")
    sys.exit(error.exit_code)


def _internal(error: Exception) -> AcclimateError:
    """A bug of ours: one line for the user, the traceback in a file for us."""
    with tempfile.NamedTemporaryFile("w", prefix="acclimate-", suffix=".txt", delete=False) as stream:
        traceback.print_exception(error, file=stream)
    return AcclimateError(
        f"internal error, {type(error).__name__}: {error}", fix=f"Please report it with {stream.name}"
    )


if __name__ == "__main__":
    main()
