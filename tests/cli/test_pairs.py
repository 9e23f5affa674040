"""The command `pairs`: what it prints, and what it refuses before any work."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from acclimate.cli.main import main
from acclimate.cli.pairs_tables import show_pairs
from tests.tiny_run import WORDS


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw = random.Random(1)
    rows = [{"title": f"w1 of {number}", "text": " ".join(draw.choices(WORDS, k=20))} for number in range(50)]
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    return Path("docs.jsonl")


def test_every_source_with_its_yield_and_share(docs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["pairs", str(docs), "--out", "pairs.jsonl", "--pair-sources", "title,crop", "--annotate", "ada.csv"])
    said = " ".join(capsys.readouterr().out.split())
    assert "100 pairs of 50 documents, split by document" in said
    assert "title 50 1.00 50 50 %" in said and "crop 50 1.00 50 50 %" in said
    assert "for experts: ada.csv, 100 pairs" in said
    assert "acclimate adapt pairs.made --out RUN" in said
    assert len(Path("pairs.jsonl").read_text().splitlines()) == 100


def test_tokens_cost_and_agreement_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    llm = {"model": "any", "written": 30, "passages": 10, "kept": 20, "dropped": {"repeated": 10}, "requests": 8}
    llm |= {"from_log": 2, "prompt_tokens": 3000, "completion_tokens": 400, "cost": 0.0125}
    row = {"experts": ["a.csv", "b.csv"], "pairs": 40, "agreed": 0.9, "kappa": 0.61}
    more = {"llm": llm, "agreement": [row, {**row, "kappa": None}], "experts": {"accepted": 30, "rejected": 10}}
    real = {"queries": 12, "judged": 12, "alone": 0}
    show_pairs(
        {"pairs": 1, "documents": 1, "split_by": "passage", "sources": {}, "real": real, **more}, Path("p.jsonl")
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "any: 30 queries for 10 passages, 20 kept (10 repeated)" in said
    assert "8 requests, 2 answered before; 3,000 tokens asked, 400 answered, cost 0.0125" in said
    assert "a.csv and b.csv agree on 90 % of 40 pairs: Cohen's kappa 0.61" in said and "chance alone" in said
    assert "12 real queries, 12 with judgements: the test consists of them" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "pairs.csv"], "written as JSONL"),
        (["--out", "p.jsonl", "--pair-sources", "dreams"], "pair_sources: 'dreams'"),
        (["--out", "p.jsonl", "--llm", "http://127.0.0.1:1/v1"], "only one of --llm and --llm-model"),
        (["--out", "docs.jsonl"], "is not the copy of"),
        (["--out", "p.jsonl", "--annotate", "docs.jsonl"], "somebody's decisions"),
        (["--out", "p.jsonl", "--llm-prices", "1"], "llm_prices has 1 numbers"),
    ],
)
def test_what_cannot_be_is_one_line(
    docs: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = docs.read_bytes()
    with pytest.raises(SystemExit):
        main(["pairs", str(docs), *words])
    assert said in capsys.readouterr().err and docs.read_bytes() == before
