"""Pooling, prompts and temperature of well-known model families, for folders that do not say it themselves.

A sentence-transformers folder knows its pooling and sometimes its prompts; a plain transformers folder knows neither,
and a wrong guess costs quality without a sign. So only models whose card states the recipe are here, by their own
names: of a model derived from one, and of all others, we ask.

Source: the model cards of the families on the hub (Qwen/Qwen3-Embedding-0.6B, intfloat/e5-*, BAAI/bge-*,
Alibaba-NLP/gte-*, google/embeddinggemma-300m, ...).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from acclimate.prompts import Prompts
from acclimate.types import Pooling

WEB_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
BGE_ENGLISH = "Represent this sentence for searching relevant passages: "
BGE_CHINESE = "为这个句子生成表示以用于检索相关文章："


CLASSIFIER_TYPES = frozenset({"bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"})
"""Architectures whose classification head on the first token is known: what a cross-encoder can be built on."""


@dataclass(frozen=True)
class Family:
    """How a family of models turns texts into vectors."""

    pattern: str
    """Regular expression of the whole lower-case name, without the organisation."""
    pooling: Pooling
    query_prompt: str = ""
    document_prompt: str = ""
    temperature: float | None = None
    """What the authors divided cosines by in training, where their paper or card says it."""
    dense: bool = False
    """Whether its vectors also need Dense layers, which a plain transformers folder does not hold."""
    matryoshka: bool = False
    """Whether it was trained so that leading dimensions can be used alone."""

    @property
    def prompts(self) -> Prompts:
        """The family's prompts for the default task."""
        return Prompts({"": self.query_prompt}, {"": self.document_prompt})


FAMILIES = (
    # No space after the colon.
    Family(r"qwen3-embedding-\d+(\.\d+)?b", "last", f"Instruct: {WEB_SEARCH}\nQuery:", matryoshka=True),
    Family(r"e5-mistral-7b-instruct", "last", f"Instruct: {WEB_SEARCH}\nQuery: "),
    Family(r"multilingual-e5-large-instruct", "mean", f"Instruct: {WEB_SEARCH}\nQuery: "),
    # "A low temperature 0.01 for InfoNCE contrastive loss": the cards of intfloat/e5-* and multilingual-e5-*; Wang et
    # al. 2022, "Text Embeddings by Weakly-Supervised Contrastive Pre-training".
    Family(r"(multilingual-)?e5-(small|base|large)(-v2)?(-unsupervised)?", "mean", "query: ", "passage: ", 0.01),
    Family(r"bge-m3", "cls"),
    # "We finetune the models by contrastive learning with a temperature of 0.01": the cards of BAAI/bge-*, of the first
    # version; those of v1.5 only say that its scores are less crowded.
    Family(r"bge-(small|base|large)-zh", "cls", BGE_CHINESE, temperature=0.01),
    Family(r"bge-(small|base|large)-en", "cls", BGE_ENGLISH, temperature=0.01),
    Family(r"bge-(small|base|large)-zh-v1\.5", "cls", BGE_CHINESE),
    Family(r"bge-(small|base|large)-en-v1\.5", "cls", BGE_ENGLISH),
    Family(r"snowflake-arctic-embed-[ml]-v2\.0", "cls", "query: ", matryoshka=True),
    Family(r"snowflake-arctic-embed-m-v1\.5", "cls", BGE_ENGLISH, matryoshka=True),
    Family(r"snowflake-arctic-embed-(xs|s|m|m-long|l)", "cls", BGE_ENGLISH),
    Family(r"mxbai-embed-large-v1", "cls", BGE_ENGLISH, matryoshka=True),
    Family(r"gte-(modernbert-base|multilingual-base|(base|large)-en-v1\.5)", "cls"),
    # Li et al. 2023, "Towards General Text Embeddings with Multi-stage Contrastive Learning": the temperature is 0.01.
    Family(r"gte-(small|base|large)", "mean", temperature=0.01),
    Family(r"gte-tiny", "mean"),
    Family(r"nomic-embed-text-v1", "mean", "search_query: ", "search_document: "),
    Family(r"nomic-embed-text-v\d.*", "mean", "search_query: ", "search_document: ", matryoshka=True),
    Family(
        r"embeddinggemma-300m",
        "mean",
        "task: search result | query: ",
        "title: none | text: ",
        dense=True,
        matryoshka=True,
    ),
    Family(r"m3e-(small|base|large)|text2vec-(base|large)-.*|paraphrase-.*", "mean"),
    # A scale of 20: train_script.py beside the weights of sentence-transformers/all-*, the cards of multi-qa-*-cos-v1.
    Family(r"all-(minilm|mpnet|distilroberta|roberta)-.*|multi-qa-.*-cos-v1", "mean", temperature=0.05),
)


def find_family(*names: str) -> Family | None:
    """The family that the first of these names (ids, folder names) belongs to, if any."""
    for name in filter(None, names):
        for family in FAMILIES:
            if re.fullmatch(family.pattern, name.lower().rstrip("/").rsplit("/", 1)[-1]):
                return family
    return None


MULTILINGUAL = ("intfloat/multilingual-e5-small", "BAAI/bge-m3", "Qwen/Qwen3-Embedding-0.6B")
"""Models of these families whose tokenizers know most languages, the smallest first."""
OF_ONE_LANGUAGE = {"Han": ("BAAI/bge-small-zh-v1.5",), "Latin": ("BAAI/bge-small-en-v1.5",)}
"""Script -> models for its most frequent language."""


def models_for(script: str) -> tuple[str, ...]:
    """The models whose tokenizers know a script, by their hub ids."""
    return (*OF_ONE_LANGUAGE.get(script, ()), *MULTILINGUAL)
