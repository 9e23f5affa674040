"""What searchers say of two rankings: of the one in use, which they have seen, and of a candidate, which they have not.

Whoever is shown a ranking marks what stands high in it, and cannot mark what is not in it. Taken as they are, such
marks favour the ranking that was shown, even over a better one. Three things make the comparison even:

- A click is weighed by the inverse of how often its place is looked at (Joachims, Swaminathan and Schnabel 2017,
  equation 4): what is clicked on as often as it is looked at then counts alike at every place.
- Only documents that were shown and that *both* rankings have among their first count, as many as were shown. What the
  candidate alone would have shown could not be marked, and what it alone has dropped is the same accident seen from the
  other side (condensed lists: Sakai 2007).
- A document's gain is 1 / log2(1 + place), its place being that among these documents, so that both rankings share out
  the same gains: if all of them are marked alike, neither is better.

"Clicked over skipped above" (Joachims 2002) is no help here: each such pair contradicts the ranking that was shown, so
any other order wins.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from acclimate.core.same_text import same_text_key
from acclimate.errors import StorageError
from acclimate.feedback.position import Examination, click_weight
from acclimate.feedback.records import CLICK, EXPLICIT, RELEVANT, Impression, StoredMark
from acclimate.files import iter_jsonl, write_jsonl
from acclimate.types import Run

OPINIONS_FILE = "opinions.jsonl"
DEPTH = 10
"""How far down a ranking a document counts that was judged without a search."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one user has made of one search; or of a query, without one."""

    query: str
    """Its id."""
    user: str
    shown: tuple[str, ...]
    """Ids of the documents as they were shown; empty without a search."""
    judged: Mapping[str, float]
    """Document -> 1 relevant, -1 not."""
    clicked: Mapping[str, int]
    """Document -> the rank (from 1) at which it was clicked on; those that the user has judged are left out."""


def opinions(
    marks: Iterable[StoredMark],
    impressions: Callable[[Iterable[str]], Mapping[str, Impression]],
    queries: Mapping[str, str],
    *,
    space: str,
    clicks: bool,
) -> list[Opinion]:
    """Gather what was said of some queries.

    Args:
        marks: the oldest first; of a user, the last judgement of a query and a document counts.
        impressions: finds searches by their ids.
        queries: what the texts of a query share (`same_text_key`) -> its id; others are left out.
        space: digest of the present space: clicks on what another one has ranked are left out.
        clicks: whether clicks count; where nothing is known of how often places are looked at they cannot.
    """
    judged: dict[tuple[str, str, str], tuple[str | None, float]] = {}
    clicked: dict[tuple[str, str, str | None], dict[str, int]] = defaultdict(dict)
    for mark in marks:
        query = queries.get(same_text_key(mark.query))
        if query is None:
            continue
        if mark.mark in EXPLICIT:
            judged[query, mark.user, mark.document] = mark.impression, 1.0 if mark.mark == RELEVANT else -1.0
        elif mark.mark == CLICK and clicks and mark.rank is not None and mark.space in ("", space):
            clicked[query, mark.user, mark.impression][mark.document] = mark.rank
    searches: dict[tuple[str, str, str | None], dict[str, float]] = {search: {} for search in clicked}
    for (query, user, document), (impression, value) in judged.items():
        searches.setdefault((query, user, impression), {})[document] = value
    known = impressions(impression for _, _, impression in searches if impression is not None)
    return [
        Opinion(
            query,
            user,
            known[impression].shown if impression is not None and impression in known else (),
            said,
            {
                document: rank
                for document, rank in clicked.get((query, user, impression), {}).items()
                if (query, user, document) not in judged
            },
        )
        for (query, user, impression), said in searches.items()
    ]


def write_opinions(path: Path, said: Iterable[Opinion]) -> None:
    """Write a row for each."""
    write_jsonl(path, map(asdict, said))


def read_opinions(path: Path) -> list[Opinion]:
    """Read what `write_opinions` has written.

    Raises:
        StorageError: a row of it is damaged.
    """
    rows = [line.value for line in iter_jsonl(path)]
    if None in rows:
        raise StorageError(f"{path} is damaged", fix="Remove the folder of this refresh, and start again.")
    return [Opinion(**{**row, "shown": tuple(row["shown"])}) for row in rows if row is not None]


def gains(
    said: Sequence[Opinion], before: Run, candidate: Run, examined: Examination | None
) -> dict[str, tuple[float, float]]:
    """Add up what was marked, by its places in two rankings.

    Args:
        said: of these queries.
        before: ranks documents, best first; as deep as what was shown.
        candidate: likewise.
        examined: by which clicks are weighed.

    Returns:
        Query -> both rankings' gain: the sum over its users, and of each the mean over the searches with a mark. A mean
        over users would be one over those who have marked: where few click, as the answer stands low, it would count
        for more, and more by chance.
    """
    of_user: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for one in said:
        places = _places(one.shown, list(before[one.query]), list(candidate[one.query]))
        values = dict(one.judged) | {name: click_weight(rank, examined) for name, rank in one.clicked.items()}
        total = [sum(value * _gain(of.get(name)) for name, value in values.items()) for of in places]
        of_user[one.query][one.user].append((total[0], total[1]))
    return {query: _sum([_mean(rows) for rows in users.values()]) for query, users in of_user.items()}


def _places(shown: Sequence[str], *rankings: Sequence[str]) -> list[dict[str, int]]:
    """Document -> place from 1, in each ranking, of the documents that count."""
    if not shown:
        return [{name: place for place, name in enumerate(ranking[:DEPTH], start=1)} for ranking in rankings]
    both = set(shown).intersection(*(ranking[: len(shown)] for ranking in rankings))
    kept = ([name for name in ranking if name in both] for ranking in rankings)
    return [{name: place for place, name in enumerate(ranking, start=1)} for ranking in kept]


def _gain(place: int | None) -> float:
    return 0.0 if place is None else 1.0 / math.log2(1 + place)


def _sum(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(row[0] for row in rows), sum(row[1] for row in rows)


def _mean(rows: Sequence[tuple[float, float]]) -> tuple[float, float]:
    before, candidate = _sum(rows)
    return before / len(rows), candidate / len(rows)
