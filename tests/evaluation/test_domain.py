"""Term accuracy and relatedness on worlds small enough to count, with a model whose vectors are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from acclimate.configs import DomainConfig, EvaluateConfig
from acclimate.core.lexicon import Lexicon
from acclimate.data.dataset import Dataset
from acclimate.errors import DataError
from acclimate.evaluation.domain import DomainData, Models, domain_data, relatedness, term_accuracy
from acclimate.evaluation.significance import compare_aucs
from acclimate.evaluation.topics import lexical_topics
from acclimate.evaluation.vocabulary import Vocabulary, domain_vocabulary
from acclimate.models.encoder import Encoder
from tests.stages.worlds import tiny_embedder

CROPS = ("wheat", "maize", "barley", "cotton", "potato", "clover", "rye", "oats", "flax", "hemp")
AGRICULTURE = Path(__file__).parents[2] / "examples" / "agriculture" / "pairs.jsonl"
ILLS = ("rust", "blight", "smut", "mildew", "weevil")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(str(tiny_embedder(tmp_path_factory.mktemp("model"))), device="cpu", dtype="float32")


def data_of(texts: Sequence[str], vocabulary: Vocabulary, topics: dict[str, str] | None = None) -> DomainData:
    return DomainData(list(texts), "document", vocabulary, topics or {}, "given: here")


EVALUATE = EvaluateConfig(sign_flips=100)
SEED = 42


def test_term_accuracy_is_counted(encoder: Encoder) -> None:
    """Beside the slow count: cosines of every term with every document, sorted."""
    texts = [f"{ill} on {crop}" for ill in ILLS for crop in CROPS] + ["wheat", *(f"bed {n}" for n in range(10))]
    vocabulary = Vocabulary(Lexicon([*ILLS[:4], *CROPS, "absent", "on"]), "here")
    report, rows = term_accuracy(Models(encoder, encoder, None), data_of(texts, vocabulary), EVALUATE, SEED)
    # Each crop stands in 5 or 6 documents of 61; each ill stands in 10, more than a tenth of them; "on" in 50.
    assert [row["term"] for row in rows] == list(CROPS)
    assert {row["term"]: row["documents"] for row in rows} == {crop: 5 + (crop == "wheat") for crop in CROPS}
    cosines = encoder.encode(CROPS, "query") @ encoder.encode(texts, "document").T
    first, found = [], []
    for crop, row in zip(CROPS, cosines, strict=True):
        holds = [crop in texts[place].split() for place in np.argsort(-row)]
        first.append(float(holds[0]))
        found.append(np.mean(holds[: 5 + (crop == "wheat")]))
    assert report["base"] == report["adapted"]
    assert report["base"]["term_accuracy@1"] == pytest.approx(np.mean(first))
    assert report["base"]["term_r_precision"] == pytest.approx(np.mean(found))
    assert [row["base"] for row in rows] == pytest.approx(found)
    assert report["delta"]["term_r_precision"]["value"] == 0.0


def test_the_nearest_document_is_another_one(encoder: Encoder) -> None:
    texts = [f"{crop} field" for crop in CROPS for _ in range(2)] + ["rain"] * 3
    vocabulary = Vocabulary(Lexicon(CROPS), "here")
    report, _ = term_accuracy(Models(encoder, encoder, None), data_of(texts, vocabulary), EVALUATE, SEED)
    assert report["base"]["text_accuracy@1"] == 1.0  # every document has a twin


def test_definitions(encoder: Encoder) -> None:
    defined: dict[str, tuple[str, ...]] = {"rust": ("rust",), "wheat": ("wheat", "barley"), "smut": ("barley",)}
    vocabulary = Vocabulary(Lexicon(defined), "here", defined)
    report, rows = term_accuracy(Models(encoder, encoder, None), data_of([], vocabulary), EVALUATE, SEED)
    # "rust" and "wheat" have their own text as definition; "smut" is nearest to one of three texts, barley or not.
    cosines = encoder.encode(["smut"], "query") @ encoder.encode(["rust", "wheat", "barley"], "document").T
    assert report["base"] == {"definition_accuracy@1": pytest.approx((2 + (cosines.argmax() == 2)) / 3)}
    assert (report["terms"], report["defined_terms"], rows) == (0, 3, [])


def test_relatedness_is_the_auc_over_pairs(encoder: Encoder) -> None:
    topics = {f"{ill} on {crop}": ill for ill in ILLS for crop in CROPS} | {"a lonely text": "alone"}
    models = Models(encoder, encoder, None)
    report = relatedness(models, data_of([], Vocabulary(Lexicon(()), ""), topics), EVALUATE, SEED)
    texts = [text for text in topics if topics[text] != "alone"]
    vectors = encoder.encode(texts, "document")
    pairs = [(a, b) for a in range(50) for b in range(a)]
    same = [topics[texts[a]] == topics[texts[b]] for a, b in pairs]
    assert report["base"]["topic_auc"] == pytest.approx(
        roc_auc_score(same, [vectors[a] @ vectors[b] for a, b in pairs]), abs=2e-5
    )  # of 225,000 comparisons a few are equal up to rounding
    assert (report["topics"], report["texts"], report["delta"]["topic_auc"]["p"]) == (5, 50, 1.0)


def test_the_difference_of_auc_is_that_of_the_pairs() -> None:
    """The observed difference, with ties, is scikit-learn's, and lies within its interval; swapped models mirror it."""
    generator = np.random.default_rng(3)
    text_P2 = np.stack(np.triu_indices(12, 1), axis=1)
    same_P = (text_P2 % 3)[:, 0] == (text_P2 % 3)[:, 1]
    base_P, adapted_P = (
        generator.integers(0, 4, len(same_P)) * 1.0,
        generator.integers(0, 4, len(same_P)) + same_P * 2.0,
    )
    delta = compare_aucs(base_P, adapted_P, same_P, text_P2, flips=300, confidence=0.9, seed=1)
    assert delta["value"] == pytest.approx(roc_auc_score(same_P, adapted_P) - roc_auc_score(same_P, base_P))
    assert delta["low"] < delta["value"] < delta["high"] and delta["p"] < 0.1
    again = compare_aucs(adapted_P, base_P, same_P, text_P2, flips=300, confidence=0.9, seed=1)
    assert (again["low"], again["high"], again["p"]) == pytest.approx((-delta["high"], -delta["low"], delta["p"]))


def test_what_is_skipped_says_why(encoder: Encoder) -> None:
    models, dataset = Models(encoder, encoder, None), Dataset("retrieval", {"d": "a text"})
    few = domain_data(dataset, DomainConfig(), EVALUATE, SEED)
    assert term_accuracy(models, few, EVALUATE, SEED)[0] == {
        "skipped": "no term is known (none: 1 text is too few to extract terms from); --lexicon FILE gives some"
    }
    assert relatedness(models, few, EVALUATE, SEED) == {
        "skipped": "1 document is too few to find topics in; --topics FILE gives some"
    }
    alone = data_of([], Vocabulary(Lexicon(()), ""), {"one": "a", "two": "b"})
    assert relatedness(models, alone, EVALUATE, SEED) == {"skipped": "there are no two topics with two texts each"}
    rare = data_of(["rust"], Vocabulary(Lexicon(["rust"]), "here"))
    assert "no term of the lexicon stands in" in term_accuracy(models, rare, EVALUATE, SEED)[0]["skipped"]


def words_of_two_trades() -> list[str]:
    """240 texts: those of the field hold words that those of the kitchen do not, and 60 rare words each."""
    field = [f"the {crop} has {ill} in plot f{number}" for number in range(3) for crop in CROPS for ill in ILLS[:4]]
    kitchen = [f"the cook {verb} a {dish} with k{n}" for n in range(6) for verb in ("bakes", "fries") for dish in CROPS]
    return [f"{text} v{place % 60}" for place, text in enumerate(field + [f"{text} soup" for text in kitchen])]


def test_topics_are_clusters_by_words() -> None:
    texts = tuple(words_of_two_trades())
    topics = lexical_topics(texts, 1)
    assert len(topics) == len(texts) == 240
    of_field, of_kitchen = set(topics[:120]), set(topics[120:])
    assert not of_field & of_kitchen
    assert lexical_topics(("a text",) * 300, 1) == []


def test_vocabulary_from_what_is_at_hand(tmp_path: Path) -> None:
    texts = words_of_two_trades()
    background, lexicon, foreign = tmp_path / "b.txt", tmp_path / "l.tsv", tmp_path / "f.tsv"
    background.write_text("\n".join(f"{text} once" for text in texts[120:]), encoding="utf-8")
    lexicon.write_text("term\tdefinition\nrust\ta fungus\nsmut\t\n", encoding="utf-8")
    foreign.write_text(
        "".join(f"问题{n}\t小麦锈病怎么防治\n" for n in range(9)).join(["query\tanswer\n", ""]), encoding="utf-8"
    )

    given = domain_vocabulary(texts, DomainConfig(lexicon=str(lexicon)), seed=SEED)
    assert (list(given.lexicon.terms), given.definitions) == (["rust", "smut"], {"rust": ("a fungus",)})
    against = domain_vocabulary(texts, DomainConfig(background=str(background)), seed=SEED)
    assert "rust" not in against.lexicon.terms  # in a fifth of the texts: too common to be a term
    assert against.origin == "extracted from the corpus against b.txt" and "plot" not in against.lexicon.terms
    for guard, words in (((str(background),), "against b.txt"), ((str(foreign),), "topics of it against one another")):
        assert words in domain_vocabulary(texts, DomainConfig(), guard, seed=SEED).origin
    with pytest.raises(DataError, match="no such file"):
        domain_vocabulary(texts, DomainConfig(lexicon=str(tmp_path / "absent")), seed=SEED)


def test_chinese_terms_begin_and_end_with_words_and_are_no_numbers() -> None:
    """厘米以, 到三 and 三十 were terms of these answers."""
    rows = [json.loads(line) for line in AGRICULTURE.read_text(encoding="utf-8").splitlines()]
    terms = list(domain_vocabulary([row["response"] for row in rows], DomainConfig(), seed=42).lexicon.terms)
    assert len(terms) > 20
    assert not [term for term in terms if term[0] in "的了与和到以" or term[-1] in "的了与和到以" or term.isnumeric()]
