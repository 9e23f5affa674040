"""Settings that had another name before. The old names are still understood; each use says the new one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from acclimate.errors import UsageError
from acclimate.progress import say

RENAMED = {
    "anchor_source": "retain_data",
    "anchor_weight": "retain_weight",
    "bootstrap": "sign_flips",
}
"""Old name -> new name."""


def with_current_names(
    values: Mapping[str, Any], where: str = "", spelled: Callable[[str], str] = str
) -> dict[str, Any]:
    """Replace old names of settings by the current ones, and say so in one line for each.

    Args:
        values: name -> value.
        where: the file and its table, for the message.
        spelled: how the reader writes a name: as it is (in a file), or as `flag` does.

    Raises:
        UsageError: a setting is given by both of its names.
    """
    current, prefix = dict(values), f"{where}: " if where else ""
    for old, new in RENAMED.items():
        if old not in current:
            continue
        if new in current:
            raise UsageError(
                f"{prefix}{spelled(old)} and {spelled(new)} are given, and are one setting",
                fix=f"Give {spelled(new)} only.",
            )
        say(f"{prefix}{spelled(old)} is called {spelled(new)} now")
        current[new] = current.pop(old)
    return current


def flag(name: str) -> str:
    """Spell a setting's name as its flag."""
    return "--" + name.replace("_", "-")
