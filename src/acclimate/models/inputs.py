"""A chunk of tokens -> what a transformer is called with: packed into one row, or padded with a mask.

Shapes: N texts, T tokens of all of them, L tokens of the longest.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate.formats.folders import OFFSET_POSITIONS
from acclimate.models.attention import PACKED_MODEL_TYPES, packing
from acclimate.models.devices import to_device

Ids = NDArray[np.int32]
Counts = NDArray[np.int64]


def can_pack(config: dict[str, Any]) -> bool:
    """Whether the texts of a model with this config.json can be packed.

    Its architecture must be a tested one, and every layer must attend to the whole text.
    """
    if config.get("model_type") not in PACKED_MODEL_TYPES:
        return False
    sliding = config.get("sliding_window") and config.get("use_sliding_window", True)
    return not sliding and "sliding_attention" not in (config.get("layer_types") or [])


def packed_inputs(
    model: nn.Module, ids: Ids, positions: Counts, lengths: Counts, segments: Counts | None = None
) -> dict[str, Any]:
    """Keyword arguments for texts one after the other in one row, which packed attention keeps apart.

    Args:
        model: a transformer without a head.
        ids: int32 [T].
        positions: of each token within its text, int64 [T].
        lengths: tokens per text, int64 [N].
        segments: BERT's token types, int64 [T]; all 0 if not given.
    """
    device, accepted = device_of(model), _accepted(model)
    input_ids = to_device(torch.from_numpy(ids.astype(np.int64))[None], device)
    inputs: dict[str, Any] = {"input_ids": input_ids, **packing(model, lengths)}
    if "position_ids" in accepted:
        inputs["position_ids"] = to_device(torch.from_numpy(_positions(model, ids, positions, lengths))[None], device)
    if "token_type_ids" in accepted:  # BERT's default for them ends at its last position
        inputs["token_type_ids"] = (
            torch.zeros_like(input_ids) if segments is None else to_device(torch.from_numpy(segments)[None], device)
        )
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return inputs


def padded_inputs(
    model: nn.Module, ids: Ids, positions: Counts, lengths: Counts, pad_id: int, segments: Counts | None = None
) -> dict[str, Any]:
    """Keyword arguments for the texts as a batch [N, L], padded at the right; `attention_mask` says where they are.

    Args:
        model: a transformer, with or without a head.
        ids: int32 [T], the texts' ids one after the other.
        positions: of each token within its text, int64 [T].
        lengths: tokens per text, int64 [N].
        pad_id: stands where no token is.
        segments: BERT's token types, int64 [T]; the model's own default if not given.
    """
    device, accepted = device_of(model), _accepted(model)
    rows = np.repeat(np.arange(len(lengths)), lengths)

    def padded(values: NDArray[Any] | int, blank: int) -> Tensor:
        batch = np.full((len(lengths), int(lengths.max())), blank, np.int64)
        batch[rows, positions] = values
        return to_device(torch.from_numpy(batch), device)

    inputs: dict[str, Any] = {"input_ids": padded(ids, pad_id), "attention_mask": padded(1, 0)}
    if segments is not None and "token_type_ids" in accepted:
        inputs["token_type_ids"] = padded(segments, 0)
    if "use_cache" in accepted:
        inputs["use_cache"] = False
    return inputs


def device_of(model: nn.Module) -> torch.device:
    """Where a model runs: the CPU if it has no weights of its own, as the graph of another engine has none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _accepted(model: nn.Module) -> frozenset[str]:
    return _parameters(type(model).forward)


@cache
def _parameters(forward: Any) -> frozenset[str]:
    return frozenset(inspect.signature(forward).parameters)


def _positions(model: nn.Module, ids: Ids, positions: Counts, lengths: Counts) -> Counts:
    """The positions, int64 [T], that the model itself gives to the tokens of a text.

    RoBERTa counts from `pad_token_id` + 1 and does not count that token where a text spells it out: it stays at
    `pad_token_id`, as transformers' `create_position_ids_from_input_ids` has it.
    """
    config: Any = model.config
    if config.model_type not in OFFSET_POSITIONS:
        return positions
    counted = ids != config.pad_token_id
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(counted)])[np.cumsum(lengths) - lengths]
    place: Counts = (np.cumsum(counted) - np.repeat(before, lengths)) * counted + int(config.pad_token_id)
    return place
