"""How fast an encoder is: one text, 64 texts, bulk."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import TypedDict

from acclimate.models.text_encoder import TextEncoder
from acclimate.types import Role

BATCH, BULK = 64, 1024


class Speeds(TypedDict):
    """Texts per second."""

    one: float
    """Queries, each alone."""
    batch: float
    """Documents, `BATCH` at a time."""
    bulk: float
    """Documents, `BULK` at a time."""


def speeds(encoder: TextEncoder, queries: Sequence[str], documents: Sequence[str], seconds: float) -> Speeds:
    """Measure an encoder on real texts.

    Args:
        encoder: on as many threads as it has.
        queries: some.
        documents: some; the same for all encoders that are compared.
        seconds: for each of the three; whole calls only, so that a slow encoder takes longer.
    """
    return {
        "one": _rate(encoder, queries, "query", 1, seconds),
        "batch": _rate(encoder, documents, "document", BATCH, seconds),
        "bulk": _rate(encoder, documents, "document", BULK, seconds),
    }


def _rate(encoder: TextEncoder, texts: Sequence[str], role: Role, size: int, seconds: float) -> float:
    """Texts per second over calls of `size` texts, in their order, again and again; the first call does not count."""
    starts = itertools.cycle(range(0, max(1, len(texts) - size + 1), size))
    encoder.encode(texts[:size], role)
    done, begun = 0, time.perf_counter()
    while True:
        start = next(starts)
        some = texts[start : start + size]
        encoder.encode(some, role)
        done += len(some)
        if (spent := time.perf_counter() - begun) >= seconds:
            return done / spent
