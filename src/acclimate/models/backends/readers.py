"""Exports read as strangers read them: with the folder's own files and other people's code, none of our encoder's.

A reader takes texts without prompts and a role, and gives unit vectors [N, D].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer

from acclimate.files import read_json
from acclimate.formats.engine_folder import GRAPHS, Engine, graph_of
from acclimate.formats.folders import read_folder
from acclimate.formats.transformers_io import model_errors, quiet_transformers
from acclimate.models.backends.graph import LOGITS
from acclimate.models.backends.sessions import open_session
from acclimate.types import ROLES, Role

Reader: TypeAlias = Callable[[Sequence[str], Role], NDArray[np.float32]]
PairReader: TypeAlias = Callable[[Sequence[tuple[str, str]]], NDArray[np.float32]]
"""Queries and texts -> raw logits [N]."""
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


def cross_encoder_reader(folder: Path) -> PairReader:
    """Plain sentence-transformers: `CrossEncoder`, its scores before the sigmoid."""
    with quiet_transformers(), model_errors(folder):
        from sentence_transformers import CrossEncoder

        model = CrossEncoder(str(folder), device="cpu")

    def read(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        found = model.predict(
            [list(pair) for pair in pairs],
            activation_fn=torch.nn.Identity(),
            batch_size=BATCH,
            show_progress_bar=False,
        )
        return np.asarray(found, np.float32)

    return read


def pair_graph_reader(folder: Path, engine: Engine) -> PairReader:
    """The graph behind the folder's tokenizer, which joins (by its chat template if it has one), cuts and pads."""
    with quiet_transformers(), model_errors(folder):
        tokenizer: Any = AutoTokenizer.from_pretrained(str(folder))
    session = open_session(engine, folder / GRAPHS[engine], output=LOGITS)
    how = {"padding": True, "padding_side": "right"}

    def joined(query: str, text: str) -> str:
        messages = [{"role": "query", "content": query}, {"role": "document", "content": text}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False))

    def one_batch(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        if tokenizer.chat_template is None:
            queries, texts = [query for query, _ in pairs], [text for _, text in pairs]
            limit = tokenizer.model_max_length
            found: Any = tokenizer(queries, texts, truncation="longest_first", max_length=limit, **how)
        else:
            found = tokenizer([joined(*pair) for pair in pairs], add_special_tokens=False, **how)
        types = found.get("token_type_ids")
        ids_NL, mask_NL = (np.array(found[name], np.int64) for name in ("input_ids", "attention_mask"))
        return session(ids_NL, mask_NL, None if types is None else np.array(types, np.int64))[:, 0]

    def read(pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        batches = [pairs[start : start + BATCH] for start in range(0, len(pairs), BATCH)]
        return np.concatenate([one_batch(batch) for batch in batches])

    return read
