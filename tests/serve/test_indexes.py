"""What a service writes into an index at once, whatever a request has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.errors import ModelError
from acclimate.retrieval.index.records import Document, Fusion, Vectors
from acclimate.serve import writing
from acclimate.serve.errors import ServiceError
from acclimate.serve.indexes import ServedIndex
from acclimate.serve.metrics import Metrics
from acclimate.serve.opening import ServedRun
from acclimate.text_use import SpaceId
from tests.retrieval.index.contract import SPACE


def served(folder: Path) -> ServedIndex:
    run = ServedRun(
        "run", "base", None, str(folder / "index"), folder / "feedback.sqlite", Fusion(), False, None, folder
    )
    return ServedIndex(run, Metrics())


class Encoding:
    """Gives unit vectors, and remembers what it was asked for at once."""

    def __init__(self, space: SpaceId, fails_at: str = "") -> None:
        self.space, self.fails_at = space, fails_at
        self.asked: list[Sequence[str]] = []

    def __call__(self, texts: Sequence[str]) -> Vectors:
        self.asked.append(texts)
        if self.fails_at in texts:
            raise ModelError("it fails")
        return np.eye(self.space.dim, dtype=np.float32)[[len(text) % self.space.dim for text in texts]]


def write(index: ServedIndex, documents: list[Document], encoding: Encoding) -> int:
    try:
        return asyncio.run(index.write(documents, encoding, SPACE)).documents
    finally:
        index.close()


def test_a_large_request_is_encoded_and_written_in_parts(tmp_path: Path) -> None:
    large = "x" * (writing.WRITTEN_CHARACTERS // 2)
    texts = [*(f"text {number}" for number in range(300)), large, large, large + large + large, "last"]
    documents = [Document(f"d{place:03}", text) for place, text in enumerate(texts)]
    encoding = Encoding(SPACE)
    assert write(served(tmp_path), documents, encoding) == len(documents)
    assert [text for part in encoding.asked for text in part] == texts
    assert max(map(len, encoding.asked)) <= writing.WRITTEN_DOCUMENTS
    sizes = [sum(map(len, part)) for part in encoding.asked if len(part) > 1]
    assert max(sizes) <= writing.WRITTEN_CHARACTERS and len(encoding.asked) >= 5


def test_an_error_in_the_middle_says_how_many_are_stored(tmp_path: Path) -> None:
    documents = [Document(f"d{place:03}", f"text {place}") for place in range(300)]
    index = served(tmp_path)
    with pytest.raises(ServiceError, match=r"it fails; of 300 documents the first 256 are stored") as failed:
        write(index, documents, Encoding(SPACE, fails_at="text 290"))
    assert failed.value.status == 422
    with pytest.raises(ModelError, match=r"it fails\.$"):
        write(served(tmp_path / "other"), documents, Encoding(SPACE, fails_at="text 3"))


@given(st.lists(st.sampled_from([0, 1, 1000, 60_000, 120_000, 250_000]), max_size=40))
def test_parts_are_the_documents_in_order(lengths: list[int]) -> None:
    documents = [Document(str(place), "x" * length) for place, length in enumerate(lengths)]
    parts = list(writing.parts_of(documents))
    assert [one for part in parts for one in part] == documents
    for part in parts:
        characters = sum(len(one.text) for one in part)
        assert 1 <= len(part) <= writing.WRITTEN_DOCUMENTS
        assert len(part) == 1 or characters <= writing.WRITTEN_CHARACTERS
