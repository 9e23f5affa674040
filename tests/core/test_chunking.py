"""Chunks of a long text: by hand, and by law."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from acclimate.core.chunking import Span, chunk_spans


def words(text: str) -> list[tuple[int, int]]:
    """Tokens that are easy to count: runs of letters, every other character by itself; two for each Chinese one."""
    found: list[tuple[int, int]] = []
    for match in re.finditer(r"[a-z]+|[^\sa-z]", text):
        found += [match.span()] * (2 if match[0] >= "\u4e00" else 1)
    return found


def parts(text: str, max_tokens: int, overlap: int = 0) -> list[str]:
    return [text[span.start : span.end] for span in chunk_spans(text, words(text), max_tokens, overlap)]


def test_a_short_text_is_one_chunk() -> None:
    assert chunk_spans("  a b c. ", words("  a b c. "), 4, 2) == [Span(2, 8)]
    assert chunk_spans(" \n ", [], 4, 2) == []


def test_ends_with_the_last_sentence_that_fits() -> None:
    # Four tokens a sentence: two fit into nine tokens.
    text = "a b c. d e f. g h i. j k l."
    assert parts(text, 9) == ["a b c. d e f.", "g h i. j k l."]


def test_goes_back_by_whole_sentences() -> None:
    text = "a b c. d e f. g h i. j k l."
    assert parts(text, 9, 5) == ["a b c. d e f.", "d e f. g h i.", "g h i. j k l."]
    # Going back by a sentence of four would push the next one out of a chunk of seven: not by so much.
    assert parts(text, 7, 4) == ["a b c.", "b c. d e f.", "e f. g h i.", "h i. j k l."]


def test_a_long_sentence_is_cut_between_words() -> None:
    assert parts("a b c d e f g h.", 4, 1) == ["a b c d", "d e f g", "g h."]


def test_a_number_and_a_dotted_name_are_no_borders() -> None:
    assert parts("see os.path now. then go.", 6) == ["see os.path now.", "then go."]


def test_chinese_sentences_end_without_a_space() -> None:
    # Two tokens for each of four characters, one for 。 and two for ！ and ？: 9 + 10 + 10.
    text = "小麦生锈。水稻缺水！玉米虫害？"
    assert parts(text, 19) == ["小麦生锈。水稻缺水！", "玉米虫害？"]
    assert parts(text, 4) == ["小麦", "生", "锈。", "水稻", "缺", "水！", "玉米", "虫", "害？"]


def test_paragraphs_and_list_entries_are_borders_and_wrapped_lines_are_not() -> None:
    assert parts("a b\nc d\n\ne f\n- g h", 6) == ["a b\nc d\n\ne f", "- g h"]
    assert parts("a b\nc d\n\ne f\n- g h", 5) == ["a b\nc d", "e f\n- g h"]
    assert parts("a b\nc d\n\ne f\n- g h", 4) == ["a b\nc d", "e f", "- g h"]


def test_a_word_of_more_tokens_than_the_limit_is_cut_between_them() -> None:
    text = "x" * 12
    tokens = [(place, place + 1) for place in range(12)]
    spans = chunk_spans(text, tokens, 5, 0)
    assert [span.end - span.start for span in spans] == [5, 5, 2]


TEXTS = st.lists(
    st.sampled_from(
        [
            "wheat",
            "rust",
            "a",
            "3.5",
            ".",
            "!",
            "小麦",
            "锈病。",
            "水",
            "？",
            "\n",
            "\n\n",
            "\n- ",
            " ",
            "  ",
            "(",
            "é",
            "\u200b",
        ]
    ),
    max_size=80,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(TEXTS, st.integers(2, 12), st.integers(0, 11))
def test_laws(text: str, max_tokens: int, overlap: int) -> None:
    overlap = min(overlap, max_tokens - 1)
    tokens = words(text)
    spans = chunk_spans(text, tokens, max_tokens, overlap)

    covered = {place for span in spans for place in range(*span)}
    assert all(character.isspace() for place, character in enumerate(text) if place not in covered)
    for start, end in spans:
        assert start < end and text[start:end] == text[start:end].strip()
        assert len(words(text[start:end])) <= max_tokens
    for before, after in pairwise(spans):
        assert before.start < after.start and before.end < after.end
        shared = text[after.start : before.end]
        assert len(words(shared)) <= overlap
