"""What a setting may be, and how it is said when it is not."""

from __future__ import annotations

from acclimate.errors import UsageError


def check_at_least(name: str, value: int, low: int) -> None:
    """A whole number that is not too small.

    Raises:
        UsageError: it is not; the setting is named.
    """
    if value < low:
        raise UsageError(f"{name} = {value}", possible=f"{low} or more")


def check_above(name: str, value: float, low: float) -> None:
    """A number strictly above another.

    Raises:
        UsageError: it is not; the setting is named.
    """
    if not value > low:
        raise UsageError(f"{name} = {value}", possible=f"above {low}")


def check_fraction(name: str, value: float) -> None:
    """A share: from 0 up to, not including, 1.

    Raises:
        UsageError: it is not; the setting is named.
    """
    if not 0.0 <= value < 1.0:
        raise UsageError(f"{name} = {value}", possible="from 0 up to, not including, 1")
