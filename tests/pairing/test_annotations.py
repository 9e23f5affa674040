"""Experts: the file that goes to them, what comes back, how far they agree."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from acclimate.errors import DataError, UsageError
from acclimate.pairing.annotations import agreements, annotated, read_annotations, write_for_experts
from acclimate.pairing.made_pair import MadePair

PAIRS = [
    MadePair(f"query {n}", f'a "passage", {n}\nof two lines 小麦', ("title", "cluster")[n % 2], f"d{n}")
    for n in range(6)
]


def fill(path: Path, decisions: dict[int, dict[str, str]]) -> Path:
    """What an expert makes of a file, by the places of the pairs in `PAIRS`."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for number, said in decisions.items():
        next(row for row in rows if row["id"] == PAIRS[number].id).update(said)
    filled = path.with_name("filled.csv")
    with filled.open("w", encoding="utf-8-sig", newline="") as stream:
        lines = csv.DictWriter(stream, list(rows[0]))
        lines.writeheader()
        lines.writerows(rows)
    return filled


def test_there_and_back(tmp_path: Path) -> None:
    assert write_for_experts(tmp_path / "out.csv", PAIRS) == 6
    decisions = {0: {"decision": "Accept"}, 1: {"decision": "reject", "comment": "no"}}
    decisions[2] = {"decision": "correct", "corrected_query": "a better query"}
    said = read_annotations(fill(tmp_path / "out.csv", decisions))
    kept, counts = annotated(PAIRS, [said])
    assert [pair.query for pair in kept] == ["query 0", "a better query", "query 3", "query 4", "query 5"]
    assert kept[1].positive == PAIRS[2].positive, "line ends and quotes survive"
    assert counts == {"accepted": 1, "rejected": 1, "corrected": 1}


def test_jsonl_is_the_same(tmp_path: Path) -> None:
    write_for_experts(tmp_path / "out.jsonl", PAIRS, limit=3)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["made_by"] for row in rows] == ["title", "cluster", "title"], "of each source in turn"
    rows[0]["decision"] = "reject"
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert len(annotated(PAIRS, [read_annotations(tmp_path / "in.jsonl")])[0]) == 5


def test_two_experts_and_cohens_kappa(tmp_path: Path) -> None:
    """Of five shared pairs both accept 2, both reject 1, differ on 2: p = 3/5, e = 3/5 * 3/5 + 2/5 * 2/5 = 13/25."""
    first = {0: "accept", 1: "accept", 2: "reject", 3: "accept", 4: "reject"}
    second = {0: "accept", 1: "accept", 2: "reject", 3: "reject", 4: "correct", 5: "accept"}
    files = []
    for name, said in (("a", first), ("b", second)):
        (tmp_path / name).mkdir()
        write_for_experts(tmp_path / name / "out.csv", PAIRS)
        rows = {n: {"decision": it} | ({"corrected_query": "x y"} if it == "correct" else {}) for n, it in said.items()}
        files.append(read_annotations(fill(tmp_path / name / "out.csv", rows)))
    [(one, other, found)] = agreements(files)
    assert (one, other, found.pairs, found.agreed) == (0, 1, 5, 0.6)
    assert found.kappa == pytest.approx((0.6 - 13 / 25) / (1 - 13 / 25))
    kept, counts = annotated(PAIRS, files)
    assert counts["rejected"] == 3 and len(kept) == 3, "what one of them rejects goes"
    [(_, _, always)] = agreements(
        [files[1] | {PAIRS[0].id: files[1][PAIRS[0].id]}, {PAIRS[0].id: files[0][PAIRS[0].id]}]
    )
    assert always.kappa is None and always.agreed == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,decision\nx,maybe\n", "decision 'maybe'"),
        ("id,decision,corrected_query\nx,correct,\n", "neither corrected_query"),
        ("id,query\nx,y\n", "no column decision"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "in.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_annotations(tmp_path / "in.csv")


def test_decisions_are_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("mine")
    with pytest.raises(UsageError, match="somebody's decisions"):
        write_for_experts(tmp_path / "out.csv", PAIRS)
    with pytest.raises(UsageError, match="unknown ending"):
        write_for_experts(tmp_path / "out.xml", PAIRS)
