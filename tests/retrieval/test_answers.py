"""What a language model is given, and what of its answer is true."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.retrieval.answers import (
    AROUND_A_PASSAGE,
    NO_ANSWER,
    Answer,
    AnswerReader,
    Passage,
    choose_passages,
    estimated_tokens,
    language_of_question,
    messages,
)

PASSAGES = (
    Passage(1, "a/b c", "Wheat is sown in October."),
    Passage(2, "PMID:77", "Rust grows in rain."),
    Passage(3, "2", "Its id is a number."),
)
REFUSAL = "The documents do not answer this question."


def read(*pieces: str, question: str = "When?", passages: tuple[Passage, ...] = PASSAGES) -> tuple[Answer, str]:
    """The answer, and what was shown of it while it came."""
    reader = AnswerReader(question, passages)
    shown = "".join([*(reader.feed(piece) for piece in pieces), reader.end()])
    return reader.answer, shown


@pytest.mark.parametrize(
    ("said", "text", "cited", "struck"),
    [
        ("In October [1].", "In October [1].", [1], 0),
        ("In October[1][3].", "In October[1][3].", [1, 3], 0),
        ("Both [3, 1]; 两者 [2；1]", "Both [3][1]; 两者 [2][1]", [3, 1, 2], 0),
        ("All [1-3], again [2]", "All [1][2][3], again [2]", [1, 2, 3], 0),
        ("播种于十月【1】。", "播种于十月[1]。", [1], 0),
        ("It is [PMID:77], and [a/b c].", "It is [2], and [1].", [2, 1], 0),
        ("By words [Document 1] [Passage 2] [文档3] [^1]", "By words [1] [2] [3] [1]", [1, 2, 3], 0),
        ("Invented [4]. Half [1, 9] [2-5].", "Invented. Half [1] [2][3].", [1, 2, 3], 4),
        ("By id [PMID:99], at the end [17]", "By id, at the end", [], 2),
        ("[7] It begins so.", "It begins so.", [], 1),
        ("No citation: [sic], [see below], [ ], ] and [1", "No citation: [sic], [see below], [ ], ] and", [], 0),
        ("A link [docs](https://x.y), and [the\n1]", "A link [docs](https://x.y), and [the\n1]", [], 0),
        ("[[1]] and [x [2]]", "[[1]] and [x [2]]", [1, 2], 0),
    ],
)
def test_citations_are_read_and_what_was_not_retrieved_is_struck(
    said: str, text: str, cited: list[int], struck: int
) -> None:
    answer, shown = read(said)
    assert (answer.text, [one.number for one in answer.citations], answer.struck) == (text, cited, struck)
    assert answer.answered and shown == text
    assert all(one in PASSAGES for one in answer.citations)


def test_a_number_is_a_place_first_and_then_an_id() -> None:
    answer, _ = read("x [2]")
    assert [one.id for one in answer.citations] == ["PMID:77"]
    answer, _ = read("x [4711]", passages=(Passage(1, "4711", "t"),))
    assert [one.number for one in answer.citations] == [1] and answer.text == "x [1]"


@pytest.mark.parametrize(
    "said",
    [
        NO_ANSWER,
        f"  **{NO_ANSWER}**",
        f"{NO_ANSWER}. The passages are about rust [1].",
        f"<think>Is it in [1]? No.</think>\n\n{NO_ANSWER}",
        f"I am sorry: {NO_ANSWER}",
        "",
        " \n",
        "<think>It never ended",
        "[8]",
    ],
)
def test_what_is_no_answer_is_a_refusal_in_the_questions_language(said: str) -> None:
    answer, _ = read(said)
    assert (answer.text, answer.answered, answer.citations) == (REFUSAL, False, ())
    assert read(said, question="小麦什么时候播种？")[0].text == "文档中没有这个问题的答案。"


def test_a_refusal_is_not_shown_while_it_comes() -> None:
    assert read(*NO_ANSWER)[1] == ""
    assert read("NOT", "_IN", " the field [1]")[1] == "NOT_IN the field [1]"


def test_thinking_is_not_shown() -> None:
    answer, shown = read("<thi", "nk>first [9]</th", "ink>\n\nIn ", "October [1].")
    assert shown == answer.text == "In October [1]." and answer.struck == 0


ALPHABET = [
    "[",
    "]",
    "【",
    "】",
    "1",
    "2",
    "3",
    "9",
    "-",
    ",",
    " ",
    "\n",
    "x",
    "PMID:77",
    "doc ",
    "<think>",
    "</think>",
]
TEXTS = st.lists(st.sampled_from([*ALPHABET, NO_ANSWER, NO_ANSWER[:5]]), max_size=40)


@given(TEXTS, st.data())
def test_however_a_text_is_cut_the_same_is_shown(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole, at_once = read(text)
    piecewise, shown = read(*pieces)
    assert piecewise == whole and shown == at_once
    assert not whole.answered or shown == whole.text


@given(TEXTS)
def test_only_what_was_retrieved_is_cited(parts: list[str]) -> None:
    answer, _ = read("".join(parts))
    left = {int(number) for number in re.findall(r"\[(\d+)\]", answer.text)}
    assert left <= {1, 2, 3}
    if answer.answered:
        assert left == {one.number for one in answer.citations}
    assert len(set(answer.citations)) == len(answer.citations)


@given(st.lists(st.tuples(st.text(min_size=1, max_size=5), st.text(max_size=300)), max_size=12), st.integers(50, 400))
def test_passages_fit_into_the_budget_best_first(found: list[tuple[str, str]], budget: int) -> None:
    chosen = choose_passages(found, budget)
    assert sum(one.tokens for one in chosen) <= budget
    there = [(name, text.strip()) for name, text in found if text.strip()]
    assert [one.number for one in chosen] == list(range(1, len(chosen) + 1))
    for one, (name, text) in zip(chosen, there, strict=False):
        assert one.id == name and one.text and text.startswith(one.text)
    assert all(one.text == text for one, (_, text) in zip(chosen[:-1], there, strict=False))
    assert chosen or not there


def test_the_last_passage_is_cut_and_what_follows_is_left_out() -> None:
    found = [("a", "x" * 300), ("b", "小麦" * 100), ("c", "short")]
    chosen = choose_passages(found, 100 + AROUND_A_PASSAGE + 60)
    assert [(one.id, len(one.text)) for one in chosen] == [("a", 300), ("b", 60 - AROUND_A_PASSAGE)]
    assert [one.id for one in choose_passages(found, 100 + AROUND_A_PASSAGE + 10)] == ["a"]
    assert len(choose_passages(found, 50)[0].text) == 3 * (50 - AROUND_A_PASSAGE)


def test_tokens_are_estimated_by_script() -> None:
    assert estimated_tokens("小麦条锈病") == 5
    assert estimated_tokens("winter wheat") == 4
    assert estimated_tokens("小麦 rust") == 4


@pytest.mark.parametrize(
    ("question", "language"),
    [
        ("When is wheat sown?", "en"),
        ("小麦什么时候播种？", "zh"),
        ("小麦 rust 怎么防治", "zh"),
        ("What does 小麦 mean?", "en"),
        ("小麦はいつ播種しますか", "en"),
        ("Wann wird Weizen gesät?", "en"),
        ("2024?", "en"),
    ],
)
def test_the_language_of_a_question(question: str, language: str) -> None:
    assert language_of_question(question) == language


def test_the_model_is_told_in_the_questions_language_and_gets_the_passages_by_number() -> None:
    system, user = messages("When?", PASSAGES)
    assert system["role"] == "system" and NO_ANSWER in system["content"] and "[1]" in system["content"]
    assert user["content"].startswith("Passages:\n\n[1] Wheat is sown") and user["content"].endswith("Question: When?")
    assert "[3] Its id is a number." in user["content"] and "PMID" not in user["content"]
    system, user = messages("小麦什么时候播种？", PASSAGES)
    assert "资料" in system["content"] and user["content"].startswith("资料：\n\n[1]")
