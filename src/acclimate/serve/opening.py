"""Runs, adapters' folders and models -> an engine over one base, and what each run serves beside it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from acclimate.configs import RunConfig, load_config
from acclimate.data.dataset import is_dataset, load_dataset
from acclimate.errors import ModelError, UsageError
from acclimate.files import hash_text
from acclimate.formats.engine_folder import KEY as ENGINE
from acclimate.formats.engine_folder import is_engine_folder
from acclimate.formats.facts import read_facts
from acclimate.formats.peft import CONFIG_FILE, WEIGHTS_FILE
from acclimate.formats.sources import ModelSource, resolve_model
from acclimate.models.adapter import load_adapter
from acclimate.models.backends.engine_encoder import EngineEncoder
from acclimate.models.encoder import Encoder
from acclimate.models.reranker import Reranker
from acclimate.models.text_encoder import TextEncoder
from acclimate.progress import say
from acclimate.retrieval.answers import Refusal
from acclimate.retrieval.index.beside import put_in_place
from acclimate.retrieval.index.of_run import has_index, index_place, is_folder, opened_index, read_fusion, refusal_of
from acclimate.retrieval.index.records import Fusion, check_space
from acclimate.retrieval.routing import BASE, ROUTE_MODES
from acclimate.retrieval.token_router import TokenRouter
from acclimate.runs.backend import chosen_backend
from acclimate.runs.resolve import adapter_folder, base_of, find_base, full_folder, load_reranker, refuse_map
from acclimate.runs.run_folder import ADAPTER, RunFolder, is_run
from acclimate.runs.tasks import Task, tasks_of
from acclimate.serve.adapter_files import LoadedAdapter, read_adapter
from acclimate.serve.computing import BatchRecord
from acclimate.serve.engine import Engine
from acclimate.serve.registry import NAME, Registry, Served
from acclimate.serve.scheduler import Limits
from acclimate.text_use import TextUse


@dataclass(frozen=True, slots=True)
class ServedRun:
    """A run's index, for `/v1/search` and documents; of a run with several tasks, that of one task."""

    name: str
    """The run's name, which is also its adapter's in the registry, where it has one; `RUN.TASK` of several tasks."""
    model: str
    """The name in the registry whose queries search the index: the adapter's, or `base`."""
    task: str | None
    """Whose prompts queries and documents get; None: the default ones."""
    place: str
    """Where its index is: a folder, or an address; it may not be there yet."""
    feedback: Path
    """Where what is shown and marked is kept, if it is."""
    fusion: Fusion
    """How its two rankings become one."""
    has_index: bool
    """Whether there is one, of the model's space; one of another space was refused with an error."""
    refusal: Refusal | None
    """Which questions are not answered; None where the dev split has not said so."""
    folder: Path
    """The run's, or its task's: where a projection of pictures may be."""


@dataclass(frozen=True, slots=True)
class Service:
    """What `open_service` makes; the engine is not started."""

    engine: Engine
    registry: Registry
    runs: tuple[ServedRun, ...]
    reranker_id: str | None
    """Canonical id of the reranker; None where there is none."""
    reranker_sha256: str | None
    """sha256 over all that its scores depend on: weights, adapter, instruction, limit."""
    followed: dict[str, _Followed]
    """Name of an adapter -> where it was named, and what was there when it was read last."""
    mixed_experts: int = 3
    """Most adapters that share a query."""
    token_router: TokenRouter | None = None
    """What chooses adapters, fitted at the start; None: the centroids that adapters bring along."""

    def refresh(self) -> list[Served]:
        """Load the adapters that were named at the start anew where their folders have changed; it takes seconds.

        Returns:
            What is served anew. An adapter that cannot be read leaves the older one in its place.

        Raises:
            AcclimateError: why one cannot be read; it is tried again at the next call.
        """
        changed = []
        for name, before in self.followed.items():
            now = _state_of(before.place)
            if now is not None and now != before.state:
                loaded = _read(before.place, self.registry.adaptable())
                changed.append(self.registry.put(name, loaded))
                self.followed[name] = _Followed(before.place, now)
        return changed


class _Followed(NamedTuple):
    place: str
    state: tuple[str, int, int] | None


class _Named(NamedTuple):
    """What a user names, and what it leads to."""

    name: str
    place: str
    adapter: Path | None
    """The adapter's folder; None: a whole model, or a run without an adapter."""
    source: ModelSource
    """The base, or the whole model."""
    use: TextUse
    """How the base, or the whole model, uses texts."""
    config: RunConfig | None
    """A run's settings; None: it is no run."""


def open_service(
    names: Sequence[str],
    config: RunConfig,
    *,
    reranker: str | None = None,
    limits: Limits | None = None,
    cache_bytes: int = 0,
    adapter_root: Path | None = None,
    adapter_bytes: int = 1 << 30,
    on_batch: Callable[[BatchRecord], None] | None = None,
) -> Service:
    """Load runs, adapters' folders or models, all of one base.

    Args:
        names: runs, adapter folders, model folders or hub ids; `NAME=PLACE` gives one another name than its folder's.
        config: device and dtype; `model` says where the base is, if the adapters' own record does not lead to it;
            `route` how a query is routed among adapters.
        reranker: a run with one, a folder or a hub id; if not given, that of the first run that has one.
        limits: see `Engine`.
        cache_bytes: see `Engine`.
        adapter_root: see `Registry`.
        adapter_bytes: see `Registry`.
        on_batch: see `Engine`.

    Raises:
        UsageError: nothing is named; two have the same name; models of different bases; an index of another space.
        ModelError: a name leads to nothing that can be served.
        ServiceError: the adapters are larger than `adapter_bytes`, or one cannot be used.
    """
    if not names:
        raise UsageError("nothing to serve is named", fix="Name a run: acclimate serve RUN.")
    found = [_found(name, config) for name in names]
    _check_names(found)
    _check_one_base(found)
    found, base = _opened(found, config, adaptable=adapter_root is not None)
    followed = {one.name: _Followed(one.place, _state_of(one.place)) for one in found if one.adapter is not None}
    adapters = {name: _read(one.place, base) for name, one in followed.items()} if isinstance(base, Encoder) else {}
    whole = [one.name for one in found if one.adapter is None]
    registry = Registry(base, adapters, root=adapter_root, max_bytes=adapter_bytes, base_names=whole)
    model = _reranker(found, config, reranker)
    engine = Engine(registry, model, limits=limits, cache_bytes=cache_bytes, on_batch=on_batch)
    runs = tuple(run for one in found if one.config is not None for run in _runs(one, one.config, registry))
    settings = config.route
    tokens = _token_router(found, base) if settings.router == "tokens" else None
    named = (None, None) if model is None else (model.source.id, _reranker_hash(model))
    return Service(engine, registry, runs, named[0], named[1], followed, settings.mixed_experts, tokens)


def _opened(found: list[_Named], config: RunConfig, *, adaptable: bool) -> tuple[list[_Named], Encoder | EngineEncoder]:
    """What is served, and what computes it: of a run alone, the backend that `tune` has chosen."""
    first = found[0]
    machine = config.machine
    alone = len(found) == 1 and first.config is not None and config.device in ("auto", "cpu")
    if alone and config.dtype == "auto" and config.model is None:
        run = Path(first.place).expanduser()
        backend = chosen_backend(run)
        if backend is not None and backend.export is not None and adaptable:
            say(f"{first.name} is computed by torch, which --adapter-root needs, though {backend.engine} was faster")
        elif backend is not None:
            say(f"{first.name} is computed by {backend.engine} in {backend.precision}, as tune has chosen")
            if backend.export is not None:
                export = EngineEncoder.open(run / backend.export, threads=backend.threads)
                return [first._replace(adapter=None)], export
            machine = {"device": "cpu", "dtype": backend.precision}
    return found, Encoder.open(first.source, first.use, **machine)


def _found(name: str, asked: RunConfig) -> _Named:
    given, place = _split(name)
    refuse_map(place, "served")
    base = asked.model
    run = RunFolder(Path(place).expanduser())
    config = None
    if is_run(run.path) or run.config.is_file() or run.index.is_dir():
        config = load_config(run.config) if run.config.is_file() else RunConfig()
    own = given or _name_of(place)
    if (folder := adapter_folder(place)) is not None:
        if base is None and config is not None:
            with contextlib.suppress(ModelError):  # it has moved: the adapter's own record may lead to it
                base = base_of(place, config.model)
        adapter = load_adapter(folder, base)
        source = find_base(folder, adapter.base_id, adapter.base_sha256, base, adapter.use.pooling)
        return _Named(own, place, folder, source, source.use, config)
    if (folder := full_folder(place)) is not None:
        if is_engine_folder(folder):
            raise _not_an_export(place, folder)
        use = read_facts(folder)["use"]
        source = resolve_model(str(folder))
        return _Named(own, place, None, source, dataclasses.replace(use, lowercase=source.use.lowercase), config)
    if config is not None:
        source = resolve_model(base or config.base_model, pooling=asked.pooling or config.pooling)
    else:
        source = resolve_model(place, pooling=asked.pooling)
    return _Named(own, place, None, source, source.use, config)


def _not_an_export(place: str, folder: Path) -> UsageError:
    """The refusal of a graph: adapters are put on a base's own layers, which a graph does not have."""
    facts = read_facts(folder)
    return UsageError(
        f"{place} is an export for {facts[ENGINE]['name']}, which the service does not run",
        possible="runs, adapters' folders and models with their weights",
        fix=f"Serve the run or adapter that it was exported from; its base is {facts['base']['id']}.",
    )


def _split(name: str) -> tuple[str | None, str]:
    given, equals, place = name.partition("=")
    return (given, place) if equals and NAME.fullmatch(given) and not Path(name).exists() else (None, name)


def _name_of(place: str) -> str:
    path = Path(place).expanduser().absolute()
    return path.parent.name if path.name == ADAPTER else path.name


def _check_names(found: Sequence[_Named]) -> None:
    for one in found:
        if one.adapter is not None and (not NAME.fullmatch(one.name) or one.name in (BASE, *ROUTE_MODES)):
            raise UsageError(
                f"{one.place} would be served as {one.name!r}",
                possible="letters, digits, '.', '_' and '-', and not base, auto, mix or fuse",
                fix=f"Give it another name: NAME={one.place}",
            )
    names = [one.name for one in found]
    for one in found:
        if names.count(one.name) > 1:
            raise UsageError(
                f"two of what is served are called {one.name!r}", fix=f"Give one another name: NAME={one.place}"
            )


def _check_one_base(found: Sequence[_Named]) -> None:
    first = found[0]
    for one in found[1:]:
        if one.source.sha256 != first.source.sha256:
            raise UsageError(
                f"{first.place} is of the base {first.source.id} (sha256 {first.source.sha256[:12]}), and {one.place} "
                f"of {one.source.id} (sha256 {one.source.sha256[:12]})",
                possible="runs, adapters and models of one base in one process",
                fix="Start a service for each base.",
            )


def _state_of(place: str) -> tuple[str, int, int] | None:
    """What changes with an adapter's folder: where it leads, and when its files were written."""
    folder = adapter_folder(place)
    if folder is None:
        return None
    try:
        times = [(folder / name).stat().st_mtime_ns for name in (WEIGHTS_FILE, CONFIG_FILE)]
    except OSError:  # it is being replaced
        return None
    return str(folder.resolve()), times[0], times[1]


def _read(place: str, base: Encoder) -> LoadedAdapter:
    folder = adapter_folder(place)
    assert folder is not None
    return read_adapter(folder, base)


def _token_router(found: Sequence[_Named], base: TextEncoder) -> TokenRouter:
    """A router by tokens, fitted to the training queries of the runs that have some.

    Raises:
        UsageError: fewer than two runs have their data.
    """
    queries: dict[str, list[str]] = {}
    unseen: dict[str, list[str]] = {}
    for one in found:
        if one.config is None or one.adapter is None:
            continue
        tasks = tasks_of(Path(one.place).expanduser(), dataclasses.replace(one.config, task=None))
        sets = [load_dataset(task.dataset) for task in tasks if is_dataset(task.dataset)]
        if own := [row.anchor for data in sets for row in data.examples]:
            queries[one.name] = own
            unseen[one.name] = [data.queries[query] for data in sets for query in data.qrels.get("dev", {})]
    return TokenRouter.fit(base.tokenizer, queries, unseen)


def _reranker(found: Sequence[_Named], config: RunConfig, name: str | None) -> Reranker | None:
    """The reranker that is named, else that of the first run that has one."""
    settings = config.rerank
    if name is None:
        for one in found:
            if one.config is not None and RunFolder(Path(one.place).expanduser()).reranker.is_dir():
                name, settings = one.place, one.config.rerank
                break
        else:
            return None
    return load_reranker(name, settings, device=config.device, dtype=config.reranker_dtype)


def _reranker_hash(model: Reranker) -> str:
    """sha256 over all that a reranker's scores depend on, but for the number format."""
    return hash_text(model.source.fingerprint, model.kind.instruction or "", str(model.max_tokens))


def _runs(one: _Named, config: RunConfig, registry: Registry) -> list[ServedRun]:
    """The indexes of a run: one for each task."""
    model = BASE if one.adapter is None else one.name
    tasks = tasks_of(Path(one.place).expanduser(), dataclasses.replace(config, task=None))
    return [_run(f"{one.name}.{task.name}" if task.name else one.name, model, task, registry) for task in tasks]


def _run(name: str, model: str, task: Task, registry: Registry) -> ServedRun:
    served = registry.pin(model).served
    prompt = served.prompts.prompt("document", task.name)
    space = dataclasses.replace(served.space, document_prompt=prompt)
    place = index_place(task)
    there = has_index(task) and (not is_folder(place) or Path(place).is_dir())
    if there:
        with opened_index(place) as index:
            found = index.space
        if found == space or not (is_folder(place) and put_in_place(Path(place), space)):  # what a kill left undone
            check_space(found, space, place)
    fusion, choice = read_fusion(task, space)
    kept, refusal = task.folder.feedback, refusal_of(choice)
    return ServedRun(name, model, task.name, place, kept, fusion, there, refusal, task.folder.path)
