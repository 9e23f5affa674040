"""Exports read as strangers read them: with the folder's own files and other people's code, none of our encoder's.

A reader takes texts without prompts and a role, and gives unit vectors [N, D].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from acclimate.files import read_json
from acclimate.formats.engine_folder import Engine, graph_of
from acclimate.formats.folders import read_folder
from acclimate.formats.transformers_io import model_errors, quiet_transformers
from acclimate.models.backends.sessions import open_session
from acclimate.types import ROLES, Role

Reader: TypeAlias = Callable[[Sequence[str], Role], NDArray[np.float32]]
BATCH = 8


def sentence_transformers_reader(folder: Path) -> Reader:
    """Plain sentence-transformers: `encode_query` and `encode_document`."""
    with quiet_transformers(), model_errors(folder):
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(str(folder), device="cpu")

    def read(texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        encode = model.encode_query if role == "query" else model.encode_document
        vectors_ND: NDArray[np.float32] = encode(list(texts), batch_size=BATCH, show_progress_bar=False)
        return vectors_ND

    return read


def graph_reader(folder: Path, engine: Engine) -> Reader:
    """The graph behind the folder's tokenizer, which cuts and pads by itself, and the prompts of its JSON files."""
    files = read_folder(folder)
    prompts = read_json(folder / "config_sentence_transformers.json")["prompts"]
    with quiet_transformers(), model_errors(folder):
        tokenizers = {role: AutoTokenizer.from_pretrained(str(files.transformer)) for role in ROLES}
    sessions = {role: open_session(engine, graph_of(files, role, engine)) for role in ROLES}

    def read(texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        prompted = [prompts[role] + text for text in texts]
        prompted = [text.lower() for text in prompted] if files.lowercase else prompted
        batches = [prompted[start : start + BATCH] for start in range(0, len(prompted), BATCH)]
        return np.concatenate([one_batch(batch, role) for batch in batches])

    def one_batch(prompted: Sequence[str], role: Role) -> NDArray[np.float32]:
        found: Any = tokenizers[role](
            list(prompted), padding=True, truncation=True, max_length=files.max_tokens, padding_side="right"
        )
        return sessions[role](np.array(found["input_ids"], np.int64), np.array(found["attention_mask"], np.int64))

    return read
