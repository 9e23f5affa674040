"""A hypernetwork's evaluation with its references on few tasks: all of it, in seconds."""

from __future__ import annotations

import pytest

from acclimate.stages import hypernetwork_evaluate
from acclimate.training import held_out_tasks, quality_curve


def measure_few(patch: pytest.MonkeyPatch) -> None:
    """At most six tasks of a group, two with references, one trained on one number of pairs for one number of steps."""
    patch.setattr(held_out_tasks, "MOST_TASKS", 6)
    patch.setattr(hypernetwork_evaluate, "MOST_REFERENCES", 2)
    patch.setattr(hypernetwork_evaluate, "MOST_CHOICES", 2)
    for name, few in {"PAIRS": (16,), "STEPS": (5,), "MOST_TASKS": 1}.items():
        patch.setattr(quality_curve, name, few)
