"""`report.html`: one self-contained page about a run folder. It loads nothing, and runs no script."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from acclimate.report import plots, tables
from acclimate.report.folder import RunParts
from acclimate.report.words import (
    TRAINING_NAMES,
    Tone,
    count,
    domain_notes,
    duration,
    excerpt,
    is_number,
    lexical_note,
    percent,
    plain,
    score,
    script_language,
    signed,
    tested,
    tone_of,
    verdict,
)

FACT_CHARS = 120
QUERY_CHARS = 200
DOCUMENT_CHARS = 320


@dataclass(frozen=True, slots=True)
class Change:
    """A query whose ranking changed much, with its top documents before and after."""

    query: str
    delta: str
    tone: Tone
    before: str
    after: str
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
    return {
        "verdict": verdict(str(report.get("verdict", "no evidence")), test, confidence) if evaluated else None,
        "recommend": report.get("recommend"),
        "query_side": report.get("sides", config.get("train", {}).get("sides")) == "query",
        "facts": _facts(run),
        "headline": tables.headline(test, confidence),
        "tested": tested(test),
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
        "guard": tables.guard(report.get("guard", [])),
        "guard_bound": config.get("evaluate", {}).get("guard_bound"),
        "forgot": tables.forgot(report.get("guard", [])),
    }


def _facts(run: RunParts) -> list[tuple[str, str]]:
    """What was adapted, on what, how long it took: the line under the headline."""
    summary, test = run.summary or {}, run.test
    train, model = summary.get("train", {}), summary.get("model", {})
    facts = [
        ("Model", excerpt(model.get("id", ""), FACT_CHARS)),
        ("Data", excerpt(summary.get("source", ""), FACT_CHARS)),
        ("Test queries", count(test["queries"]) if "queries" in test else ""),
        ("Test pairs", count(test["pairs"]) if "pairs" in test else ""),
        ("Documents", count(test["documents"]) if "documents" in test else ""),
        ("Trained parameters", _share(train.get("trainable"), train.get("total"))),
        ("Time in all", duration(summary["timings"]["total_s"]) if "total_s" in summary.get("timings", {}) else ""),
    ]
    return [(name, value) for name, value in facts if value]


def _share(trainable: Any, total: Any) -> str:
    if not is_number(trainable):
        return ""
    return f"{count(trainable)} ({percent(trainable / total)})" if is_number(total) and total else count(trainable)


def _change(item: Mapping[str, Any]) -> Change:
    delta = item.get("delta")
    tone = tone_of({"low": delta, "high": delta})
    rankings = (("Base", list(item.get("base_top", []))), ("Adapted", list(item.get("adapted_top", []))))
    query = excerpt(item.get("query", ""), QUERY_CHARS)
    return Change(query, signed(delta, 2), tone, score(item.get("base"), 2), score(item.get("adapted"), 2), rankings)


def _training(run: RunParts) -> dict[str, Any]:
    rows, summary = run.metrics or [], run.summary or {}
    train = summary.get("train", {})
    named = {TRAINING_NAMES.get(key, key): value for key, value in train.items()}
    best_step = train.get("best_step")
    curves = [plots.loss_curve(rows), plots.dev_curve(rows, best_step), plots.margin_curve(rows, best_step)]
    return {
        "curves": [curve for curve in curves if curve],
        "training_values": tables.values("Training", named),
        "stages": tables.stages(summary.get("stages", [])),
        "timings": tables.timings(summary.get("timings", {})),
    }


def _data(run: RunParts) -> dict[str, Any]:
    dataset = run.dataset or {}
    shown = {key: value for key, value in dataset.items() if key not in ("warnings", "kind") and value is not None}
    return {
        "warnings": [str(warning) for warning in dataset.get("warnings", [])],
        "data_values": tables.values("Data", shown),
        "rejected": tables.reasons(run.rejected),
    }


def _mining(run: RunParts) -> dict[str, Any]:
    audit = run.audit or {}
    counts = {key: value for key, value in audit.items() if not isinstance(value, list) and key != "histograms"}
    return {
        "mining_histogram": plots.mining_histogram(audit.get("histograms", {})),
        "mining_values": tables.values("Mining", counts),
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
    return {
        "command": summary.get("command"),
        "again": f"acclimate adapt {source}--config config.toml --out RUN",
        "model": tables.values("Base model", summary.get("model", {})),
        "versions": tables.values("Versions", summary.get("versions", {})),
        "inputs": tables.inputs(run.inputs),
    }
