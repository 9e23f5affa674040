"""`trained_on.safetensors`: which texts a model has been trained on, as a compact set of ids, never as texts.

It lies beside an adapter, or in the folder of a fully trained or merged model. Ids are those of `core.same_text`: 8
bytes a text. Among a million of them (8 MB) an unseen query is taken for a seen one by a chance of 5e-14.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from acclimate.core.same_text import pair_id, text_id
from acclimate.errors import StorageError
from acclimate.files import storage_errors

TRAINED_ON_FILE = "trained_on.safetensors"
FORMAT = "acclimate text ids 1"
"""Changes with the definition of "the same text", and with the salt of the ids."""


@dataclass(frozen=True, eq=False)
class TrainedOn:
    """Ids of texts and of pairs of texts that a model has been trained on, or chosen by."""

    ids: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """Sorted, each once."""
    complete: bool = True
    """False where something that the model was made from does not say what it was trained on."""

    @classmethod
    def of(cls, texts: Iterable[str], pairs: Iterable[tuple[str, str]]) -> TrainedOn:
        """Collect the ids of texts, and of pairs in either order."""
        unique = {text_id(text) for text in set(texts)} | {pair_id(*pair) for pair in set(pairs)}
        return cls(np.array(sorted(unique), np.uint64))

    @property
    def sha256(self) -> str:
        """Hash of the set, for the inputs of an artifact."""
        return hashlib.sha256(bytes([self.complete]) + self.ids.tobytes()).hexdigest()

    def __or__(self, other: TrainedOn) -> TrainedOn:
        """What either of two models has been trained on."""
        return TrainedOn(np.union1d(self.ids, other.ids), self.complete and other.complete)

    def has_text(self, text: str) -> bool:
        """Whether a text was in the training, in whatever role."""
        return self._has(text_id(text))

    def has_pair(self, one: str, other: str) -> bool:
        """Whether two texts were in one training row, in either order."""
        return self._has(pair_id(one, other))

    def _has(self, number: int) -> bool:
        place = int(np.searchsorted(self.ids, np.uint64(number)))
        return place < len(self.ids) and int(self.ids[place]) == number


def write_trained_on(folder: Path, trained_on: TrainedOn) -> None:
    """Write the set into an existing folder.

    Raises:
        StorageError: no space, no permission.
    """
    path = folder / TRAINED_ON_FILE
    facts = {"format": FORMAT, "complete": trained_on.complete}
    with storage_errors(path):  # one entry: safetensors writes several in a random order
        save_file({"ids": trained_on.ids}, path, {"acclimate": json.dumps(facts, sort_keys=True)})


def read_trained_on(folder: Path) -> TrainedOn:
    """Read the set of a folder; of a folder without one, an empty set that is not complete.

    Raises:
        StorageError: the file is damaged, or of another format.
    """
    path = folder / TRAINED_ON_FILE
    if not path.is_file():
        return TrainedOn(complete=False)
    try:
        with safe_open(path, "numpy") as stored:
            facts = json.loads((stored.metadata() or {}).get("acclimate", "{}"))
            ids = stored.get_tensor("ids")
    except (SafetensorError, OSError, ValueError) as error:
        raise StorageError(f"{path} is damaged ({error})", fix="Train again, or remove the file.") from None
    if facts.get("format") != FORMAT:
        raise StorageError(f"{path}: unknown format {facts.get('format')!r}", possible=FORMAT, fix="Train again.")
    return TrainedOn(ids, facts.get("complete") is True)
