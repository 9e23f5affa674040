"""LoRA on image towers and on models of images and texts: trained, saved, and read by PEFT and transformers.

Random weights of the true architectures: what is shown is that the way is whole, and that both give the same vectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import acclimate
from acclimate.configs import RunConfig
from acclimate.data.images.pictures import decode
from acclimate.errors import ModelError, UsageError
from acclimate.models.encoder import Encoder
from acclimate.models.image_text import ImageTexts
from acclimate.models.image_towers import load_processor
from acclimate.models.projection import ProjectedImages
from tests.image_world import (
    QUICK_LORA,
    tiny_clip,
    tiny_clip_vision,
    tiny_dinov2,
    tiny_graph,
    tiny_siglip,
    tiny_siglip_vision,
    write_class_folders,
)
from tests.models.adapted import random_adapter
from tests.models.tiny import as_sentence_transformer
from tests.serve.http.world import write_run
from tests.tiny_run import write_tiny_bert


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and a text model."""
    folder = tmp_path_factory.mktemp("lora")
    as_sentence_transformer(write_tiny_bert(folder / "bert"))
    write_class_folders(folder / "images", classes=5, images=6)
    return folder


def adapt(world: Path, run: Path, **settings: Any) -> Any:
    config = RunConfig(device="cpu", dtype="float32")
    return acclimate.adapt(world / "images", out=run, config=config, **QUICK_LORA | settings)


def pixels(tower: Path, pictures: list[bytes]) -> torch.Tensor:
    processor = load_processor(tower)
    found = [processor(images=decode(data), return_tensors="pt")["pixel_values"] for data in pictures]
    return torch.cat(found)


def by_peft(tower: Path, run: Path) -> Any:
    model = AutoModel.from_pretrained(tower)
    return peft.PeftModel.from_pretrained(model, run / "projection" / "tower").base_model.model.eval()


def some_pictures(world: Path) -> list[bytes]:
    return [(world / "images" / "0" / f"{number}.jpg").read_bytes() for number in range(3)]


@pytest.mark.parametrize("write", [tiny_clip_vision, tiny_siglip_vision, tiny_dinov2])
def test_a_tower_that_trains(write: Callable[[Path], Path], world: Path, tmp_path: Path) -> None:
    tower, run = write(tmp_path / "tower"), tmp_path / "run"
    adapt(world, run, model=str(world / "bert"), image_model=str(tower), image_lora="image")
    pictures = some_pictures(world)
    images = ProjectedImages.open(run / "projection", device="cpu")
    with torch.inference_mode():
        features = by_peft(tower, run)(pixel_values=pixels(tower, pictures)).pooler_output
        expected = images.projection.head(features).numpy()
    np.testing.assert_allclose(images.encode(pictures), expected, atol=1e-5)
    plain = images.projection.lora
    assert plain is not None and max(float(B.abs().max()) for _, B in plain.modules.values()) > 0
    texts = acclimate.load(str(world / "bert"), device="cpu", dtype="float32")
    assert images.space == texts.space  # the index of the texts stays


@pytest.mark.parametrize("write", [tiny_clip, tiny_siglip])
@pytest.mark.parametrize("sides", ["image", "texts", "both"])
def test_a_model_of_images_and_texts(write: Callable[[Path], Path], sides: str, world: Path, tmp_path: Path) -> None:
    tower, run = write(tmp_path / "tower"), tmp_path / "run"
    named = {"model": str(tower), "image_model": str(tower)}
    result = adapt(world, run, **named, image_lora=sides, head="none")
    assert set(result["images"]) >= {"seen", "unseen"}
    images = ProjectedImages.open(run / "projection", device="cpu")
    lora = images.projection.lora
    assert lora is not None
    sides_of = {"texts" if name.startswith("text_") else "image" for name in lora.modules}
    assert sides_of == ({"image", "texts"} if sides == "both" else {sides})
    model, words = by_peft(tower, run), ["w0 w20", "w3"]
    padding = {"padding": "max_length", "max_length": 12} if write is tiny_siglip else {"padding": True}
    tokens = AutoTokenizer.from_pretrained(tower)(words, return_tensors="pt", **padding)
    mask = {} if write is tiny_siglip else {"attention_mask": tokens["attention_mask"]}
    with torch.inference_mode():
        seen = model.get_image_features(pixel_values=pixels(tower, some_pictures(world))).pooler_output
        read = model.get_text_features(input_ids=tokens["input_ids"], **mask).pooler_output
    normal = torch.nn.functional.normalize
    np.testing.assert_allclose(images.encode(some_pictures(world)), normal(seen, dim=1).numpy(), atol=1e-5)
    own = ImageTexts(images.encoder.tower, lora.text_sha256)  # type: ignore[arg-type]
    np.testing.assert_allclose(own.encode(words), normal(read, dim=1).numpy(), atol=1e-5)
    assert own.space == images.space
    found = acclimate.search_pictures(run, "w3 w23", top=2)["texts"][0]
    query, document = own.encode(["w3 w23"])[0], own.encode([found["text"]])[0]
    np.testing.assert_allclose(found["score"], query @ document, atol=1e-4)
    if sides == "both":
        acclimate.index(run, images=True)  # into an index of this space, which it makes
        first = acclimate.search_pictures(run, "w3 w23", top=2)["pictures"][0]
        file = world / "images" / first["metadata"]["file"]
        np.testing.assert_allclose(first["score"], query @ images.encode([file.read_bytes()])[0], atol=1e-3)


def test_a_second_start_trains_nothing_anew(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tower, run = tiny_clip_vision(tmp_path / "tower"), tmp_path / "run"
    settings = {"model": str(world / "bert"), "image_model": str(tower), "image_lora": "image"}
    adapt(world, run, **settings)
    capsys.readouterr()
    adapt(world, run, **settings)
    assert capsys.readouterr().err.count("is kept: it is up to date") == 4
    adapt(world, run, **settings, rank=4)
    assert "train.rank changed" in capsys.readouterr().err
    assert json.loads((run / "projection" / "tower" / "adapter_config.json").read_text())["r"] == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head": "none"}, "nothing would be trained"),
        ({"image_lora": "image", "head": "none"}, "--head none: images have 32 features"),
    ],
)
def test_what_cannot_train_is_refused(settings: dict[str, Any], message: str, world: Path, tmp_path: Path) -> None:
    tower = tiny_clip_vision(tmp_path / "tower")
    settings = {"rank": 2, **settings} if "image_lora" in settings else {"rank": None, **settings}
    given = {name: value for name, value in {**QUICK_LORA, **settings}.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        acclimate.adapt(
            world / "images",
            out=tmp_path / "run",
            config=RunConfig(device="cpu", dtype="float32"),
            model=str(world / "bert"),
            image_model=str(tower),
            **given,
        )


def test_a_run_s_adapter_says_which_base_its_texts_need(world: Path, tmp_path: Path) -> None:
    """Images come to a run on texts: its model is not named again, and its index stays."""
    base = Encoder.load(str(world / "bert"), device="cpu", dtype="float32")
    write_run(tmp_path / "run", base, random_adapter(base, dim=base.use.dim))
    (tmp_path / "run" / "adapter" / "settings.json").write_text(json.dumps({"model": str(world / "bert")}))
    settings = {name: value for name, value in QUICK_LORA.items() if name != "rank"}
    tower = tiny_graph(tmp_path / "tower")
    config = RunConfig(device="cpu", dtype="float32")
    acclimate.adapt(world / "images", out=tmp_path / "run", config=config, image_model=str(tower), **settings)
    texts = acclimate.load(str(tmp_path / "run"), device="cpu", dtype="float32")
    images = ProjectedImages.open(tmp_path / "run" / "projection", device="cpu")
    assert images.space == texts.space and images.space.document_adapter is not None


def test_a_graph_does_not_train(world: Path, tmp_path: Path) -> None:
    tower = tiny_graph(tmp_path / "tower")
    with pytest.raises(UsageError, match="an ONNX graph, which does not train"):
        adapt(world, tmp_path / "run", model=str(world / "bert"), image_model=str(tower), image_lora="image")
    with pytest.raises(ModelError, match="an ONNX graph of images"):
        adapt(world, tmp_path / "run", model=str(tower), image_model=str(tower), image_lora="image")
