"""The holes that a split can have: an unfair draw, texts that are the same in other dress, data sets beside it."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import replace

import pytest

from acclimate.configs import PrepareConfig
from acclimate.core.same_text import same_text_key
from acclimate.data.records import Record
from acclimate.data.split import split_sources
from acclimate.data.splits import Source, Splits
from acclimate.errors import DataError
from acclimate.types import SPLITS, Kind, Split
from tests.data.splitting import split_records

SEEDS = 60


def record(anchor: str, positive: str, split: Split = "train", **rest: object) -> Record:
    return replace(Record("x", 1, anchor, positive, split=split), **rest)  # type: ignore[arg-type]


def source(records: list[Record], kind: Kind = "retrieval", **settings: object) -> Source:
    given = frozenset(item.split for item in records if item.split != "train")
    return Source(records, kind, given, PrepareConfig(**settings))  # type: ignore[arg-type]


def queries(splits: Splits, split: Split) -> list[str]:
    return [item.anchor for item in splits.records[split]]


def words(count: int) -> list[str]:
    """Texts of letters, no two nearly alike."""
    syllables = ["ba", "ko", "mu", "ri", "ze", "tal", "fen", "gip", "shu", "vod"]
    return ["".join(syllables[int(digit)] for digit in f"{number * 7919 % 10**6:06d}") for number in range(count)]


# Fault 1: 500 queries alone with their document, and 100 documents with five queries each: half of all queries.
FAMILIES = [record(f"alone {n} q", f"alone {n} d") for n in range(500)] + [
    record(f"family {n} q{member}", f"family {n} d") for n in range(100) for member in range(5)
]


@pytest.mark.parametrize("split", ["test", "dev"])
def test_a_component_is_held_out_as_often_as_any_other(split: Split) -> None:
    """By the least of five draws a family came first five times as often: 83 % of the test were families, not 50 %."""
    chosen, families = 0, 0
    for seed in range(SEEDS):
        splits = split_records(FAMILIES, "retrieval", frozenset(), PrepareConfig(dev_fraction=0.1), seed)
        roots = {anchor.rpartition(" ")[0] for anchor in queries(splits, split)}
        chosen += len(roots)
        families += sum(root.startswith("family") for root in roots)
    expected = 100 / 600
    deviation = math.sqrt(expected * (1 - expected) / chosen)
    assert abs(families / chosen - expected) < 4 * deviation


def test_every_component_is_held_out_equally_often() -> None:
    """Chi-square over sizes 1 to 8: the counts are those of equal chances."""
    sizes = [1 + n % 8 for n in range(240)]
    records = [record(f"c{n} q{m}", f"c{n} d") for n, size in enumerate(sizes) for m in range(size)]
    seen = dict.fromkeys(range(1, 9), 0)
    for seed in range(SEEDS):
        splits = split_records(records, "retrieval", frozenset(), PrepareConfig(dev_fraction=0.0), seed)
        for root in {anchor.split()[0] for anchor in queries(splits, "test")}:
            seen[sizes[int(root[1:])]] += 1
    mean = sum(seen.values()) / 8
    assert sum((count - mean) ** 2 / mean for count in seen.values()) < 24.3  # 0.1 % of chi-square, 7 degrees


def test_the_test_is_as_large_as_asked_for_and_little_larger() -> None:
    for seed in range(10):
        splits = split_records(FAMILIES, "retrieval", frozenset(), PrepareConfig(), seed)
        assert 100 <= len(set(queries(splits, "test"))) <= 104


def test_a_group_of_40_percent_stays_in_train_and_is_named() -> None:
    """It was the test in 20 of 20 seeds."""
    records = [record(f"q{n}", f"d{n}", group="wheat" if n < 400 else f"topic {n % 60}") for n in range(1000)]
    for seed in range(20):
        splits = split_records(records, "retrieval", frozenset(), PrepareConfig(split_by="topic"), seed)
        held = [item.group for split in ("dev", "test") for item in splits.records[split]]  # type: ignore[index]
        assert held and "wheat" not in held
        assert any("40% of all, are too large for test and stay in train" in note for note in splits.notes)
    with pytest.raises(DataError, match=r"no test split can be cut by topic.*the largest holds 60%"):
        few = [replace(one, group="rye" if int(one.anchor[1:]) >= 400 else "wheat") for one in records]
        split_records(few, "retrieval", frozenset(), PrepareConfig(split_by="topic"), 0)


# Fault 5: one variant of each of 400 pairs.
VARIANTS = {
    "other case": str.upper,
    "zero-width space": lambda text: text[:4] + "\u200b" + text[4:],
    "full width": lambda text: text.translate({code: code + 0xFEE0 for code in range(0x21, 0x7F)}),
    "full stop": lambda text: text + ".",
    "question mark": lambda text: text + " ?",
    "entity": lambda text: text.replace(" ", "&nbsp;"),
    "NFD": lambda text: unicodedata.normalize("NFD", text),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_of_a_test_query_is_not_in_train(name: str) -> None:
    """54 to 86 of 100 test queries had theirs there."""
    texts = [f"wie heilt man {word}é" for word in words(400)]
    records = [record(text, f"document {n}") for n, text in enumerate(texts)]
    records += [record(VARIANTS[name](text), f"other document {n}") for n, text in enumerate(texts)]
    splits = split_records(records, "retrieval", frozenset(), PrepareConfig(), 0)
    train = {same_text_key(text) for text in queries(splits, "train")}
    assert len(queries(splits, "test")) >= 100
    assert not any(same_text_key(text) in train for split in ("dev", "test") for text in queries(splits, split))


@pytest.mark.parametrize("name", VARIANTS)
def test_given_splits_are_checked_the_same_way(name: str) -> None:
    asked = ["wie heilt man é", "was ist das"]
    records = [record(VARIANTS[name](asked[0]), "a"), record("other", VARIANTS[name](asked[1])), record("third", "b")]
    records += [record(text, f"answer to {text}", "test") for text in asked]
    (splits,) = split_sources([source(records, dev_fraction=0.0)], 0)
    assert queries(splits, "train") == ["third"]
    assert len(splits.rejected) == 2


def test_equal_tokens_are_the_same_text() -> None:
    def tokens(texts: object) -> list[bytes | None]:
        plain = [unicodedata.normalize("NFD", text).encode("ascii", "ignore") for text in texts]  # type: ignore[attr-defined]
        return [*plain]

    records = [record("café", "a"), record("cafe", "b", "test"), record("thé", "c")]
    (splits,) = split_sources([source(records, dev_fraction=0.0)], 0, tokens)
    assert queries(splits, "train") == ["thé"]


def near(strict: bool) -> Splits:
    records = [
        record("how do I treat yellow rust in winter wheat", "a"),
        record("which potatoes store well over winter", "b"),
        record("something else", "how do I treat brown rot in stored apples"),
        record("how do I treat yellow rusts in winter wheat", "c", "test"),
        record("how do I treat brown rots in stored apples", "d", "dev"),
        record("when to sow oats", "e", "test"),
    ]
    return split_sources([source(records, strict_near=strict)], 0)[0]


def test_near_duplicates_are_counted_and_removed_if_asked_for() -> None:
    found, strict = near(False), near(True)
    assert found.near_duplicates == strict.near_duplicates == 2
    assert len(found.records["train"]) == 3 and queries(strict, "train") == ["which potatoes store well over winter"]
    assert [row.reason for row in strict.rejected] == ["near-duplicate of dev or test (strict_near)"] * 2


# Fault 6: two data sets that hold the same 1000 pairs in part.
def test_data_sets_of_one_run_are_split_together() -> None:
    """65 of 100 test pairs of the one were training rows of the other."""
    one = [record(f"q{n}", f"d{n}") for n in range(1000)]
    other = [record(f"Q{n}!", f"d{n}") for n in range(0, 1000, 2)] + [record(f"x{n}", f"y{n}") for n in range(500)]
    pairs = [record(f"d{n}", f"s{n}", label=1.0) for n in range(200, 900)]
    found = split_sources([source(one), source(other), source(pairs, "pairs")], 3)
    texts = {
        split: [
            {same_text_key(text) for item in splits.records[split] for text in (item.anchor, item.positive)}
            for splits in found
        ]
        for split in SPLITS
    }
    for train in texts["train"]:
        for held in (*texts["dev"], *texts["test"]):
            assert not train & held
    assert all(len(splits.records["test"]) >= 50 for splits in found)
    assert sum(len(splits.records[split]) for splits in found for split in SPLITS) == 2700  # no row was lost


def test_the_test_of_one_data_set_is_not_the_training_of_another() -> None:
    given = source([record("asked", "a", "test"), record("asked in dev", "b", "dev"), record("free", "c")])
    beside = source(
        [record("Asked?", "x"), record("y", "asked in dev"), record("mine", "z")], test_fraction=0.0, dev_fraction=0.0
    )
    _, splits = split_sources([given, beside], 0)
    assert queries(splits, "train") == ["mine"]
    assert [row.reason for row in splits.rejected] == [
        "leak (its query or pair is in dev or test of another data set)"
    ] * 2


# Fault 9: test queries in other roles.
def test_split_by_query_trains_on_no_test_query_as_a_positive() -> None:
    """1,799 rows of a set of paraphrases had a test query as their positive."""
    names = words(400)
    records = [record(names[n], names[(n + step) % 400]) for n in range(400) for step in (1, 2, 3)]
    splits = split_records(records, "retrieval", frozenset(), PrepareConfig(split_by="query"), 0)
    held = {item.anchor for split in ("dev", "test") for item in splits.records[split]}  # type: ignore[index]
    assert len(held) >= 100
    assert held.isdisjoint(text for item in splits.records["train"] for text in (item.anchor, item.positive))


def test_what_answers_a_test_query_is_no_hard_negative_by_judgement() -> None:
    """142 of 142 judgements of grade 0 became hard negatives that answer dev or test queries."""
    records = [
        record("train query", "good"),
        record("train query", "Answers test.", grade=0),
        record("train query", "answers dev", grade=0),
        record("train query", "bad", grade=0),
        record("asked", "answers test", "test"),
        record("asked too", "answers dev", "dev"),
    ]
    (splits,) = split_sources([source(records)], 0)
    assert [item.positive for item in splits.records["train"]] == ["good", "bad"]
    assert splits.negatives_removed == 2
