"""One suite for both kinds of rerankers: equal to plain transformers, one pair at a time, however they are computed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from acclimate.errors import ModelError, StorageError, UsageError
from acclimate.models.reranker import Reranker
from acclimate.models.reranker_kinds import YES_NO_PREFIX, YES_NO_SUFFIX
from acclimate.runs.resolve import reranker_source
from tests.conftest import shared_data
from tests.models import tiny

BPE = ("tokenizers", "qwen_bpe")
QUERIES = ["list files", "list files", "show disk usage", "x " * 80, "", "list files"]
TEXTS = ["in a folder", "水稻病虫害 " * 40, "memory", "sort lines " * 90, "count", "in a folder"]
INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"


@dataclass(frozen=True)
class Sample:
    """A reranker's folder, and the scores that plain transformers gives one pair at a time."""

    folder: Path
    expected: Callable[[list[str], list[str]], list[float]]
    long: int
    """A limit below the longest pair."""


def load(sample: Sample, **options: Any) -> Reranker:
    return Reranker.load(str(sample.folder), device="cpu", dtype="float32", **options)


def cross_encoder_scores(folder: Path, limit: int) -> Callable[[list[str], list[str]], list[float]]:
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder).eval(),
        AutoTokenizer.from_pretrained(folder),
    )

    def scores(queries: list[str], texts: list[str]) -> list[float]:
        found = []
        for query, text in zip(queries, texts, strict=True):
            inputs = tokenizer(query, text, truncation=True, max_length=limit, return_tensors="pt")
            with torch.no_grad():
                found.append(model(**inputs).logits[0, 0].item())
        return found

    return scores


def model_card_inputs(tokenizer: Any, queries: list[str], texts: list[str], limit: int) -> list[list[int]]:
    """Token ids as the model card of Qwen/Qwen3-Reranker-0.6B makes them."""
    pairs = [
        f"<Instruct>: {INSTRUCTION}\n<Query>: {query}\n<Document>: {text}"
        for query, text in zip(queries, texts, strict=True)
    ]
    prefix, suffix = (tokenizer.encode(part, add_special_tokens=False) for part in (YES_NO_PREFIX, YES_NO_SUFFIX))
    bodies = tokenizer(
        pairs, truncation="longest_first", max_length=limit - len(prefix) - len(suffix), add_special_tokens=False
    )
    return [prefix + body + suffix for body in bodies["input_ids"]]


def yes_no_scores(folder: Path, limit: int) -> Callable[[list[str], list[str]], list[float]]:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("yes", "no"))

    def scores(queries: list[str], texts: list[str]) -> list[float]:
        found = []
        for ids in model_card_inputs(tokenizer, queries, texts, limit):
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, -1]  # the whole head
            found.append((logits[yes] - logits[no]).item())
        return found

    return scores


KINDS = [
    "bert",
    "xlm-roberta",
    "electra",
    "distilbert",
    "deberta-v2",  # its attention cannot be packed
    "qwen3",
]


@pytest.fixture(scope="module", params=KINDS)
def sample(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "qwen3":
        tiny.tiny_qwen3_reranker(folder, shared_data(*BPE), merges=None)
        return Sample(folder, yes_no_scores(folder, 192), 120)
    if request.param == "bert":
        tiny.tiny_reranker(folder)
    else:
        tiny.tiny_classifier(folder, request.param)
    return Sample(folder, cross_encoder_scores(folder, 64), 40)


def test_equals_one_pair_at_a_time(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = sample.expected(QUERIES, TEXTS)
    assert np.ptp(expected) > 0.01  # the pairs do differ
    for budget in (1, 80, 100_000):
        monkeypatch.setattr("acclimate.models.reranker.CHUNK_TOKENS", {"cpu": budget})
        scores = load(sample).score_pairs(QUERIES, TEXTS)
        assert scores.dtype == np.float32 and np.abs(scores - expected).max() < 2e-5


def test_packed_equals_padded(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = load(sample)
    assert packed.packed == ("deberta" not in sample.folder.name)
    monkeypatch.setattr("acclimate.models.inputs.PACKED_MODEL_TYPES", frozenset())
    padded = load(sample)
    assert not padded.packed
    assert np.abs(packed.score_pairs(QUERIES, TEXTS) - padded.score_pairs(QUERIES, TEXTS)).max() < 2e-5


def test_gradients_of_packed_and_padded(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training takes the same road: every parameter that a score depends on gets its gradient."""
    gradients = []
    for types in (None, frozenset[str]()):
        if types is not None:
            monkeypatch.setattr("acclimate.models.inputs.PACKED_MODEL_TYPES", types)
        reranker = load(sample)
        reranker.model.requires_grad_(True)
        scores = reranker.forward_tokens(reranker.tokenise(QUERIES, TEXTS), np.arange(len(QUERIES)))
        (scores * torch.arange(1.0, len(QUERIES) + 1)).sum().backward()
        gradients.append({name: p.grad for name, p in reranker.model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 10
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-3, rtol=1e-3), name


def test_score_is_score_pairs_with_one_query(sample: Sample) -> None:
    reranker = load(sample)
    pairs = reranker.score_pairs(["list files"] * len(TEXTS), TEXTS)
    assert np.allclose(reranker.score("list files", TEXTS), pairs, atol=2e-5)
    assert reranker.score("list files", []).shape == (0,)
    with pytest.raises(UsageError, match="1 query with 2 texts"):
        reranker.score_pairs(["a"], ["b", "c"])


def test_a_limit_cuts_and_is_checked(sample: Sample) -> None:
    cut, whole = load(sample, max_tokens=sample.long), load(sample)
    assert cut.max_tokens == sample.long
    lengths = cut.tokenise(QUERIES, TEXTS).tokens.lengths
    assert lengths.max() == sample.long < whole.tokenise(QUERIES, TEXTS).tokens.lengths.max()
    with pytest.raises(UsageError, match="100000 tokens"):
        load(sample, max_tokens=100_000)
    with pytest.raises(UsageError, match="a limit of 3 tokens"):
        load(sample, max_tokens=3)


def test_eight_threads_with_two_limits(sample: Sample) -> None:
    """Two rerankers over one model and one tokenizer, as two requests' limits would have them."""
    whole = load(sample)
    kind = copy.copy(whole.kind)
    kind.max_tokens = sample.long
    cut = Reranker(whole.model, whole.tokenizer, whole.source, kind, sample.long)
    expected = [reranker.score_pairs(QUERIES, TEXTS) for reranker in (whole, cut)]
    assert not np.allclose(*expected, atol=1e-4)

    def wrong(thread: int) -> int:
        reranker, scores = (whole, cut)[thread % 2], expected[thread % 2]
        return sum(not np.array_equal(reranker.score_pairs(QUERIES, TEXTS), scores) for _ in range(10))

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(wrong, range(8))) == 0


def test_the_limit_cuts_the_longer_side_of_a_cross_encoder(tmp_path: Path) -> None:
    short = Reranker.load(str(tiny.tiny_reranker(tmp_path)), max_tokens=10, device="cpu", dtype="float32")
    cut = short.score("list files", ["in a folder show disk usage find large sort lines"])
    assert np.allclose(cut, short.score("list files", ["in a folder show disk"]), atol=1e-6)  # 10 - 3 special - 2 = 5


@pytest.fixture(scope="module")
def yes_no(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("yes-no")
    return tiny.tiny_qwen3_reranker(folder, shared_data(*BPE), merges=None, tied=False)


@pytest.mark.parametrize("side", ["left", "right"])
def test_equals_the_padded_batch_of_the_model_card(yes_no: Path, side: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(yes_no, padding_side=side)
    model = AutoModelForCausalLM.from_pretrained(yes_no).eval()
    rows = model_card_inputs(tokenizer, QUERIES, TEXTS, 192)
    batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(**batch, position_ids=positions).logits
    last = torch.full((len(rows),), -1) if side == "left" else batch["attention_mask"].sum(1) - 1
    logits = logits[torch.arange(len(rows)), last]
    expected = logits[:, tokenizer.convert_tokens_to_ids("yes")] - logits[:, tokenizer.convert_tokens_to_ids("no")]
    scores = Reranker.load(str(yes_no), device="cpu", dtype="float32").score_pairs(QUERIES, TEXTS)
    assert np.abs(scores - expected.numpy()).max() < 2e-5


def test_only_the_body_is_cut(yes_no: Path) -> None:
    reranker = Reranker.load(str(yes_no), max_tokens=100, device="cpu", dtype="float32")
    pairs = reranker.tokenise(["list files"], ["in a folder " * 100])
    text = reranker.tokenizer.decode(pairs.tokens.row(0))
    assert len(pairs.tokens.row(0)) == 100 and text.startswith(YES_NO_PREFIX) and text.endswith(YES_NO_SUFFIX)
    assert "<Query>: list files\n<Document>: in a folder in a" in text


def test_the_ids_are_those_of_the_real_tokenizer(yes_no: Path) -> None:
    reranker = Reranker.load(str(yes_no), device="cpu", dtype="float32")
    ids = reranker.tokenise(["q"], ["d"]).tokens.row(0).tolist()
    assert (reranker.kind.yes, reranker.kind.no) == (9693, 2152)  # type: ignore[union-attr]
    assert ids[:3] == [151644, 8948, 198] and 151643 not in ids  # <|im_start|>system\n, no <|endoftext|>
    assert ids.count(151645) == 2


def test_the_instruction_matters_and_is_settable(yes_no: Path) -> None:
    default, other = (
        Reranker.load(str(yes_no), device="cpu", dtype="float32", instruction=instruction)
        for instruction in (None, "Find {shell} commands")
    )
    assert default.kind.instruction == INSTRUCTION
    assert "<Instruct>: Find {shell} commands\n" in other.tokenizer.decode(other.tokenise(["q"], ["d"]).tokens.flat)
    assert abs(default.score("q", ["d"]) - other.score("q", ["d"])).item() > 1e-4


def test_what_is_no_yes_no_reranker(yes_no: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"3 tokens of 'yes'"):
        Reranker.load(str(tiny.tiny_qwen3_reranker(tmp_path / "bytes")))
    with pytest.raises(UsageError, match="template and its instruction take"):
        Reranker.load(str(yes_no), max_tokens=60)
    with pytest.raises(ModelError, match=r"embedding model, no reranker \(Qwen3Model\)"):
        Reranker.load(str(tiny.tiny_qwen3(tmp_path / "embedder", max_tokens=256)))
    embedder = tiny.as_sentence_transformer(tiny.tiny_qwen3_reranker(tmp_path / "lm-embedder"), "last")
    with pytest.raises(ModelError, match=r"embedding model, no reranker \(Qwen3ForCausalLM\)"):
        Reranker.load(str(embedder))


def test_what_is_no_reranker(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="3 labels"):
        Reranker.load(str(tiny.tiny_reranker(tmp_path / "three", num_labels=3)))
    with pytest.raises(ModelError, match="embedding model, no reranker"):
        Reranker.load(str(tiny.tiny_bert(tmp_path / "bert")))
    with pytest.raises(ModelError, match="no such folder"):
        Reranker.load(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="classification head"):
        Reranker.load(str(tiny.tiny_classifier(tmp_path / "causal", "qwen2")))
    with pytest.raises(UsageError, match="takes no instruction"):
        Reranker.load(str(tiny.tiny_reranker(tmp_path / "one")), instruction="Find commands")
    (tmp_path / "run" / "dataset").mkdir(parents=True)
    with pytest.raises(StorageError, match="holds no reranker"):
        reranker_source(str(tmp_path / "run"))


def test_a_new_head_is_a_function_of_the_seed(tmp_path: Path) -> None:
    base = str(tiny.tiny_bert(tmp_path / "bert"))
    one, same, other = (
        Reranker.load(base, head_seed=seed, device="cpu", dtype="float32").score("list files", TEXTS)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(one, same) and not np.allclose(one, other)


@pytest.mark.slow
def test_equals_sentence_transformers_before_its_sigmoid(sample: Sample) -> None:
    from sentence_transformers import CrossEncoder

    if "qwen3" in sample.folder.name:
        pytest.skip("the base has no chat template; the folders that we save are tested in test_reranker_folder.py")
    theirs = CrossEncoder(str(sample.folder), device="cpu", activation_fn=torch.nn.Identity())
    scores = load(sample).score_pairs(QUERIES, TEXTS)
    assert np.abs(scores - theirs.predict(list(zip(QUERIES, TEXTS, strict=True)))).max() < 2e-5


@pytest.mark.real
def test_published_scores_of_qwen3_reranker() -> None:
    """The float32 scores in sentence-transformers' own tests; runs where the weights are in the hub's cache."""
    try:
        reranker = Reranker.load("Qwen/Qwen3-Reranker-0.6B", dtype="float32")
    except ModelError:
        pytest.skip("the weights are not here")
    texts = [
        "Venus is often called Earth's twin because of its similar size and proximity.",
        "Mars, known for its reddish appearance, is often referred to as the Red Planet.",
        "Jupiter, the largest planet in our solar system, has a prominent red spot.",
        "Saturn, famous for its rings, is sometimes mistaken for the Red Planet.",
    ]
    scores = reranker.score("Which planet is known as the Red Planet?", texts)
    assert np.allclose(scores, [-3.1093, 7.1204, -0.3788, 3.5416], atol=2e-3)
