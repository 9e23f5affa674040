"""Texts -> token ids, once. Flat arrays instead of lists: 4 bytes a token, memory-mapped where there are many.

A text is cut by slicing its ids, never by a tokenizer's own truncation: that is a setting of an object which all
threads share. So any number of threads may tokenise at once, each with its own limits.

N texts, T tokens in all.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acclimate.errors import DataError, ModelError, UsageError
from acclimate.files import hash_text, storage_errors

BLOCK_TEXTS = 4096
"""Texts handed to the tokenizer at once: enough for its threads, few enough that its objects stay small."""
CACHE_MIN_TEXTS = 20_000
"""Fewer texts are tokenised faster than they are looked up."""
_IDS, _OFFSETS = "ids.int32", "offsets.npy"
_fingerprints: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
"""Tokenizer -> its fingerprint, which takes 0.15 s of a large vocabulary. Ours are not changed once they are loaded."""
_templates: weakref.WeakKeyDictionary[Any, dict[bool, Template]] = weakref.WeakKeyDictionary()
"""Tokenizer -> its special tokens, around one text and around a pair: a short text takes no longer than the probes."""


@dataclass(frozen=True)
class Tokens:
    """Token ids of N texts, special tokens included.

    Attributes:
        flat: int32 [T], the texts' ids one after the other (an array, or a memory map).
        offsets: int64 [N + 1], where each text begins and, last, T.
    """

    flat: NDArray[np.int32]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per text, int64 [N]."""
        return self.offsets[1:] - self.offsets[:-1]

    def row(self, index: int) -> NDArray[np.int32]:
        """The ids of one text."""
        return self.flat[self.offsets[index] : self.offsets[index + 1]]

    def pack(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
        """Some texts one after the other, in the order of `indices`.

        Returns:
            ids int32 [T'], the position of each token within its text int64 [T'], the lengths int64 [len(indices)].
        """
        starts, lengths = self.offsets[indices], self.offsets[indices + 1] - self.offsets[indices]
        ends = np.cumsum(lengths)
        positions = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        return self.flat[np.repeat(starts, lengths) + positions], positions, lengths


@dataclass(frozen=True, slots=True)
class Template:
    """The special tokens that a tokenizer puts around a text, or around and between the two of a pair."""

    before: list[int]
    between: list[int]
    """Empty for a single text."""
    after: list[int]
    types: tuple[int, int]
    """BERT's token types of a pair's two texts, each 0 or 1."""
    zeros: int
    """Special tokens of the type 0."""

    def __len__(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)


def tokenise(tokenizer: Any, texts: Sequence[str], max_tokens: int | NDArray[np.int64]) -> Tokens:
    """Token ids of texts, each cut to `max_tokens` with its special tokens: the text is cut, then the end token put.

    Args:
        tokenizer: a fast tokenizer of transformers, as `load_tokenizer` gives it.
        texts: texts with their prompts.
        max_tokens: the most tokens per text, special tokens included; one limit, or int64 [N] one for each.

    Raises:
        DataError: a text that is not valid Unicode (a lone surrogate).
        UsageError: a limit below the number of special tokens.
        ModelError: the tokenizer makes no token at all of a text, or cuts and pads by itself.
    """
    blocks = list(_blocks(tokenizer, texts, max_tokens))
    flat = np.concatenate([ids for ids, _ in blocks]) if blocks else np.empty(0, np.int32)
    return Tokens(flat, _offsets([lengths for _, lengths in blocks]))


def joined_tokens(parts: Sequence[Tokens]) -> Tokens:
    """Put the texts of several parts one after the other."""
    flat = np.concatenate([part.flat for part in parts])
    starts = np.cumsum([0, *(len(part.flat) for part in parts[:-1])])
    offsets = [part.offsets[1:] + start for part, start in zip(parts, starts, strict=True)]
    return Tokens(flat, np.concatenate([np.zeros(1, np.int64), *offsets]))


class TokenCache:
    """Tokens of large inputs on disk, memory-mapped; tokenised once for the same tokenizer, limit and texts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tokenise(self, tokenizer: Any, texts: Sequence[str], max_tokens: int) -> Tokens:
        """As the function `tokenise`, but ids beyond `CACHE_MIN_TEXTS` texts are kept in a file, not in memory."""
        if len(texts) < CACHE_MIN_TEXTS:
            return tokenise(tokenizer, texts, max_tokens)
        key = hash_text(tokenizer_fingerprint(tokenizer), str(max_tokens), *texts)[:32]
        entry = self.folder / key
        if not entry.exists():
            self._write(entry, tokenizer, texts, max_tokens)
        offsets = np.load(entry / _OFFSETS)
        return Tokens(np.memmap(entry / _IDS, np.int32, mode="r", shape=(int(offsets[-1]),)), offsets)

    def _write(self, entry: Path, tokenizer: Any, texts: Sequence[str], max_tokens: int) -> None:
        partial = entry.with_name(f"{entry.name}.{os.getpid()}.partial")
        with storage_errors(entry):
            partial.mkdir(parents=True)
            try:
                with (partial / _IDS).open("wb") as stream:
                    lengths = []
                    for ids, block_lengths in _blocks(tokenizer, texts, max_tokens):
                        ids.tofile(stream)
                        lengths.append(block_lengths)
                np.save(partial / _OFFSETS, _offsets(lengths))
                with contextlib.suppress(FileExistsError):  # another process was faster: the same content
                    partial.rename(entry)
            finally:
                shutil.rmtree(partial, ignore_errors=True)


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """sha256 over everything that decides how a text is tokenised, except the limit. Computed once per tokenizer."""
    known = _fingerprints.get(tokenizer)
    if known is None:
        backend = json.loads(tokenizer.backend_tokenizer.to_str())
        known = hash_text(json.dumps({**backend, "truncation": None, "padding": None}, sort_keys=True))
        _fingerprints[tokenizer] = known
    return known


def read_template(tokenizer: Any, *, pair: bool = False) -> Template:
    """The special tokens of a single text, or of a pair: what is left of a probe without the probe's own tokens.

    The probes are made once for a tokenizer; whether it cuts or pads by now is looked at in every call.

    Raises:
        ModelError: the tokenizer does not keep a text's tokens together, or cuts and pads by itself.
    """
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None or backend.padding is not None:
        raise ModelError(
            "The tokenizer is set to cut or to pad, which changes what every thread gets from it",
            fix="Load it with load_tokenizer, and call another one for tokens of your own.",
        )
    known = _templates.setdefault(tokenizer, {})
    if pair not in known:
        known[pair] = _probed(backend, pair)
    return known[pair]


def _probed(backend: Any, pair: bool) -> Template:
    probes = ["a", "b"] if pair else ["a"]
    whole = backend.encode(*probes)
    ids, types, owners = whole.ids, whole.type_ids, whole.sequence_ids
    own = [[place for place, owner in enumerate(owners) if owner == number] for number in range(len(probes))]
    expected = [backend.encode(probe, add_special_tokens=False).ids for probe in probes]
    if [[ids[place] for place in places] for places in own] != expected or not all(own):
        raise ModelError(
            "The tokenizer's post-processor does more than put special tokens around a text",
            fix="Use a model whose tokenizer.json has a template as its post-processor.",
        )
    between = ids[own[0][-1] + 1 : own[1][0]] if pair else []
    special = [place for place, owner in enumerate(owners) if owner is None]
    return Template(
        before=ids[: own[0][0]],
        between=between,
        after=ids[own[-1][-1] + 1 :],
        types=(types[own[0][0]], types[own[-1][0]]),
        zeros=sum(types[place] == 0 for place in special),
    )


def longest_first(first_N: NDArray[np.int64], second_N: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """How much of each text of N pairs is kept, int64 [2, N], so that both together have at most `room` tokens.

    The longer one is cut until both are equally long, then both: the tokenizers library's `longest_first`, whose odd
    token goes to the one that was longer (the second of two equal ones).
    """
    swapped = first_N > second_N
    short, long = np.minimum(first_N, second_N), np.maximum(first_N, second_N)
    fits = short + long <= room
    rest = np.maximum(short, room - short)
    halved = short + rest > room
    kept_short = np.where(halved, room // 2, short)
    kept_long = np.where(fits, long, np.where(halved, room // 2 + room % 2, rest))
    return np.where(swapped, [kept_long, kept_short], [kept_short, kept_long])


def _blocks(
    tokenizer: Any, texts: Sequence[str], max_tokens: int | NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.int64]]]:
    """(ids, lengths) of `BLOCK_TEXTS` texts after the other."""
    backend, template = tokenizer.backend_tokenizer, read_template(tokenizer)
    every = max_tokens.tolist() if isinstance(max_tokens, np.ndarray) else [max_tokens] * len(texts)
    if every and min(every) < len(template):
        raise UsageError(f"a limit of {min(every)} tokens for a text", possible=f"{len(template)} or more")
    after = len(template.after)
    for start in range(0, len(texts), BLOCK_TEXTS):
        block = list(texts[start : start + BLOCK_TEXTS])
        limits = every[start : start + BLOCK_TEXTS]
        try:
            whole = [encoding.ids for encoding in backend.encode_batch_fast(block)]
        except (TypeError, UnicodeEncodeError):
            raise _bad_text(block, start) from None
        rows = [
            ids if len(ids) <= limit else ids[: limit - after] + ids[len(ids) - after :]
            for ids, limit in zip(whole, limits, strict=True)
        ]
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        if not lengths.all():
            raise ModelError(
                f"The tokenizer makes no token of text {start + int(np.argmin(lengths)) + 1}",
                fix="Drop empty texts, or use a tokenizer that adds special tokens.",
            )
        yield np.fromiter(chain.from_iterable(rows), np.int32, int(lengths.sum())), lengths


def _bad_text(block: list[str], start: int) -> DataError:
    for row, text in enumerate(block, start + 1):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            return DataError(f"Text {row} is not valid Unicode (a lone surrogate at character {error.start + 1})")
        except AttributeError:
            return DataError(f"Text {row} is a {type(text).__name__}, not a string")
    return DataError(f"The tokenizer cannot read a text among {start + 1} to {start + len(block)}")


def _offsets(lengths: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
