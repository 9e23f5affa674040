"""Checks of single settings, and their error messages."""

from __future__ import annotations

from acclimate.errors import UsageError


def check_at_least(name: str, value: int, low: int) -> None:
    """Check that a whole number is not too small.

    Raises:
        UsageError: it is not; the setting is named.
    """
    if value < low:
        raise UsageError(f"{name} = {value}", possible=f"{low} or more")


def check_above(name: str, value: float, low: float) -> None:
    """Check that a number is strictly above another.

    Raises:
        UsageError: it is not; the setting is named.
    """
    if not value > low:
        raise UsageError(f"{name} = {value}", possible=f"above {low}")


def check_fraction(name: str, value: float) -> None:
    """Check that a share is 0 or more, and less than 1.

    Raises:
        UsageError: it is not; the setting is named.
    """
    if not 0.0 <= value < 1.0:
        raise UsageError(f"{name} = {value}", possible="from 0 up to, not including, 1")
