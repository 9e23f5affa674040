"""What `merge` merges: adapters of one base, or whole models of one architecture; read, checked, merged, written.

`AdapterSet` and `ModelSet` offer the same: `merge` (weights -> merged), `encoder` (merged -> vectors) and `save`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acclimate.configs import DEFAULT_MODEL, MergeConfig, RunConfig
from acclimate.core import merging
from acclimate.core.low_rank import Discarded, merge_dense, merge_low_rank
from acclimate.errors import ModelError, UsageError
from acclimate.formats.facts import adapter_folder, full_folder, read_facts
from acclimate.formats.sentence_transformers import View
from acclimate.formats.sources import ModelSource, resolve_model
from acclimate.models.adapter import save_adapter
from acclimate.models.adapter_files import Adapter, load_adapter
from acclimate.models.encoder import Encoder
from acclimate.models.full_model import save_folded, save_weights, view_of
from acclimate.models.loading import load_base
from acclimate.prompts import Prompts
from acclimate.types import Sides


@dataclass(frozen=True, eq=False, slots=True)
class Merged:
    """A merged adapter, or the merged tensors of a whole model, and what its rank could not hold."""

    adapter: Adapter | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Of a whole model: its weights. Of adapters that are to be folded, but have no low rank: their dense updates."""
    discarded: Mapping[str, Discarded] = field(default_factory=dict)


class AdapterSet:
    """Adapters of one base.

    Attributes:
        names: as the user gave them.
        adapters: what they hold.
        source: their base.
    """

    def __init__(self, names: Sequence[str], adapters: Sequence[Adapter], config: RunConfig) -> None:
        self.names, self.adapters, self.config = tuple(names), tuple(adapters), config
        first = self.adapters[0]
        _same_base(names, [(adapter.base_id, adapter.base_sha256) for adapter in adapters])
        self.source = resolve_model(base_name(config, first.base_id), pooling=first.pooling)
        first.check_base(self.source)
        self.view = view_of(first, self.source)
        for name, adapter in zip(names, adapters, strict=True):
            _same_use(names[0], self.view, first.sides, name, view_of(adapter, self.source), adapter.sides)

    @property
    def base(self) -> dict[str, str] | None:
        return {"id": self.source.id, "sha256": self.source.sha256}

    @property
    def sides(self) -> Sides:
        return self.adapters[0].sides

    def merge(self, method: str, weights: Sequence[float], config: MergeConfig, seed: int) -> Merged:
        """One adapter; or dense updates, where folding needs no rank and the method has none."""
        modules = [adapter.modules for adapter in self.adapters]
        how: dict[str, Any] = {
            "density": config.density,
            "update_scale": config.update_scale,
            "generator": torch.Generator().manual_seed(seed),
        }
        if method in merging.ELEMENTWISE and config.folded and config.merged_rank is None:
            return Merged(tensors=merge_dense(modules, method, weights, **how))
        merged, discarded = merge_low_rank(modules, method, weights, rank=config.merged_rank, **how)
        rank = max(len(A_rI) for A_rI, _ in merged.values())
        adapter = dataclasses.replace(
            self.adapters[0], rank=rank, alpha=float(rank), modules=merged, metrics={"merged": list(self.names)}
        )
        return Merged(adapter, discarded=discarded)

    @cached_property
    def untouched(self) -> Encoder:
        """The base, used as the adapters use it. Loaded once: merged adapters are attached beside its weights."""
        config, first = self.config, self.adapters[0]
        encoder = Encoder.load(
            base_name(config, first.base_id), pooling=first.pooling, device=config.device, dtype=config.dtype
        )
        encoder.prompts, encoder.dim, encoder.max_tokens = first.prompts, first.dim, first.max_tokens
        return encoder

    def encoder(self, merged: Merged) -> Encoder:
        """Gives the vectors of a merged adapter."""
        return self.untouched if merged.adapter is None else self.untouched.with_adapter(merged.adapter)

    def save(self, folder: Path, merged: Merged) -> dict[str, Any]:
        """Write an adapter folder, or, folded, a self-contained model; returns what the report says about it."""
        if merged.adapter is None:
            save_folded(folder, self.adapters[0], self.source, merged.tensors)
            return {"kind": "merged"}
        ranks = {"rank": merged.adapter.rank, "alpha": merged.adapter.alpha, "discarded": _discarded(merged.discarded)}
        if self.config.merge.folded:
            save_folded(folder, merged.adapter, self.source)
            return {"kind": "merged", **ranks}
        save_adapter(folder, merged.adapter, self.source)
        return {"kind": "adapter", **ranks}


class ModelSet:
    """Whole models of one architecture: fully trained runs, merged folders, any embedding model.

    Attributes:
        names: as the user gave them.
        sources: where they lie.
        base: id and sha256 of the model that they were trained from, where a folder says so.
    """

    sides: Sides = "both"

    def __init__(self, names: Sequence[str], folders: Sequence[str], config: RunConfig) -> None:
        if config.merge.folded or config.merge.merged_rank is not None:
            raise UsageError(
                f"{names[0]} is a whole model, which has no rank and nothing to fold",
                fix="Leave --merged-rank and --folded to adapters.",
            )
        self.names, self.config = tuple(names), config
        self.sources = tuple(resolve_model(folder, pooling=config.pooling) for folder in folders)
        if two := next(
            (name for name, source in zip(names, self.sources, strict=True) if source.query_transformer), None
        ):
            raise ModelError(
                f"{two} has another transformer for queries than for documents", fix="Merge the adapters, then fold."
            )
        facts = [_facts(source.folder) for source in self.sources]
        known = [(name, found["base"]) for name, found in zip(names, facts, strict=True) if found]
        _same_base([name for name, _ in known], [(base["id"], base["sha256"]) for _, base in known])
        self.base: dict[str, str] | None = known[0][1] if known else None
        views = [_view(source, found) for source, found in zip(self.sources, facts, strict=True)]
        self.view = views[0]
        for name, view in zip(names, views, strict=True):
            _same_use(names[0], self.view, "both", name, view, "both")

    def merge(self, method: str, weights: Sequence[float], config: MergeConfig, seed: int) -> Merged:
        """The merged weights, float32."""
        return Merged(
            tensors=merging.merge(
                self._models,
                self._base_weights if method in merging.OF_UPDATES else None,
                method,
                weights,
                density=config.density,
                update_scale=config.update_scale,
                generator=torch.Generator().manual_seed(seed),
            )
        )

    @cached_property
    def untouched(self) -> Encoder:
        """The first model, used as all of them are; the base where folders name it."""
        first, config = self.sources[0], self.config
        encoder = Encoder.load(str(first.folder), pooling=self.view.pooling, device=config.device, dtype=config.dtype)
        encoder.prompts, encoder.dim, encoder.max_tokens = self.view.prompts, self.view.dim, self.view.max_tokens
        return encoder if self.base is None else _with_weights(encoder, self._base_weights)

    def encoder(self, merged: Merged) -> Encoder:
        """Gives the vectors of merged weights."""
        return _with_weights(self.untouched, merged.tensors)

    def save(self, folder: Path, merged: Merged) -> dict[str, Any]:
        """Write a self-contained model; returns what the report says about it."""
        save_weights(folder, merged.tensors, self.sources[0], self.view, self.base)
        return {"kind": "model"}

    @cached_property
    def _models(self) -> list[dict[str, Tensor]]:
        return [_weights(source) for source in self.sources]

    @cached_property
    def _base_weights(self) -> dict[str, Tensor]:
        """Of the base that the folders name, or else that `--model` does."""
        source = resolve_model(base_name(self.config, self.base["id"] if self.base else self.config.model))
        if self.base is not None and source.sha256 != self.base["sha256"]:
            raise ModelError(
                f"{self.names[0]} was trained from {self.base['id']} (sha256 {self.base['sha256'][:12]}), "
                f"found {source.id} (sha256 {source.sha256[:12]})",
                fix="Name a folder or id that holds the original weights with --model.",
            )
        weights = _weights(source)
        try:
            merging.check_same_tensors([weights, self._models[0]])
        except ModelError as error:
            fix = "Name the model that they were trained from with --model."
            raise ModelError(f"{source.id} cannot be the base of {self.names[0]}: {error.found}", fix=fix) from None
        return weights


def read_models(names: Sequence[str], config: RunConfig) -> AdapterSet | ModelSet:
    """Runs, adapter folders and models, by what they hold.

    Args:
        names: runs, folders or hub ids.
        config: `model` names the base where an id does not lead to it.

    Raises:
        UsageError: adapters among whole models.
        ModelError: something is neither, or they do not belong together: another base, pooling, prompts, ...
    """
    adapters = [adapter_folder(name) for name in names]
    if all(adapters):
        base = local_base(config)
        return AdapterSet(names, [load_adapter(folder, base) for folder in adapters if folder], config)
    if any(adapters):
        adapter = next(name for name, folder in zip(names, adapters, strict=True) if folder)
        model = next(name for name, folder in zip(names, adapters, strict=True) if not folder)
        raise UsageError(
            f"{adapter} is an adapter, {model} is a whole model",
            possible="adapters of one base, or models of one architecture",
            fix=f"Fold the adapter into its base first: acclimate merge {adapter} --out FOLDER",
        )
    return ModelSet(names, [str(full_folder(name) or name) for name in names], config)


def local_base(config: RunConfig) -> str | None:
    """The folder that the config names: an id of a local base leads nowhere by itself."""
    return config.model if Path(config.model).is_dir() else None


def base_name(config: RunConfig, base_id: str) -> str:
    """Where to find a base: what the config names, if it is not the default, else the id."""
    return config.model if local_base(config) or config.model != DEFAULT_MODEL else base_id


def _same_base(names: Sequence[str], bases: Sequence[tuple[str, str]]) -> None:
    for name, (base_id, sha256) in zip(names, bases, strict=True):
        if sha256 != bases[0][1]:
            raise ModelError(
                f"{names[0]} was made for base {bases[0][0]} (sha256 {bases[0][1][:12]}), "
                f"{name} for {base_id} (sha256 {sha256[:12]})",
                fix="Only what was made from the same weights can be merged.",
            )


def _same_use(first: str, view: View, sides: Sides, name: str, other: View, other_sides: Sides) -> None:
    """Raise a `ModelError` unless both make vectors of texts in the same way."""
    names = ("pooling", "dim", "max_tokens", "lowercase")
    values: list[tuple[str, Any, Any]] = [("sides", sides, other_sides)]
    values += [(item, getattr(view, item), getattr(other, item)) for item in names]
    values.append(("prompts", view.prompts.to_json(), other.prompts.to_json()))
    for what, mine, theirs in values:
        if mine != theirs:
            raise ModelError(
                f"{what}: {mine!r} in {first}, {theirs!r} in {name}",
                fix="Only models that are used alike can be merged: train them with the same setting.",
            )


def _facts(folder: Path) -> dict[str, Any] | None:
    return read_facts(folder) if full_folder(folder) == folder else None


def _view(source: ModelSource, facts: Mapping[str, Any] | None) -> View:
    """How a whole model makes vectors: its own files, and what a folder of ours says beyond them."""
    view = dataclasses.replace(view_of(source, source), dim=source.kept_dim)
    if facts is None:
        return view
    prompts = Prompts.from_json(facts["prompts"])
    return dataclasses.replace(view, dim=facts["dim"], max_tokens=facts["max_tokens"], prompts=prompts)


def _weights(source: ModelSource) -> dict[str, Tensor]:
    """All float32 weights that vectors depend on."""
    return dict(load_base(source.transformer, torch.float32, torch.device("cpu"), None).state_dict())


def _with_weights(encoder: Encoder, tensors: Mapping[str, Tensor]) -> Encoder:
    """The same encoder with other weights; the given one keeps its own."""
    twin = encoder.fork()
    placed = {name: value.to(encoder.device, encoder.dtype) for name, value in tensors.items()}
    twin.model.load_state_dict(placed, assign=True)
    return twin


def _discarded(discarded: Mapping[str, Discarded]) -> dict[str, Any]:
    """Shares of the squared Frobenius norm, in total and per module."""
    total = Discarded(sum(item.lost for item in discarded.values()), sum(item.whole for item in discarded.values()))
    return {"total": total.share, "modules": {name: item.share for name, item in discarded.items()}}
