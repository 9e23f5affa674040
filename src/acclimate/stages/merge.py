"""`merge`: an adapter folded into its base, or several adapters or models made one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from acclimate.configs import RunConfig, effective
from acclimate.core import merging
from acclimate.data.dataset import is_dataset
from acclimate.errors import UsageError
from acclimate.evaluation.candidates import choose_share, greedy_soup, guard_score, score_on
from acclimate.evaluation.compare import MAIN_MEASURE
from acclimate.evaluation.measures import relative_loss
from acclimate.files import hash_folder, write_text
from acclimate.formats.trained_on import TrainedOn, write_trained_on
from acclimate.models.mergeable import MergeableAdapters, MergeableModels
from acclimate.progress import say
from acclimate.report import merge_page, model_card
from acclimate.report.summary import MergeReport, summary_of
from acclimate.runs.folded import adapted_folder, write_folded
from acclimate.runs.guards import guard_data, guard_hashes, guard_names
from acclimate.runs.mergeable_models import read_models
from acclimate.runs.opening import open_dataset
from acclimate.runs.run_folder import PAGE_FILE, RunFolder
from acclimate.runs.step import Work, step
from acclimate.runs.trained_on import asked_in, trained_on, trained_on_input

GREEDY_SOUP = "greedy-soup"
INTERPOLATE = "interpolate"


@dataclass(frozen=True, slots=True)
class _Choice:
    """What is merged in which shares, and what was tried to find them."""

    method: str
    weights: Sequence[float]
    found: Mapping[str, Any] = field(default_factory=dict)
    """For the report: "soup" or "curve"."""
    told: TrainedOn = field(default_factory=TrainedOn)
    """The queries by which it was chosen."""


def merge(models: Sequence[str | Path], out: Path, config: RunConfig, *, data: Path | None = None) -> MergeReport:
    """Write one model made of several, with a model card that says how; of one run, its adapter folded into its base.

    Args:
        models: runs, adapter folders, or whole models (fully trained, merged, or any of one architecture). One of them,
            with neither method, weights nor rank: the merged, self-contained model, float32 from the unquantised base.
        out: the new folder: an adapter of adapters (self-contained with `merge.folded`), a model of models.
        config: shared fields (`model` names the base where no folder's id leads to it), `merge`, and for interpolation
            `evaluate.guard` and `evaluate.guard_bound`.
        data: a run or dataset folder whose dev split decides, where something is chosen; the first model's run if None.

    Returns:
        what report.json holds.

    Raises:
        UsageError: there is nothing to merge, `out` lies inside what is merged, or the method cannot merge this.
        ModelError: the models do not belong together, or a base is another one or cannot be found.
    """
    asked = config.merge
    if len(models) == 1 and asked.method is None and not asked.weights and asked.merged_rank is None:
        return _fold(Path(models[0]), out, config)
    names = [str(name) for name in models]
    _check(names, config)
    dataset = _dataset_of(names[0], data) if _is_chosen(config) else None
    settings = {**effective(config, "merge", *(["evaluate"] if dataset else [])), "models": names}
    parts = read_models(names, config.merge, base=config.model, pooling=config.pooling, machine=config.machine)
    inputs = {f"model {number}": fingerprint for number, fingerprint in enumerate(parts.fingerprints, 1)}
    inputs |= trained_on_input(trained_on([*parts.names, config.model]))
    inputs |= {"dataset": hash_folder(dataset), **guard_hashes(config.evaluate.guard)} if dataset else {}

    reads = [Path(name) for name in (*names, *config.named)] + ([dataset] if dataset else [])

    def make() -> Work[MergeReport]:
        choice = _choose(parts, dataset, config)
        merged = parts.merge(choice.method, choice.weights, asked, config.seed)
        return Work(lambda folder: _write(folder, parts, merged, choice, config, out.name))

    return step("merge", out, settings, inputs, make, seconds="merge_s", reads=reads)


def _write(
    folder: Path,
    parts: MergeableAdapters | MergeableModels,
    merged: Any,
    choice: _Choice,
    config: RunConfig,
    name: str,
) -> MergeReport:
    """Write the merged model, its card, and, where something was chosen, the page of what was tried."""
    asked, models = config.merge, zip(parts.names, choice.weights, strict=True)
    found: dict[str, Any] = {
        "base": parts.base,
        "sides": parts.sides,
        "dim": parts.use.dim,
        **parts.save(folder, merged),
        "method": asked.method or "linear",
        "models": [{"name": model, "weight": weight} for model, weight in models],
        **({"density": asked.density} if choice.method in merging.ELEMENTWISE else {}),
        **({"update_scale": asked.update_scale} if choice.method in merging.OF_UPDATES else {}),
        **choice.found,
    }
    write_trained_on(folder, trained_on([*parts.names, config.model]) | choice.told)
    report = cast(MergeReport, found)
    write_text(folder / "README.md", model_card.render(report, {}))
    if choice.found:
        write_text(folder / PAGE_FILE, merge_page.render(name, report))
    return report


def _fold(run_or_adapter: Path, out: Path, config: RunConfig) -> MergeReport:
    """One adapter into its base; a run trained with `--full` holds such a folder already, which is copied."""
    trained = adapted_folder(run_or_adapter)

    def write(folder: Path) -> MergeReport:
        report = cast(MergeReport, write_folded(trained, folder, config))
        write_text(folder / "README.md", model_card.render(report, summary_of(run_or_adapter)))
        return report

    inputs = {"adapter": hash_folder(trained)}
    reads = [run_or_adapter, trained]
    return step("merge", out, effective(config), inputs, lambda: Work(write), seconds="merge_s", reads=reads)


def _check(names: Sequence[str], config: RunConfig) -> None:
    """Everything that can be refused before a model is read."""
    asked = config.merge
    if asked.method == GREEDY_SOUP:
        if len(names) < 2 or asked.weights:
            raise UsageError(
                f"greedy-soup of {len(names)} models" + (" with weights" if asked.weights else ""),
                possible="two models or more; their weights follow from their dev scores",
            )
    else:
        weights = asked.weights or [1 / len(names)] * len(names)
        merging.check(asked.method or "linear", weights, len(names), asked.density)


def _is_chosen(config: RunConfig) -> bool:
    """Whether the dev split decides."""
    return config.merge.method == GREEDY_SOUP or (config.merge.method == INTERPOLATE and not config.merge.weights)


def _choose(parts: MergeableAdapters | MergeableModels, dataset: Path | None, config: RunConfig) -> _Choice:
    asked, count = config.merge, len(parts.names)
    if dataset is None:
        return _Choice(asked.method or "linear", asked.weights or [1 / count] * count)
    if asked.method == GREEDY_SOUP:
        return _soup(parts, dataset, config)
    return _curve(parts, dataset, config)


def _soup(parts: MergeableAdapters | MergeableModels, dataset: Path, config: RunConfig) -> _Choice:
    """Wortsman et al. 2022: models are added while dev does not fall."""
    data, count = open_dataset(dataset), len(parts.names)
    judge = score_on(data, "dev", parts.base_encoder, **_pool(dataset, config))

    def score(weights: Sequence[float]) -> float:
        return judge(parts.encoder(parts.merge("linear", weights, config.merge, config.seed)))

    alone = [score([float(index == own) for index in range(count)]) for own in range(count)]
    found = greedy_soup(count, score, alone)
    tried = [{**row, "model": parts.names[row["model"]]} for row in found["tried"]]
    kept = [parts.names[index] for index in found["kept"]]
    soup = {"measure": MAIN_MEASURE[data.kind], "split": "dev", "score": found["score"], "kept": kept, "tried": tried}
    soup["base"] = judge(parts.base_encoder) if parts.base else None  # no folder says what the models were made from
    return _Choice("linear", found["weights"], {"soup": soup}, asked_in(data, ("dev",)))


def _pool(dataset: Path, config: RunConfig) -> dict[str, Any]:
    """What dev queries are ranked against, and where its vectors are kept."""
    cache = RunFolder(dataset.parent).cache
    return {"documents": config.merge.pool_documents, "seed": config.seed, "cache": cache}


def _curve(parts: MergeableAdapters | MergeableModels, dataset: Path, config: RunConfig) -> _Choice:
    """WiSE-FT: points between the base and the model, in the domain and on guard data; one is chosen."""
    data = open_dataset(dataset)
    judge = score_on(data, "dev", parts.base_encoder, **_pool(dataset, config))
    guards, told = {}, asked_in(data, ("dev",))
    asked = config.evaluate.guard
    outsides = guard_data(asked, seed=config.seed, limit=config.limit)
    for name, outside in zip(guard_names(asked), outsides, strict=True):
        split, score = guard_score(outside, parts.base_encoder, **_pool(dataset, config))
        told |= asked_in(outside, ("train", "dev"))
        guards[name] = ({"measure": MAIN_MEASURE[outside.kind], "split": split}, score)
    points: list[dict[str, Any]] = []
    for share in sorted({0.0, *config.merge.curve}):
        encoder = parts.encoder(parts.merge(INTERPOLATE, [share], config.merge, config.seed))
        scores = {name: guard(encoder) for name, (_, guard) in guards.items()}
        first = points[0]["guard"] if points else scores
        loss = {name: relative_loss(first, scores, name) for name in scores}
        points.append({"share": share, "domain": judge(encoder), "guard": scores, "loss": loss})
        say(
            f"merge: share {share:g}: dev {points[-1]['domain']:.4f}"
            + "".join(f", {n} {s:.4f}" for n, s in scores.items())
        )
    chosen, rule = choose_share(points, config.evaluate.guard_bound)
    curve = {
        "measure": MAIN_MEASURE[data.kind],
        "split": "dev",
        "guards": {name: measured for name, (measured, _) in guards.items()},
        "bound": config.evaluate.guard_bound,
        "points": points,
        "chosen": chosen,
        "rule": rule,
    }
    return _Choice(INTERPOLATE, [chosen], {"curve": curve}, told)


def _dataset_of(first: str, data: Path | None) -> Path:
    """Whose dev split decides: the given one, or that of the first model's run."""
    places = [data] if data else [Path(first), RunFolder.around(Path(first)).path]
    for place in places:
        for folder in (RunFolder(place).dataset, place):
            if is_dataset(folder):
                return folder
    raise UsageError(
        f"{places[0]} holds no dataset whose dev split could decide", fix="Name a run or a dataset with --data."
    )
