"""Chunks by an encoder's own tokenizer, of each kind: WordPiece, byte-level BPE, Unigram."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from acclimate.errors import UsageError
from acclimate.models.encoder import Encoder
from acclimate.models.passages import Passages
from tests.models import tiny

TEXT = (
    "List files in a folder. Show disk usage, unhappily!  Find large files?\n\n- sort lines\n- count wörds\n"
    "水稻病虫害防治方法。土壤肥料灌溉！种植小麦 and 玉米？ https://example.org/a/very/long/path?of=letters 🌾🌾🌾 end"
) * 3


@pytest.mark.parametrize("write", [tiny.tiny_bert, tiny.tiny_qwen3, tiny.tiny_xlm_roberta])
@pytest.mark.parametrize(("max_tokens", "overlap"), [(8, 0), (16, 5), (50, 49)])
def test_exact_and_never_above_the_limit(
    tmp_path: Path, write: Callable[[Path], Path], max_tokens: int, overlap: int
) -> None:
    encoder = Encoder.load(str(tiny.as_sentence_transformer(write(tmp_path / "model"))), device="cpu", dtype="float32")
    backend = encoder.tokenizer.backend_tokenizer
    spans, none, short = Passages(encoder, max_tokens, overlap).cut([TEXT, " \n", "one file"])
    assert none == [] and [tuple(span) for span in short] == [(0, 8)]
    counts = [len(backend.encode(TEXT[start:end], add_special_tokens=False).ids) for start, end in spans]
    assert max(counts) <= max_tokens
    covered = {place for span in spans for place in range(*span)}
    assert all(TEXT[place].isspace() for place in range(len(TEXT)) if place not in covered)


def test_a_chunk_that_the_model_cannot_read(tmp_path: Path) -> None:
    model = tiny.as_sentence_transformer(tiny.tiny_bert(tmp_path / "model"), prompts={"document": "files files "})
    encoder = Encoder.load(str(model), device="cpu", dtype="float32")
    assert Passages(encoder, 60, 0)
    with pytest.raises(UsageError, match=r"chunk_tokens = 61.*no more than 60"):
        Passages(encoder, 61, 0)
