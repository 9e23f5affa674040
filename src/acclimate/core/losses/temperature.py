"""Temperatures that are not a fixed number: learned, or by the terms in the anchor."""

from __future__ import annotations

import math

from torch import Tensor


def learned_temperature(log_excess: Tensor, lowest: float) -> Tensor:
    """`lowest` + exp(parameter): above the bound whatever the parameter, which keeps its gradient.

    Source: Radford et al. 2021, "CLIP", section 2.5, which clips instead; a clipped parameter gets no gradient.
    """
    return lowest + log_excess.exp()


def log_excess(temperature: float, lowest: float) -> float:
    """The parameter that gives this `learned_temperature`, which has to be above the bound."""
    return math.log(temperature - lowest)


def adaptive_temperature(terms: int, *, base: float, step: float, floor: float) -> float:
    """max(floor, base - step * terms): an anchor that holds many of the domain's terms is separated more sharply.

    Args:
        terms: distinct lexicon terms in the anchor.
        base: temperature of an anchor without any.
        step: taken off for each.
        floor: it falls no lower.
    """
    return max(floor, base - step * terms)
