"""Texts through the last blocks of a transformer, again and again: what the blocks below make of them is kept.

Where only the last blocks change, the hidden states below them are the same however often a text is encoded. They are
computed once and lie in a file, from which each chunk takes its rows. The vectors are those of the whole model.

Shapes: N texts of a chunk, T tokens of all of them, D hidden size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from acclimate.core.batching import chunks_by_tokens
from acclimate.core.blocks import first_block_of, named_blocks
from acclimate.core.linears import replace_module
from acclimate.files import open_output, storage_errors
from acclimate.models.devices import to_device
from acclimate.models.encoder import Encoder
from acclimate.models.tokens import Tokens
from acclimate.progress import progress


class UpperBlocks:
    """An encoder of fixed texts in which only some layers change.

    A model that cannot be packed is gone through whole.

    Args:
        encoder: without an adapter; stays as it is.
        tokens: of the texts, with their prompts.
        layers: paths of the layers that change; the blocks below all of them are gone through once.
        folder: keeps the hidden states; what is there already is used.
        label: shown with a progress bar while they are computed.

    Attributes:
        encoder: what adapters are attached to.
        below: how many blocks are gone through once.

    Raises:
        StorageError: the hidden states cannot be written.
    """

    def __init__(
        self, encoder: Encoder, tokens: Tokens, layers: Collection[str], folder: Path, label: str = ""
    ) -> None:
        self.encoder, self.tokens = encoder.fork(), tokens
        self.below = first_block_of(encoder.model, layers) if encoder.packed else 0
        if not self.below:
            return
        self._states = _kept(encoder, tokens, self.below, folder, label)
        paths = list(named_blocks(encoder.model))[: self.below]
        for path in paths:
            replace_module(self.encoder.model, path, _Passed(encoder.model.get_submodule(path)))
        self._last: Any = self.encoder.model.get_submodule(paths[-1])

    def vectors(self, numbers: NDArray[np.int64]) -> Tensor:
        """Encode the texts of these numbers: unit vectors [N, D], under whatever grad mode is on."""
        if self.below:
            places = np.concatenate([np.arange(*self.tokens.offsets[n : n + 2]) for n in numbers])
            rows_TD = torch.from_numpy(self._states[places]).view(self.encoder.dtype)
            self._last.given_TD = to_device(rows_TD, self.encoder.device)
        return self.encoder.forward_tokens(self.tokens, numbers)


class _Passed(nn.Module):
    """Stands where a block was, and hands on what comes in, or else the hidden states that are given."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.given_TD: Tensor | None = None
        if hasattr(block, "attention_type"):  # by which some models choose a block's mask
            self.attention_type = block.attention_type

    def forward(self, hidden_states: Tensor, *_: Any, **__: Any) -> Tensor:
        return hidden_states if self.given_TD is None else self.given_TD[None]


def _kept(encoder: Encoder, tokens: Tokens, below: int, folder: Path, label: str) -> NDArray[np.uint8]:
    """The bytes of the hidden states [T, D] of all texts as they leave the block before `below`, in a file."""
    digest = hashlib.sha256(f"{encoder.fingerprint} {below}".encode())
    for part in (tokens.flat, tokens.offsets):
        digest.update(np.ascontiguousarray(part).data)
    path = folder / f"{digest.hexdigest()[:32]}.states"
    if not path.exists():
        with storage_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        _write(path, encoder, tokens, below, label)
    states = np.memmap(path, np.uint8, mode="r")
    return states.reshape(int(tokens.offsets[-1]), -1)


def _write(path: Path, encoder: Encoder, tokens: Tokens, below: int, label: str) -> None:
    lower, left = encoder.fork(), list[Tensor]()
    for number, (block_path, block) in enumerate(named_blocks(lower.model).items()):
        if number == below - 1:
            block.register_forward_hook(lambda _module, _inputs, output: left.append(output))
        elif number >= below:
            replace_module(lower.model, block_path, _Passed(block))
    lengths = tokens.lengths
    with open_output(path) as stream, progress(label, int(lengths.sum()), "tokens") as advance, torch.inference_mode():
        for chunk in chunks_by_tokens(lengths, encoder.chunk_tokens):
            lower.hidden_states(tokens, chunk, lower.model)
            bytes_TB = left.pop()[0].to(encoder.dtype).cpu().contiguous().view(torch.uint8).numpy()
            ends = lengths[chunk].cumsum()
            for number, start, end in zip(chunk, ends - lengths[chunk], ends, strict=True):
                stream.seek(int(tokens.offsets[number]) * bytes_TB.shape[1])
                stream.write(bytes_TB[start:end].data)
            advance(int(lengths[chunk].sum()))
