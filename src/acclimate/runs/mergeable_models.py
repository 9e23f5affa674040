"""The names given to `merge` -> what they hold, checked to belong together."""

from __future__ import annotations

from collections.abc import Sequence

from acclimate.configs import DEFAULT_MODEL, MergeConfig
from acclimate.errors import ModelError, UsageError
from acclimate.formats.facts import read_facts
from acclimate.formats.sources import ModelSource, resolve_model
from acclimate.models.adapter import load_adapter
from acclimate.models.mergeable import MergeableAdapters, MergeableModels
from acclimate.runs.resolve import adapter_folder, find_base, full_folder, refuse_map
from acclimate.text_use import LoadSettings
from acclimate.types import Pooling


def read_models(
    names: Sequence[str],
    settings: MergeConfig,
    *,
    base: str | None = None,
    pooling: Pooling | None = None,
    machine: LoadSettings,
) -> MergeableAdapters | MergeableModels:
    """Read runs, adapter folders and models, by what they hold.

    Args:
        names: runs, folders or hub ids.
        settings: how they are going to be merged.
        base: the base, where an id does not lead to it.
        pooling: of models whose own files do not say it.
        machine: where and how models run.

    Raises:
        UsageError: adapters among whole models.
        ModelError: something is neither, or they do not belong together: another base, pooling, prompts, ...
    """
    for name in names:
        refuse_map(name, "merged")
    folders = [adapter_folder(name) for name in names]
    adapters = [load_adapter(folder, base) for folder in folders if folder]
    if len(adapters) == len(names):
        first = adapters[0]
        for name, adapter in zip(names, adapters, strict=True):
            if adapter.base_sha256 != first.base_sha256:
                raise ModelError(
                    f"{names[0]} was made for base {first.base_id} (sha256 {first.base_sha256[:12]}), "
                    f"{name} for {adapter.base_id} (sha256 {adapter.base_sha256[:12]})",
                    fix="Only what was made from the same weights can be merged.",
                )
        folder = next(folder for folder in folders if folder)
        source = find_base(folder, first.base_id, first.base_sha256, base, first.use.pooling)
        return MergeableAdapters(names, adapters, source, settings, machine)
    if adapters:
        adapter_name = next(name for name, folder in zip(names, folders, strict=True) if folder)
        model = next(name for name, folder in zip(names, folders, strict=True) if not folder)
        raise UsageError(
            f"{adapter_name} is an adapter, {model} is a whole model",
            possible="adapters of one base, or models of one architecture",
            fix=f"Fold the adapter into its base first: acclimate merge {adapter_name} --out FOLDER",
        )
    return _whole_models(names, settings, base, pooling, machine)


def _whole_models(
    names: Sequence[str], settings: MergeConfig, base: str | None, pooling: Pooling | None, machine: LoadSettings
) -> MergeableModels:
    ours = [full_folder(name) for name in names]
    sources = [resolve_model(str(folder or name), pooling=pooling) for name, folder in zip(names, ours, strict=True)]
    trained = next((folder for folder in ours if folder), None)

    def found_base() -> ModelSource:
        if base is not None or trained is None:
            return resolve_model(base or DEFAULT_MODEL)
        recorded = read_facts(trained)["base"]
        return find_base(trained, recorded["id"], recorded["sha256"], None, sources[0].use.pooling)

    return MergeableModels(names, sources, found_base, settings, machine)
