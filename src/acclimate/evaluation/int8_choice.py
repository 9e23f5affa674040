"""Which form of INT8 an export gets: chosen on dev, proven on test.

The forms of the engine are tried in their order until one holds the gate on dev. If none does, the layers that cost
most stay in float32 in the best one of them: an eighth of the layers, then a quarter, then half.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypedDict

from acclimate.errors import ModelError
from acclimate.evaluation.gate import Gate
from acclimate.formats.int8 import Recipe
from acclimate.progress import say
from acclimate.types import Split

MAX_SIZE = 0.5
"""The largest share of float32's bytes."""
KEPT = (0.125, 0.25, 0.5)
"""Shares of the layers that stay in float32, one after the other."""


class Tried(TypedDict):
    """A form of INT8 that was tried, and what dev said of it."""

    recipe: Recipe
    kept: list[str]
    """Layers whose weights and products stayed in float32; none but where no form held without."""
    size: float
    """Share of float32's bytes."""
    dev: Gate | None
    """None where there is no dev split."""


class Proof(TypedDict):
    """The gate: what was tried, what was chosen, whether it is proven."""

    passed: bool
    recipe: Recipe
    """See `formats.int8`."""
    kept: list[str]
    tried: list[Tried]
    test: Gate


class Forms(Protocol):
    """An export whose weights are written in one form after the other."""

    @property
    def recipes(self) -> Sequence[Recipe]:
        """The fastest first."""

    def write(self, recipe: Recipe, kept: Sequence[str]) -> float:
        """Write the form; return its share of float32's bytes."""

    def gate(self, split: Split) -> Gate | None:
        """Measure the form that is written; None where there is no dev split."""

    def costly(self, recipe: Recipe) -> list[str]:
        """All layers, first the one whose INT8 alone changes the results most."""


def choose(forms: Forms) -> Proof:
    """Write the form that dev chooses, and prove it.

    Args:
        forms: the chosen one is written in the end.

    Returns:
        whether the test split proves it, and all that was tried.
    """
    tried: list[Tried] = []

    def attempt(recipe: Recipe, kept: Sequence[str] = ()) -> bool:
        size = forms.write(recipe, kept)
        tried.append({"recipe": recipe, "kept": list(kept), "size": size, "dev": _measured(forms, "dev")})
        return _holds(tried[-1])

    holds = any(attempt(recipe) for recipe in forms.recipes)
    small = [row for row in tried if row["size"] <= MAX_SIZE]
    if not holds and small:
        best = max(small, key=_dev_score)["recipe"]
        layers = forms.costly(best)
        for share in KEPT:
            kept = layers[: math.ceil(share * len(layers))]
            say(f"export: no form of INT8 holds on dev; {len(kept)} of {len(layers)} layers stay in float32")
            if attempt(best, kept) or tried[-1]["size"] > MAX_SIZE:
                break
    chosen = next((row for row in tried if _holds(row)), None) or max(
        [row for row in tried if row["size"] <= MAX_SIZE] or tried[:1], key=_dev_score
    )
    if chosen is not tried[-1]:
        forms.write(chosen["recipe"], chosen["kept"])
    test = _measured(forms, "test")
    assert test is not None  # the gate refuses data without a test split
    passed = test["holds"] and chosen["size"] <= MAX_SIZE
    return {"passed": passed, "recipe": chosen["recipe"], "kept": chosen["kept"], "tried": tried, "test": test}


def refuse_unproven(proof: Proof, force: bool) -> None:
    """Say why a form does not pass.

    Args:
        proof: as `choose` gives it.
        force: only warn.

    Raises:
        ModelError: it does not pass, and is not forced.
    """
    if proof["passed"]:
        return
    test = proof["test"]
    size = next(r["size"] for r in proof["tried"] if (r["recipe"], r["kept"]) == (proof["recipe"], proof["kept"]))
    why = [f"it has {size:.0%} of float32's bytes, more than {MAX_SIZE:.0%}"] if size > MAX_SIZE else []
    if not test["holds"]:
        why.append(
            f"its {test['measure']} on the test split may be {-test['delta']['low']:.4f} lower, by the interval, "
            f"which is more than {test['bound']:.4f}"
        )
    reason = f"INT8 does not pass the gate: {', and '.join(why)}"
    if not force:
        raise ModelError(reason, fix="Nothing was written. Export float32, or write it all the same with --force.")
    say(f"warning: {reason}")


def _measured(forms: Forms, split: Split) -> Gate | None:
    found = forms.gate(split)
    if found is not None:
        say(f"export: {split} {found['measure']}: {found['float32']:.4f} in float32, {found['int8']:.4f} in INT8")
    return found


def _holds(row: Tried) -> bool:
    return row["size"] <= MAX_SIZE and (row["dev"] is None or row["dev"]["holds"])


def _dev_score(row: Tried) -> float:
    return row["dev"]["int8"] if row["dev"] else 0.0
