"""Pooling and prompts of well-known model families, for folders that do not say it themselves.

A sentence-transformers folder knows its pooling; a plain transformers folder does not, and a wrong guess costs
quality without a sign. So only families whose model card states the recipe are here; for all others we ask.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from acclimate.models.prompts import Prompts
from acclimate.types import Pooling

WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
BGE_ENGLISH = "Represent this sentence for searching relevant passages: "
BGE_CHINESE = "为这个句子生成表示以用于检索相关文章："


@dataclass(frozen=True)
class Family:
    """How a family of models turns texts into vectors."""

    pattern: str
    """Regular expression, searched in the lower-case id."""
    pooling: Pooling
    query_prompt: str = ""
    document_prompt: str = ""

    @property
    def prompts(self) -> Prompts:
        """The family's prompts for the default task."""
        return Prompts({"": self.query_prompt}, {"": self.document_prompt})


FAMILIES = (
    Family(r"qwen3-embedding", "last", f"Instruct: {WEB_SEARCH}\nQuery:"),
    Family(r"e5-mistral", "last", f"Instruct: {WEB_SEARCH}\nQuery: "),
    Family(r"e5.*instruct", "mean", f"Instruct: {WEB_SEARCH}\nQuery: "),
    Family(r"\be5-|-e5-|/e5-", "mean", "query: ", "passage: "),
    Family(r"bge-m3", "cls"),
    Family(r"bge-.*-zh", "cls", BGE_CHINESE),
    Family(r"bge-(small|base|large)-en|bge-.*-en-v", "cls", BGE_ENGLISH),
    Family(r"arctic-embed.*v2", "cls", "query: "),
    Family(r"arctic-embed", "cls", BGE_ENGLISH),
    Family(r"mxbai-embed", "cls", BGE_ENGLISH),
    Family(r"gte-(modernbert|multilingual)", "cls"),
    Family(r"gte-(tiny|small|base|large)", "mean"),
    Family(r"nomic-embed-text", "mean", "search_query: ", "search_document: "),
    Family(r"m3e-|text2vec|all-minilm|all-mpnet|paraphrase-|multi-qa-.*-mean", "mean"),
)
"""The first that matches holds, so the special ones come first."""


def find_family(*names: str) -> Family | None:
    """The family that the first of these names (ids, folder names) belongs to, if any."""
    for name in filter(None, names):
        for family in FAMILIES:
            if re.search(family.pattern, name.lower()):
                return family
    return None


def instruct_prompt(task: str) -> str:
    """Qwen3-Embedding's query prompt for a task; there is no space after `Query:`."""
    return f"Instruct: {task}\nQuery:"
