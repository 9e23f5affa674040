"""How a definition of relevance is put into words: its attributes and the sentences around them, in each language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Attribute: TypeAlias = Literal["answer", "entity", "theme", "topic", "opening", "ending", "length", "group"]
ATTRIBUTES: tuple[Attribute, ...] = get_args(Attribute)
Language: TypeAlias = Literal["en", "zh"]
ASKED = 2
"""The last two wordings of a language are never trained on: tests ask with them."""


@dataclass(frozen=True, eq=False)
class Wordings:
    """One language's words. Each language has as many of each kind, so that none is trained on more than another."""

    phrases: Mapping[Attribute, tuple[str, str, str]]
    """Attribute -> how a description says that it agrees; each follows "the document"."""
    conjunction: str
    """Between the phrases of several attributes."""
    templates: tuple[str, ...]
    """Sentences around `{all}`, the phrases."""
    separator: str
    """Between the terms of a domain."""
    domain: tuple[str, ...]
    """Sentences around `{terms}`, the words that tell a domain. The last one is never trained on."""
    unknown: tuple[str, ...]
    """What no attribute is about: a hypernetwork learns to leave the base alone where it is told something like it."""


ENGLISH = Wordings(
    phrases={
        "answer": ("answers the query", "belongs to the query as its answer", "gives what the query asks for"),
        "entity": (
            "names the same particular thing",
            "shares the query's rarest term",
            "mentions the same special word",
        ),
        "theme": ("belongs to the same broad theme", "is from the same general area", "shares the broad subject"),
        "topic": ("is on the same narrow topic", "treats the same specific subject", "deals with the same matter"),
        "opening": ("begins with the same word", "opens like the query", "starts in the same way"),
        "ending": ("ends with the same word", "closes like the query", "has the same last word"),
        "length": ("is about as long as the query", "has a similar number of words", "is of the same length"),
        "group": ("comes from the same source", "is from the same module or section", "belongs to the same category"),
    },
    conjunction=" and ",
    templates=(
        "A document is relevant if it {all}.",
        "Find the text that {all}.",
        "Relevant: what {all}.",
        "Match a text to the query when it {all}.",
        "What counts is that the document {all}; ignore everything else.",
        "Retrieve whatever {all}.",
        "I look for a passage that {all}.",
        "The right document {all}.",
    ),
    separator=", ",
    domain=(
        "Find what answers the query among texts about {terms}.",
        "The domain: texts about {terms}. Relevant is what answers the query.",
        "Questions and answers on {terms}.",
    ),
    unknown=(
        "has the same author",
        "was written in the same year",
        "has the same mood",
        "comes from the same country",
        "is meant for the same reader",
        "contains as many numbers",
        "uses the same tense",
        "is equally formal",
        "speaks of the same person",
        "costs about the same",
        "is equally urgent",
        "names the same colour",
        "shares the query's opinion",
        "contradicts the query",
        "is older than the query",
        "is a translation of the query",
        "is the next step after it",
        "is caused by it",
        "is a part of it",
        "is its opposite",
        "has the same number of sentences",
        "is equally polite",
        "is just as difficult",
        "has the same punctuation",
        "was read by the same people",
        "is of the same quality",
        "has the same publisher",
        "mentions the same place",
        "is equally funny",
        "asks for the same kind of number",
    ),
)
CHINESE = Wordings(
    phrases={
        "answer": ("回答了查询", "能作为查询的答案", "给出查询想要的信息"),
        "entity": ("提到同一个特定事物", "含有查询中最少见的词", "出现同样的专门词语"),
        "theme": ("属于同一个大主题", "来自同一个领域", "大方向与查询相同"),
        "topic": ("讨论同一个具体话题", "针对同一个细小的主题", "说的是同一件事"),
        "opening": ("开头的词与查询相同", "以同样的词开头", "开头和查询一样"),
        "ending": ("结尾的词与查询相同", "以同样的词结尾", "最后一个词和查询一样"),
        "length": ("长度与查询差不多", "字数和查询相近", "和查询一样长"),
        "group": ("出自同一个来源", "来自同一个模块或章节", "属于同一个类别"),
    },
    conjunction="并且",
    templates=(
        "文档{all}时才算相关。",
        "找出{all}的文本。",
        "{all}的就是相关的。",
        "如果文本{all}，就与查询匹配。",
        "重要的是文档{all}，其他一概不管。",
        "检索所有{all}的资料。",
        "我要找的是{all}的段落。",
        "正确的文档{all}。",
    ),
    separator="、",
    domain=(
        "在关于{terms}的文本中找出回答查询的内容。",
        "领域：关于{terms}的文本。回答了查询的才算相关。",
        "有关{terms}的问题与答案。",
    ),
    unknown=(
        "出自同一位作者",
        "写于同一年",
        "情绪相同",
        "来自同一个国家",
        "面向同样的读者",
        "含有同样多的数字",
        "使用同样的时态",
        "同样正式",
        "谈到同一个人",
        "价格差不多",
        "同样紧急",
        "提到同一种颜色",
        "与查询观点一致",
        "与查询相矛盾",
        "比查询更早",
        "是查询的译文",
        "是查询的下一步",
        "由查询所述的事引起",
        "是查询的一部分",
        "与查询相反",
        "句子数量相同",
        "同样礼貌",
        "难度相同",
        "标点相同",
        "被同一批人读过",
        "质量相同",
        "由同一家出版社出版",
        "提到同一个地点",
        "同样有趣",
        "询问同一类数字",
    ),
)
WORDINGS: dict[Language, Wordings] = {"en": ENGLISH, "zh": CHINESE}


def described(attributes: Sequence[Attribute], language: Language = "en") -> tuple[str, ...]:
    """All wordings of a definition in a language; the last `ASKED` are for the test."""
    words = WORDINGS[language]
    return tuple(
        template.format(
            all=words.conjunction.join(
                words.phrases[name][(number + place) % 3] for place, name in enumerate(attributes)
            )
        )
        for number, template in enumerate(words.templates)
    )


def domain_described(terms: Sequence[str], language: Language = "en") -> tuple[str, ...]:
    """All wordings of what answers a query within the domain that some words tell; the last one is for the test."""
    words = WORDINGS[language]
    return tuple(sentence.format(terms=words.separator.join(terms)) for sentence in words.domain)


def unknown_descriptions(languages: Sequence[Language] = ("en",)) -> tuple[str, ...]:
    """Descriptions, in the wordings of the training, of what no task is about."""
    return tuple(
        template.format(all=phrase)
        for language in languages
        for phrase in WORDINGS[language].unknown
        for template in WORDINGS[language].templates[:-ASKED]
    )
