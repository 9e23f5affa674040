"""The card of a hypernetwork: what it is for, what it was trained on, what was measured, and its limits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acclimate.models.hypernetwork.saving import TrainedNetwork

KINDS = {"query-vector": "a low-rank map on query vectors", "encoder": "a LoRA adapter of the model"}


def render(trained: TrainedNetwork) -> str:
    """Write the card of a network as it was trained."""
    facts: Mapping[str, Any] = trained.metrics
    changed = "queries only: an index of the base stays right" if facts["sides"] == "query" else "queries and documents"
    lines = [
        f"# Hypernetwork for {trained.base_id}",
        "",
        f"From a description, example pairs or sample texts it makes {KINDS[facts['through']]}, without training:",
        "",
        '    acclimate generate --hypernetwork FOLDER --describe "..." --out adapter',
        "",
        "| | |",
        "|---|---|",
        f"| base | {trained.base_id}, sha256 {trained.base_sha256[:12]} |",
        f"| generator | {facts['generator']}, {facts['parameters']:,} parameters |",
        f"| trained on | {facts['tasks']} tasks ({facts['definitions']} definitions of relevance) |",
        f"| descriptions | {', '.join(facts['languages'])} |",
        f"| corpora | {', '.join(facts['collections'])}: {facts['texts']:,} texts |",
        f"| steps | {facts['shared_steps']} for the multi-task adapter, {facts['steps']} for the generator |",
        f"| objective | {facts['objective']} |",
        f"| changes | {changed} |",
        "",
        "What it gains is measured by `acclimate hypernetwork evaluate`; for a task of yours, `generate` measures it",
        "on the pairs that you give. Expect nothing from it for texts or languages unlike those it was trained on.",
    ]
    return "\n".join(lines) + "\n"
