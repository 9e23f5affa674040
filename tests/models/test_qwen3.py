"""Qwen3-Embedding as its authors meant it: token ids, the end token, padding, numerics, published scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional
from transformers import AutoModel, AutoTokenizer, Qwen2Tokenizer

from acclimate.errors import ModelError
from acclimate.formats.families import WEB_SEARCH
from acclimate.formats.sources import locate
from acclimate.models import encoder as encoder_module
from acclimate.models.encoder import Encoder
from acclimate.models.loading import load_tokenizer
from acclimate.models.tokens import tokenise
from tests.conftest import shared_data
from tests.models import tiny

END = 151643
PROMPT = f"Instruct: {WEB_SEARCH}\nQuery:"
CARD_QUERIES = ["What is the capital of China?", "Explain gravity"]
CARD_DOCUMENTS = [
    "The capital of China is Beijing.",
    "Gravity is a force that attracts two bodies towards each other. It gives weight to physical objects and is "
    "responsible for the movement of planets around the sun.",
]
CARD_SCORES = [[0.7646, 0.1414], [0.1355, 0.6000]]
GOLDEN: dict[str, list[int]] = {
    "Hello world": [9707, 1879],
    CARD_DOCUMENTS[0]: [785, 6722, 315, 5616, 374, 26549, 13],
    PROMPT + CARD_QUERIES[0]: [
        *(641, 1235, 25, 16246, 264, 3482, 2711, 3239, 11, 17179, 9760, 46769, 429, 4226, 279, 3239, 198, 2859, 25),
        *(3838, 374, 279, 6722, 315, 5616, 30),
    ],
    "水稻病虫害防治方法": [110608, 99252, 102176, 99441, 102681, 39907],
    "你好，世界！": [108386, 3837, 99489, 6313],
    "🚜": [147194],
    "小麦 wheat 🌾 2024": [105677, 33053, 11162, 234, 122, 220, 17, 15, 17, 19],
    "": [],
    " ": [220],
    "\n\t ": [198, 3677],
    "don't stop": [15007, 944, 2936],
}
OTHER_TEXTS = [
    "  indented\n\n\ttab ",
    "e\u0301 é ﬁ ½ ① Å",
    "2024年11月21日，温度是 -3.5°C。",
    "I'll don't WE'VE",
    "<think>x</think> <tool_call> <|im_start|>user <|endoftext|> y",
    "日本語 한국어 العربية हिन्दी ไทย",
    "def f(x):\r\n    return x**2  # comment",
    "👩‍🌾🌾 \u200b\ufeff",
]
TEXTS = ["list files", "水稻病虫害", "", " ", "show disk usage " * 60, "🚜 ünï", "x", "find lines by name \n"]


@pytest.fixture(scope="module")
def bpe() -> Path:
    return shared_data("tokenizers", "qwen_bpe")


@pytest.fixture(scope="module")
def real_tokenizer(bpe: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real vocabulary, in a folder such as the hub's."""
    return load_tokenizer(tiny.tiny_qwen3(tmp_path_factory.mktemp("real"), bpe=bpe))


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with Qwen3-Embedding's own prompts and pooling."""
    folder = tiny.tiny_qwen3(tmp_path_factory.mktemp("qwen"), num_hidden_layers=3)
    return tiny.as_sentence_transformer(folder, "last", prompts={"query": PROMPT, "document": ""})


def reference(folder: Path, texts: list[str], side: str, attention: str) -> NDArray[np.float32]:
    """The model card's own way: transformers, one padded batch, the last token by the attention mask."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    model = AutoModel.from_pretrained(folder, attn_implementation=attention).eval()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
    with torch.no_grad():
        hidden_NLD = model(**batch).last_hidden_state
    last_N = torch.arange(hidden_NLD.shape[1]).mul(batch["attention_mask"]).argmax(1)
    return np.asarray(functional.normalize(hidden_NLD[torch.arange(len(texts)), last_N], dim=-1).numpy())


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_token_ids(text: str, real_tokenizer: Any) -> None:
    assert tokenise(real_tokenizer, [text], 512).flat.tolist() == [*GOLDEN[text], END]


def test_token_ids_are_those_of_transformers_own_tokenizer(bpe: Path, real_tokenizer: Any) -> None:
    own = Qwen2Tokenizer(vocab=str(bpe / "vocab.json"), merges=str(bpe / "merges.txt"))  # no end token: as in Qwen3
    own.add_tokens([*tiny.QWEN_SPECIAL[1:], *tiny.QWEN_ADDED])
    texts = [*GOLDEN, *OTHER_TEXTS]
    tokens = tokenise(real_tokenizer, texts, 512)
    expected = [[*own(text)["input_ids"], END] for text in texts]
    assert [tokens.row(index).tolist() for index in range(len(texts))] == expected


@pytest.mark.parametrize("text", ["The capital of China is Beijing. " * 900, "水稻病虫害防治方法" * 900, "🌾" * 900])
def test_the_text_is_cut_then_the_end_token_put(text: str, real_tokenizer: Any) -> None:
    whole = tokenise(real_tokenizer, [text], 2**30).flat
    cut = tokenise(real_tokenizer, [text], 512).flat
    assert len(whole) > 512 and len(cut) == 512
    assert cut.tolist() == [*whole[:511], END]


def test_the_end_token_is_neither_eos_nor_told_from_padding_by_its_id(real_tokenizer: Any) -> None:
    assert real_tokenizer.eos_token_id == 151645
    assert real_tokenizer.pad_token_id == END


def test_queries_carry_the_instruction_and_documents_are_bare(qwen: Path) -> None:
    encoder = Encoder.load(str(qwen), device="cpu", dtype="float32")
    assert encoder.use.prompts.prompt("query") == PROMPT and encoder.use.prompts.prompt("document") == ""
    tokens = encoder.tokenise(["wheat"], "query")
    assert tokens.flat.tolist() == tokenise(encoder.tokenizer, [PROMPT + "wheat"], 128).flat.tolist()


def test_a_users_own_instruction(qwen: Path) -> None:
    encoder = Encoder.load(str(qwen), instruction="Find the right pesticide", device="cpu")
    assert encoder.use.prompts.prompt("query") == "Instruct: Find the right pesticide\nQuery:"
    assert encoder.use.prompts.prompt("document") == ""


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_equals_transformers_in_padded_batches(qwen: Path, side: str, attention: str) -> None:
    encoder = Encoder.load(str(qwen), device="cpu", dtype="float32")
    assert encoder.packed
    assert np.abs(encoder.encode(TEXTS) - reference(qwen, TEXTS, side, attention)).max() < 1e-5
    queries = [PROMPT + text for text in TEXTS]
    assert np.abs(encoder.encode(TEXTS, "query") - reference(qwen, queries, side, attention)).max() < 1e-5


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_tokenizers_padding_side_changes_nothing(qwen: Path, side: str) -> None:
    packs, pads = Encoder.load(str(qwen), device="cpu", dtype="float32"), padded(qwen)
    vectors = packs.encode(TEXTS)
    packs.tokenizer.padding_side = pads.tokenizer.padding_side = side
    assert np.array_equal(packs.encode(TEXTS), vectors)
    assert np.abs(pads.encode(TEXTS) - vectors).max() < 1e-5


@pytest.mark.slow
def test_equals_sentence_transformers(qwen: Path) -> None:
    from sentence_transformers import SentenceTransformer

    encoder = Encoder.load(str(qwen), device="cpu", dtype="float32")
    for side in ("left", "right"):
        theirs = SentenceTransformer(str(qwen), device="cpu", processor_kwargs={"padding_side": side})
        assert np.abs(encoder.encode(TEXTS, "query") - theirs.encode_query(TEXTS)).max() < 1e-5
        assert np.abs(encoder.encode(TEXTS) - theirs.encode_document(TEXTS)).max() < 1e-5


def test_bfloat16_and_smaller_dimensions(qwen: Path) -> None:
    exact = Encoder.load(str(qwen), device="cpu", dtype="float32").encode(TEXTS)
    rough = Encoder.load(str(qwen), device="cpu", dtype="bfloat16").encode(TEXTS)
    assert rough.dtype == np.float32 and (rough * exact).sum(1).min() > 0.99
    cut = Encoder.load(str(qwen), dim=8, device="cpu", dtype="float32").encode(TEXTS)
    assert np.abs(cut - exact[:, :8] / np.linalg.norm(exact[:, :8], axis=1, keepdims=True)).max() < 1e-6


def padded(folder: Path) -> Encoder:
    """The same model with transformers' own attention, in padded batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder_module, "can_pack", lambda _: False)
        return Encoder.load(str(folder), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def both_ways(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Encoder, Encoder]]:
    bert = tiny.as_sentence_transformer(tiny.tiny_bert(tmp_path_factory.mktemp("bert"), max_tokens=128))
    return {
        family: (Encoder.load(str(folder), device="cpu", dtype="float32"), padded(folder))
        for family, folder in (("bert", bert), ("qwen3", qwen))
    }


WORDS = st.sampled_from(["list", "files", "水稻", "病虫害", "🚜", " ", "\n", "x" * 30, "find", "Ünï"])
BATCHES = st.lists(st.lists(WORDS, max_size=9).map(" ".join), min_size=1, max_size=6)
BY_LAW = settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("family", ["bert", "qwen3"])
@BY_LAW
@given(texts=BATCHES)
def test_packed_equals_padded_equals_one_at_a_time(
    family: str, texts: list[str], both_ways: dict[str, tuple[Encoder, Encoder]]
) -> None:
    packs, pads = both_ways[family]
    assert packs.packed and not pads.packed
    together = packs.encode(texts)
    alone = np.concatenate([packs.encode([text]) for text in texts])
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(together - pads.encode(texts)).max() < 1e-5


@BY_LAW
@given(texts=BATCHES)
def test_left_padding_equals_right_padding(
    texts: list[str], qwen: Path, both_ways: dict[str, tuple[Encoder, Encoder]]
) -> None:
    vectors = both_ways["qwen3"][0].encode(texts)
    for side in ("left", "right"):
        assert np.abs(vectors - reference(qwen, texts, side, "sdpa")).max() < 1e-5


def test_published_scores_where_the_weights_are() -> None:
    try:
        folder, _ = locate("Qwen/Qwen3-Embedding-0.6B")
    except ModelError:
        pytest.skip("the weights of Qwen/Qwen3-Embedding-0.6B are not in the hub's cache of this machine")
    encoder = Encoder.load(str(folder), dtype="float32")
    scores = encoder.encode(CARD_QUERIES, "query") @ encoder.encode(CARD_DOCUMENTS).T
    assert np.abs(scores - np.array(CARD_SCORES)).max() < 2e-3
