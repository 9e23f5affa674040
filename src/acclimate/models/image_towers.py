"""Image towers: what computes an image's pooled features. transformers' vision models, or an ONNX graph.

Pixels are prepared by transformers' own Pillow processors, by the preprocessor_config.json beside the weights.

Shapes: N images, C channels, H height, W width, F features.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate.core.lora import attach_set
from acclimate.data.images.pictures import require_pillow
from acclimate.errors import ModelError, first_line
from acclimate.files import hash_file, hash_text
from acclimate.formats.sources import hash_weights, locate
from acclimate.formats.transformers_io import model_errors, quiet_transformers
from acclimate.models.backends.sessions import require
from acclimate.models.devices import choose_device
from acclimate.models.loading import load_base, shared_copy

PROCESSOR_FILE = "preprocessor_config.json"
PROCESSOR_EXAMPLE = (
    '{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, "crop_size": 224, '
    '"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}'
)
PROBE_PIXELS = 224


class ImageTower(Protocol):
    """Pictures -> features; `ImageEncoder` feeds it."""

    @property
    def id(self) -> str:
        """Hub id, or the folder's name."""

    @property
    def sha256(self) -> str:
        """Hash of the weights."""

    @property
    def fingerprint(self) -> str:
        """sha256 over all that decides features: weights, configuration, how pixels are prepared."""

    @property
    def features(self) -> int:
        """Number of features."""

    def pixels(self, image: Any) -> NDArray[np.float32]:
        """Prepare a Pillow image: [C, H, W]; may be called by several threads at once."""

    def forward(self, pixels_NCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute features [N, F]."""


def open_tower(name: str, *, device: str = "auto") -> ImageTower:
    """Load an image tower.

    Args:
        name: a folder with an ONNX graph or a transformers vision model, or a hub id.
        device: see `RunConfig.device`; a graph runs on the CPU.

    Raises:
        MissingExtraError: Pillow, or onnxruntime for a graph, is not installed.
        ModelError: nothing there, damaged, or nothing that turns images into features.
    """
    require_pillow()
    folder, hub_id = locate(name)
    graphs = sorted(folder.glob("*.onnx")) + sorted(folder.glob("onnx/model.onnx"))
    identity = hub_id or folder.resolve().name
    if graphs and not list(folder.glob("*.safetensors")):
        return GraphTower(folder, graphs[0], identity)
    return TransformersTower(folder, identity, choose_device(device))


class TransformersTower:
    """A vision model of transformers, frozen: CLIP, SigLIP, DINOv2, ViT and others that give one pooled vector.

    Of a model of both images and texts (CLIP, SigLIP) the features are its own image vectors, before normalisation.

    Attributes:
        id: hub id, or the folder's name.
        sha256: hash of the weights.
        fingerprint: see `ImageTower`.
        features: number of features.
        folder: where its files lie.
        model: the module.
    """

    def __init__(self, folder: Path, identity: str, device: torch.device) -> None:
        self.id, self.sha256, self.device = identity, hash_weights(folder), device
        processor_hash = _processor_hash(folder)
        self.folder = folder
        self.fingerprint = hash_text(self.sha256, processor_hash, hash_file(folder / "config.json"))
        self._processor = load_processor(folder)
        self.model: nn.Module = load_base(folder, torch.float32, device, None)
        probe = np.zeros((PROBE_PIXELS, PROBE_PIXELS, 3), np.uint8)
        try:
            self.features = int(self.forward(self.pixels(probe)[None]).shape[1])
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            raise _no_tower(folder, error) from error

    def pixels(self, image: Any) -> NDArray[np.float32]:
        """Prepare an image as the model's own processor does."""
        return _prepared(self._processor, image)

    def forward(self, pixels_NCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute features [N, F]."""
        with torch.inference_mode():
            return np.asarray(self.pooled(pixels_NCHW).cpu().numpy())

    def pooled(self, pixels_NCHW: NDArray[np.float32]) -> Tensor:
        """Compute features [N, F] on the tower's device, under whatever grad mode is on."""
        return _pooled(self.model, self.folder)(torch.from_numpy(pixels_NCHW).to(self.device)).float()

    def fork(self) -> TransformersTower:
        """Another tower over the same weights (shared, not copied): LoRA attached to it leaves this one alone."""
        twin = copy.copy(self)
        twin.model = shared_copy(self.model)
        return twin

    def with_lora(self, modules: Mapping[str, tuple[Tensor, Tensor]], sha256: str) -> TransformersTower:
        """Another tower with finished LoRA matrices; this one stays as it is.

        Args:
            modules: see `core.lora.attach_weights`.
            sha256: of them: part of the fingerprint, by which features are cached.

        Raises:
            ModelError: they do not fit this model.
        """
        twin = self.fork()
        attach_set(twin.model, [modules])
        twin.fingerprint = hash_text(self.fingerprint, sha256)
        return twin


class GraphTower:
    """An ONNX graph with one input of pixels [N, C, H, W] and one output [N, F], on the CPU.

    Attributes:
        id: the folder's name.
        sha256: hash of the graph's file.
        fingerprint: see `ImageTower`.
        features: number of features.
    """

    def __init__(self, folder: Path, graph: Path, identity: str) -> None:
        require("onnx")
        self.id, self.sha256 = identity, hash_file(graph)
        self.fingerprint = hash_text(self.sha256, _processor_hash(folder))
        self._processor = load_processor(folder)
        self._session, self._input = _open_graph(graph)
        try:
            found = self.forward(self.pixels(np.zeros((PROBE_PIXELS, PROBE_PIXELS, 3), np.uint8))[None])
        except Exception as error:  # onnxruntime raises classes of its own, by no common name
            raise _no_tower(folder, error) from error
        if found.ndim != 2:
            raise ModelError(f"{graph} gives an output of shape {list(found.shape)}", possible="one vector per image")
        self.features = int(found.shape[1])

    def pixels(self, image: Any) -> NDArray[np.float32]:
        """Prepare an image as preprocessor_config.json says."""
        return _prepared(self._processor, image)

    def forward(self, pixels_NCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute features [N, F]."""
        return np.asarray(self._session.run(None, {self._input: pixels_NCHW})[0], np.float32)


def load_processor(folder: Path) -> Any:
    """Load the Pillow image processor of a folder, by its preprocessor_config.json.

    Raises:
        ModelError: there is none, or it is damaged.
    """
    if not (folder / PROCESSOR_FILE).is_file():
        raise ModelError(
            f"{folder} does not say how pixels are prepared", fix=f"Put a {PROCESSOR_FILE} in it: {PROCESSOR_EXAMPLE}"
        )
    from transformers import AutoImageProcessor

    with quiet_transformers(), model_errors(folder):
        return AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)


def _processor_hash(folder: Path) -> str:
    path = folder / PROCESSOR_FILE
    return hash_file(path) if path.is_file() else ""


def _prepared(processor: Any, image: Any) -> NDArray[np.float32]:
    return np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0], np.float32)


def _pooled(model: Any, folder: Path) -> Callable[[Tensor], Tensor]:
    """What computes the pooled features: the model's own image vector, its pooled output, or its first token."""

    def run(pixels_NCHW: Tensor) -> Tensor:
        out = image_features(pixel_values=pixels_NCHW)
        if isinstance(out, Tensor):
            return out
        pooled = getattr(out, "pooler_output", None)
        features_NF: Tensor = out.last_hidden_state[:, 0] if pooled is None else pooled.flatten(1)
        return features_NF

    image_features = getattr(model, "get_image_features", model)
    if "pixel_values" not in inspect.signature(getattr(model, "get_image_features", model.forward)).parameters:
        raise _no_tower(folder, TypeError("it takes no pixels"))
    return run


def _open_graph(graph: Path) -> tuple[Any, str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # as in `GraphTower`
        raise ModelError(f"{graph} cannot be loaded ({first_line(error)})", fix="Export the model again.") from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise ModelError(f"{graph} takes {len(inputs)} inputs", possible="one input of pixels [N, C, H, W]")
    return session, str(inputs[0].name)


def _no_tower(folder: Path, error: Exception) -> ModelError:
    return ModelError(
        f"{folder} gives no features of images ({first_line(error)})",
        possible="a vision model of transformers (CLIP, SigLIP, DINOv2, ViT), or an ONNX graph: pixels -> one vector",
    )
