"""Made-up images that a model can learn, image towers small enough for a test, and texts beside them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    Dinov2Config,
    Dinov2Model,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tests.tiny_run import WORDS

SIDE = 32
QUICK_LORA: dict[str, Any] = {
    "image_epochs": 2,
    "image_batch_size": 32,
    "image_learning_rate": 0.01,
    "sign_flips": 100,
    "rank": 2,
    "image_negatives": 2,
}
"""Settings of a training with LoRA that takes seconds."""
VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": SIDE,
    "patch_size": 8,
}
COLOURS = [
    (230, 40, 40),
    (40, 200, 40),
    (40, 40, 230),
    (220, 220, 40),
    (200, 40, 200),
    (40, 200, 200),
    (240, 140, 40),
    (120, 120, 120),
]


def picture(number: int, seed: int, side: int = 40) -> Image.Image:
    """An image of class `number`: its colour and the direction of its stripes, and some noise."""
    draw = np.random.default_rng((number, seed))
    rows, columns = np.mgrid[0:side, 0:side]
    stripes = ((rows if number % 2 else columns) // 5 % 2)[..., None]
    pixels = np.array(COLOURS[number % len(COLOURS)]) * (0.6 + 0.4 * stripes) + draw.normal(0, 12, (side, side, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **settings: Any) -> bytes:
    """The bytes of an image file."""
    out = io.BytesIO()
    image.save(out, kind, **settings)
    return out.getvalue()


def video(levels: list[int], kind: str = "mp4", size: tuple[int, int] = (96, 64)) -> bytes:
    """A video of grey frames, one of each level."""
    out = io.BytesIO()
    with av.open(out, "w", format=kind) as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for level in levels:
            pixels = np.full((size[1], size[0], 3), level, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return out.getvalue()


def write_class_folders(folder: Path, classes: int = 8, images: int = 12) -> Path:
    """A folder per class, and classes.json; class i is called by words that the tiny BERT knows."""
    entries = []
    for number in range(classes):
        name = f"w{number} w{number + 20}"
        entries.append({"class": name, "id": number, "description": f"w{number} w{number + 40} w{number + 41}"})
        (folder / str(number)).mkdir(parents=True)
        for seed in range(images):
            (folder / str(number) / f"{seed}.jpg").write_bytes(encoded(picture(number, seed), quality=95))
    (folder / "classes.json").write_text(json.dumps(entries))
    return folder


def tiny_clip_vision(folder: Path) -> Path:
    """A random CLIP vision tower with its processor."""
    torch.manual_seed(0)
    CLIPVisionModel(CLIPVisionConfig(**VISION)).save_pretrained(folder)
    size = {"shortest_edge": SIDE}
    CLIPImageProcessorPil(size=size, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def _words(folder: Path) -> dict[str, Any]:
    """A tokenizer of the tiny BERT's words with an end token, and the settings of a text tower that reads it."""
    vocabulary = {"[PAD]": 0, "[UNK]": 1} | {word: number + 2 for number, word in enumerate(WORDS)}
    end = vocabulary["[END]"] = len(vocabulary)
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="$A [END]", special_tokens=[("[END]", end)])
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[END]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    sizes = {name: VISION[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads")}
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": end}
    return {**sizes, **ids, "num_hidden_layers": 1, "vocab_size": len(vocabulary), "max_position_embeddings": 12}


def tiny_clip(folder: Path) -> Path:
    """A random CLIP of both images and texts."""
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=_words(folder), vision_config=VISION, projection_dim=24)).save_pretrained(folder)
    size = {"shortest_edge": SIDE}
    CLIPImageProcessorPil(size=size, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def tiny_siglip(folder: Path) -> Path:
    """A random SigLIP of both images and texts."""
    torch.manual_seed(0)
    SiglipModel(SiglipConfig(text_config=_words(folder), vision_config=VISION)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def tiny_siglip_vision(folder: Path) -> Path:
    """A random SigLIP vision tower with its processor."""
    torch.manual_seed(0)
    SiglipVisionModel(SiglipVisionConfig(**VISION)).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def tiny_dinov2(folder: Path) -> Path:
    """A random DINOv2 with its processor."""
    torch.manual_seed(0)
    settings = {name: value for name, value in VISION.items() if name != "intermediate_size"}
    Dinov2Model(Dinov2Config(**settings)).save_pretrained(folder)
    size = {"shortest_edge": SIDE}
    BitImageProcessorPil(size=size, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


def tiny_graph(folder: Path, features: int = 48) -> Path:
    """An ONNX image encoder: means of 8 x 8 patches through a random matrix."""
    from onnx import TensorProto, helper, numpy_helper, save

    folder.mkdir(parents=True, exist_ok=True)
    grid = SIDE // 8
    matrix = np.random.default_rng(0).normal(size=(3 * grid * grid, features)).astype(np.float32)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])
    found = helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", features])
    nodes = [
        helper.make_node("AveragePool", ["pixels"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["features"]),
    ]
    graph = helper.make_graph(nodes, "tower", [pixels], [found], [numpy_helper.from_array(matrix, "matrix")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "tower.onnx")
    size = {"shortest_edge": SIDE}
    CLIPImageProcessorPil(size=size, crop_size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder
