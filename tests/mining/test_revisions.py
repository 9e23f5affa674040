"""Mining in a corpus that holds many revisions of every answer, and in one that holds the queries themselves."""

from __future__ import annotations

import random

import numpy as np
import pytest

from acclimate.configs import MineConfig
from acclimate.core.same_text import same_text_key
from acclimate.data.dataset import Dataset
from acclimate.data.near import are_near, hashed_ngrams, near_duplicates
from acclimate.mining.mine import MinedBlock, mine_negatives
from acclimate.mining.mining_input import mining_input
from acclimate.models.encoder import Encoder
from acclimate.types import Example
from tests.models.tiny import as_sentence_transformer, tiny_bert
from tests.stages.worlds import WORDS

TOPICS, REVISIONS = 6, 55


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(str(as_sentence_transformer(tiny_bert(tmp_path_factory.mktemp("teacher")))), device="cpu")


@pytest.fixture(scope="module")
def revisions() -> Dataset:
    """Every answer with 55 revisions of it: one of its sixteen words is another one."""
    draw, corpus = random.Random(3), dict[str, str]()
    for topic in range(TOPICS):
        words = draw.choices(WORDS, k=16)
        corpus[f"d{topic}"] = " ".join(words)
        for revision in range(REVISIONS):
            changed = words.copy()
            changed[revision % 16] = draw.choice(WORDS)
            corpus[f"d{topic}r{revision}"] = " ".join([*changed, f"v{revision}"])
    queries = {f"q{topic}": " ".join(corpus[f"d{topic}"].split()[:5]) for topic in range(TOPICS)}
    qrels = {f"q{topic}": {f"d{topic}": 1} for topic in range(TOPICS)}
    examples = [Example(queries[f"q{topic}"], corpus[f"d{topic}"]) for topic in range(TOPICS)]
    return Dataset("retrieval", corpus, queries, {"train": qrels}, examples)


def mined(dataset: Dataset, teacher: Encoder, **rules: object) -> MinedBlock:
    (block,) = mine_negatives(mining_input(dataset), teacher, MineConfig(**rules), 0)  # type: ignore[arg-type]
    return block


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_no_revision_of_a_positive_is_a_negative(revisions: Dataset, teacher: Encoder, share: float) -> None:
    block = mined(revisions, teacher, hard_negative_share=share)
    assert block.near_copies >= TOPICS * REVISIONS * 0.9
    for query in block.queries:
        keys = [same_text_key(one.document) for one in query.negatives]
        assert not len(near_duplicates([same_text_key(query.positives[0].document)], keys)[0])
    if share == 0.9:
        assert block.with_negatives >= 0.9 * block.examples


def test_it_looks_deeper_before_it_loosens_a_filter(teacher: Encoder) -> None:
    """The first five documents of every query score as its positive does; with range_max = 5 there is none below the
    margin. Before, the margin was loosened; the sixth document keeps to it."""
    draw = random.Random(5)
    corpus = {f"d{number}": " ".join(draw.choices(WORDS, k=7)) for number in range(60)}
    queries = {f"q{number}": " ".join(draw.choices(WORDS, k=4)) for number in range(12)}
    vectors = teacher.encode(list(queries.values()), "query") @ teacher.encode(list(corpus.values()), "document").T
    ninth = np.argsort(-vectors, axis=1)[:, 9]
    qrels = {f"q{number}": {f"d{ninth[number]}": 1} for number in range(12)}
    examples = [Example(queries[f"q{number}"], corpus[f"d{ninth[number]}"]) for number in range(12)]
    dataset = Dataset("retrieval", corpus, queries, {"train": qrels}, examples)
    rules = {"range_max": 5, "relative_margin": 0.001, "hard_negative_share": 0.9}
    block = mined(dataset, teacher, **rules)
    assert block.filled == {"range_max": 12}
    for query in block.queries:
        positive = query.positives[0].score
        assert all(one.score <= positive - 0.001 * abs(positive) for one in query.negatives)
    assert not mined(dataset, teacher, **{**rules, "hard_negative_share": 0.0}).with_negatives


def test_near_by_hashes_is_near_by_ngrams(revisions: Dataset) -> None:
    keys = [same_text_key(text) for text in list(revisions.corpus.values())[::11]] + ["abc", "abcdabcdabcd"]
    expected = set(zip(*(places.tolist() for places in near_duplicates(keys, keys)), strict=True))
    hashed = hashed_ngrams(keys)
    alone = [hashed_ngrams([key])[0] for key in keys]
    assert all(map(np.array_equal, hashed, alone))
    found = {(a, b) for a in range(len(keys)) for b in np.flatnonzero(are_near(hashed[a], hashed)).tolist()}
    assert found == expected


def test_the_query_s_own_document_is_never_its_negative(teacher: Encoder) -> None:
    """As in ArguAna: the queries are documents too, under their ids, with a title that makes the texts differ."""
    draw = random.Random(4)
    texts = {f"a{number}": " ".join(draw.choices(WORDS, k=8)) for number in range(20)}
    corpus = {name: f"wheat {text}" for name, text in texts.items()}
    qrels = {f"a{number}": {f"a{(number + 1) % 20}": 1} for number in range(10)}
    examples = [
        Example(texts[query], corpus[document], (corpus[query],))
        for query, found in qrels.items()
        for document in found
    ]
    block = mined(Dataset("retrieval", corpus, texts, {"train": qrels}, examples), teacher, spread_margin=None)
    own = {texts[name]: corpus[name] for name in texts}
    for query in block.queries:
        assert query.negatives and own[query.query] not in {one.document for one in query.negatives}
    assert mining_input(Dataset("retrieval", corpus, texts, {"train": qrels}, examples)).dropped == 10
