"""Experts check made pairs: a file for them, CSV or JSONL, and what they say in it."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, TypeAlias

from acclimate.data.tables import read_table
from acclimate.errors import DataError, UsageError
from acclimate.files import open_output
from acclimate.pairing.made_pair import MadePair
from acclimate.types import Rejected

Decision: TypeAlias = Literal["accept", "reject", "correct"]
DECISIONS: dict[str, Decision] = {
    "accept": "accept",
    "yes": "accept",
    "ok": "accept",
    "1": "accept",
    "接受": "accept",
    "reject": "reject",
    "no": "reject",
    "0": "reject",
    "拒绝": "reject",
    "correct": "correct",
    "corrected": "correct",
    "修改": "correct",
}
COLUMNS = ("id", "made_by", "query", "positive", "decision", "corrected_query", "corrected_positive", "comment")
FOR_EXPERTS = 200
"""Pairs in a file for experts: an hour or two of work."""
KINDS = (".csv", ".jsonl")


@dataclass(frozen=True, slots=True)
class Annotation:
    """What one expert says of one pair."""

    decision: Decision
    query: str = ""
    """The query as corrected; empty where it stays."""
    positive: str = ""


def write_for_experts(path: Path, pairs: Sequence[MadePair], limit: int = FOR_EXPERTS) -> int:
    """Write pairs for an expert: of each source equally many, as far as it has them; returns how many.

    Args:
        path: .csv (with a byte-order mark, so that Excel reads it as UTF-8) or .jsonl; it must not be there.
        pairs: in the order in which they are taken.
        limit: the most pairs.

    Raises:
        UsageError: another ending, or the file is there.
    """
    check_for_experts(path)
    rows = [dict.fromkeys(COLUMNS, "") | _shown(pair) for pair in _in_turn(pairs, limit)]
    with open_output(path) as stream:
        if path.suffix.lower() == ".jsonl":
            stream.writelines(f"{json.dumps(row, ensure_ascii=False)}\n".encode() for row in rows)
        else:
            stream.write("\ufeff".encode())
            lines = csv.DictWriter(_Encoded(stream), COLUMNS, lineterminator="\r\n")  # as Excel writes it
            lines.writeheader()
            lines.writerows(rows)
    return len(rows)


def check_for_experts(path: Path) -> None:
    """Refuse a file for experts that cannot be, before anything is made.

    Raises:
        UsageError: an unknown ending, or the file is there.
    """
    if path.suffix.lower() not in KINDS:
        raise UsageError(f"--annotate {path}: unknown ending", possible=", ".join(KINDS))
    if path.exists():
        raise UsageError(f"{path} is there: somebody's decisions may be in it", fix="Give another name.")


def read_annotations(path: Path) -> dict[str, Annotation]:
    """Read the decisions of one expert, by the pair's id; a pair without a decision is left out.

    Raises:
        DataError: the file has no columns id and decision, a decision is none of the known ones, or a correction
            corrects nothing.
    """
    found: dict[str, Annotation] = {}
    for row in read_table(path, path.name):
        if isinstance(row, Rejected):
            raise DataError(f"{path} row {row.row}: {row.reason}")
        values = {str(name).lstrip("\ufeff").strip().lower(): value for name, value in row.values.items()}
        if missing := {"id", "decision"} - values.keys():
            raise DataError(
                f"{path} has no column {min(missing)}", fix="Give a file that --annotate wrote, with its column names."
            )
        if said := str(values["decision"] or "").strip().lower():
            found[str(values["id"]).strip()] = _annotation(said, values, f"{path} row {row.row}")
    return found


def _annotation(said: str, values: Mapping[str, Any], where: str) -> Annotation:
    decision = DECISIONS.get(said)
    if decision is None:
        raise DataError(f"{where}: decision {said!r}", possible="accept, reject, correct; empty for none")
    query, positive = (str(values.get(f"corrected_{name}") or "").strip() for name in ("query", "positive"))
    if decision == "correct" and not (query or positive):
        raise DataError(
            f"{where}: correct, and neither corrected_query nor corrected_positive is given", fix="Fill one of them in."
        )
    return Annotation(decision, query, positive) if decision == "correct" else Annotation(decision)


def annotated(
    pairs: Iterable[MadePair], experts: Sequence[Mapping[str, Annotation]]
) -> tuple[list[MadePair], Counter[str]]:
    """The pairs as experts have left them: what any of them rejects is dropped, the first correction counts.

    Args:
        pairs: as they were made. Those that nobody has decided on stay.
        experts: the decisions of each.

    Returns:
        The pairs, and how many were accepted, rejected and corrected.
    """
    kept, counts = [], Counter[str]()
    for pair in pairs:
        said = [expert[pair.id] for expert in experts if pair.id in expert]
        decisions = {one.decision for one in said}
        if "reject" in decisions:
            counts["rejected"] += 1
            continue
        if "correct" in decisions:
            counts["corrected"] += 1
            correction = next(one for one in said if one.decision == "correct")
            query, positive = correction.query or pair.query, correction.positive or pair.positive
            pair = replace(pair, query=query, positive=positive)
        elif said:
            counts["accepted"] += 1
        kept.append(pair)
    return kept, counts


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far two experts agree on the pairs that both have decided on, corrections counted as acceptances."""

    pairs: int
    agreed: float
    """Share of the pairs with the same decision."""
    kappa: float | None
    """Cohen's kappa: 1 is perfect, 0 is chance; None where chance alone agrees always (all accepted, say)."""


def agreements(experts: Sequence[Mapping[str, Annotation]]) -> Iterator[tuple[int, int, Agreement]]:
    """Yield the agreement of every two experts who share a pair, with their places."""
    for (first, one), (second, other) in combinations(enumerate(experts), 2):
        shared = sorted(one.keys() & other.keys())
        if shared:
            decisions = [(_accepts(one[key]), _accepts(other[key])) for key in shared]
            yield first, second, _agreement(decisions)


def _agreement(decisions: Sequence[tuple[bool, bool]]) -> Agreement:
    """Compute kappa = (p - e) / (1 - e), p the share agreed, e what chance would agree on (Cohen 1960, equation 1)."""
    count = len(decisions)
    agreed = sum(a == b for a, b in decisions) / count
    first, second = (sum(column) / count for column in zip(*decisions, strict=True))
    chance = first * second + (1 - first) * (1 - second)
    return Agreement(count, agreed, None if chance == 1 else (agreed - chance) / (1 - chance))


def _accepts(annotation: Annotation) -> bool:
    return annotation.decision != "reject"


def _in_turn(pairs: Sequence[MadePair], limit: int) -> list[MadePair]:
    """One pair of each source after the other."""
    by_source: dict[str, list[MadePair]] = {}
    for pair in pairs:
        by_source.setdefault(pair.made_by, []).append(pair)
    places = sorted((place, order) for order, found in enumerate(by_source.values()) for place in range(len(found)))
    sources = list(by_source.values())
    return [sources[order][place] for place, order in places[:limit]]


def _shown(pair: MadePair) -> dict[str, str]:
    return {"id": pair.id, "made_by": pair.made_by, "query": pair.query, "positive": pair.positive}


class _Encoded:
    """A stream of bytes that the csv module can write text to."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text as UTF-8."""
        return int(self._stream.write(text.encode()))
