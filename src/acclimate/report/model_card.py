"""The model card of a merged model: what it is, on what evidence, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from acclimate.report import words
from acclimate.report.summary import MergeReport, RunSummary

_HOW = {"full": "all of its weights were trained", "merged": "a LoRA adapter was merged into its weights"}
_METRICS = ("ndcg@10", "recall@5", "mrr@10", "map@100", "recall@100", "spearman", "pearson", "roc_auc")


def render(facts: MergeReport, summary: RunSummary) -> str:
    """Write the card in Markdown, with the hub's front matter.

    Args:
        facts: base id and sha256 (None where no folder names it), kind, sides, dim; for several models also what
            `merge` reports: method, models, ...
        summary: the run's report; empty if there is none.
    """
    base, asymmetric = facts["base"], facts["sides"] == "query"
    origin = f" from `{base['id']}` (weights sha256 `{base['sha256']}`)" if base else ""
    how = "merged, see below" if "method" in facts else _HOW[facts["kind"]]
    parts = [
        _front_matter(str(base["id"]) if base else ""),
        "# A domain-adapted embedding model\n",
        f"Made with Acclimate{origin}: {how}"
        + (", on the query side only: document vectors are the base model's own" if asymmetric else "")
        + f". Vectors have {facts['dim']} dimensions and unit length.\n",
        _evidence(summary),
        _merge(facts) if "method" in facts else "",
        _usage(),
        "## Licence\n\nThis model is made from the base model's weights, so the base model's licence applies to it, "
        "and the training data may add conditions of its own. Acclimate's licence (Apache-2.0) covers the tool only.\n",
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(base_id: str) -> str:
    lines = ["---", "library_name: sentence-transformers", "pipeline_tag: sentence-similarity"]
    # A folder's own name is no id on the hub, and the hub refuses a card that names an unknown base.
    lines += [f"base_model: {base_id}"] if "/" in base_id else []
    return "\n".join([*lines, "tags:", "- sentence-transformers", "- feature-extraction", "- acclimate", "---\n"])


def _evidence(summary: RunSummary) -> str:
    if proof := summary.get("final"):
        found = words.final(proof)
        scores = _evidence(cast(RunSummary, proof))
        return f"## No proof of its own\n\n{found.claim} {found.reason} {found.advice}\n\n{scores}"
    test = summary.get("test")
    if not test:
        return ""
    base, adapted, delta = test["base"], test["adapted"], test.get("delta", {})
    rows = [
        f"| {name} | {base[name]:.4f} | {adapted[name]:.4f} | {_difference(delta, name)} |"
        for name in _METRICS
        if name in base and name in adapted
    ]
    counts = {name: value for name, value in summary.get("dataset", {}).get("counts", {}).items() if value}
    data = "Data: " + ", ".join(f"{value} {name}" for name, value in counts.items()) + ".\n" if counts else ""
    verdict = f"Verdict: {summary['verdict']}.\n" if "verdict" in summary else ""
    if summary.get("recommend") in ("bm25", "other") or summary.get("made_by"):  # what matters more than the comparison
        found = words.verdict(summary["verdict"], test, summary.get("confidence"), summary)
        verdict = f"Verdict: {found.claim} {found.reason} {found.advice}\n"
    table = "| metric | base | adapted | difference |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    return "\n".join(part for part in ("## Evidence, on held-out test data\n", table, verdict, data) if part)


def _merge(facts: MergeReport) -> str:
    """What was merged, how, and what was lost or chosen on the way."""
    # Folders by their names only: the card is for others, who have other paths.
    rows = [f"| {Path(model['name']).name} | {model['weight']:.4g} |" for model in facts["models"]]
    options = [f"{name} {facts[name]:g}" for name in ("density", "update_scale") if facts.get(name, 1) != 1]
    how = f"Method: {', '.join([facts['method'], *options])}.\n"
    parts = ["## What was merged\n", how, "| model | weight |\n|---|---|\n" + "\n".join(rows) + "\n"]
    if lost := facts.get("discarded", {}).get("total"):
        parts.append(
            f"At rank {facts['rank']} it holds all but {lost:.2%} of the merged update (squared Frobenius norm).\n"
        )
    if curve := facts.get("curve"):
        parts.append(f"The weight was chosen by {curve['rule']}.\n")
    if soup := facts.get("soup"):
        tried = ", ".join(f"{Path(row['model']).name} {row['alone']:.4f}" for row in soup["tried"])
        parts.append(f"Chosen greedily by {soup['measure']} on the dev split ({soup['score']:.4f}; alone: {tried}).\n")
    return "\n".join(parts)


def _difference(delta: Mapping[str, Any], name: str) -> str:
    if name not in delta:
        return ""
    value = delta[name]
    return f"{value['value']:+.4f} [{value['low']:+.4f}, {value['high']:+.4f}], p = {value['p']:.4f}"


def _usage() -> str:
    return (
        "## Use\n\n```python\nfrom sentence_transformers import SentenceTransformer\n\n"
        'model = SentenceTransformer("THIS_FOLDER")\n'
        'queries = model.encode_query(["a question"])\n'
        'documents = model.encode_document(["a text that answers it", "another"])\n'
        "print(model.similarity(queries, documents))\n```\n\n"
        "The prompts it was trained with are stored in the model; `encode_query` and `encode_document` apply them.\n"
    )
