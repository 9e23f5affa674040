"""`report.html`: one self-contained page about a run folder. It loads nothing, and runs no script."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from acclimate.report import details, plots, tables, vector_forms
from acclimate.report.folder import RunParts
from acclimate.report.qualifiers import qualifiers
from acclimate.report.words import (
    Tone,
    count,
    domain_notes,
    duration,
    excerpt,
    final,
    is_number,
    lexical_note,
    percent,
    places,
    plain,
    primary_metric,
    score,
    script_language,
    signed,
    tone_of,
    verdict,
)
from acclimate.runs.run_folder import PAGE_FILE

FACT_CHARS = 120
QUERY_CHARS = 200
DOCUMENT_CHARS = 320


@dataclass(frozen=True, slots=True)
class Change:
    """A query whose ranking changed much: the relevant document's place, and the top documents, before and after."""

    query: str
    delta: str
    tone: Tone
    before: str
    after: str
    places: str
    rankings: tuple[tuple[str, list[dict[str, Any]]], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One suspected false negative: its texts, and its scores."""

    texts: tuple[tuple[str, str], ...]
    numbers: tuple[tuple[str, str], ...]


def render(run: RunParts) -> str:
    """Render the page. Equal input gives equal bytes; every text of the run is escaped; missing parts are named."""
    return fill(
        "template.html", run=run, **_result(run), **_training(run), **_data(run), **_mining(run), **_reproduce(run)
    )


def fill(template: str, **values: Any) -> str:
    """Fill one of the templates beside this file; every text among the values is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"svg": Markup, "count": count, "percent": percent, "language": script_language}
    environment.filters["document"] = lambda text: excerpt(text, DOCUMENT_CHARS)
    # JSON may hold lone surrogates, which UTF-8 cannot.
    return environment.get_template(template).render(**values).encode("utf-8", "replace").decode("utf-8")


def _result(run: RunParts) -> dict[str, Any]:
    report = run.evaluation or run.summary or {}
    config = (run.summary or {}).get("config", {})
    confidence = report.get("confidence", config.get("evaluate", {}).get("confidence"))
    test, evaluated = run.test, bool(run.test.get("base"))
    evaluation: Mapping[str, Any] = run.evaluation or {}
    proof = (run.summary or {}).get("final")
    found = verdict(str(report.get("verdict", "no evidence")), test, confidence, report) if evaluated else None
    return {
        "verdict": final(proof) if proof else found,
        "proof": f"proof/{PAGE_FILE}" if proof else "",
        "recommend": report.get("recommend"),
        "outdated": (run.summary or {}).get("outdated"),
        "query_side": report.get("sides", config.get("train", {}).get("sides")) == "query",
        "subject": _subject(run),
        "verdict_plot": plots.verdict_plot(test, primary_metric(test)),
        "qualifiers": qualifiers(run),
        "headline": tables.headline(test, confidence),
        "folds": tables.folds(report.get("folds") or [], primary_metric(test)),
        "lexical": lexical_note(evaluation.get("lexical", {})),
        "bars": plots.metric_bars(test),
        "cosines": tables.similarity(test),
        "histograms": plots.similarity_histograms(evaluation.get("histograms", {}), run.kind),
        "changes": [
            (title, changes)
            for title, key in (("Most won", "won"), ("Most lost", "lost"))
            if (changes := [_change(item) for item in evaluation.get(key, [])])
        ],
        "domain": tables.domain(report.get("domain", {}), confidence),
        "domain_notes": domain_notes(report.get("domain", {})),
        "reranking": tables.reranking(run.reranking),
        "index": tables.index(run.index),
        "refreshes": tables.refreshes(run.decisions),
        "vectors": vector_forms.form_table(run.vectors),
        "vector_plot": vector_forms.form_plot(run.vectors),
        "vectors_outdated": (run.summary or {}).get("vectors", {}).get("outdated"),
        "index_outdated": (run.summary or {}).get("index", {}).get("outdated"),
        "guard": tables.guard(report.get("guard", [])),
        "guard_bound": config.get("evaluate", {}).get("guard_bound"),
        "forgot": tables.forgot(report.get("guard", [])),
    }


def _subject(run: RunParts) -> list[tuple[str, str]]:
    """What was adapted to what, on how much, and how long it took: each with its name."""
    summary, test = run.summary or {}, run.test
    train, model = summary.get("train", {}), summary.get("model", {})
    facts = [
        ("Model", excerpt(model.get("id", ""), FACT_CHARS)),
        ("Data", excerpt(summary.get("source", ""), FACT_CHARS)),
        ("Documents", count(test["documents"]) if "documents" in test else ""),
        ("Training examples", count(train["examples"]) if "examples" in train else ""),
        ("Time in all", duration(summary["timings"]["total_s"]) if "total_s" in summary.get("timings", {}) else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _change(item: Mapping[str, Any]) -> Change:
    delta = item.get("delta")
    tone = tone_of({"low": delta, "high": delta})
    rankings = (("Base", list(item.get("base_top", []))), ("Adapted", list(item.get("adapted_top", []))))
    query = excerpt(item.get("query", ""), QUERY_CHARS)
    before, after = score(item.get("base"), 2), score(item.get("adapted"), 2)
    return Change(query, signed(delta, 2), tone, before, after, places(item), rankings)


def _training(run: RunParts) -> dict[str, Any]:
    rows, summary = run.metrics or [], run.summary or {}
    best_step = summary.get("train", {}).get("best_step")
    curves = [plots.loss_curve(rows), plots.dev_curve(rows, best_step), plots.margin_curve(rows, best_step)]
    return {
        "curves": [curve for curve in curves if curve],
        "training": details.training(summary.get("train", {})),
        "stages": tables.stages(summary.get("stages", [])),
        "timings": tables.timings(summary.get("timings", {})),
    }


def _data(run: RunParts) -> dict[str, Any]:
    made = details.made_pairs((run.summary or {}).get("pairs", {}))
    data = details.data(run.dataset or {}, run.kind)
    return {"data_tables": [*made, *data], "rejected": tables.reasons(run.rejected)}


def _mining(run: RunParts) -> dict[str, Any]:
    audit = run.audit or {}
    return {
        "mining_histogram": plots.mining_histogram(audit.get("histograms", {})),
        "mining_tables": details.mining(audit),
        "suspects": [_record(item) for item in audit.get("likeliest_false_negatives", [])],
        "too_few": [str(query_id) for query_id in audit.get("queries_with_too_few_ids", [])],
    }


def _record(item: Mapping[str, Any]) -> Record:
    numbers = tuple((plain(key), count(value)) for key, value in item.items() if is_number(value))
    texts = tuple((plain(key), excerpt(value)) for key, value in item.items() if isinstance(value, str))
    return Record(texts, numbers)


def _reproduce(run: RunParts) -> dict[str, Any]:
    summary = run.summary or {}
    tables_of_data = "\n[[datasets]]" in (run.config or "")
    source = "" if tables_of_data else shlex.quote(str(summary.get("source", "DATA"))) + " "
    proof = summary.get("final")
    settings = f"--final {shlex.quote(proof['run'])}" if proof else "--config config.toml"
    return {
        "command": summary.get("command"),
        "made": summary.get("made", {}),
        "again": f"acclimate adapt {source}{settings} --out RUN",
        "model": tables.values("Base model", summary.get("model", {})),
        "versions": tables.values("Versions", summary.get("versions", {})),
        "inputs": tables.inputs(run.inputs),
    }
