"""Settings of `pairs`, and of `adapt` where it is given documents."""

from __future__ import annotations

from dataclasses import dataclass

from acclimate.configs.checks import check_above, check_at_least
from acclimate.errors import UsageError

PAIR_SOURCES = ("title", "heading", "faq", "neighbours", "crop", "cluster")
"""What pairs are made from without a language model; those of one are called `written`."""
WRITTEN = "written"
QUERY_STYLES = ("keyword", "question", "long")


@dataclass(frozen=True, slots=True, kw_only=True)
class PairsConfig:
    """Pairs out of documents, where nobody has asked anything yet."""

    pair_sources: tuple[str, ...] = ("title", "heading", "faq", "neighbours")
    """Where pairs come from. title: a title and the beginning of its text; heading: a heading and what stands below
    it; faq: a line with a question and the answer after it; neighbours: words of a passage and the next one; crop:
    words of a passage and the whole of it, which made models worse on three of four data sets, so they are not made
    unless they are named; cluster: two passages of one cluster of vectors that share rare terms. With --llm also
    queries that it writes."""
    pairs_limit: int = 5_000
    """Largest number of pairs of each source, drawn evenly from all documents."""
    passage_words: int = 128
    """Longest passage, in words (in Chinese and Japanese: characters); passages end with sentences where they can."""
    passages_limit: int = 50_000
    """Most passages that are ranked, in mining and in the proof, drawn evenly; and those that pairs are made of."""
    queries: str | None = None
    """File of real queries, which are used for the proof only: each with the id of its document, or with the text that
    answers it; or queries alone, for which the results of both models are shown."""
    annotated: tuple[str, ...] = ()
    """Files that experts have filled in (see --annotate of pairs): one for each expert."""
    query_styles: tuple[str, ...] = QUERY_STYLES
    """How --llm writes queries, one of each style for a passage: keyword, question, long."""
    asked_passages: int = 1_000
    """Passages for which --llm writes queries."""
    round_trip_k: int = 10
    """A written query is kept only if its passage is among the first so many, by words or by vectors."""
    judge: bool = False
    """Let --llm also say, in a second request for each query, whether its passage answers it, and drop those that it
    does not."""
    llm_prices: tuple[float, ...] = ()
    """Prices of a million tokens, of the requests and of the answers, in your currency, such as 0.15,0.60: the cost is
    then shown."""

    def __post_init__(self) -> None:
        for name in ("pairs_limit", "passages_limit", "asked_passages", "round_trip_k"):
            check_at_least(name, getattr(self, name), 1)
        check_at_least("passage_words", self.passage_words, 16)
        for name, possible in (("pair_sources", PAIR_SOURCES), ("query_styles", QUERY_STYLES)):
            if wrong := [value for value in getattr(self, name) if value not in possible]:
                raise UsageError(f"{name}: {wrong[0]!r}", possible=", ".join(possible))
        if not self.query_styles:
            raise UsageError("query_styles is empty", possible=", ".join(QUERY_STYLES))
        if self.llm_prices and len(self.llm_prices) != 2:
            raise UsageError(
                f"llm_prices has {len(self.llm_prices)} numbers", possible="two: of the requests, and of the answers"
            )
        for price in self.llm_prices:
            check_above("llm_prices", price, -1e-12)
