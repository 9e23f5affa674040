"""Marks -> labels: what the searchers together say of a query and a document.

Of one user the last explicit mark on a query and a document counts, and any number of clicks counts as one. Users
outvote each other; a tie is no label. Explicit marks outweigh clicks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from acclimate.core.same_text import same_text_key
from acclimate.feedback.position import Examination, click_weight
from acclimate.feedback.records import CLICK, EXPLICIT, RELEVANT, StoredMark


@dataclass(frozen=True, slots=True)
class Label:
    """What is known of a query and a document."""

    query: str
    """As it was typed first."""
    document: str
    """Its id."""
    relevant: bool
    explicit: bool
    """Whether somebody has judged it; else it was clicked on only."""
    users: frozenset[str]
    """Who says so."""
    seq: int
    """The number of the first mark that says so."""
    weight: float = 1.0
    """The weight of clicks: corrected for their places, where that is known, summed over the users."""

    @property
    def key(self) -> str:
        """What the query shares with all that are the same text."""
        return same_text_key(self.query)


@dataclass(slots=True)
class _Said:
    """What was said of one query and document."""

    query: str
    document: str
    votes: dict[str, tuple[bool, int]] = field(default_factory=dict)
    """User -> the last judgement, and the number of its mark."""
    clicks: dict[str, tuple[float, int]] = field(default_factory=dict)
    """User -> the weight of their heaviest click, and the number of the first."""


def labels_of(
    marks: Iterable[StoredMark], *, space: str | None = None, examined: Examination | None = None
) -> tuple[list[Label], dict[str, int]]:
    """Make labels, in the order of their first marks.

    Args:
        marks: the oldest first.
        space: digest of the present space of the documents. Clicks on what another space has ranked are left out:
            their places say nothing about it. Judgements stay: they are about the texts.
        examined: how often each place is looked at; None: every click weighs 1.

    Returns:
        the labels, and how many marks were used as what, or not used, and why.
    """
    said: dict[tuple[str, str], _Said] = {}
    counts: Counter[str] = Counter()
    for mark in marks:
        elsewhere = space is not None and mark.space not in (None, "", space)
        if mark.mark not in (*EXPLICIT, CLICK):
            counts["of another name: not learned from"] += 1
            continue
        if mark.mark == CLICK and elsewhere:
            counts["clicks in another space: not used"] += 1
            continue
        counts["clicks" if mark.mark == CLICK else "judgements"] += 1
        counts["judgements in another space: used"] += elsewhere
        one = said.setdefault((same_text_key(mark.query), mark.document), _Said(mark.query, mark.document))
        if mark.mark == CLICK:
            weight, first = one.clicks.get(mark.user, (0.0, mark.seq))
            one.clicks[mark.user] = max(weight, click_weight(mark.rank, examined)), first
        else:
            one.votes[mark.user] = mark.mark == RELEVANT, mark.seq
    labels = []
    for one in said.values():
        label = _label(one)
        if label is None:
            counts["users disagree: no label"] += 1
        else:
            labels.append(label)
    return sorted(labels, key=lambda label: label.seq), {name: count for name, count in counts.items() if count}


def _label(said: _Said) -> Label | None:
    if not said.votes:
        weight = sum(weight for weight, _ in said.clicks.values())
        first = min(seq for _, seq in said.clicks.values())
        return Label(said.query, said.document, True, False, frozenset(said.clicks), first, weight)
    sides: dict[bool, set[str]] = defaultdict(set)
    for user, (relevant, _) in said.votes.items():
        sides[relevant].add(user)
    if len(sides[True]) == len(sides[False]):
        return None
    wins = len(sides[True]) > len(sides[False])
    first = min(said.votes[user][1] for user in sides[wins])
    return Label(said.query, said.document, wins, True, frozenset(sides[wins]), first)
