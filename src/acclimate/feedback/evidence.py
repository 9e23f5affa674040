"""Which labels a refresh learns from, and by which it is judged: the earlier queries, and the later ones.

Queries are divided by the time of their first mark, so that no query is on both sides. What has decided once does not
decide again, and no user alone makes up much of either side.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from acclimate.feedback.labels import Label


@dataclass(frozen=True, slots=True)
class Evidence:
    """Labels, divided."""

    earlier: tuple[Label, ...]
    """To learn from."""
    later: tuple[Label, ...]
    """To judge by: of queries that no training has seen."""
    crowded_out: int
    """Later queries that are left out because one user alone has marked too many."""
    later_users: int
    """Users whose marks judge."""


def divide(
    labels: Sequence[Label],
    *,
    later_fraction: float,
    decided_until: int,
    least_users: int,
    seen: Callable[[str], bool],
    judges: Callable[[Label], bool],
    seed: int,
) -> Evidence:
    """Divide labels into those of earlier queries and those of later ones.

    Args:
        labels: in the order of their first marks.
        later_fraction: share of the queries that can judge, the latest ones, that do.
        decided_until: the number of the last mark that has been a part of a decision; queries first marked before it
            are learned from.
        least_users: no user marks more than 1 / least_users of the later queries; with fewer users there are none.
        seen: whether a training of the present adapter has seen a query.
        judges: whether a label can judge; queries that have none are learned from.
        seed: by which a crowding user's queries are drawn.
    """
    by_query: dict[str, list[Label]] = defaultdict(list)
    for label in labels:
        by_query[label.key].append(label)
    order = list(by_query)  # by the first mark of each
    judging = [key for key in order if any(label.relevant and judges(label) for label in by_query[key])]
    late = {
        key
        for key in judging[len(judging) - math.ceil(later_fraction * len(judging)) :]
        if by_query[key][0].seq > decided_until and not any(seen(label.query) for label in by_query[key])
    }
    owners = {key: _owner(by_query[key]) for key in late}
    kept = _without_crowding(owners, least_users, seed)
    later = tuple(label for key in order if key in kept for label in by_query[key])
    earlier = tuple(label for key in order if key not in late for label in by_query[key])
    users = {user for label in later for user in label.users}
    return Evidence(earlier, later, len(owners) - len(kept), len(users))


def _owner(labels: Sequence[Label]) -> str:
    """The user to whom a query is counted: the one who marked most of it, by name where several did."""
    counts = Counter(user for label in labels for user in sorted(label.users))
    return max(sorted(counts), key=counts.__getitem__)


def _without_crowding(owners: dict[str, str], least_users: int, seed: int) -> set[str]:
    """Draw queries so that no user has more than 1 / least_users of them: as many as can be."""
    by_user: dict[str, list[str]] = defaultdict(list)
    for key in sorted(owners):
        by_user[owners[key]].append(key)
    sizes = [len(keys) for keys in by_user.values()]
    most = max(
        (limit for limit in range(1, max(sizes, default=0) + 1) if _fits(sizes, limit, least_users)),
        default=0,
    )
    kept: set[str] = set()
    for user, keys in sorted(by_user.items()):
        random.Random(f"{seed} {user}").shuffle(keys)
        kept.update(keys[:most])
    return kept


def _fits(sizes: Sequence[int], limit: int, least_users: int) -> bool:
    return limit * least_users <= sum(min(size, limit) for size in sizes)


@dataclass(frozen=True, slots=True)
class Taught:
    """A row that is learned from, with who says so."""

    query: str
    document: str
    users: frozenset[str]
    weight: float
    explicit: bool


def steps_of(
    rows: Sequence[Taught], *, steps: int, per_step: int, per_user: int, uses: int, seed: int
) -> Iterator[list[Taught]]:
    """Choose the rows of each step: every row in turn, no user with more than their share of a step.

    A row counts to every user who says so. Judgements come first; of the clicks the heavier ones come earlier, by
    chance in proportion to their weights (Efraimidis and Spirakis 2006).

    Args:
        rows: all that is learned from.
        steps: at most so many.
        per_step: most rows of a step.
        per_user: most rows of a step that one user has a part in.
        uses: how often a row is used, at most.
        seed: of the order.

    Yields:
        Rows of a step, no query and no document twice; it ends when all have been used.
    """
    draw = random.Random(seed)

    def keyed(row: Taught) -> tuple[bool, float]:
        return row.explicit, draw.random() ** (1.0 / max(row.weight, 1e-9))

    waiting: deque[Taught] = deque()
    for _ in range(uses):
        waiting.extend(sorted(rows, key=keyed, reverse=True))
    for _ in range(steps):
        step: list[Taught] = []
        of_user: Counter[str] = Counter()
        texts: set[str] = set()
        passed: list[Taught] = []
        while waiting and len(step) < per_step:
            row = waiting.popleft()
            fits = all(of_user[user] < per_user for user in row.users) and texts.isdisjoint(_texts(row))
            if not fits:
                passed.append(row)
                continue
            step.append(row)
            of_user.update(row.users)
            texts.update(_texts(row))
        waiting.extendleft(reversed(passed))
        if not step:
            return
        yield step


def _texts(row: Taught) -> tuple[str, str]:
    return f"q {row.query}", f"d {row.document}"
