"""Terms of a text, by hand: words, bigrams, stop words, stems, and whose language it is."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acclimate.core.analyser import STOP_WORDS, Analyser, language_of, words


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Find all *.PNG files, my_dir/2024", ["find", "all", "png", "files", "my_dir", "2024"]),
        ("水稻病害", ["水稻", "稻病", "病害"]),
        ("用grep查找 a 行", ["用", "grep", "查找", "a", "行"]),
        ("カタカナ", ["カタ", "タカ", "カナ"]),
        ("École naïve", ["école", "naïve"]),
        ("… -- !", []),
        # What the boundaries of Unicode Standard Annex 29 keep whole, as Lucene does and runs of letters do not.
        ("It isn't 3.5, e.g. it’s 1,000.5", ["it", "isn't", "3.5", "e.g", "it's", "1,000.5"]),
        ("हिन्दी", ["हिन्दी"]),
        # Full and half width are the same letters.
        ("ＡＢＣ１２３ ｶﾀｶﾅ", ["abc123", "カタ", "タカ", "カナ"]),
        ("小麦", ["小麦"]),
    ],
)
def test_words(text: str, tokens: list[str]) -> None:
    assert words(text) == tokens


def test_a_two_character_word_is_found_in_a_longer_run() -> None:
    assert "小麦" in words("冬小麦条锈病怎么防治")


@pytest.mark.parametrize(
    ("analyser", "terms"),
    [
        (Analyser(), ["the", "dogs", "aren't", "running", "files"]),
        (Analyser("english"), ["the", "dogs", "aren't", "running", "files"]),
        (Analyser("english", stop_words=True), ["dogs", "running", "files"]),
        (Analyser("english", stemming=True), ["the", "dog", "aren't", "run", "file"]),
        (Analyser("english", stop_words=True, stemming=True), ["dog", "run", "file"]),
    ],
)
def test_stop_words_and_stems(analyser: Analyser, terms: list[str]) -> None:
    assert analyser.terms("The dogs aren’t running: FILES!") == terms


def test_another_language_has_its_own_words_and_stems() -> None:
    german = Analyser("german", stop_words=True, stemming=True)
    assert german.terms("Die Krankheiten der Pflanzen und das Wetter") == ["krankheit", "pflanz", "wett"]


def test_chinese_passes_through_untouched() -> None:
    text = "小麦锈病"
    assert Analyser("english", stop_words=True, stemming=True).terms(text) == words(text)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("How do I find all of the files that were changed in the last week?", "english"),
        ("Wie finde ich alle Dateien, die in der letzten Woche geändert worden sind?", "german"),
        ("Comment trouver tous les fichiers qui ont été modifiés dans la semaine ?", "french"),
        ("Как найти все файлы, которые были изменены на прошлой неделе?", "russian"),
        ("小麦条锈病的防治方法有哪些", None),
        ("find . -name '*.txt' | xargs grep -l foo", None),
        ("Kuinka löydän kaikki viime viikolla muuttuneet tiedostot", None),
        ("", None),
    ],
)
def test_the_language_is_that_of_the_stop_words(text: str, language: str | None) -> None:
    assert language_of([text]) == language


def test_threads_do_not_mix_their_stems() -> None:
    """A Snowball stemmer holds the word that it works on: one that threads share returns other words' stems."""
    many = [[f"connection{'s' * (n % 2)}x{n}ings" for n in range(start, start + 300)] for start in range(0, 2_400, 300)]
    analyser = Analyser("english", stemming=True)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda some: analyser.terms(" ".join(some)), many))
    again = Analyser("english", stemming=True)
    assert found == [again.terms(" ".join(some)) for some in many]


def test_every_language_has_a_stemmer() -> None:
    for language in STOP_WORDS:
        assert Analyser(language, stemming=True).terms("words")


@given(st.text(st.sampled_from("abezAEZ09_.':,;-\"!? \n\t/@#") | st.characters(max_codepoint=127)))
def test_ascii_text_has_the_words_that_it_has_among_others(text: str) -> None:
    """ASCII has a way of its own, which is faster; a word of another script sends a text the other way."""
    assert [*words(text), "ж"] == words(f"{text} ж")


def test_the_package_of_the_stop_words_is_not_imported() -> None:
    """It would import JAX, which takes most of a GPU's memory."""
    code = "import sys, acclimate.core.analyser; sys.exit('bm25s' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
