"""The names that columns go by, in the files of the tools that people come from. Compared without regard to case."""

from __future__ import annotations

import re

from acclimate.types import Split

ANCHORS = ("anchor", "query", "question", "prompt", "messages")
POSITIVES = ("positive", "response", "answer", "pos", "positive_messages", "positive_passages", "positive_ctxs")
NEGATIVES = (
    "negative",
    "negatives",
    "neg",
    "rejected_response",
    "negative_messages",
    "negative_passages",
    "hard_negative_ctxs",
)
NUMBERED_NEGATIVE = re.compile(r"negative_?(\d+)")
SENTENCES = ("sentence1", "sentence2")
LABELS = ("label", "score")
PAIRS = frozenset((*ANCHORS, *POSITIVES, *NEGATIVES, *SENTENCES))

TEXTS = ("text", "contents", "content", "sentence", "passage")
"""A text by itself: BEIR's and most others' name, Pyserini's, and further ones; the first that is there counts."""
TITLE = "title"
IDS = ("_id", "id", "docid", "doc_id", "query_id", "qid", "pid")
QRELS = {
    "query": ("query-id", "query_id", "qid"),
    "document": ("corpus-id", "corpus_id", "doc-id", "doc_id", "docid", "pid"),
    "grade": ("score", "relevance", "rel", "label"),
}

SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "dev": "dev",
    "validation": "dev",
    "valid": "dev",
    "val": "dev",
    "test": "test",
}
