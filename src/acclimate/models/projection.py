"""A projection: an image's features -> a unit vector in the space of the texts. Small, float32.

Shapes: N images, F features, W hidden, D dimensions of the texts' space.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from acclimate.configs.images import Head
from acclimate.core.pooling import unit
from acclimate.errors import ModelError, StorageError, UsageError
from acclimate.files import CONFIG_FILE, hash_text, read_json, storage_errors, write_json
from acclimate.formats.facts import ADAPTER_FILE
from acclimate.models.image_encoder import ImageEncoder
from acclimate.models.image_towers import TransformersTower
from acclimate.models.tower_lora import TowerLora
from acclimate.text_use import SpaceId

OFFSETS = {"balanced": "trained_offset", "mild": "mild_offset"}
"""Name -> the metric that says what to take off the cosines of trained classes, where an image may be of others."""
KIND = "projection"
WEIGHTS_FILE = "projection.safetensors"
LORA_FOLDER = "tower"
"""The folder with PEFT's files of what was trained on the tower itself."""
LEAST_SPREAD = 1e-6


class ProjectionHead(nn.Module):
    """Features, standardised, through one linear layer or two, to unit length.

    Args:
        features: F.
        dim: D.
        head: linear; mlp: one hidden layer with GELU; or none: features are brought to unit length, nothing else.
        width: W, of the mlp.
        dropout: share of the standardised features and of the hidden layer that training leaves out.
    """

    mean_F: Tensor
    spread_F: Tensor

    def __init__(self, features: int, dim: int, head: Head = "mlp", width: int = 512, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = {"features": features, "dim": dim, "head": head, "width": width}
        self.dropout = dropout
        self.register_buffer("mean_F", torch.zeros(features))
        self.register_buffer("spread_F", torch.ones(features))
        if head == "none" and features != dim:
            raise UsageError(
                f"--head none: images have {features} features, the texts' vectors {dim} dimensions",
                possible="linear, mlp",
            )
        sizes = {"none": [features], "linear": [features, dim], "mlp": [features, width, dim]}[head]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))

    def standardise_by(self, features_NF: Tensor) -> None:
        """Take mean and spread of each feature from those of the training, where there are layers."""
        if not self.layers:
            return
        self.mean_F.copy_(features_NF.mean(0))
        self.spread_F.copy_(features_NF.std(0).clamp_min(LEAST_SPREAD))

    def forward(self, features_NF: Tensor) -> Tensor:
        hidden = (features_NF - self.mean_F) / self.spread_F
        for number, layer in enumerate(self.layers):
            hidden = F.gelu(hidden) if number else hidden
            hidden = layer(F.dropout(hidden, self.dropout, self.training))
        return unit(hidden)


@dataclass(frozen=True, eq=False, kw_only=True)
class Projection:
    """A trained head, the tower whose features it takes, and the space that its vectors lie in."""

    head: ProjectionHead
    tower_id: str
    tower_sha256: str
    tower_fingerprint: str
    """Hash of the tower and of its pixels' preparation: with another one the features are others."""
    space: SpaceId
    """The document side of the texts' space: images and texts lie in one index."""
    lora: TowerLora | None = None
    """What was trained on the tower's own model."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """What the training measured."""

    @property
    def digest(self) -> str:
        """Hash, as hex, of all that a picture's vector depends on: the tower, what was trained on it, the head."""
        trained = "" if self.lora is None else self.lora.sha256
        weights = [f"{name} {tensor.cpu().numpy().tobytes().hex()}" for name, tensor in self.head.state_dict().items()]
        return hash_text(self.tower_fingerprint, trained, json.dumps(self.head.shape, sort_keys=True), *weights)

    def adapted(self, encoder: ImageEncoder) -> ImageEncoder:
        """The tower with what was trained on it.

        Raises:
            ModelError: the matrices do not fit it.
        """
        if self.lora is None:
            return encoder
        assert isinstance(encoder.tower, TransformersTower)  # `check_tower` has seen its weights
        return ImageEncoder(encoder.tower.with_lora(self.lora.modules, self.lora.sha256))

    def check_tower(self, encoder: ImageEncoder, where: str) -> None:
        """Make sure that an encoder gives the features that the head was trained on.

        Raises:
            ModelError: other weights, or pixels prepared in another way.
        """
        if encoder.tower.fingerprint != self.tower_fingerprint:
            what = "other weights" if encoder.tower.sha256 != self.tower_sha256 else f"another {PROCESSOR_WORDS}"
            raise ModelError(
                f"{where} was trained on the features of {self.tower_id} (sha256 {self.tower_sha256[:12]}), and "
                f"{encoder.tower.id} has {what}",
                fix="Say where the original is: --image-model FOLDER",
            )


PROCESSOR_WORDS = "preprocessor_config.json or config.json"


def save_projection(folder: Path, projection: Projection) -> None:
    """Write a projection into an existing folder: weights, and `acclimate.json` with tower, space and sizes; what was
    trained on the tower itself as PEFT's files beside them.

    Raises:
        StorageError: it cannot be written.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in projection.head.state_dict().items()}
    with storage_errors(folder):
        save_file(tensors, folder / WEIGHTS_FILE)
    facts = {
        "kind": KIND,
        "version": 1,
        "tower": {
            "id": projection.tower_id,
            "sha256": projection.tower_sha256,
            "fingerprint": projection.tower_fingerprint,
        },
        "space": dataclasses.asdict(projection.space),
        "head": projection.head.shape,
        "lora": None if projection.lora is None else projection.lora.sides,
        "metrics": dict(projection.metrics),
    }
    if projection.lora is not None:
        (folder / LORA_FOLDER).mkdir()
        projection.lora.save(folder / LORA_FOLDER, projection.tower_id)
    write_json(folder / ADAPTER_FILE, facts)


def is_projection(folder: Path) -> bool:
    """Whether `save_projection` wrote a folder."""
    return (folder / WEIGHTS_FILE).is_file()


def load_projection(folder: Path) -> Projection:
    """Read what `save_projection` wrote, in evaluation mode, on the CPU.

    Raises:
        StorageError: it is missing or damaged.
        ModelError: the folder holds something else, or its parts do not fit together.
    """
    where = folder / ADAPTER_FILE
    if not is_projection(folder):
        raise StorageError(
            f"{folder} holds no projection of images",
            fix="Train one with: acclimate adapt IMAGES --image-model MODEL --out RUN",
        )
    facts = read_json(where)
    if facts.get("kind") != KIND or facts.get("version") != 1:
        raise ModelError(
            f"{where}: kind {facts.get('kind')!r}, version {facts.get('version')!r}", possible=f"{KIND}, 1"
        )
    try:
        head = ProjectionHead(**facts["head"])
        head.load_state_dict(load_file(folder / WEIGHTS_FILE))
        return Projection(
            head=head.eval().requires_grad_(False),
            tower_id=facts["tower"]["id"],
            tower_sha256=facts["tower"]["sha256"],
            tower_fingerprint=facts["tower"]["fingerprint"],
            space=SpaceId(**facts["space"]),
            lora=TowerLora.load(folder / LORA_FOLDER, facts["lora"]) if facts.get("lora") else None,
            metrics=facts.get("metrics", {}),
        )
    except (OSError, SafetensorError) as error:
        raise StorageError(f"{folder / WEIGHTS_FILE} cannot be read ({error})", fix="Train it again.") from None
    except (KeyError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{folder}: its files do not fit together ({reason})", fix="Train it again.") from None


class ProjectedImages:
    """Pictures -> unit vectors in the space of the texts: an image tower and a trained projection.

    Attributes:
        encoder: gives the features.
        projection: what was trained.
    """

    def __init__(self, encoder: ImageEncoder, projection: Projection, where: str = "the projection") -> None:
        projection.check_tower(encoder, where)
        self.encoder, self.projection = projection.adapted(encoder), projection

    @classmethod
    def open(cls, folder: Path, *, image_model: str | None = None, device: str = "auto") -> ProjectedImages:
        """Load a projection and its tower.

        Args:
            folder: of the projection.
            image_model: where the tower is; if not given, where the training found it, or its id.
            device: see `RunConfig.device`.

        Raises:
            StorageError: no projection there, or a damaged one.
            ModelError: its tower is nowhere to be found, or is another one.
        """
        projection = load_projection(folder)
        settings = folder / CONFIG_FILE
        trained = read_json(settings).get("images", {}).get("image_model") if settings.is_file() else None
        names = [image_model] if image_model else list(dict.fromkeys(filter(None, (trained, projection.tower_id))))
        failures: list[ModelError] = []
        for name in names:
            try:
                return cls(ImageEncoder.load(str(name), device=device), projection, str(folder))
            except ModelError as error:
                failures.append(error)
        if image_model:
            raise failures[0]
        raise ModelError(
            f"the image model {projection.tower_id} (sha256 {projection.tower_sha256[:12]}) of {folder} was not found: "
            f"{failures[-1].found}",
            fix="Say where it is: --image-model FOLDER",
        )

    @property
    def space(self) -> SpaceId:
        """The texts' space: that of the index that these vectors search."""
        return self.projection.space

    @property
    def fingerprint(self) -> str:
        """The tower's, with what was trained on it; the head beside it is in the folder's hash."""
        return self.encoder.tower.fingerprint

    def encode(self, pictures: Sequence[bytes], *, label: str = "") -> NDArray[np.float32]:
        """Encode pictures (`data.images.pictures`) as unit rows [N, D]."""
        return project(self.projection.head, self.encoder.features(pictures, label=label))


def project(head: ProjectionHead, features_NF: NDArray[np.float32], block: int = 8192) -> NDArray[np.float32]:
    """Project features, maybe a memory map, block by block, in evaluation mode: unit rows [N, D]."""
    was_training = head.training
    head.eval()
    device = head.mean_F.device
    found = np.empty((len(features_NF), int(head.shape["dim"])), np.float32)
    with torch.inference_mode():
        for start in range(0, len(features_NF), block):
            part = torch.from_numpy(np.array(features_NF[start : start + block])).to(device)
            found[start : start + block] = head(part).cpu().numpy()
    head.train(was_training)
    return found
