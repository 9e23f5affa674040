"""Tokens: cut, end token, packing, and the cache on disk."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import processors

from acclimate.errors import DataError, ModelError
from acclimate.models import tokens as module
from acclimate.models.loading import load_tokenizer
from acclimate.models.tokens import TokenCache, Tokens, tokenise, tokenizer_fingerprint
from tests.conftest import shared_data
from tests.models import tiny

TEXTS = ["list files in a folder", "水稻病虫害", "", "x", "show disk usage " * 30, "  hello WORLD ünï\n"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(tiny.tiny_bert(tmp_path_factory.mktemp("bert")))


def test_equals_transformers(bert: Any) -> None:
    tokens = tokenise(bert, TEXTS, 16)
    expected = bert(TEXTS, truncation=True, max_length=16)["input_ids"]
    assert [tokens.row(index).tolist() for index in range(len(tokens))] == expected
    assert tokens.lengths.tolist() == [len(ids) for ids in expected]
    assert tokens.flat.dtype == np.int32 and tokens.offsets.dtype == np.int64


def test_blocks_do_not_matter(bert: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tokenise(bert, TEXTS, 16)
    monkeypatch.setattr(module, "BLOCK_TEXTS", 2)
    parts = tokenise(bert, TEXTS, 16)
    assert np.array_equal(whole.flat, parts.flat) and np.array_equal(whole.offsets, parts.offsets)


def test_no_texts(bert: Any) -> None:
    assert len(tokenise(bert, [], 16)) == 0


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.data())
def test_pack_is_the_rows_one_after_the_other(lengths: list[int], data: st.DataObject) -> None:
    flat = np.arange(sum(lengths), dtype=np.int32)
    tokens = Tokens(flat, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
    chosen = data.draw(st.lists(st.integers(0, len(lengths) - 1), min_size=1, max_size=6))
    ids, positions, packed_lengths = tokens.pack(np.array(chosen, np.int64))
    assert ids.tolist() == [token for index in chosen for token in tokens.row(index)]
    assert positions.tolist() == [place for index in chosen for place in range(lengths[index])]
    assert packed_lengths.tolist() == [lengths[index] for index in chosen]


def test_real_qwen_ids_end_with_endoftext_after_the_cut(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny.tiny_qwen3(tmp_path, bpe=shared_data("tokenizers", "qwen_bpe")))
    tokens = tokenise(tokenizer, ["Hello world", "你好", "Hello world Hello world"], 3)
    assert [tokens.row(index).tolist() for index in range(3)] == [
        [9707, 1879, 151643],
        [108386, 151643],
        [9707, 1879, 151643],
    ]
    assert tokenizer.eos_token_id != 151643


def test_lowercase_comes_first(tmp_path: Path) -> None:
    folder = tiny.tiny_qwen3(tmp_path)
    plain, lowered = load_tokenizer(folder), load_tokenizer(folder, lowercase=True)
    assert np.array_equal(tokenise(lowered, ["ÄB c"], 16).flat, tokenise(plain, ["äb c"], 16).flat)
    assert not np.array_equal(tokenise(plain, ["ÄB c"], 16).flat, tokenise(plain, ["äb c"], 16).flat)
    assert tokenizer_fingerprint(plain) != tokenizer_fingerprint(lowered)


def test_fingerprint_ignores_the_limit(bert: Any) -> None:
    limited = copy.deepcopy(bert)  # another object: a fingerprint is computed once per tokenizer
    tokenise(limited, ["x"], 7)
    assert tokenizer_fingerprint(limited) == tokenizer_fingerprint(bert)


def test_cache_on_disk(bert: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE_MIN_TEXTS", 3)
    cache, expected = TokenCache(tmp_path / "tokens"), tokenise(bert, TEXTS, 16)
    first = cache.tokenise(bert, TEXTS, 16)
    assert isinstance(first.flat, np.memmap)
    assert np.array_equal(first.flat, expected.flat) and np.array_equal(first.offsets, expected.offsets)
    entries = sorted((tmp_path / "tokens").iterdir())
    stamp = (entries[0] / "ids.int32").stat().st_mtime_ns
    again = cache.tokenise(bert, TEXTS, 16)
    assert np.array_equal(again.flat, expected.flat)
    assert sorted((tmp_path / "tokens").iterdir()) == entries
    assert (entries[0] / "ids.int32").stat().st_mtime_ns == stamp
    cache.tokenise(bert, TEXTS, 8)
    cache.tokenise(bert, TEXTS[1:], 16)
    assert len(list((tmp_path / "tokens").iterdir())) == 3
    assert not isinstance(cache.tokenise(bert, TEXTS[:2], 16).flat, np.memmap)


def test_bad_texts(bert: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Text 2 is not valid Unicode.*character 3"):
        tokenise(bert, ["fine", "no\ud800"], 16)
    bare = load_tokenizer(tiny.tiny_qwen3(tmp_path))
    bare.backend_tokenizer.post_processor = processors.Sequence([])  # nothing appends an end token any more
    with pytest.raises(ModelError, match="no token of text 2"):
        tokenise(bare, ["fine", ""], 16)
