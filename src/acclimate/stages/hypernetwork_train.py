"""`hypernetwork train`: from a library of tasks to a hypernetwork."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from acclimate.configs import RunConfig, used
from acclimate.configs.hypernetwork import NetworkConfig
from acclimate.counting import counted
from acclimate.data.facts import languages
from acclimate.data.task_library import SplitLibrary, read_library
from acclimate.errors import DataError
from acclimate.files import hash_folder, work_folder, write_text
from acclimate.formats.trained_on import TrainedOn, write_trained_on
from acclimate.models.encoder import Encoder
from acclimate.models.hypernetwork.saving import TrainedNetwork, save_network
from acclimate.progress import say
from acclimate.report import hypernetwork_card
from acclimate.runs.run_folder import CACHE, METRICS_FILE
from acclimate.runs.step import Work, step
from acclimate.training.network_training import RECONSTRUCTION, Adapted, NetworkTraining
from acclimate.training.own_adapters import OwnAdapters
from acclimate.training.task_draws import encode_library

WARM_UP_METRICS = f"warm-up-{METRICS_FILE}"


def hypernetwork_train(tasks: Path, out: Path, network: NetworkConfig, config: RunConfig) -> dict[str, Any]:
    """Train a hypernetwork; after an interruption the same call goes on.

    Args:
        tasks: a library's folder.
        out: the hypernetwork's folder.
        network: what is trained, and for how long.
        config: `seed`, and the base with its use of texts.

    Returns:
        what report.json holds: "train" (tasks, parameters, seconds) and "base".

    Raises:
        DataError: no library, or one without a task to train on.
        ModelError: the base cannot be found or used.
        Interrupted: ctrl-C.
    """
    library = read_library(tasks)
    trained_numbers = library.numbers("train")
    if not trained_numbers:
        raise DataError(f"{tasks} has no task to train on", fix="Make the library with more texts.")
    encoder = Encoder.load(config.base_model, **config.loading)
    encoder.require_one_transformer()
    settings = {**used(config, "hypernetwork-train"), "network": asdict(network)}
    inputs = {"tasks": hash_folder(tasks), "model": encoder.fingerprint}

    def make() -> Work[dict[str, Any]]:
        part, work = library.only(trained_numbers), work_folder(out)
        trained = _trained(encoder, part, network, config.seed, work, work_folder(tasks) / CACHE)
        return Work(lambda folder: _write(folder, trained, part, _metrics(network, work)))

    return step(
        "hypernetwork train", out, settings, inputs, make, seconds="hypernetwork_train_s", reads=[tasks, *config.named]
    )


def _trained(
    encoder: Encoder, part: SplitLibrary, network: NetworkConfig, seed: int, work: Path, cache: Path
) -> TrainedNetwork:
    """Train, and say what was trained on what. Vectors are kept beside the library, for other trainings on it."""
    say(f"hypernetwork train: {counted(len(part.facts), 'tasks')}, {network.generator} through {network.through}")
    started = time.monotonic()
    training = NetworkTraining(
        encoder=encoder,
        library=part.train,
        vectors=encode_library(encoder, part.train, cache),
        config=network,
        seed=seed,
        folder=work,
        languages=part.languages,
    )
    shared = training.shared()
    made = training.generator(shared, _own(training, shared))
    seconds = time.monotonic() - started
    facts = {
        "tasks": len(part.facts),
        "definitions": len({one.definition for one in part.facts}),
        "collections": sorted({one.collection for one in part.facts}),
        "texts": len(part.train.queries) + len(part.train.documents),
        "languages": list(part.languages),
        "scripts": languages([text for task in part.train.tasks for text in task.descriptions]),
        "parameters": sum(parameter.numel() for parameter in made.parameters()),
        "seconds": round(seconds, 1),
        **asdict(network),
        "sides": network.effective_sides,
    }
    return TrainedNetwork(
        network=made,
        base_id=encoder.source.id,
        base_sha256=encoder.source.sha256,
        use=encoder.use,
        normalise=encoder.source.files.normalise,
        sides=network.effective_sides,
        metrics=facts,
        shared=shared,
        known=training.known({one.name: one.definition for one in part.facts}),
    )


def _own(training: NetworkTraining, shared: Adapted) -> list[Adapted]:
    """An adapter trained on each task, where they are to be reconstructed."""
    if training.config.objective == "relevance":
        return []
    own = OwnAdapters(
        encoder=training.encoder,
        config=training.config,
        shared=shared,
        seed=training.seed,
        folder=training.folder / "own",
    )
    return own.train(training.library, training.vectors, "adapters of each task")


def _metrics(network: NetworkConfig, work: Path) -> dict[str, Path]:
    """Name -> rows of a training; a warm-up was one of its own."""
    last = RECONSTRUCTION if network.objective == "reconstruction" else network.generator
    before = {WARM_UP_METRICS: work / RECONSTRUCTION / METRICS_FILE} if network.objective == "warm-up" else {}
    return {METRICS_FILE: work / last / METRICS_FILE, **before}


def _write(folder: Path, trained: TrainedNetwork, part: SplitLibrary, metrics: Mapping[str, Path]) -> dict[str, Any]:
    save_network(folder, trained)
    write_trained_on(folder, TrainedOn.of((*part.train.queries, *part.train.documents), ()))
    for name, rows in metrics.items():
        write_text(folder / name, rows.read_text(encoding="utf-8"))
    report = {"train": dict(trained.metrics), "base": trained.base}
    write_text(folder / "README.md", hypernetwork_card.render(trained))
    return report
