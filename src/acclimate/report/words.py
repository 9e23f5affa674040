"""The wording of the report: numbers, names of metrics, excerpts of texts, the verdict."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal, TypeGuard

from acclimate.data.made import by_stand_ins, proven_on

Tone = Literal["", "good", "bad"]

ABSENT = "–"
MADE_QUERIES = "proven on made queries"
"""The label of a proof that rests on no user's queries."""
STAND_INS_PROVE_LITTLE = (
    "Most of them are words of the texts, and a model that finds those better may find what users ask for worse."
)
ASK_USERS = "Keep the base model; or bring some queries of users (--queries FILE), and let them decide."
"""What to do where words of the texts stand in for queries."""
NO_BREAK = "\N{NO-BREAK SPACE}"
METRIC_NAMES = {
    "ndcg@10": "NDCG@10",
    "recall@5": "Recall@5",
    "mrr@10": "MRR@10",
    "map@100": "MAP@100",
    "recall@100": "Recall@100",
    "spearman": "Spearman",
    "pearson": "Pearson",
    "roc_auc": "ROC-AUC",
    "best_f1": "Best F1",
    "best_f1_threshold": "Threshold of best F1",
    "positive_cosine": "Mean cosine of positives",
    "negative_cosine": "Mean cosine of negatives",
    "margin": "Margin (positive − negative)",
    "term_accuracy@1": "A term finds a text that holds it, accuracy@1",
    "term_r_precision": "A term finds all texts that hold it, R-precision",
    "text_accuracy@1": "The nearest neighbour of a text shares its term, accuracy@1",
    "definition_accuracy@1": "A term finds its definition, accuracy@1",
    "topic_auc": "Texts of one topic are closer than texts of different topics, ROC-AUC",
}
SIMILARITY_METRICS = ("positive_cosine", "negative_cosine", "margin")
NOTHING: Mapping[str, Any] = MappingProxyType({})
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_SCRIPTS = (("ja", "\u3040", "\u30ff"), ("ko", "\uac00", "\ud7a3"), ("zh", "\u4e00", "\u9fff"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """The headline: a short claim, the evidence for it, and what to do."""

    claim: str
    reason: str
    advice: str
    tone: Tone


def metric_name(key: str) -> str:
    """A metric's name as it is usually written."""
    return METRIC_NAMES.get(key, key)


def primary_metric(test: Mapping[str, Any]) -> str | None:
    """The metric that the verdict rests on: NDCG@10, or Spearman for labelled pairs."""
    base = test.get("base", {})
    return next((key for key in ("ndcg@10", "spearman") if key in base), None)


def is_number(value: object) -> TypeGuard[float]:
    """Whether `value` is a finite number (JSON may hold NaN; a bool is no number)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def score(value: Any, digits: int = 4) -> str:
    """Format a metric's value, by default with four decimals."""
    return f"{value:.{digits}f}".replace("-", "−") if is_number(value) else ABSENT


def signed(value: Any, digits: int = 4) -> str:
    """Format a difference with its sign, by default with four decimals."""
    return f"{value:+.{digits}f}".replace("-", "−") if is_number(value) else ABSENT


def interval(delta: Mapping[str, Any]) -> str:
    """`low to high` of a difference, or nothing where it has no interval."""
    if not (is_number(delta.get("low")) and is_number(delta.get("high"))):
        return ""
    return f"{signed(delta['low'])} to{NO_BREAK}{signed(delta['high'])}"


def percent(share: float) -> str:
    """Format a share as per cent, without a line break."""
    return f"{100 * share:.3g}{NO_BREAK}%"


def p_value(value: Any) -> str:
    """`p = 0.123`, `p < 0.001`, or nothing; on one line."""
    if not is_number(value):
        return ""
    return ("p < 0.001" if value < 0.001 else f"p = {value:.3f}").replace(" ", NO_BREAK)


def domain_notes(domain: Mapping[str, Any]) -> list[str]:
    """What the metrics of the domain were measured on, or why they were not."""
    notes = []
    terms, topics = domain.get("term_accuracy", {}), domain.get("relatedness", {})
    if "skipped" in terms:
        notes.append(f"Terms were not measured: {terms['skipped']}.")
    elif terms:
        lexicon = domain.get("lexicon", {})
        used = f"{count(terms.get('terms'))} of {count(lexicon.get('terms'))} terms"
        documents = count(terms.get("documents"))
        notes.append(
            f"Lexicon: {lexicon.get('origin', '')}. Used as queries: {used}, those that some of the {documents}"
            " documents hold, but not too many. A text counts as found only if it holds the exact words: a model that"
            " has moved from words to meaning may lose here and still be better above."
        )
    if "skipped" in topics:
        notes.append(f"Topics were not measured: {topics['skipped']}.")
    elif topics:
        notes.append(
            f"Topics: {topics.get('origin', '')}; all pairs of {count(topics.get('texts'))} texts of"
            f" {count(topics.get('topics'))} topics; 0.5 is chance."
        )
    return notes


def tested(test: Mapping[str, Any]) -> str:
    """What the intervals rest on: how many clusters of how many test queries or pairs."""
    delta = test.get("delta", {}).get(primary_metric(test), {})
    if "low" not in delta:
        return ""
    noun, one = ("queries", "query") if "ndcg@10" in test["base"] else ("pairs", "pair")
    shared = "a relevant document or their text" if noun == "queries" else "a sentence"
    clusters = ""
    if is_number(delta.get("clusters")):
        clusters = f" of {count(delta['clusters'])} clusters: test {noun} that share {shared} count as one"
    own = ""
    if test.get("own_documents"):
        own = f" {count(test['own_documents'])} queries are documents too, under the same id: none finds itself."
    return f"The interval and p come from sign flips{clusters}. No test {one} was seen in training.{own}"


def folds_note(folds: int) -> str:
    """What the numbers of a cross-validation are about, and what they are not about."""
    return (
        f"These numbers are about the way of training: {folds} adapters, each trained on"
        f" {folds - 1} of {folds} parts of the data and tested on the part that it had not seen. The adapter that is"
        " kept was trained in the same way on all data; it has no test of its own. The interval is widened, because the"
        " tested part of one adapter is in the training of the others. Terms, topics and guards are measured with the"
        " first fold's adapter alone."
    )


def lexical_note(lexical: Mapping[str, Any]) -> str:
    """How BM25 was set up, and how that was chosen."""
    if not lexical:
        return ""
    pairs = "" if lexical.get("language") else ", Chinese, Japanese and Korean characters in pairs"
    language = f"{lexical['language'].capitalize()}, " if lexical.get("language") else ""
    return f"BM25: {language}{lexical['variant']}{pairs} ({lexical['chosen']})."


def tone_of(delta: Mapping[str, Any]) -> Tone:
    """Good or bad where the interval does not contain zero."""
    low, high = delta.get("low"), delta.get("high")
    if isinstance(low, int | float) and low > 0:
        return "good"
    return "bad" if isinstance(high, int | float) and high < 0 else ""


def count(value: Any) -> str:
    """Format a count with thousands separated, a fraction with up to four significant digits, a list of these, or
    text."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        if not math.isfinite(value):
            return ABSENT
        return f"{value:,.0f}" if abs(value) >= 1000 or value.is_integer() else f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(count, value))
    return ABSENT if value is None else str(value)


def duration(seconds: Any) -> str:
    """Format seconds as `1 h 02 min`, `4 min 43 s`, `43 s` or `0.8 s`; on one line."""
    if not is_number(seconds):
        return ABSENT
    if seconds < 9.95:
        return f"{seconds:.1f}{NO_BREAK}s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    words = f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
    return words.replace(" ", NO_BREAK)


def plain(key: str) -> str:
    """A JSON key as words: `mean_tokens` -> `mean tokens`."""
    return key.replace("_", " ")


def excerpt(text: Any, limit: int = 320) -> str:
    """The beginning of a text in one paragraph, without control characters; if it is cut, with the whole length."""
    words = " ".join(_CONTROLS.sub(" ", str(text)).split())
    if len(words) <= limit:
        return words
    return f"{words[:limit].rstrip()} … ({len(words):,} characters)"


def script_language(text: str) -> str:
    """`zh`, `ja` or `ko` by the script of the text, else nothing: so that a browser chooses the right glyphs."""
    return next((tag for tag, first, last in _SCRIPTS if any(first <= letter <= last for letter in text)), "")


def places(change: Mapping[str, Any]) -> str:
    """Where the best relevant document of a query stands, before and after; nothing where that was not recorded."""
    if "base_rank" not in change:
        return ""
    before, after = (_place(change.get(f"{side}_rank"), change.get("ranked")) for side in ("base", "adapted"))
    return f"The relevant document: {before} with the base model, {after} with the adapted one."


def _place(rank: Any, ranked: Any) -> str:
    return f"place {count(rank)}" if is_number(rank) else f"not among the first {count(ranked)}"


def verdict(
    run_verdict: str, test: Mapping[str, Any], confidence: float | None, report: Mapping[str, Any] = NOTHING
) -> Verdict:
    """The outcome in plain words, with the number and its interval; what matters more than the comparison comes first.

    Args:
        run_verdict: `better`, `no evidence` or `worse`, as the evaluation decided it.
        test: `base`, `adapted` and `delta` of the test split.
        confidence: the interval's level, e.g. 0.95.
        report: the evaluation's, or the run's: `recommend`, `unsuited` and `against_bm25`, where they are known; with
            `folds` it is about models that are trained in this way.
    """
    found = _verdict(run_verdict, test, confidence, report)
    rests_on = proven_on(report.get("made_by") or {})
    if not rests_on:
        return found
    claim = f"{found.claim.rstrip('.')}, {MADE_QUERIES if run_verdict == 'better' else 'tested on made queries'}."
    reason = f"{found.reason} Nobody has asked them: they are {rests_on}, of documents outside the training.".strip()
    if report.get("unsuited") or not by_stand_ins(report["made_by"]):
        return replace(found, claim=claim, reason=reason)
    return replace(found, claim=claim, reason=f"{reason} {STAND_INS_PROVE_LITTLE}", advice=ASK_USERS, tone="")


def _verdict(run_verdict: str, test: Mapping[str, Any], confidence: float | None, report: Mapping[str, Any]) -> Verdict:
    """As `verdict`, whoever asked the queries."""
    key = primary_metric(test)
    delta: Mapping[str, Any] = test.get("delta", {}).get(key, {})
    change = "" if key is None else _change(key, test, delta, confidence)
    model = "A model adapted in this way" if report.get("folds") else "The adapted model"
    found = _compared(run_verdict, change, model)
    unsuited = str(report.get("unsuited", ""))
    lexical = _lexical(key, test, report, confidence) if report.get("recommend") == "bm25" else ""
    if not lexical:
        if not unsuited:
            return found
        reason = " ".join(part for part in (sentence_case(unsuited), change) if part)
        return Verdict("This model cannot read these texts.", reason, "Take another model.", "bad")
    claim = "Plain search by words (BM25) is better than either model"
    advice = "Search by words (BM25), or by both (hybrid search)."
    if unsuited:
        reason = " ".join((lexical, sentence_case(unsuited), change))
        advice = "Search by words (BM25), or take another model."
        return Verdict(f"{claim}, which cannot read these texts.", reason, advice, "bad")
    of_both = f"Of the two models: {found.advice[0].lower()}{found.advice[1:]}"
    return Verdict(f"{claim}.", f"{lexical} {found.reason}", f"{advice} {of_both}", "bad")


def final(proof: Mapping[str, Any]) -> Verdict:
    """The outcome of a training on all data: what its settings were worth on data that they had not been trained on."""
    found = verdict(str(proof["verdict"]), proof["test"], proof.get("confidence"), proof)
    data = "all of the data" if proof["same_data"] else "all of the data, of which there is more or other by now,"
    reason = (
        f"It was trained on {data} with the settings of the run {proof['run']}, which held a part of its data apart. "
        f"There: {found.claim} {found.reason}"
    )
    return Verdict("This model has no proof of its own.", reason, f"By that run: {found.advice}", "")


def _compared(run_verdict: str, change: str, model: str) -> Verdict:
    """Base against adapted, whatever else there is to say."""
    if run_verdict == "better":
        return Verdict(f"{model} is better.", change, "Use the adapted model.", "good")
    if run_verdict == "worse":
        return Verdict(f"{model} is worse.", change, "Keep the base model.", "bad")
    return Verdict(
        f"No evidence that {model[0].lower()}{model[1:]} is better.",
        f"{change} A difference of this size can be chance.".strip(),
        "Keep the base model, or come back with more data.",
        "",
    )


def _lexical(key: str | None, test: Mapping[str, Any], report: Mapping[str, Any], confidence: float | None) -> str:
    """By how much BM25 is ahead of the better model."""
    delta = report.get("against_bm25", {})
    level = f"{percent(confidence)} interval" if confidence else "interval"
    ahead = {"low": -delta["high"], "high": -delta["low"]}
    return (
        f"{metric_name(str(key))} is {score(test.get('bm25', {}).get(key))} by BM25, {signed(-delta['value'])} above"
        f" the better model ({level} {interval(ahead)}, {p_value(delta['p'])})."
    )


def sentence_case(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]


def _change(key: str, test: Mapping[str, Any], delta: Mapping[str, Any], confidence: float | None) -> str:
    unit = "held-out queries" if "queries" in test else "held-out pairs"
    number = test.get("queries", test.get("pairs"))
    where = f"On {count(number)} {unit}" if number is not None else f"On {unit}"
    level = f"{percent(confidence)} interval" if confidence else "interval"
    bounds = interval(delta)
    details = [f"{level} {bounds}"] * bool(bounds) + [p_value(delta.get("p"))] * is_number(delta.get("p"))
    noted = f" ({', '.join(details)})" if details else ""
    return (
        f"{where}, {metric_name(key)} went from {score(test['base'].get(key))} to "
        f"{score(test.get('adapted', {}).get(key))}: {signed(delta.get('value'))}{noted}."
    )
