"""What stands beside the verdict: what weakens it, before how to read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from acclimate.report.folder import read_run
from acclimate.report.html import render
from acclimate.report.qualifiers import qualifiers
from tests.report.sample_run import edit, write_sample_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_sample_run(tmp_path / "farm")


def said(run: Path, weakens: bool) -> str:
    return " ".join(one.text for one in qualifiers(read_run(run)) if one.weakens is weakens).replace("\xa0", " ")


def test_they_come_before_the_numbers_and_what_weakens_comes_first(run: Path) -> None:
    page = render(read_run(run))
    places = [page.index(words) for words in ("The adapted model is better.", "What to bear in mind", "All measures")]
    assert places == sorted(places)
    order = [one.weakens for one in qualifiers(read_run(run))]
    assert order == sorted(order, reverse=True) and True in order and False in order


def test_what_weakens(run: Path) -> None:
    """303 of 500 + 606; a guard that lost 7.4 %; 12 that were trained on."""
    text = said(run, True)
    assert "303 (27.4 %) of the dev and test queries are nearly a training text" in text
    assert "12 test queries are left out" in text and "Outside the domain it forgets: 7.36 % of NDCG@10" in text
    assert "not known" not in text
    edit(run / "evaluation" / "report.json", training_known=False)
    assert "was trained on is not known" in said(run, True)


def test_near_duplicates_whose_rows_were_removed_weaken_nothing(run: Path) -> None:
    warning = "303 queries of dev and test are nearly a text of train: 290 training rows were removed"
    edit(run / "dataset" / "dataset.json", warnings=[warning])
    assert "nearly" not in said(run, True) and "their training rows were removed" in said(run, False)


def test_how_to_read_it(run: Path) -> None:
    text = said(run, False)
    assert "412 documents of dev and test are in train too, as answers to other queries" in text
    assert "sign flips of 571 clusters" in text and "One training with one seed" in text
    assert "No test query was seen in training." in text


def test_of_folds(run: Path) -> None:
    rows = [
        {"fold": fold, "tested": 40, "base": 0.5, "adapted": 0.5 + fold / 100, "near_duplicates": 2}
        for fold in range(1, 6)
    ]
    edit(run / "evaluation" / "report.json", folds=rows)
    assert "5 adapters, each trained on 4 of 5 parts of the data" in said(run, False)
    assert "One training with one seed" not in said(run, False)
    assert "10 dev and test queries of the folds are nearly" in said(run, True) and "303" not in said(run, True)
    page = render(read_run(run))
    assert "A model adapted in this way is better." in page and "NDCG@10 of each fold" in page


def test_nothing_qualifies_what_was_not_measured(run: Path) -> None:
    (run / "evaluation" / "report.json").unlink()
    (run / "report.json").unlink()
    assert qualifiers(read_run(run)) == []
