"""How the help of a command is laid out: no flag is broken over two lines, however narrow the terminal."""

from __future__ import annotations

import math
from typing import Any

NAMES_SHARE = 0.35
"""Share of the terminal's width, as in cyclopts; more where a flag's name needs more."""


def whole_flags(console: Any, options: Any, entries: list[Any]) -> tuple[Any, ...]:  # noqa: ARG001
    """Return the columns of a panel, for cyclopts: names, and what they mean.

    Args:
        console: gives the terminal's width.
        options: not needed; cyclopts gives them.
        entries: the panel's rows.
    """
    from cyclopts.help import AsteriskRenderer, ColumnSpec, DescriptionRenderer, NameRenderer

    longest = max(len(word) for entry in entries for label in entry.display_labels for word in label.split())
    width = max(math.ceil(console.width * NAMES_SHARE), longest + 1)
    required = ColumnSpec(renderer=AsteriskRenderer(), width=1, style="cyclopts.required")
    names = ColumnSpec(
        renderer=NameRenderer(max_width=width), style="cyclopts.name", min_width=longest, max_width=width
    )
    meaning = ColumnSpec(renderer=DescriptionRenderer(), overflow="fold")
    return (*((required,) * any(entry.required for entry in entries)), names, meaning)
