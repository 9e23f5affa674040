"""The page: complete, self-contained, valid, safe with any text, and honest about what is absent."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from acclimate.errors import DataError, StorageError
from acclimate.report import tables
from acclimate.report.folder import read_run
from acclimate.report.html import render
from tests.report.sample_run import METRICS, edit, retrieval_evaluation, write_sample_run

VOID = {"meta", "br", "hr", "img", "input", "link"}
RTL = "كيف أبحث عن الملفات الكبيرة"


class Page(HTMLParser):
    """Elements with their attributes, the text outside of style, and whether every element is closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_sample_run(tmp_path / "farm")


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of an untouched sample run."""
    return render(read_run(write_sample_run(tmp_path_factory.mktemp("whole") / "farm")))


def page_of(run: Path) -> Page:
    return Page(render(read_run(run)))


def test_it_holds_every_part(html: str) -> None:
    page = Page(html)
    for name, (base, _, lexical) in METRICS.items():
        assert f"{base:.4f}" in page.text and f"{lexical:.4f}" in page.text, name
    for words in (
        "The adapted model is better.",
        "On 606 held-out queries, NDCG@10 went from 0.5207 to 0.7342: +0.2135 (95 % interval +0.1975 to +0.2295",
        "Use the adapted model.",
        "sign flips of 571 clusters: test queries that share a relevant document or their text count as one.",
        "BM25: English, stop words left out (best NDCG@10 of 500 dev queries).",
        "水稻纹枯病的发病条件和防治方法是什么？",
        "✓ relevant",
        "exact duplicate 211",
        "Tokens per second 4,785",
        "Trained parameters 1,327,104 of 24,040,320 (5.52 %)",
        "Steps 81 of 162 planned",
        "Time in steps 4 min 12 s",
        "Test given 606 590 611",
        "Latin 93 %",
        "Queries 0.31 % 0.4 % Queries, Latin 0 % – Queries, Han 3.1 % –",
        "Queries question Documents command Not used (without a name), date",
        "−0.76 % of base",
        "303 (27.4 %) of the dev and test queries are nearly a training text",
        "12 test queries are left out",
        "41 documents have the text of another document.",
        "The relevant document: place 37 with the base model, place 1 with the adapted one.",
        "The relevant document: place 1 with the base model, not among the first 100 with the adapted one.",
        "The 20 likeliest false negatives",
        "A term finds a text that holds it, accuracy@1",
        "Used as queries: 812 of 1,000 terms",
        "all pairs of 400 texts of 50 topics",
        "exceeds the bound",
        "--retain-data TEXTS",
        "acclimate adapt data/nl2bash.jsonl --out runs/farm",
        'temperature = "none"',
        "Temperature 0.05, that of all-MiniLM-L6-v2 by its authors",
        "masked above the positive + 0.1022",
        "Spread margin 5,120 of 516,900 (0.991 %)",
        "spread_margin removed 81% of the candidates",
        "transformers 5.23.0",
        "--strict-documents removes",
    ):
        assert words in page.text, words
    assert len(page.all("svg")) == 7
    for raw in ("step s", "planned steps", "p50", "with negatives", "quoting"):
        assert raw not in page.text.replace("Time in steps", ""), raw
    assert 'class="absent"' not in html


def test_it_loads_nothing_and_runs_nothing(html: str) -> None:
    page = Page(html)
    assert not {"script", "link", "img", "iframe", "image", "object"} & {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert not re.search(r"@import|url\((?!#)|https?://", html)
    assert "default-src 'none'" in html


def test_it_is_navigable(html: str) -> None:
    page = Page(html)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {(attributes["href"] or "")[1:] for tag in ("a", "use") for attributes in page.all(tag)}
    assert targets <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert all(attributes.get("scope") in ("row", "col") for attributes in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attributes.get("aria-label") for attributes in page.all("svg"))
    assert page.all("html") == [{"lang": "en"}]


def test_equal_runs_give_equal_bytes(html: str, run: Path) -> None:
    assert render(read_run(run)) == html


def test_any_text_is_only_text(run: Path) -> None:
    attack = '<script>alert("x")</script><img src=x onerror=alert(1)>'
    hard = {"id": "d1", "text": f"{attack} \ud800 \u202e {'长' * 10_000}", "score": 1.0, "relevant": True}
    won = {"query": f"{attack} {RTL}", "delta": 1.0, "base": 0.0, "adapted": 1.0, "base_top": [hard], "adapted_top": []}
    guard = {"name": attack, "base": {"ndcg@10": 0.5}, "adapted": {"ndcg@10": 0.4}, "delta": {}, "warn": True}
    edit(run / "evaluation" / "report.json", won=[won], guard=[guard])
    edit(run / "dataset" / "dataset.json", warnings=[attack], languages={attack: 1})
    suspect = {"query": attack, "negative": attack, "negative_score": 0.5}
    edit(run / "negatives" / "audit.json", likeliest_false_negatives=[suspect], queries_with_too_few_ids=[attack])
    edit(run / "report.json", source=attack, command=attack, versions={attack: attack}, model={"id": attack})
    (run / "config.toml").write_text(attack, encoding="utf-8")
    html = render(read_run(run))
    html.encode("utf-8")
    page = Page(html)
    assert not page.all("script") and not page.all("img")
    assert page.text.count('<script>alert("x")</script>') >= 12
    assert RTL in page.text and "No document." in page.text
    assert re.search(r"长{200,320} … \(10,0\d\d characters\)", page.text)
    assert "长" * 330 not in page.text


def test_an_absent_part_costs_one_sentence(run: Path) -> None:
    for name in ("metrics.jsonl", "config.toml", "report.json"):
        (run / name).unlink()
    for name in ("negatives", "dataset"):
        shutil.rmtree(run / name)
    page = page_of(run)
    for sentence in (
        "There is no metrics.jsonl to draw curves from.",
        "There is no config.toml in the folder.",
        "No negatives were mined in this run.",
        "There is no dataset/dataset.json in the folder.",
        "There is no report.json of the whole run",
    ):
        assert sentence in page.text, sentence
    assert "NDCG@10 0.5207 0.7342" in page.text  # what is there is shown


def test_without_the_evaluation_the_summary_s_scores_are_shown(run: Path) -> None:
    shutil.rmtree(run / "evaluation")
    page = page_of(run)
    assert "NDCG@10 0.5207 0.7342" in page.text and "The adapted model is better." in page.text
    assert "There is no evaluation by query in the folder." in page.text


def test_a_run_that_is_not_evaluated_says_so(run: Path) -> None:
    shutil.rmtree(run / "evaluation")
    (run / "report.json").unlink()
    page = page_of(run)
    assert "This run has not been evaluated yet." in page.text and "The test split has not been evaluated." in page.text


def test_labelled_pairs(tmp_path: Path) -> None:
    page = page_of(write_sample_run(tmp_path / "pairs", "pairs"))
    for words in (
        "On 4,906 held-out pairs, Spearman went from 0.6421 to 0.7789",
        "Threshold of best F1",
        "similar pairs",
        "Labelled pairs need no mined negatives.",
        "Labelled pairs have no queries to rank documents for.",
        "No guard data was given.",
    ):
        assert words in page.text, words
    assert "NDCG@10" not in page.text and "BM25" not in page.text


@pytest.mark.parametrize(
    ("verdict", "claim", "tone"),
    [
        ("no evidence", "No evidence that the adapted model is better.", ""),
        ("worse", "The adapted model is worse.", "bad"),
    ],
)
def test_verdicts(tmp_path: Path, verdict: str, claim: str, tone: str) -> None:
    page = page_of(write_sample_run(tmp_path / "run", verdict=verdict))
    assert claim in page.text
    assert page.all("h1") == [{"class": tone}]
    assert "Keep the base model" in page.text


def test_query_side_and_measures_that_could_not_be_taken(run: Path) -> None:
    test: dict[str, Any] = retrieval_evaluation("no evidence")["test"]
    test["adapted"]["map@100"] = None
    test["delta"]["map@100"] = {"value": float("nan"), "low": None, "high": None, "p": None}
    edit(run / "evaluation" / "report.json", test=test, sides="query")
    page = page_of(run)
    assert "MAP@100 0.4870 – – 0.4533" in page.text
    assert "documents keep the base model's vectors" in page.text


def test_what_is_no_run_is_an_error(tmp_path: Path, run: Path) -> None:
    with pytest.raises(DataError, match="no such run folder"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds nothing of a run"):
        read_run(tmp_path / "empty")
    (run / "evaluation" / "report.json").write_text("{", encoding="utf-8")
    with pytest.raises(StorageError, match=r"evaluation.report\.json is damaged"):
        read_run(run)


def test_a_torn_last_row_of_the_metrics_is_left_out(run: Path) -> None:
    whole = read_run(run).metrics
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"step": 99, "lo')
    assert read_run(run).metrics == whole


def test_a_gain_on_guard_data_has_its_sign() -> None:
    delta = {"ndcg@10": {"value": 0.004, "low": -0.01, "high": 0.02, "p": 0.4, "clusters": 9}}
    row: Any = {"name": "d", "base": {"ndcg@10": 0.5}, "adapted": {"ndcg@10": 0.504}, "delta": delta}
    found = tables.guard([{**row, "relative_loss": -0.008, "warn": False}])
    assert found is not None and found.rows[0].cells[-1].note == "+0.8\N{NO-BREAK SPACE}% of base"


def test_an_object_of_other_keys_does_not_widen_a_table() -> None:
    lengths = {"characters": {"p50": 4, "max": 9}, "tokens": {"p50": 1, "max": 2}, "limit": {"max_tokens": 8}}
    wide, narrow = tables.values("Queries", lengths)
    assert wide.columns == ("", "p50", "max") and [row.head for row in wide.rows] == ["characters", "tokens"]
    assert narrow.caption == "Queries: limit" and [row.head for row in narrow.rows] == ["max tokens"]


def test_stages_say_what_each_did_on_dev(run: Path) -> None:
    rows = [
        {"stage": "1-pretrain", "examples": 1200, "dev_before": 0.5, "dev_after": 0.48, "best_of": 4, "kept": False},
        {
            "stage": "3-merge",
            "weights": {"2-finetune": 0.8, "base": 0.2},
            "dev_before": 0.6,
            "dev_after": 0.61,
            "best_of": 1,
            "kept": True,
        },
    ]
    edit(run / "report.json", stages=rows)
    text = page_of(run).text
    assert "1-pretrain 1,200 examples 0.5000 0.4800 best of 4 −0.0200 dropped" in text
    assert "3-merge 2-finetune 80 %, base 20 % 0.6000 0.6100 +0.0100 kept" in text


def test_search_through_the_index_is_shown_where_it_was_measured(tmp_path: Path) -> None:
    run = write_sample_run(tmp_path / "run")
    assert 'id="index"' not in render(read_run(run))
    (run / "index_evaluation").mkdir()
    delta = {"ndcg@10": {"value": 0.03, "low": 0.02, "high": 0.05, "p": 0.001}}
    report = {
        "documents": 10594,
        "modes": {mode: {"ndcg@10": score} for mode, score in (("dense", 0.52), ("lexical", 0.34), ("hybrid", 0.55))},
        "delta": {"lexical": delta, "hybrid": delta},
        "exact_recall": 0.9951,
        "confidence": 0.95,
        "fusion": {"constant": 60.0, "dense_weight": 1.0, "lexical_weight": 0.5, "chosen": "best of <b>dev</b>"},
    }
    (run / "index_evaluation" / "report.json").write_text(json.dumps(report), encoding="utf-8")
    said = " ".join(" ".join(Page(render(read_run(run))).words).split())
    assert "10,594 documents" in said and "weights 1 and 0.5, best of <b>dev</b>" in said
    assert "99.5 % of the exact first ten" in said and "0.5200" in said and "+0.0300" in said
    edit(run / "report.json", index={**report, "outdated": "These are another version's."})
    assert "These are another version's." in page_of(run).text


def test_reranking_is_shown_where_it_was_measured(tmp_path: Path) -> None:
    run = write_sample_run(tmp_path / "run")
    assert 'id="reranking"' not in render(read_run(run))
    (run / "reranking").mkdir()
    report = {
        "reranker": "acme/<b>reranker</b>",
        "retriever": "adapted",
        "depth": 100,
        "confidence": 0.95,
        "retrieved": {"ndcg@10": 0.41},
        "reranked": {"ndcg@10": 0.52},
        "delta": {"ndcg@10": {"value": 0.11, "low": 0.05, "high": 0.17, "p": 0.001}},
    }
    (run / "reranking" / "report.json").write_text(json.dumps(report), encoding="utf-8")
    page = Page(render(read_run(run)))
    said = " ".join(page.words)
    assert "adapted model retrieves" in said and "acme/<b>reranker</b>" in said
    assert "0.4100" in said and "0.5200" in said
