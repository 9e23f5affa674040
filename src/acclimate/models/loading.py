"""Loading a frozen base: quietly, without dropout, and with an error of ours for everything that can be wrong."""

from __future__ import annotations

import copy
import importlib.util
import inspect
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tokenizers.normalizers import Lowercase, Sequence
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoTokenizer, BitsAndBytesConfig
from transformers.modeling_layers import GradientCheckpointingLayer

from acclimate.core.frozen_linear import freeze_linears
from acclimate.core.int8_linear import INT8, quantise
from acclimate.core.lora import lora_layers
from acclimate.errors import MissingExtraError, ModelError, UsageError
from acclimate.formats.transformers_io import OWN_CODE, model_errors, quiet_transformers
from acclimate.types import WeightFormat

NF4 = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": torch.bfloat16,
}
"""4-bit normal floats, their scales quantised too, products in bfloat16.
Source: Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs"."""


def load_base(
    folder: Path,
    dtype: torch.dtype,
    device: torch.device,
    attention: str | None,
    weights: WeightFormat | None = None,
) -> nn.Module:
    """The transformer of a folder: frozen, every dropout probability 0, in evaluation mode.

    Dropout is switched off by its probability, not by `eval()`, because transformers' gradient checkpointing only
    works in training mode. BERT's pooler is not built: no vector depends on it, and "all linear" would train it.

    Args:
        folder: where config.json and the weights lie.
        dtype: of the weights; of those that are not quantised.
        device: where they shall be.
        attention: transformers' attention implementation; None leaves the choice to transformers.
        weights: 4bit keeps the linear layers' weights in 4 bits (see `four_bit`), int8 those and the word embeddings in
            8 (see `core.int8_linear`), rounded from float32; None keeps them as they are.

    Raises:
        ModelError: damaged, incomplete, or of an unknown architecture.
        UsageError: a quantised base without CUDA.
        MissingExtraError: a quantised base without bitsandbytes.
    """
    placed = {} if weights != "4bit" else {"quantization_config": four_bit(device), "device_map": {"": device}}
    with quiet_transformers(), model_errors(folder):
        config = AutoConfig.from_pretrained(folder)
        zero_dropout(config)
        read_as = torch.float32 if weights == INT8 else dtype
        arguments: dict[str, Any] = {"config": config, "dtype": read_as, "output_loading_info": True, **placed}
        arguments |= without_pooler(config)
        if attention is not None:
            arguments["attn_implementation"] = attention
        model, info = AutoModel.from_pretrained(folder, use_safetensors=True, **arguments)
    frozen = freeze(model, info, folder, device)
    if weights == INT8:
        quantise(frozen, dtype)
    return frozen


def without_pooler(config: Any) -> dict[str, bool]:
    """The argument that keeps a BERT-like transformer from building a pooler; none for other architectures."""
    known = inspect.signature(MODEL_MAPPING[type(config)].__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in known else {}


def four_bit(device: torch.device) -> BitsAndBytesConfig:
    """How a base is kept in 4 bits (`NF4`).

    Raises:
        UsageError: the device is not CUDA.
        MissingExtraError: bitsandbytes is not installed.
    """
    if device.type != "cuda":
        raise UsageError(
            f"quantise_base = '4bit' on the device {device.type}: 4-bit layers are computed on CUDA only",
            fix="Give --quantise-base none, or use a machine with an NVIDIA GPU.",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("A 4-bit base", "qlora")
    return BitsAndBytesConfig(**NF4)


class TransformerSize(NamedTuple):
    """What a learning rate acts on, without embeddings and without LoRA's own parameters."""

    parameters: int
    layers: int
    """0 where the model's config does not say."""


def transformer_size(model: Any) -> TransformerSize:
    """Count the parameters and layers of a model's transformer.

    Args:
        model: a transformers model, maybe with LoRA attached.
    """
    adapters = sum(matrix.numel() for layer in lora_layers(model).values() for matrix in (layer.A, layer.B))
    parameters = int(model.num_parameters(exclude_embeddings=True)) - adapters
    return TransformerSize(parameters, int(getattr(model.config, "num_hidden_layers", 0)))


def checkpoint_activations(model: Any) -> None:
    """Recompute activations in the backward pass instead of keeping them; only in training mode."""
    # transformers has renamed it, and warns at the old name
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})


def compile_layers(model: nn.Module, backend: Any = "inductor") -> None:
    """Compile the transformer's layers in place: one graph for all of them and for chunks of every size.

    Args:
        model: on CUDA, called with packed texts (elsewhere every chunk's lengths would make a new graph).
        backend: of `torch.compile`.
    """
    for module in model.modules():
        if isinstance(module, GradientCheckpointingLayer):  # what transformers' repeated blocks are made of
            module.compile(dynamic=True, backend=backend)


def freeze(model: Any, info: dict[str, Any], folder: Path, device: torch.device) -> nn.Module:
    """A loaded model made ready: complete, frozen, without dropout, on its device.

    Raises:
        ModelError: weights are missing in the file (transformers would fill them with random numbers).
    """
    missing = sorted(info["missing_keys"]) + sorted(str(key) for key in info["mismatched_keys"])
    if missing:
        raise ModelError(
            f"{folder}: {len(missing)} weights are missing or of another shape, the first is {missing[0]}",
            fix=OWN_CODE
            if getattr(model.config, "auto_map", None)
            else "Fetch the model again, or check that it is the model that its config.json names.",
        )
    for module in model.modules():
        zero_dropout(module)
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    frozen: nn.Module = model.requires_grad_(False).eval()
    if not getattr(model, "is_quantized", False):  # a quantised one is there already
        frozen = frozen.to(device)
    freeze_linears(frozen)
    return frozen


def shared_copy(model: nn.Module) -> nn.Module:
    """A copy of a model over the same weights (shared, not copied): what is attached to it leaves the model alone."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, shared)


def load_tokenizer(folder: Path, *, lowercase: bool = False) -> Any:
    """The fast tokenizer of a folder, which neither cuts nor pads: texts are cut by their ids (`models.tokens`).

    Args:
        folder: where its files lie.
        lowercase: lower-case texts first (sentence-transformers' `do_lower_case`).

    Raises:
        ModelError: none there, damaged, or without a fast implementation.
    """
    with quiet_transformers(), model_errors(folder):
        tokenizer = AutoTokenizer.from_pretrained(folder)
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(f"{folder}: its tokenizer has no fast implementation", fix="Save a tokenizer.json with it.")
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # tokenizer.json often has both; as settings of one object they are every thread's
    backend.no_padding()
    if lowercase:
        backend.normalizer = Sequence([Lowercase(), *([backend.normalizer] if backend.normalizer else [])])
    return tokenizer


def zero_dropout(settings: Any) -> None:
    """Set every dropout probability of a config or a module to 0."""
    for name, value in list(vars(settings).items()):
        if "dropout" in name and isinstance(value, float):
            setattr(settings, name, 0.0)
