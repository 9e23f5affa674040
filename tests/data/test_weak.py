"""Weak pairs: what each kind makes of a text, that nothing of dev and test is in them, and that a seed fixes them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from acclimate.configs import PrepareConfig
from acclimate.data.build import build_dataset
from acclimate.data.dataset import Dataset, load_dataset, write_dataset
from acclimate.data.weak import UNIT, crops, passages, title_and_body, weak_pairs

WORDS = " ".join(f"word{number}" for number in range(12))
LONG = " ".join(f"{' '.join(f's{number}w{word}' for word in range(15))}." for number in range(9))
SPLITS = {"dev": {"q1": {"d1": 1}}, "test": {"q2": {"d2": 0}}, "train": {"q3": {"d3": 1}}}


def world() -> Dataset:
    """Five documents; one judged for dev, one for test (as not relevant), one that is a twin of the dev one."""
    dev, test = (" ".join(f"{split}{number}" for number in range(12)) for split in ("dev", "test"))
    corpus = {"d1": dev, "d2": test, "d3": f"Rice {WORDS}", "d4": dev, "d5": LONG}
    queries = {"q1": "how much rain", "q2": "RICE", "q3": "seed"}
    return Dataset("retrieval", corpus, queries, dict(SPLITS), titles={"d3": "Rice", "d1": "dev0"})  # type: ignore[arg-type]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_title_asks_for_its_body() -> None:
    assert list(title_and_body("Rice blast A fungus", "Rice blast", generator())) == [("Rice blast", "A fungus")]
    assert list(title_and_body("A fungus", "", generator())) == []
    assert list(title_and_body("Rice", "Rice", generator())) == []


def test_passages_are_whole_sentences_of_forty_words_and_make_up_the_text() -> None:
    # Nine sentences of 15 words: a passage is full after three of them.
    found = passages(LONG)
    assert [len(passage.split()) for passage in found] == [45, 45, 45]
    assert all(passage.endswith(".") for passage in found) and " ".join(found) == LONG
    # One sentence more is too short to stand alone.
    assert [len(passage.split()) for passage in passages(f"{LONG} A rest.")] == [45, 45, 47]
    chinese = "水稻纹枯病在高温高湿的条件下容易流行。" * 6  # 19 characters a sentence, the full stop with its last
    assert "".join(passages(chinese)) == chinese and len(passages(chinese)) == 2


def test_a_closing_mark_ends_its_sentence() -> None:
    """A passage began with it."""
    said = f"他说：“{'水' * 39}。”{'土' * 40}。（{'肥' * 40}。）{'光' * 45}。"
    found = passages(said)
    assert "".join(found) == said and [passage[-1] for passage in found] == ["”", "。", "）", "。"]


@given(st.lists(st.sampled_from(["rice", "水稻", "病", "a,b", "x"]), min_size=6, max_size=400), st.integers(0, 99))
def test_crops_are_spans_of_the_text_of_eight_units_up_to_half(words: list[str], seed: int) -> None:
    text = " ".join(words)
    units = min(256, len(UNIT.findall(text)))
    for pair in crops(text, "", generator(seed)):
        for crop in pair:
            assert crop in text
            assert min(8, units // 2) <= len(UNIT.findall(crop)) <= units // 2


def test_short_texts_are_not_cropped() -> None:
    assert list(crops("one two three four five", "", generator())) == []
    assert list(crops("水稻纹枯病", "", generator())) == []
    assert len(list(crops("水稻纹枯病的防治方法", "", generator()))) == 1


def test_nothing_of_dev_and_test_is_in_a_pair() -> None:
    pairs = weak_pairs(world(), ("title", "neighbours", "crop"), 100, 0)
    texts = [text for found in pairs.values() for example in found for text in (example.anchor, example.positive)]
    assert not any("dev" in text or "test" in text for text in texts)
    assert pairs["title"] == []  # d3's title is a test query, whatever its case; d1 is judged for dev
    assert [(e.anchor, e.positive) for e in pairs["neighbours"]] == list(itertools.pairwise(passages(LONG)))
    assert len(pairs["crop"]) == 2  # d3 and d5: d4 has the text of d1
    without = replace(world(), qrels={"train": SPLITS["train"]})
    assert [e.anchor for e in weak_pairs(without, ("title",), 100, 0)["title"]] == ["dev0", "Rice"]
    assert len(weak_pairs(without, ("crop",), 100, 0)["crop"]) == 5


def test_a_seed_fixes_the_pairs_and_a_limit_draws_evenly() -> None:
    corpus = {f"d{number}": f"d{number} {WORDS}" for number in range(40)}
    dataset = Dataset("retrieval", corpus)
    first = weak_pairs(dataset, ("crop",), 100, 1)["crop"]
    assert first == weak_pairs(dataset, ("crop",), 100, 1)["crop"] != weak_pairs(dataset, ("crop",), 100, 2)["crop"]
    few = weak_pairs(dataset, ("crop",), 8, 1)["crop"]
    assert len(few) == 8 and [example for example in first if example in few] == few


def test_titles_survive_prepare_and_the_folder(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "qrels").mkdir(parents=True)
    documents = [
        '{"_id": "d1", "title": " Rice  blast ", "text": "A fungus."}',
        '{"_id": "d2", "title": "", "text": "No title."}',
        '{"_id": "d3", "title": "Only a title", "text": ""}',
    ]
    (source / "corpus.jsonl").write_text("\n".join(documents) + "\n", encoding="utf-8")
    (source / "queries.jsonl").write_text('{"_id": "q1", "text": "what harms rice"}\n', encoding="utf-8")
    (source / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n", encoding="utf-8")
    dataset, _ = build_dataset(str(source), PrepareConfig(), seed=42)
    assert dataset.corpus == {"d1": "Rice blast A fungus.", "d2": "No title.", "d3": "Only a title"}
    assert dataset.titles == {"d1": "Rice blast"}
    (tmp_path / "dataset").mkdir()
    write_dataset(tmp_path / "dataset", dataset, [])
    again = load_dataset(tmp_path / "dataset")
    assert again.corpus == dataset.corpus and again.titles == dataset.titles
    reread, _ = build_dataset(str(tmp_path / "dataset"), PrepareConfig(), seed=42)
    assert reread.corpus == dataset.corpus and reread.titles == dataset.titles
