"""A name that a user gives -> what it leads to, and an encoder of it. The one loader of every stage.

A name is a run, an adapter folder (ours or PEFT's), a whole model's folder, a hub id, or the embedded default's name.
An adapter names its base by id and sha256. Where the id leads nowhere (a folder that has moved) the caller gives
`base`; a base of other weights is refused.
"""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, Unpack

from acclimate.configs import DEFAULT_MODEL, RerankConfig, RunConfig
from acclimate.errors import ModelError, StorageError, UsageError
from acclimate.files import CONFIG_FILE, hash_text, read_json
from acclimate.formats import peft
from acclimate.formats.engine_folder import is_engine_folder, read_engine
from acclimate.formats.facts import ADAPTER_FILE, check_base, read_facts
from acclimate.formats.reranker_folder import RerankerSource, resolve_reranker
from acclimate.formats.sentence_transformers import MODULES_FILE
from acclimate.formats.sources import ModelSource, resolve_model
from acclimate.models.adapter import Adapter, load_adapter
from acclimate.models.backends.engine_encoder import EngineEncoder
from acclimate.models.encoder import Encoder
from acclimate.models.query_map import MAP_FILE, QueryMap, load_query_map
from acclimate.models.reranker import Reranker
from acclimate.models.text_encoder import TextEncoder
from acclimate.progress import say
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.versions import in_use
from acclimate.text_use import LoadSettings, TextUse, text_settings
from acclimate.types import ROLES, Pooling

NameKind: TypeAlias = Literal["model", "adapter", "map", "full"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a name leads to."""

    kind: NameKind
    """adapter: matrices beside a base. map: on its query vectors. full: trained whole, or merged. model: any other."""
    folder: Path
    """Where it lies: the adapter's or the model's folder."""
    base: str | None
    """By which name the base of an adapter or of a full training is found; None where there is none."""
    sha256: str
    """Changes with everything that its vectors depend on: weights, matrices, use of texts, tokenizer."""


def resolve(name: str | Path, *, base: str | None = None) -> Resolved:
    """Find out what a name leads to.

    Args:
        name: see the top of this file.
        base: where the base is, if the adapter's own record does not lead to it.

    Raises:
        ModelError: it leads to nothing, or to something damaged; the base is missing or another one.
    """
    if (folder := adapter_folder(name)) is not None:
        adapter, source = _adapter_and_base(folder, base)
        sha256 = hash_text(adapter.fingerprint, source.fingerprint)
        return Resolved("adapter", folder, base or adapter.base_id, sha256)
    if (folder := map_folder(name)) is not None:
        query_map, source = _map_and_base(folder, base)
        return Resolved("map", folder, base or query_map.base_id, hash_text(query_map.fingerprint, source.fingerprint))
    if (folder := full_folder(name)) is not None:
        found = read_engine(folder).source if is_engine_folder(folder) else resolve_model(str(folder))
        fingerprint = found.fingerprint  # acclimate.json is one of the files that it hashes
        return Resolved("full", folder, base or read_facts(folder)["base"]["id"], fingerprint)
    source = resolve_model(str(name))
    return Resolved("model", source.files.folder, None, source.fingerprint)


def load(name: str | Path = DEFAULT_MODEL, *, base: str | None = None, **settings: Unpack[LoadSettings]) -> TextEncoder:
    """Load an encoder, with its adapter attached if the name leads to one; of an export the one that its engine runs.

    Args:
        name: see the top of this file; or an export's folder.
        base: where the base is, if the adapter's own record does not lead to it; or an export of the model, which is
            then loaded in its place.
        settings: what is changed of its own use of texts, and where it runs: see `LoadSettings`.

    Raises:
        ModelError: see `resolve`; or an export of another model.
        UsageError: a setting that the model or the machine cannot have; another pooling than the adapter's.
        MissingExtraError: an export whose engine is not installed.
    """
    if (export := exported_folder(name)) is not None:
        return EngineEncoder.open(export, **settings)
    if base is not None and (export := exported_folder(base)) is not None:
        if read_engine(export).made_from != trained_hash(name):
            raise ModelError(f"{base} is no export of {name} as it is now", fix="Export it again: acclimate export")
        return EngineEncoder.open(export, **settings)
    return _load(name, base, with_base=False, settings=settings)[-1]


def load_whole(name: str, **settings: Unpack[LoadSettings]) -> TextEncoder:
    """Load a model that needs no base: a folder, a hub id, the embedded default, or an export.

    Args:
        name: see `Encoder.load`, and so are the errors.
        settings: see `LoadSettings`.
    """
    export = exported_folder(name)
    return Encoder.load(name, **settings) if export is None else EngineEncoder.open(export, **settings)


def load_pair(
    name: str | Path, *, base: str | None = None, **settings: Unpack[LoadSettings]
) -> tuple[Encoder, Encoder]:
    """Load base and adapted model for a comparison: one `TextUse` for both, so that only the weights differ.

    It is the one that the adapter was trained with, and the settings that the user gives change it for both.

    Args:
        name: a run or folder with an adapter or a fully trained model; of a whole model without a record of its base,
            `base` is taken for it.
        base: see `load`.
        settings: see `load`.

    Raises:
        ModelError: see `resolve`.
        UsageError: see `load`.
    """
    before, after = _load(name, base, with_base=True, settings=settings)
    return before, after


def compared_base(name: str | Path, *, base: str | None = None, pooling: Pooling | None = None) -> ModelSource:
    """Find the model that an adapted one is compared with: the one that it was made from.

    Args:
        name: see the top of this file.
        base: see `load`; of a whole model without a record of its base, it is taken for it.
        pooling: of such a model.

    Raises:
        ModelError: see `resolve`.
    """
    if (folder := adapter_folder(name)) is not None:
        return _adapter_and_base(folder, base)[1]
    if (folder := map_folder(name)) is not None:
        return _map_and_base(folder, base)[1]
    if (folder := full_folder(name)) is not None:
        facts = read_facts(folder)
        return find_base(folder, facts["base"]["id"], facts["base"]["sha256"], base, facts["use"].pooling)
    return resolve_model(base or DEFAULT_MODEL, pooling=pooling)


def trained_hash(name: str | Path) -> str:
    """sha256 over what training or merging has made, whether or not its base is there: an export says it was made of
    this.

    Raises:
        StorageError: there is none.
    """
    folder = trained_folder(name)
    if adapter_folder(folder) is not None:
        return load_adapter(folder).fingerprint
    return resolve_model(str(folder)).fingerprint


def base_of(name: str | Path, model: str | None) -> str | None:
    """Return `model` where it holds the weights that the adapter at `name` was made for, else None.

    For adapters beside the run's own (a teacher, a guide): the run's model may be where their base is.
    """
    folder = made_folder(name)
    if folder is None or model is None or not (folder / ADAPTER_FILE).exists():
        return None
    facts = read_facts(folder)
    source = resolve_model(model, pooling=facts["use"].pooling)
    return model if facts["base"]["sha256"] == source.sha256 else None


def adapter_folder(name: str | Path) -> Path | None:
    """Return the folder that holds the adapter: a run's, or the named folder itself; None where there is none."""
    for folder in _places(name):
        if (folder / peft.CONFIG_FILE).is_file():
            return folder
    return None


def full_folder(name: str | Path) -> Path | None:
    """Return the folder of a fully trained or merged model: a run's, or the named one; None where there is none."""
    for folder in _places(name):
        other = any((folder / file).is_file() for file in (peft.CONFIG_FILE, MAP_FILE))
        if (folder / ADAPTER_FILE).is_file() and not other:
            return folder
    return None


def map_folder(name: str | Path) -> Path | None:
    """Return the folder that holds a query-vector map; None where the name leads to none."""
    return next((folder for folder in _places(name) if (folder / MAP_FILE).is_file()), None)


def made_folder(name: str | Path) -> Path | None:
    """Return the folder of whatever was made from a base: an adapter, a query-vector map, a whole model; or None."""
    return adapter_folder(name) or map_folder(name) or full_folder(name)


def refuse_map(name: str | Path, what: str) -> None:
    """Raise a `ModelError` where the name leads to a query-vector map, which cannot be `what`: "merged", for one."""
    if (folder := map_folder(name)) is not None:
        raise ModelError(
            f"{folder} is a map on query vectors, with no weights of a model in it: it cannot be {what}",
            fix="Use it where queries are encoded; documents are encoded by its base.",
        )


def exported_folder(name: str | Path) -> Path | None:
    """Return the folder of a model that was exported for another engine; None where the name leads to no such."""
    folder = None if adapter_folder(name) is not None else full_folder(name)
    return folder if folder is not None and is_engine_folder(folder) else None


def _places(name: str | Path) -> list[Path]:
    """Where the adapter or model of a name may lie: it names a run, or the folder itself."""
    return [in_use(RunFolder(Path(name)).adapter), in_use(Path(name))]


def trained_folder(name: str | Path) -> Path:
    """Return the folder of the adapter or whole model that training or merging wrote, or a whole model in its place.

    Args:
        name: a run, or the folder itself.

    Raises:
        StorageError: there is none.
    """
    whole = next((place for place in _places(name) if (place / MODULES_FILE).is_file()), None)
    folder = made_folder(name) or whole
    if folder is None:
        run = RunFolder.around(Path(name)).path if Path(name).name == RunFolder(Path()).adapter.name else name
        raise StorageError(f"{name} holds no adapter", fix=f"Make one with: acclimate train {run}")
    return folder


def reranker_source(name: str) -> RerankerSource:
    """Find a reranker: a run's, a folder (a model's or an adapter's), or a hub id.

    Raises:
        StorageError: a run without a reranker.
        ModelError: not found, damaged, or an embedding model's adapter.
    """
    run = RunFolder(Path(name).expanduser())
    if run.reranker.is_dir():
        return resolve_reranker(str(run.reranker))
    if run.dataset.is_dir() or run.config.is_file():
        raise StorageError(
            f"{run.path} holds no reranker", fix=f"Make one with: acclimate train-reranker {run.path} MODEL"
        )
    return resolve_reranker(name)


def load_reranker(name: str, settings: RerankConfig, *, device: str = "auto", dtype: str = "auto") -> Reranker:
    """Load a reranker (see `reranker_source`) with a run's settings.

    Args:
        name: a run with a reranker, a folder, or a hub id.
        settings: its instruction, and its most tokens per pair.
        device: see `RunConfig.device`.
        dtype: see `RunConfig.dtype`.

    Raises:
        StorageError: a run without a reranker.
        ModelError: it cannot be found or used.
        UsageError: a setting that it cannot have.
    """
    return Reranker.open(
        reranker_source(name),
        instruction=settings.rerank_instruction,
        max_tokens=settings.pair_tokens,
        device=device,
        dtype=dtype,
    )


def _load(name: str | Path, base: str | None, *, with_base: bool, settings: LoadSettings) -> list[Encoder]:
    """[the model], or [its base, the model]; an adapter shares its base's weights."""
    text = text_settings(settings)
    if (folder := adapter_folder(name)) is not None:
        adapter, source = _adapter_and_base(folder, base)
        use = _trained_use(adapter.use, source, settings)
        plain = Encoder.open(source, use, **settings)
        return [plain, plain.with_adapter(dataclasses.replace(adapter, use=use))]
    if (folder := map_folder(name)) is not None:
        query_map, source = _map_and_base(folder, base)
        use = _trained_use(query_map.use, source, settings)
        plain = Encoder.open(source, use, **settings)
        return [plain, plain.with_query_map(dataclasses.replace(query_map, use=use))]
    if (folder := full_folder(name)) is not None:
        facts = read_facts(folder)  # first: it says so where the folder holds another kind of model
        source = resolve_model(str(folder))
        use = _trained_use(facts["use"], source, settings)
    else:
        source = resolve_model(str(name), pooling=text.get("pooling"))
        use = source.adjusted(source.use, **text)
    sources = [source]
    if with_base:
        sources.insert(0, compared_base(name, base=base, pooling=use.pooling))
    return [Encoder.open(one, use, **settings) for one in sources]


def _trained_use(use: TextUse, source: ModelSource, settings: LoadSettings) -> TextUse:
    """The use that something was trained with, and the user's settings; lower case is the tokenizer's own affair.

    Raises:
        UsageError: another pooling, for which its weights were not trained.
    """
    pooling = settings.get("pooling")
    if pooling not in (None, use.pooling):
        raise UsageError(
            f"pooling = {pooling!r}, and the adapter was trained with {use.pooling!r}", possible=use.pooling
        )
    use = dataclasses.replace(use, lowercase=source.use.lowercase)
    changed = source.adjusted(use, **text_settings(settings))
    for role in ROLES:
        trained, asked = use.prompts.prompt(role), changed.prompts.prompt(role)
        if asked != trained:
            say(f"warning: the adapter was trained with the {role} prompt {trained!r}, and {asked!r} is used here")
    return changed


def _adapter_and_base(folder: Path, base: str | None) -> tuple[Adapter, ModelSource]:
    """An adapter and its base, checked."""
    adapter = load_adapter(folder, base)
    source = find_base(folder, adapter.base_id, adapter.base_sha256, base, adapter.use.pooling)
    return adapter, source


def _map_and_base(folder: Path, base: str | None) -> tuple[QueryMap, ModelSource]:
    """A query-vector map and its base, checked."""
    query_map = load_query_map(folder)
    return query_map, find_base(folder, query_map.base_id, query_map.base_sha256, base, query_map.use.pooling)


def find_base(folder: Path, base_id: str, sha256: str, base: str | None, pooling: Pooling) -> ModelSource:
    """Find the base that a folder was made for: where the caller says, else by its id, else where training found it.

    Raises:
        ModelError: it is at none of these, or the weights there are others.
    """
    return _named_base(folder, base_id, sha256, base, pooling)[1]


def with_base_of(adapter: str | Path, config: RunConfig) -> RunConfig:
    """The settings, with the base of an adapter (or full training) as the model, whatever else a run's settings say.

    Args:
        adapter: a run, or its adapter's folder; settings are returned as they are where it holds none.
        config: the run's. Its model stays where it is the base, under this name.

    Raises:
        ModelError: the base is nowhere to be found.
    """
    folder = made_folder(adapter)
    if folder is None or not (folder / ADAPTER_FILE).exists():
        return config
    with contextlib.suppress(ModelError):  # it has moved, or is another one: the adapter says which it needs
        if base_of(folder, config.model) is not None:
            return config
    facts = read_facts(folder)
    base, pooling = facts["base"], facts["use"].pooling
    name, _ = _named_base(folder, base["id"], base["sha256"], None, pooling)
    return dataclasses.replace(config, model=name)


def _named_base(folder: Path, base_id: str, sha256: str, base: str | None, pooling: Pooling) -> tuple[str, ModelSource]:
    """The name by which the base of a folder is found, and the base."""
    names = [base] if base else list(dict.fromkeys((base_id, *_trained_from(folder))))
    failures = []
    for name in names:
        try:
            source = resolve_model(name, pooling=pooling)
            check_base({"id": base_id, "sha256": sha256}, source.identity, str(folder))
        except ModelError as error:
            failures.append(error)
        else:
            return name, source
    if base:
        raise failures[0]
    raise ModelError(
        f"{folder} was made for base {base_id} (sha256 {sha256[:12]}), which was not found: {failures[-1].found}",
        fix="Say where it is: --model FOLDER",
    )


def _trained_from(folder: Path) -> list[str]:
    """The model that the training was given, from the settings kept beside what it made."""
    settings = folder / CONFIG_FILE
    model = read_json(settings).get("model") if settings.is_file() else None
    return [model] if isinstance(model, str) else []
