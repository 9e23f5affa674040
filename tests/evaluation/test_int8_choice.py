"""Which form of INT8 is chosen: the order, what is kept when none holds, what is proven and refused; all by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from acclimate.errors import ModelError
from acclimate.evaluation.gate import Gate
from acclimate.evaluation.int8_choice import choose, refuse_unproven
from acclimate.formats.int8 import Recipe
from acclimate.types import Split

LAYERS = ["a", "b", "c", "d", "e", "f", "g", "h"]
BOUND = 0.02


class Table:
    """Forms whose losses are said: 0.08 for all eight layers in INT8, less for each that is kept."""

    recipes: Sequence[Recipe] = ("dynamic", "blocks")

    def __init__(self, losses: dict[Recipe, float], costs: dict[str, float], size: float = 0.25) -> None:
        self.losses, self.costs, self.size = losses, costs, size
        self.written: list[tuple[Recipe, tuple[str, ...]]] = []

    def write(self, recipe: Recipe, kept: Sequence[str]) -> float:
        self.written.append((recipe, tuple(kept)))
        return self.size + 0.1 * len(kept)

    def gate(self, split: Split) -> Gate:
        recipe, kept = self.written[-1]
        loss = self.losses[recipe] - sum(self.costs[layer] for layer in kept)
        delta = {"value": -loss, "low": -loss - 0.001, "high": -loss + 0.001, "p": 0.5}
        whole = {"split": split, "measure": "ndcg@10", "queries": 9, "float32": 1.0, "int8": 1.0 - loss, "bound": BOUND}
        return {**whole, "delta": delta, "holds": loss + 0.001 <= BOUND, "interchangeable": True}  # type: ignore[typeddict-item]

    def costly(self, recipe: Recipe) -> list[str]:  # noqa: ARG002  (the same for both)
        return sorted(LAYERS, key=lambda layer: -self.costs[layer])


EVEN = dict.fromkeys(LAYERS, 0.01)


def test_the_first_that_holds_is_taken_and_nothing_more_is_tried() -> None:
    forms = Table({"dynamic": 0.01, "blocks": 0.0}, EVEN)
    proof = choose(forms)
    assert (proof["recipe"], proof["kept"], proof["passed"]) == ("dynamic", [], True)
    assert forms.written == [("dynamic", ())]
    refuse_unproven(proof, force=False)
    assert choose(Table({"dynamic": 0.03, "blocks": 0.01}, EVEN))["recipe"] == "blocks"


def test_the_layers_that_cost_most_stay_until_the_gate_holds() -> None:
    """d costs 0.03 and g 0.02: an eighth (d) leaves 0.03, a quarter (d, g) leaves 0.01, which holds."""
    forms = Table({"dynamic": 0.09, "blocks": 0.06}, {**dict.fromkeys(LAYERS, 0.001), "d": 0.03, "g": 0.02})
    proof = choose(forms)
    assert (proof["recipe"], proof["kept"], proof["passed"]) == ("blocks", ["d", "g"], True)
    assert [row["kept"] for row in proof["tried"]] == [[], [], ["d"], ["d", "g"]]
    assert forms.written[-1] == ("blocks", ("d", "g"))
    assert proof["tried"][-1]["size"] == pytest.approx(0.45)


def test_where_none_holds_the_best_that_is_small_enough_is_refused() -> None:
    """Four kept layers would be beyond half of the size: of what is left two kept layers lose least."""
    forms = Table({"dynamic": 0.3, "blocks": 0.2}, EVEN)
    proof = choose(forms)
    assert not proof["passed"] and len(proof["kept"]) == 2 and forms.written[-1][1] == tuple(proof["kept"])
    with pytest.raises(ModelError, match=r"may be 0\.1810 lower, by the interval, which is more than 0\.0200"):
        refuse_unproven(proof, force=False)


def test_too_large_without_any_kept_layer(capsys: pytest.CaptureFixture[str]) -> None:
    forms = Table({"dynamic": 0.0, "blocks": 0.0}, EVEN, size=0.6)
    proof = choose(forms)
    assert not proof["passed"] and len(proof["tried"]) == 2
    with pytest.raises(ModelError, match=r"it has 60% of float32's bytes, more than 50%"):
        refuse_unproven(proof, force=False)
    refuse_unproven(proof, force=True)
    assert "warning: INT8 does not pass the gate" in capsys.readouterr().err
