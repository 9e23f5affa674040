"""What all exports report, and what their cards say of INT8."""

from __future__ import annotations

from typing import TypedDict

from acclimate.evaluation.int8_choice import Proof


class Exported(TypedDict, total=False):
    """What `export` reports, whatever was exported."""

    format: str
    precision: str
    gate: Proof
    """INT8 only."""
    bytes: int
    """Bytes of the weights, without tokenizer and settings."""
    float32_bytes: int
    size: float
    """Share of float32's bytes."""
    timings: dict[str, float]


def proven(gate: Proof, size: float) -> str:
    """Say in Markdown what the gate of an INT8 model has shown.

    Args:
        gate: what was tried, and the proof.
        size: share of float32's bytes.
    """
    test, kept = gate["test"], gate["kept"]
    delta = test["delta"]
    verdict = "passed" if gate["passed"] else "**not passed: this model was written with --force**"
    stayed = f" {len(kept)} of its layers, those that cost most, stayed in float32." if kept else ""
    return (
        f"INT8 has {size:.0%} of float32's bytes ({gate['recipe']}).{stayed} The gate is {verdict}: {test['measure']} "
        f"on {test['queries']} held-out queries or pairs is {test['int8']:.4f}, {test['float32']:.4f} in float32; the "
        f"difference lies between {delta['low']:+.4f} and {delta['high']:+.4f}, and {-test['bound']:.4f} is accepted.\n"
    )
