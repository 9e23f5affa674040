"""What of texts reaches a model: unknown tokens per language, texts that are cut to the same, prompts that fill all."""

from __future__ import annotations

from typing import Any

import pytest

from acclimate.configs import DEFAULT_MODEL
from acclimate.errors import UsageError
from acclimate.formats.families import find_family, models_for
from acclimate.formats.sources import locate
from acclimate.models.encoder import Encoder
from acclimate.models.loading import load_tokenizer
from acclimate.models.reading import Reading, check_prompts, read_texts, reading_warnings, unsuited
from acclimate.prompts import Prompts


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(locate(DEFAULT_MODEL)[0])


def reading(unknown: float = 0.0, texts: float = 1.0, alike: float = 0.0) -> Reading:
    return {"unknown": unknown, "languages": {"Han": {"texts": texts, "unknown": unknown}}, "alike": alike}


def test_unknown_tokens_by_hand(tokenizer: Any) -> None:
    """MiniLM knows 大 and 水, not 锈 and 溉: of the two Chinese texts' five tokens three are unknown."""
    texts = ["wheat rust", "what is that", "大水锈", "锈溉", "Wheat  rust!", "12 7"]
    found = read_texts(tokenizer, texts, 256)
    assert found["languages"] == {
        "Han": {"texts": 0.4, "unknown": 0.6},
        "Latin": {"texts": 0.4, "unknown": 0.0},
        "none": {"texts": 0.2, "unknown": 0.0},
    }
    assert found["unknown"] == round(3 / (5 + 6 + 2), 4) and found["alike"] == 0.0


def test_texts_that_the_model_cannot_tell_apart(tokenizer: Any) -> None:
    assert read_texts(tokenizer, ["锈", "溉", "wheat", "Wheat"], 256)["alike"] == pytest.approx(2 / 3, abs=1e-4)
    texts = [f"please tell me all about {word}" for word in ("wheat", "rice", "rust")]
    assert read_texts(tokenizer, texts, 256)["alike"] == 0.0
    assert read_texts(tokenizer, texts, 7)["alike"] == 1.0
    assert read_texts(tokenizer, ["wheat", "rice"], 5, "a b c ")["alike"] == 1.0
    assert read_texts(tokenizer, [], 256)["alike"] == 0.0


def test_a_warning_above_a_twentieth_and_unsuited_above_three_tenths() -> None:
    assert not reading_warnings({"queries": reading(0.05)})
    (few,) = reading_warnings({"queries": reading(0.2)})
    (many,) = reading_warnings({"documents": reading(0.75, texts=0.98)})
    assert "20% of the tokens of the queries in Han script" in few and "not suited" not in few
    assert "it is not suited to them" in many and "BAAI/bge-small-zh-v1.5" in many and "98% of the documents" in many
    (same,) = reading_warnings({"queries": reading(alike=0.4)})
    assert "40% of the queries are the same to the model" in same
    assert not unsuited({"queries": reading(0.3), "documents": reading(0.9, texts=0.04)})
    assert "75% of the tokens of the documents" in unsuited({"queries": reading(0.1), "documents": reading(0.75)})
    assert "same to the model" in unsuited({"queries": reading(alike=0.31)})


@pytest.mark.parametrize("script", ["Han", "Latin", "Arabic"])
def test_the_models_that_are_named_are_known(script: str) -> None:
    assert all(find_family(name) for name in models_for(script))


def test_a_prompt_that_fills_the_limit_is_refused(tokenizer: Any) -> None:
    prompts = Prompts({"": "search for what is about: ", "bank": ""}, {"": ""})
    check_prompts(tokenizer, prompts, 9)
    with pytest.raises(UsageError, match=r"max_tokens = 8, and the query prompt alone has 8 tokens.*same vector"):
        check_prompts(tokenizer, prompts, 8)
    with pytest.raises(UsageError, match="the document prompt of the task bank alone"):
        check_prompts(tokenizer, prompts.with_task("bank", "", "one two three four five six seven"), 9)
    with pytest.raises(UsageError, match="max_tokens = 8"):
        Encoder.load(DEFAULT_MODEL, query_prompt="search for what is about: ", max_tokens=8, device="cpu")
