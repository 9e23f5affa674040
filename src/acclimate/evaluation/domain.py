"""How well a model knows its domain: do terms find their texts, and are texts of one topic close to each other?

Shape suffixes: N terms or texts, M documents, D dimensions, P pairs of texts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from acclimate.configs import DomainConfig, EvaluateConfig
from acclimate.core.lexicon import Lexicon
from acclimate.core.metrics import roc_auc
from acclimate.counting import are, counted
from acclimate.data.dataset import Dataset
from acclimate.data.facts import evenly, sides
from acclimate.data.topics import read_topics
from acclimate.evaluation.significance import compare_aucs, compare_means
from acclimate.evaluation.topics import lexical_topics
from acclimate.evaluation.vocabulary import FEW_TEXTS, Vocabulary, domain_vocabulary, sample
from acclimate.models.encoder import Encoder
from acclimate.progress import progress
from acclimate.retrieval.rank import rank_vectors
from acclimate.retrieval.top_k import Vectors, top_k
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.types import PAIR_ROLE, Role

Both: TypeAlias = tuple[list[float], list[float]]
"""Base's and adapted's scores, term by term."""

MAX_TERMS = 2_000
MIN_HOLDING, MAX_HOLDING, MAX_HOLDING_SHARE = 2, 100, 0.1
"""Documents that hold a term: a term in one document is a name, one in very many says little about any."""
MAX_ASKING = 10
"""Documents of a term that are used as queries."""
MAX_TOPICS = 100
MAX_RELATED = 400
"""Texts whose pairs are compared: 80,000 pairs."""


@dataclass(frozen=True, slots=True)
class DomainData:
    """What the two metrics are measured on; read before any model is loaded."""

    texts: list[str]
    """The domain's documents."""
    role: Role
    """How they are encoded."""
    vocabulary: Vocabulary
    topics: dict[str, str]
    """Text -> topic."""
    topics_origin: str
    """Where the topics come from, in words; or why there are none."""


@dataclass(frozen=True, slots=True)
class Models:
    """Base and adapted, side by side."""

    base: Encoder
    adapted: Encoder
    cache: Path | None
    """Folder in which the vectors of whole corpora are kept."""

    def corpus(self, texts: Sequence[str], role: Role) -> tuple[Vectors, Vectors]:
        """Both models' vectors of a corpus, kept in the cache."""
        base = encode_corpus(self.base, texts, self.cache, "base documents", role=role)
        return base, encode_corpus(self.adapted, texts, self.cache, "adapted documents", role=role)

    def encode(self, texts: Sequence[str], role: Role, label: str) -> tuple[Vectors, Vectors]:
        """Both models' vectors of some texts."""
        base = encode_corpus(self.base, texts, None, f"base {label}", role=role)
        return base, encode_corpus(self.adapted, texts, None, f"adapted {label}", role=role)


def domain_data(dataset: Dataset, domain: DomainConfig, settings: EvaluateConfig, seed: int) -> DomainData:
    """Read the terms and topics that a run names, or extract them from its corpus. No query of the dataset is used.

    Args:
        dataset: its corpus is used; of labelled pairs, the second sentences.
        domain: the lexicon or the background.
        settings: the topics and the guard data.
        seed: of clusters and samples.

    Raises:
        DataError: the lexicon, the background or the topics cannot be read.
    """
    texts = sides(dataset)["documents"]  # in the order and number in which their vectors are cached
    if dataset.kind == "pairs":
        texts = list(dict.fromkeys(texts))
    topics, origin = _topics(texts, settings.topics, seed)
    role = PAIR_ROLE if dataset.kind == "pairs" else "document"
    return DomainData(texts, role, domain_vocabulary(texts, domain, settings.guard, seed=seed), topics, origin)


def _topics(texts: Sequence[str], given: str | None, seed: int) -> tuple[dict[str, str], str]:
    if given is not None:
        return read_topics(Path(given)), f"given: {given}"
    few = sample(texts)
    if len(few) < FEW_TEXTS:
        return (
            {},
            f"{counted(len(few), 'documents')} {are(len(few))} too few to find topics in; --topics FILE gives some",
        )
    numbers = lexical_topics(tuple(few), seed)
    topics = {text: str(topic) for text, topic in zip(few, numbers, strict=False)}
    return topics, "clusters of the corpus by its words (TF-IDF)" if topics else "the documents share too few words"


def term_accuracy(
    models: Models, domain: DomainData, settings: EvaluateConfig, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Measure whether a term finds the texts that hold it, and its definition.

    The query is the term alone, the corpus is the domain's documents, and those that hold the term are relevant
    (`Lexicon.find`). The terms used are held by 2 to 100 documents, and by a tenth of them at most; if they are more
    than `MAX_TERMS`, an even sample of the lexicon is used. Measures, averaged over the terms:

    - "term_accuracy@1": the first document holds the term;
    - "text_accuracy@1": the share of documents holding the term (`MAX_ASKING` at most) whose nearest other document
      holds it too;
    - "term_r_precision": if R documents hold the term, the share of the first R that does (Buckley and Voorhees 2000);
    - "definition_accuracy@1": one of the term's own definitions is ranked first among all definitions.

    Differences have an interval by sign flips of terms: it says what holds for other terms of the same documents.

    Returns:
        "terms", "documents", "base", "adapted", "delta" (and "defined_terms"), or "skipped": why; and a row per term.
    """
    vocabulary, scores = domain.vocabulary, dict[str, Both]()
    holding = _holding(vocabulary.lexicon, domain.texts)
    asked = {term: holding[term] for term in evenly(list(holding), MAX_TERMS)}
    if asked:
        documents = models.corpus(domain.texts, domain.role)
        scores |= _rank_terms(models, asked, documents)
        base, adapted = (_nearest_hold(document_MD, asked, models) for document_MD in documents)
        scores["text_accuracy@1"] = base, adapted
    rows = [
        {"term": term, "documents": len(asked[term]), "base": base, "adapted": adapted}
        for term, base, adapted in zip(asked, *scores.get("term_r_precision", ((), ())), strict=True)
    ]
    counts = {"terms": len(asked), "documents": len(domain.texts)}
    definitions = list(dict.fromkeys(text for texts in vocabulary.definitions.values() for text in texts))
    if len(definitions) > 1:
        index_of = {text: index for index, text in enumerate(definitions)}
        defined = evenly(list(vocabulary.definitions), MAX_TERMS)
        relevant = {term: {index_of[text] for text in vocabulary.definitions[term]} for term in defined}
        ranked = _rank_terms(models, relevant, models.encode(definitions, domain.role, "definitions"))
        scores["definition_accuracy@1"] = ranked["term_accuracy@1"]
        counts["defined_terms"] = len(defined)
    if not scores:
        return {"skipped": _why_no_terms(vocabulary)}, []
    return counts | _compared(scores, settings, seed), rows


def relatedness(models: Models, domain: DomainData, settings: EvaluateConfig, seed: int) -> dict[str, Any]:
    """Measure whether texts of one topic are more alike than texts of different topics.

    The ROC-AUC of the cosine over all pairs of at most `MAX_RELATED` texts, drawn evenly from at most `MAX_TOPICS`
    topics: the probability that two texts of one topic are closer than two of different ones. The interval flips
    texts, not pairs (`compare_aucs`).

    Returns:
        "origin", "topics", "texts", "base", "adapted", "delta" with "topic_auc"; or "skipped": why.
    """
    if not domain.topics:
        return {"skipped": domain.topics_origin}
    texts = _draw_topics(domain.topics, seed)
    labels = np.array([domain.topics[text] for text in texts])
    if np.unique(labels).size < 2:
        return {"skipped": "there are no two topics with two texts each"}
    text_P2 = np.stack(np.triu_indices(len(texts), 1), axis=1)
    same_P = labels[text_P2[:, 0]] == labels[text_P2[:, 1]]
    vectors = models.encode(texts, domain.role, "topics")
    base_P, adapted_P = ((unit_ND @ unit_ND.T)[text_P2[:, 0], text_P2[:, 1]] for unit_ND in vectors)
    delta = compare_aucs(
        base_P,
        adapted_P,
        same_P,
        text_P2,
        flips=settings.sign_flips,
        confidence=settings.confidence,
        seed=seed,
    )
    return {
        "origin": domain.topics_origin,
        "topics": int(np.unique(labels).size),
        "texts": len(texts),
        "base": {"topic_auc": roc_auc(base_P, same_P)},
        "adapted": {"topic_auc": roc_auc(adapted_P, same_P)},
        "delta": {"topic_auc": delta},
    }


def _holding(lexicon: Lexicon, texts: Sequence[str]) -> dict[str, set[int]]:
    """Term -> the texts that hold it, for the terms that neither too few nor too many texts hold."""
    holding: defaultdict[str, set[int]] = defaultdict(set)
    with progress("look up terms", len(texts), "documents") as advance:
        for index, text in enumerate(texts):
            for term in lexicon.find(text):
                holding[term].add(index)
            advance()
    most = min(MAX_HOLDING, MAX_HOLDING_SHARE * len(texts))
    return {term: indices for term, indices in holding.items() if MIN_HOLDING <= len(indices) <= most}


def _rank_terms(
    models: Models, relevant: Mapping[str, set[int]], documents: tuple[Vectors, Vectors]
) -> dict[str, Both]:
    """Per measure both models' scores, term by term."""
    terms, depth = list(relevant), max(map(len, relevant.values()))
    scores: dict[str, Both] = {"term_accuracy@1": ([], []), "term_r_precision": ([], [])}
    ids = [str(index) for index in range(len(documents[0]))]
    for model, (query_ND, document_MD) in enumerate(
        zip(models.encode(terms, "query", "terms"), documents, strict=True)
    ):
        run = rank_vectors(terms, query_ND, ids, document_MD, depth, device=models.base.device)
        for term, indices in relevant.items():
            hits = [int(document) in indices for document in list(run[term])[: len(indices)]]
            scores["term_accuracy@1"][model].append(float(hits[0]))
            scores["term_r_precision"][model].append(sum(hits) / len(indices))
    return scores


def _nearest_hold(document_MD: Vectors, holding: Mapping[str, set[int]], models: Models) -> list[float]:
    """Per term: how often the nearest neighbour of a document that holds it holds it too."""
    asking = {term: evenly(sorted(indices), MAX_ASKING) for term, indices in holding.items()}
    distinct = sorted({index for indices in asking.values() for index in indices})
    _, neighbours = top_k(np.asarray(document_MD[distinct]), document_MD, 2, device=models.base.device)
    nearest = {
        index: next(other for other in row if other != index)
        for index, row in zip(distinct, neighbours.tolist(), strict=True)
    }
    return [float(np.mean([nearest[index] in holding[term] for index in indices])) for term, indices in asking.items()]


def _compared(scores: Mapping[str, Both], settings: EvaluateConfig, seed: int) -> dict[str, Any]:
    return {
        "base": {name: float(np.mean(base)) for name, (base, _) in scores.items()},
        "adapted": {name: float(np.mean(adapted)) for name, (_, adapted) in scores.items()},
        "delta": {
            name: compare_means(
                np.array(base),
                np.array(adapted),
                flips=settings.sign_flips,
                confidence=settings.confidence,
                seed=seed,
            )
            for name, (base, adapted) in scores.items()
        },
    }


def _why_no_terms(vocabulary: Vocabulary) -> str:
    if not len(vocabulary.lexicon):
        return f"no term is known ({vocabulary.origin}); --lexicon FILE gives some"
    return f"no term of the lexicon stands in {MIN_HOLDING} to {MAX_HOLDING} documents and in a tenth of them at most"


def _draw_topics(topics: Mapping[str, str], seed: int) -> list[str]:
    """Draw texts of topics that have at least two: the same number from each, if it has that many."""
    generator = np.random.default_rng(seed)
    by_topic: defaultdict[str, list[str]] = defaultdict(list)
    for text, topic in topics.items():
        by_topic[topic].append(text)
    names = sorted(topic for topic, members in by_topic.items() if len(members) > 1)
    kept = [names[index] for index in sorted(generator.permutation(len(names))[:MAX_TOPICS])]
    share = MAX_RELATED // max(len(kept), 1)
    return [
        by_topic[topic][index]
        for topic in kept
        for index in sorted(generator.permutation(len(by_topic[topic]))[:share])
    ]
