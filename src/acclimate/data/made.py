"""A folder of pairs that `pairs` has made of documents, and what marks such pairs wherever they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from acclimate.data.records import Record

MADE_BY = "made_by"
"""The column that says what made a pair: its presence says that the queries were made, not asked."""
MADE_COLUMNS = frozenset({MADE_BY, "id", "document", "beside", "style", "split"})
SPLIT_COLUMN = "split"
REAL = "real"
"""`made_by` of a query that a user has asked."""
LIKE_QUERIES = ("written", "faq", "heading", "title")
"""Sources whose queries are like those of users, as far as made ones can be."""
STAND_INS = ("neighbours", "cluster", "crop")
"""Sources whose queries are words of the texts."""
PAIRS_FILE, PASSAGES_FILE = "pairs.jsonl", "passages.jsonl"
QUERIES_FILE = "queries.jsonl"
"""Users' queries without judgements."""


def is_made(folder: Path) -> bool:
    """Whether `pairs` wrote this folder."""
    return (folder / PAIRS_FILE).is_file() and (folder / PASSAGES_FILE).is_file()


def made_files(folder: Path) -> list[Path]:
    """The files that pairs and passages are read from."""
    return [folder / PAIRS_FILE, folder / PASSAGES_FILE]


def makers_of(records: Iterable[Record]) -> dict[str, int]:
    """What made the queries of some records -> how many queries; empty where users asked them all, or nobody says."""
    by_query: dict[str, str] = {}
    for record in records:
        if record.made_by:
            by_query.setdefault(record.anchor, record.made_by)
    return dict(Counter(by_query.values()).most_common())


def proven_on(made_by: Mapping[str, int]) -> str:
    """What a proof rests on where its queries were made, in words: "made queries (40 title, 12 heading)"; "" where
    users asked them."""
    made = {name: count for name, count in made_by.items() if name != REAL}
    return f"made queries ({', '.join(f'{count:,} {name}' for name, count in made.items())})" if made else ""


def by_stand_ins(made_by: Mapping[str, int]) -> bool:
    """Whether most of a test's queries are words of the texts, which say little about what users ask for."""
    return sum(made_by.get(source, 0) for source in STAND_INS) * 2 > sum(made_by.values())
