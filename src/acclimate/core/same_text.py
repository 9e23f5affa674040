"""When two texts are the same: the one definition that splits, mining, masks, retained texts and the proof share.

Two texts are the same if they have the same letters, digits and symbols in the same order. Upper and lower case, full
and half width, composed and decomposed accents, ligatures, HTML entities, characters that nobody sees, white space and
punctuation make no difference; nor do equal tokens, where a tokenizer is known (`same_texts`).

Two mistakes are possible, and they do not cost the same. Calling two different texts the same keeps a row out of the
training, or a candidate out of a batch. Calling two equal texts different puts a test query into the training. So, when
in doubt, texts are the same: `a-b` is `ab` and `a b`, `-5` is `5`. What changes the meaning of short queries on
technical matters is kept apart:

- symbols: `C` and `C++`, `x>1` and `x<1`, `5 €` and `5 $`; and the operators that Unicode calls punctuation: `C#`,
  `5 %`, `12*4` and `12/4`, `*.c`, `R&D`, `@a`, `\\n`;
- digits that something separates: `1.5` is `1,5` and `1 5`, and is not `15`.

Letters with accents differ from those without, unless the tokenizer drops accents.
"""

from __future__ import annotations

import hashlib
import html
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence

OPERATORS = frozenset("#%&*/@\\^")
"""Kept, though Unicode files them under punctuation (`^`: under modifiers, whose others look like quotation marks)."""
MINUS = "\N{MINUS SIGN}"
"""Dropped as the hyphen is: one stands for the other."""
BLANK = "\N{BRAILLE PATTERN BLANK}\N{OBJECT REPLACEMENT CHARACTER}"
"""Symbols that show nothing."""
INVISIBLE = (
    (0x034F, 0x034F),  # combining grapheme joiner
    (0x115F, 0x1160),  # fillers of Hangul
    (0x17B4, 0x17B5),  # inherent vowels of Khmer
    (0x180B, 0x180F),  # variation selectors of Mongolian
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),  # variation selectors
    (0xFFA0, 0xFFA0),
    (0xE0000, 0xE0FFF),  # tags, further variation selectors
)
"""Ranges of code points that Unicode calls ignorable by default, beside those of category Cf (zero-width space and
joiners, soft hyphen, byte-order mark, marks of direction)."""

SALT = b"acclimate text 1"

TokenKeys = Callable[[Sequence[str]], Sequence[bytes | None]]
"""Texts -> a key of each one's tokens; None where its tokens say too little."""

_LONE_ACCENTS = re.compile(r"(?:^|(?<=\s))[\u0300-\u036f\u3099\u309a]+")
"""Accents on nothing: what normalisation makes of the spacing accents, which stand for quotation marks."""
_SPACE_IN_NUMBER = re.compile(r"\d \d")
_SPACE_NOT_IN_NUMBER = re.compile(r"(?<!\d) | (?!\d)")


def same_text_key(text: str) -> str:
    """Return what a text has in common with every text that is the same.

    Args:
        text: any string, not necessarily normalised.

    Returns:
        letters, digits and symbols, normalised (NFKC) and case-folded, with one space where something stood between two
        digits. Of a text of punctuation alone: that punctuation. Empty only for a text in which nothing can be seen.
        The key of a key is itself.

    Source: Unicode Standard Annex 15 (NFKC) and Unicode Standard 3.13 (caseless matching by compatibility).
    """
    key, before = _reduced(_without_entities(text)), text
    # Again: what was apart may compose (a letter, and an accent behind a quotation mark), or become an entity.
    while key != before and not (key.isascii() and "&" not in key):
        key, before = _reduced(_without_entities(key)), key
    return key


def text_id(text: str) -> int:
    """Return 64 bits that two texts share if they are the same (and else by a chance of 2^-64).

    Salted with a constant: ids of different files can be compared. They do not hide a text that can be guessed.
    """
    key = same_text_key(text).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, salt=SALT).digest(), "big")


def pair_id(one: str, other: str) -> int:
    """Return 64 bits that two pairs of texts share if they are the same, in either order."""
    both = b"".join(number.to_bytes(8, "big") for number in sorted((text_id(one), text_id(other))))
    return int.from_bytes(hashlib.blake2b(both, digest_size=8, salt=SALT).digest(), "big")


def same_texts(texts: Iterable[str], token_keys: TokenKeys | None = None) -> dict[str, str]:
    """Map every text to the key that it shares with all that are the same, by characters or by a model's tokens.

    Args:
        texts: the texts to compare; repeated ones are looked at once.
        token_keys: gives a key of each text's tokens, if a model is known.

    Returns:
        text -> `same_text_key`, or, where tokens join several keys, the first of these in alphabetical order.
    """
    keys = {text: same_text_key(text) for text in dict.fromkeys(texts)}
    if token_keys is None:
        return keys
    unique = list(keys)
    groups = [
        (keys[text], tokens) if tokens is not None else (keys[text],)
        for text, tokens in zip(unique, token_keys(unique), strict=True)
    ]
    name: dict[int, str] = {}
    roots = connected(groups)
    for root, text in zip(roots, unique, strict=True):
        name[root] = min(name.get(root, keys[text]), keys[text])
    return {text: name[root] for root, text in zip(roots, unique, strict=True)}


def connected(linked: Sequence[Sequence[str | bytes]]) -> list[int]:
    """Number the connected component of every item; items are connected through equal keys.

    Union-find with path halving and union by size: nearly linear in the number of keys.
    """
    node: dict[str | bytes, int] = {}
    parent: list[int] = []
    size: list[int] = []

    def find(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for keys in linked:
        root = -1
        for key in keys:
            if key not in node:
                node[key] = len(parent)
                parent.append(len(parent))
                size.append(1)
            other = find(node[key])
            if root < 0:
                root = other
            elif root != other:
                big, small = (root, other) if size[root] >= size[other] else (other, root)
                parent[small] = big
                size[big] += size[small]
                root = big
    return [find(node[keys[0]]) for keys in linked]


def _without_entities(text: str) -> str:
    while "&" in text and (plain := html.unescape(text)) != text:  # again: &amp;lt; was escaped twice
        text = plain
    return text


def _reduced(text: str) -> str:
    text = text.translate(_BEFORE)
    if not text.isascii():
        text = _LONE_ACCENTS.sub(" ", unicodedata.normalize("NFKC", text))
        text = text.replace("İ", "i").replace("i\u0307", "i").replace("ı", "i")  # upper and lower case of Turkish
    text = text.casefold()
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    kept = " ".join(text.translate(_KEPT).split())
    kept = _SPACE_NOT_IN_NUMBER.sub("", kept) if _SPACE_IN_NUMBER.search(kept) else kept.replace(" ", "")
    return kept or "".join(text.translate(_SEEN).split())


class _Table(dict[int, "str | int | None"]):
    """A table for `str.translate` that is filled as characters come."""

    def __init__(self, rule: Callable[[str], str | None]) -> None:
        self._rule = rule

    def __missing__(self, code: int) -> str | int | None:
        self[code] = self._rule(chr(code))
        return self[code]


def _is_seen(character: str) -> bool:
    code = ord(character)
    hidden = unicodedata.category(character) == "Cf" or any(first <= code <= last for first, last in INVISIBLE)
    return not hidden and character not in BLANK


def _before(character: str) -> str | None:
    """Spacing accents would become a space and a combining accent, which may join the letter before it."""
    if not _is_seen(character):
        return None
    return " " if unicodedata.category(character) == "Sk" and character not in OPERATORS else character


def _kept(character: str) -> str | None:
    if not _is_seen(character):
        return None
    if character in OPERATORS:
        return character
    category = unicodedata.category(character)
    return " " if category[0] in "PZ" or category in ("Cc", "Sk") or character == MINUS else character


def _seen(character: str) -> str | None:
    return ("-" if character == MINUS else character) if _is_seen(character) else None


_BEFORE, _KEPT, _SEEN = _Table(_before), _Table(_kept), _Table(_seen)
