"""What `merge` merges: adapters of one base, or whole models of one architecture; read, checked, merged, written.

`MergeableAdapters` and `MergeableModels` offer the same: `merge` (weights -> merged), `encoder` (merged ->
vectors) and `save`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from acclimate.configs import MergeConfig
from acclimate.core import merging
from acclimate.core.low_rank import Discarded, merge_dense, merge_low_rank
from acclimate.errors import ModelError, UsageError
from acclimate.formats.facts import ADAPTER_FILE, check_base, read_facts
from acclimate.formats.full_model import save_folded, save_weights
from acclimate.formats.query_domain import QueryDomain
from acclimate.formats.sources import ModelSource
from acclimate.models.adapter import Adapter
from acclimate.models.adapter_saving import save_adapter
from acclimate.models.encoder import Encoder
from acclimate.models.loading import load_base
from acclimate.text_use import LoadSettings, TextUse
from acclimate.types import Sides


@dataclass(frozen=True, eq=False, slots=True)
class Merged:
    """A merged adapter, or the merged tensors of a whole model, and what its rank could not hold."""

    adapter: Adapter | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """A whole model's weights; or the dense updates of adapters that are to be folded but have no low rank."""
    discarded: Mapping[str, Discarded] = field(default_factory=dict)


class MergeableAdapters:
    """Adapters of one base.

    Attributes:
        names: as the user gave them.
        adapters: what they hold.
        source: their base.
    """

    def __init__(
        self,
        names: Sequence[str],
        adapters: Sequence[Adapter],
        source: ModelSource,
        settings: MergeConfig,
        machine: LoadSettings,
    ) -> None:
        self.names, self.adapters, self.source = tuple(names), tuple(adapters), source
        self.settings, self.machine = settings, machine
        first = self.adapters[0]
        for name, adapter in zip(names, adapters, strict=True):
            adapter.check_base(source)
            _same_use(names[0], first.use, first.sides, name, adapter.use, adapter.sides)

    @property
    def base(self) -> dict[str, str] | None:
        return self.source.identity

    @property
    def fingerprints(self) -> list[str]:
        """What changes with each adapter's vectors."""
        return [adapter.fingerprint for adapter in self.adapters]

    @property
    def use(self) -> TextUse:
        return dataclasses.replace(self.adapters[0].use, lowercase=self.source.use.lowercase)

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
            self.adapters[0],
            rank=rank,
            alpha=float(rank),
            modules=merged,
            metrics={"merged": list(self.names)},
            domain=QueryDomain.joined([adapter.domain for adapter in self.adapters]),
        )
        return Merged(adapter, discarded=discarded)

    @cached_property
    def base_encoder(self) -> Encoder:
        """The base, used as the adapters use it. Loaded once: merged adapters are attached beside its weights."""
        return Encoder.open(self.source, self.use, **self.machine)

    def encoder(self, merged: Merged) -> Encoder:
        """Gives the vectors of a merged adapter."""
        return self.base_encoder if merged.adapter is None else self.base_encoder.with_adapter(merged.adapter)

    def save(self, folder: Path, merged: Merged) -> dict[str, Any]:
        """Write an adapter folder, or, folded, a self-contained model; returns what the report says about it."""
        if merged.adapter is None:
            save_folded(folder, self.source, self.use, self.sides, updates=merged.tensors)
            return {"kind": "merged"}
        ranks = {"rank": merged.adapter.rank, "alpha": merged.adapter.alpha, "discarded": _discarded(merged.discarded)}
        if self.settings.folded:
            save_folded(folder, self.source, self.use, self.sides, modules=merged.adapter.modules)
            return {"kind": "merged", **ranks}
        save_adapter(folder, merged.adapter, self.source)
        return {"kind": "adapter", **ranks}


class MergeableModels:
    """Whole models of one architecture: fully trained runs, merged folders, any embedding model.

    Attributes:
        names: as the user gave them.
        sources: where they lie.
        use: how all of them turn texts into vectors.
        base: id and sha256 of the model that they were trained from, where a folder says so.
    """

    sides: Sides = "both"

    def __init__(
        self,
        names: Sequence[str],
        sources: Sequence[ModelSource],
        find_base: Callable[[], ModelSource],
        settings: MergeConfig,
        machine: LoadSettings,
    ) -> None:
        if settings.folded or settings.merged_rank is not None:
            raise UsageError(
                f"{names[0]} is a whole model, which has no rank and nothing to fold",
                fix="Leave --merged-rank and --folded to adapters.",
            )
        self.names, self.sources, self.machine = tuple(names), tuple(sources), machine
        for name, source in zip(names, sources, strict=True):
            if source.files.query_transformer:
                raise ModelError(
                    f"{name} has another transformer for queries than for documents",
                    fix="Merge the adapters, then fold.",
                )
        facts = [_facts(source.files.folder) for source in sources]
        recorded = [(name, found["base"]) for name, found in zip(names, facts, strict=True) if found]
        for name, base_of_name in recorded:
            check_base(base_of_name, recorded[0][1], f"{recorded[0][0]} and {name} have no common base: {name}")
        self.base: dict[str, str] | None = recorded[0][1] if recorded else None
        self._find_base = find_base
        uses = [_use(source, found) for source, found in zip(sources, facts, strict=True)]
        self.use = uses[0]
        for name, use in zip(names, uses, strict=True):
            _same_use(names[0], self.use, "both", name, use, "both")

    @property
    def fingerprints(self) -> list[str]:
        """What changes with each model's vectors."""
        return [source.fingerprint for source in self.sources]

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
    def base_encoder(self) -> Encoder:
        """The first model, used as all of them are; the base where folders name it."""
        encoder = Encoder.open(self.sources[0], self.use, **self.machine)
        return encoder if self.base is None else _with_weights(encoder, self._base_weights)

    def encoder(self, merged: Merged) -> Encoder:
        """Gives the vectors of merged weights."""
        return _with_weights(self.base_encoder, merged.tensors)

    def save(self, folder: Path, merged: Merged) -> dict[str, Any]:
        """Write a self-contained model; returns what the report says about it."""
        save_weights(folder, merged.tensors, self.sources[0], self.use, self.base)
        return {"kind": "model"}

    @cached_property
    def _models(self) -> list[dict[str, Tensor]]:
        return [_weights(source) for source in self.sources]

    @cached_property
    def _base_weights(self) -> dict[str, Tensor]:
        """The weights of the base that the folders name, or else that `--model` does."""
        source = self._find_base()
        if self.base is not None:
            check_base(self.base, source.identity, self.names[0])
        weights = _weights(source)
        try:
            merging.check_same_tensors([weights, self._models[0]])
        except ModelError as error:
            fix = "Name the model that they were trained from with --model."
            raise ModelError(f"{source.id} cannot be the base of {self.names[0]}: {error.found}", fix=fix) from None
        return weights


def _same_use(first: str, use: TextUse, sides: Sides, name: str, other: TextUse, other_sides: Sides) -> None:
    """Raise a `ModelError` unless both make vectors of texts in the same way."""
    mine, theirs = ({"sides": s, **u.to_json()} for s, u in ((sides, use), (other_sides, other)))
    for what, value in mine.items():
        if value != theirs[what]:
            raise ModelError(
                f"{what}: {value!r} in {first}, {theirs[what]!r} in {name}",
                fix="Only models that are used alike can be merged: train them with the same setting.",
            )


def _facts(folder: Path) -> dict[str, Any] | None:
    return read_facts(folder) if (folder / ADAPTER_FILE).is_file() else None


def _use(source: ModelSource, facts: Mapping[str, Any] | None) -> TextUse:
    """How a whole model makes vectors: its own files, and what a folder of ours says beyond them."""
    if facts is None:
        return source.use
    own: TextUse = facts["use"]
    return dataclasses.replace(own, pooling=source.use.pooling, lowercase=source.use.lowercase)


def _weights(source: ModelSource) -> dict[str, Tensor]:
    """All float32 weights that vectors depend on."""
    return dict(load_base(source.files.transformer, torch.float32, torch.device("cpu"), None).state_dict())


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
