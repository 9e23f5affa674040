"""A trained hypernetwork on disk: `network.safetensors`, and `hypernetwork.json` with its sizes, layers and base.

Beside them `multi_task.safetensors` (the one adapter for all tasks that it started from, which what it generates is
compared with) and `known.safetensors` (vectors of the training conditions, from which distances are told).

The base is named by its sha256: weights that were made for one model change another one at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from acclimate.errors import ModelError, StorageError
from acclimate.files import read_json, storage_errors, write_json
from acclimate.models.hypernetwork.known import KnownConditions
from acclimate.models.hypernetwork.layers import Layer
from acclimate.models.hypernetwork.network import GENERATORS, Architecture, Network
from acclimate.text_use import TextUse
from acclimate.types import Sides

WEIGHTS_FILE = "network.safetensors"
FACTS_FILE = "hypernetwork.json"
SHARED_FILE = "multi_task.safetensors"
VERSION = 1


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainedNetwork:
    """A network, and what its adapters belong to."""

    network: Network
    base_id: str
    """Canonical id of the base model."""
    base_sha256: str
    """Hash of the base's weights."""
    use: TextUse
    """How texts become vectors: it was trained so."""
    normalise: bool
    """Whether the base's own files normalise its vectors."""
    sides: Sides
    """query: its adapters change queries only."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """What its training measured."""
    shared: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    """Layer -> (A [r, I], B [O, r]) of the multi-task adapter; empty where it is not known."""
    known: KnownConditions = field(default_factory=lambda: KnownConditions({}))
    """What it was trained on."""

    @property
    def base(self) -> dict[str, str]:
        """Id and sha256, as artifacts name their base."""
        return {"id": self.base_id, "sha256": self.base_sha256}


def save_network(folder: Path, trained: TrainedNetwork) -> None:
    """Write a trained network into an existing folder.

    Raises:
        StorageError: it cannot be written.
    """
    network = trained.network
    tensors = {name: tensor.detach().to("cpu").contiguous() for name, tensor in network.state_dict().items()}
    with storage_errors(folder):
        save_file(tensors, folder / WEIGHTS_FILE)
        if trained.shared:
            matrices = {
                f"{layer}.{name}": matrix.detach().cpu().contiguous()
                for layer, both in trained.shared.items()
                for name, matrix in zip("AB", both, strict=True)
            }
            save_file(matrices, folder / SHARED_FILE)
    if trained.known.parts:
        trained.known.save(folder)
    facts = {
        "version": VERSION,
        "base": trained.base,
        **trained.use.to_json(),
        "normalise": trained.normalise,
        "sides": trained.sides,
        "architecture": network.architecture.to_json(),
        "layers": [layer._asdict() for layer in network.layers],
        "metrics": dict(trained.metrics),
    }
    write_json(folder / FACTS_FILE, facts)


def load_network(folder: Path) -> TrainedNetwork:
    """Read what `save_network` wrote, in evaluation mode, on the CPU.

    Raises:
        ModelError: no hypernetwork there, one of a later release, or one whose parts do not fit together.
        StorageError: a file is missing or damaged.
    """
    where = folder / FACTS_FILE
    if not where.exists():
        raise ModelError(f"{folder} holds no hypernetwork", fix=f"Give a folder with a {FACTS_FILE}.")
    facts = read_json(where)
    if facts.get("version") != VERSION:
        raise ModelError(f"{where}: version is {facts.get('version')!r}", possible=str(VERSION))
    sizes = facts.get("architecture", {})
    if sizes.get("generator") not in GENERATORS:
        raise ModelError(f"{where}: generator is {sizes.get('generator')!r}", possible=", ".join(GENERATORS))
    try:
        layers = tuple(Layer(**layer) for layer in facts["layers"])
        network = Network(Architecture(**sizes), layers)
        network.load_state_dict(load_file(folder / WEIGHTS_FILE))
        return TrainedNetwork(
            network=network.eval().requires_grad_(False),
            base_id=facts["base"]["id"],
            base_sha256=facts["base"]["sha256"],
            use=TextUse.from_json(facts, str(where)),
            normalise=bool(facts["normalise"]),
            sides=facts["sides"],
            metrics=facts.get("metrics", {}),
            shared=_shared(folder, layers),
            known=KnownConditions.load(folder),
        )
    except (OSError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise StorageError(f"{folder / WEIGHTS_FILE} cannot be read ({reason})", fix="Train it again.") from None
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(
            f"{folder}: {FACTS_FILE} and {WEIGHTS_FILE} do not fit ({reason})", fix="Train it again."
        ) from None


def _shared(folder: Path, layers: tuple[Layer, ...]) -> dict[str, tuple[Tensor, Tensor]]:
    if not (folder / SHARED_FILE).is_file():
        return {}
    tensors = load_file(folder / SHARED_FILE)
    return {layer.name: (tensors[f"{layer.name}.A"], tensors[f"{layer.name}.B"]) for layer in layers}
