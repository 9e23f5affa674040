"""Scores on the dev split while a model trains: the numbers by which the best checkpoint is chosen.

Dev queries are ranked against a pool that is small, fixed and hard: their relevant documents, what the base ranks
highest, and a sample of the rest. So scores are higher than on the whole corpus: they serve to compare the steps of one
training, and nothing else.

Legend: N queries or pairs, M documents of the pool, D vector size.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch

from acclimate.core.losses import cosine_mse, info_nce
from acclimate.core.negatives import identity_mask
from acclimate.core.same_text import text_id
from acclimate.evaluation.measures import evaluate_run, margin_measures, pair_measures
from acclimate.models.encoder import Encoder
from acclimate.retrieval.own_documents import own_documents
from acclimate.retrieval.rank import rank_vectors
from acclimate.retrieval.top_k import Vectors, top_k
from acclimate.retrieval.vector_cache import encode_corpus
from acclimate.types import PAIR_ROLE, Corpus, LabelledPair, Qrels, Queries, Sides

Evaluate: TypeAlias = Callable[[int], dict[str, float]]
"""Steps taken (0: the base) -> the current model's scores on dev."""

MAX_QUERIES = 500
HARD_SHARE = 0.5
"""Share of the pool, relevant documents apart, that is filled with the base's top hits."""
TOP = 100


@dataclass(frozen=True, slots=True)
class DevSet:
    """Dev queries and the pool that they are ranked against."""

    queries: Queries
    qrels: Qrels
    corpus: Corpus
    base_vectors: Vectors
    """[M, D] of the pool, by the untrained base."""


def dev_set(
    encoder: Encoder, corpus: Corpus, corpus_MD: Vectors, queries: Queries, qrels: Qrels, documents: int, seed: int
) -> DevSet:
    """Choose the dev queries (at most 500) and the pool: a function of the data, the base and the seed.

    Args:
        encoder: the base.
        corpus: all documents.
        corpus_MD: their vectors by the base, in the corpus's order (may be a memory map).
        queries: texts of all queries.
        qrels: judgements of the dev split.
        documents: size of the pool; larger where more than half of it would be relevant, because nothing is hard to
            find among answers only.
        seed: fixes the samples.
    """
    generator = np.random.default_rng([seed, len(qrels)])
    relevant_of = {query: [d for d in qrels[query] if qrels[query][d] > 0 and d in corpus] for query in sorted(qrels)}
    chosen = sorted(_sample([query for query, relevant in relevant_of.items() if relevant], MAX_QUERIES, generator))
    pool = dict.fromkeys(document for query in chosen for document in relevant_of[query])
    documents = max(documents, 2 * len(pool))
    ids = list(corpus)
    query_ND = encode_corpus(encoder, [queries[query] for query in chosen], None, role="query")
    _, hits = top_k(query_ND, corpus_MD, min(TOP, len(ids)), device=encoder.device)
    with_hard = len(pool) + int(HARD_SHARE * max(0, documents - len(pool)))
    for row in hits.T.ravel().tolist():  # every query's best hit first, then every query's second
        if len(pool) >= with_hard:
            break
        pool.setdefault(ids[row])
    rest = [document for document in ids if document not in pool]
    pool |= dict.fromkeys(_sample(rest, max(0, documents - len(pool)), generator))
    row_of = {document: row for row, document in enumerate(ids)}
    return DevSet(
        queries={query: queries[query] for query in chosen},
        qrels={query: qrels[query] for query in chosen},
        corpus={document: corpus[document] for document in pool},
        base_vectors=np.array(corpus_MD[[row_of[document] for document in pool]]),
    )


def retrieval_scores(
    encoder: Encoder, dev: DevSet, *, sides: Sides = "both", temperature: float = 1.0, untrained: bool = True
) -> Evaluate:
    """Ranking measures, margin and loss of the current model.

    Args:
        encoder: as it is at the time of the evaluation.
        dev: queries and their pool.
        sides: query where the documents' vectors stay the base's.
        temperature: of the loss.
        untrained: whether step 0 is the base.

    Returns:
        step -> "ndcg@10", "recall@5", "mrr@10", "margin", "positive_cosine", "negative_cosine", "loss".
    """
    query_ids, document_ids = list(dev.queries), list(dev.corpus)
    own = own_documents(query_ids, dev.corpus, dev.qrels)
    query_texts, document_texts = list(dev.queries.values()), list(dev.corpus.values())

    def evaluate(step: int) -> dict[str, float]:
        encoder.model.eval()
        base_documents = (untrained and step == 0) or sides == "query"
        query_ND = encode_corpus(encoder, query_texts, None, role="query")
        document_MD = dev.base_vectors if base_documents else encode_corpus(encoder, document_texts, None, "dev")
        run = rank_vectors(query_ids, query_ND, document_ids, document_MD, TOP, own=own, device=encoder.device)
        means, _ = evaluate_run(run, dev.qrels)
        scores = {name: means[name] for name in ("ndcg@10", "recall@5", "mrr@10")}
        scores |= margin_measures(run, dev.qrels, query_ids, query_ND, document_ids, document_MD)
        return scores | {"loss": _ranking_loss(dev, query_ND, document_MD, temperature)}

    return evaluate


def similarity_scores(encoder: Encoder, pairs: Sequence[LabelledPair]) -> Evaluate:
    """Correlation with the labels of the dev pairs: step -> "spearman", "pearson", "loss"."""
    texts = [pair.sentence1 for pair in pairs] + [pair.sentence2 for pair in pairs]
    score_N = torch.tensor([pair.score for pair in pairs])

    def evaluate(_step: int) -> dict[str, float]:
        encoder.model.eval()
        vectors = encode_corpus(encoder, texts, None, role=PAIR_ROLE)
        left_ND, right_ND = vectors[: len(pairs)], vectors[len(pairs) :]
        measures = pair_measures(np.einsum("nd,nd->n", left_ND, right_ND), pairs)
        scores = {name: float(measures[name] or 0.0) for name in ("spearman", "pearson")}
        return scores | {"loss": float(cosine_mse(torch.from_numpy(left_ND), torch.from_numpy(right_ND), score_N))}

    return evaluate


def _ranking_loss(dev: DevSet, query_ND: Vectors, document_MD: Vectors, temperature: float) -> float:
    """InfoNCE of every query's most relevant document against the pool, its other relevant ones masked."""
    texts, column = list(dev.corpus.values()), {document: index for index, document in enumerate(dev.corpus)}
    relevant = {
        query: sorted((d for d in grades if grades[d] > 0 and d in column), key=lambda d: (-grades[d], d))
        for query, grades in dev.qrels.items()
    }
    target_N = torch.tensor([column[relevant[query][0]] for query in dev.queries])
    query_keys, text_keys = [text_id(text) for text in dev.queries.values()], [text_id(text) for text in texts]
    positives: dict[Hashable, set[int]] = {}
    for query, key in zip(dev.queries, query_keys, strict=True):
        positives.setdefault(key, set()).update(text_keys[column[document]] for document in relevant[query])
    for query in own_documents(dev.queries, dev.corpus, dev.qrels):
        positives[text_id(dev.queries[query])].add(text_keys[column[query]])
    mask_NM = identity_mask(query_keys, text_keys, target_N, positives)
    return float(info_nce(torch.from_numpy(query_ND), torch.from_numpy(document_MD), target_N, mask_NM, temperature))


def _sample(items: Sequence[str], count: int, generator: np.random.Generator) -> list[str]:
    """Draw `count` of the items, in random order; all of them, in their own order, if there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[index] for index in generator.choice(len(items), size=max(0, count), replace=False)]
