"""Image towers: features as transformers and onnxruntime compute them, fed by threads, computed once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    BitImageProcessorPil,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionModel,
    Dinov2Model,
    SiglipImageProcessorPil,
    SiglipVisionModel,
)

from acclimate.data.images.pictures import decode, decode_frames
from acclimate.errors import ModelError
from acclimate.models import image_encoder
from acclimate.models.image_encoder import ImageEncoder, cached_features
from acclimate.models.image_towers import open_tower
from tests.image_world import (
    encoded,
    picture,
    tiny_clip,
    tiny_clip_vision,
    tiny_dinov2,
    tiny_graph,
    tiny_siglip_vision,
)
from tests.models.tiny import tiny_bert

PICTURES = [encoded(picture(number % 8, number, side=40 + number), quality=95) for number in range(37)]
VISION = {
    "clip": (tiny_clip_vision, CLIPVisionModel, CLIPImageProcessorPil),
    "siglip": (tiny_siglip_vision, SiglipVisionModel, SiglipImageProcessorPil),
    "dinov2": (tiny_dinov2, Dinov2Model, BitImageProcessorPil),
}


@pytest.mark.parametrize("name", VISION)
def test_features_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    write, model_class, processor_class = VISION[name]
    encoder = ImageEncoder.load(str(write(tmp_path / name)), device="cpu")
    model, processor = model_class.from_pretrained(tmp_path / name), processor_class.from_pretrained(tmp_path / name)
    images = [decode(data) for data in PICTURES[:5]]
    with torch.inference_mode():
        expected = model.eval()(**processor(images=images, return_tensors="pt")).pooler_output
    np.testing.assert_allclose(encoder.features(PICTURES[:5]), expected.numpy(), atol=1e-5)


def test_of_a_model_of_images_and_texts_the_image_vectors_are_taken(tmp_path: Path) -> None:
    encoder = ImageEncoder.load(str(tiny_clip(tmp_path / "clip")), device="cpu")
    model = CLIPModel.from_pretrained(tmp_path / "clip").eval()
    processor = CLIPImageProcessorPil.from_pretrained(tmp_path / "clip")
    with torch.inference_mode():
        found = model.get_image_features(**processor(images=[decode(PICTURES[0])], return_tensors="pt"))
    expected = getattr(found, "pooler_output", found)
    assert encoder.tower.features == 24
    np.testing.assert_allclose(encoder.features(PICTURES[:1]), expected.numpy(), atol=1e-5)


def test_a_graph_is_run_on_the_pixels_that_its_folder_says(tmp_path: Path) -> None:
    import onnxruntime

    encoder = ImageEncoder.load(str(tiny_graph(tmp_path / "graph")), device="cpu")
    processor = CLIPImageProcessorPil.from_pretrained(tmp_path / "graph")
    pixels = processor(images=[decode(data) for data in PICTURES[:3]], return_tensors="np")["pixel_values"]
    session = onnxruntime.InferenceSession(str(tmp_path / "graph" / "tower.onnx"), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"pixels": np.asarray(pixels, np.float32)})[0]
    np.testing.assert_allclose(encoder.features(PICTURES[:3]), expected, atol=1e-6)


def test_many_images_keep_their_order(tmp_path: Path) -> None:
    encoder = ImageEncoder.load(str(tiny_graph(tmp_path / "graph")), device="cpu")
    repeated = PICTURES * 4  # more than the batches that are begun ahead
    one_by_one = np.concatenate([encoder.features([data]) for data in PICTURES])
    np.testing.assert_allclose(encoder.features(repeated), np.tile(one_by_one, (4, 1)), atol=1e-5)
    assert encoder.features([]).shape == (0, 48)


def test_features_are_computed_once_and_those_of_before_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = ImageEncoder.load(str(tiny_graph(tmp_path / "graph")), device="cpu")
    decoded: list[bytes] = []

    def counting(data: bytes) -> object:
        decoded.append(data)
        return decode_frames(data)

    monkeypatch.setattr(image_encoder, "decode_frames", counting)
    names = [str(number) for number in range(len(PICTURES))]
    first = cached_features(encoder, PICTURES[:20], names[:20], tmp_path / "cache")
    again = cached_features(encoder, PICTURES[:20], names[:20], tmp_path / "cache")
    assert len(decoded) == 20
    np.testing.assert_array_equal(first, again)
    order = [*range(36, 10, -1)]
    others = cached_features(encoder, [PICTURES[n] for n in order], [names[n] for n in order], tmp_path / "cache")
    assert sorted(decoded[20:]) == sorted(PICTURES[20:])
    np.testing.assert_allclose(others, encoder.features([PICTURES[n] for n in order]), atol=1e-5)


def without_processor(folder: Path) -> Path:
    tiny_clip_vision(folder)
    (folder / "preprocessor_config.json").unlink()
    return folder


def broken_graph(folder: Path) -> Path:
    tiny_graph(folder)
    (folder / "tower.onnx").write_bytes(b"no graph")
    return folder


def text_model(folder: Path) -> Path:
    tiny_bert(folder)
    CLIPImageProcessorPil().save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (without_processor, "does not say how pixels are prepared.*preprocessor_config.json"),
        (broken_graph, "cannot be loaded"),
        (text_model, "gives no features of images"),
        (lambda folder: folder, "no such folder"),
    ],
)
def test_what_is_no_tower_is_named(write: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        open_tower(str(write(tmp_path / "model")), device="cpu")


def test_the_fingerprint_knows_how_pixels_are_prepared(tmp_path: Path) -> None:
    first = open_tower(str(tiny_graph(tmp_path / "a")), device="cpu")
    CLIPImageProcessorPil(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}).save_pretrained(
        tmp_path / "a"
    )
    other = open_tower(str(tmp_path / "a"), device="cpu")
    assert first.sha256 == other.sha256 and first.fingerprint != other.fingerprint
