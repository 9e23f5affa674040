"""Command lines of the release before, read as today's, with a hint. To be dropped with the release after this one."""

from __future__ import annotations

from collections.abc import Sequence

from acclimate.progress import say

RERANKER_COMMANDS = {"train": "train-reranker", "evaluate": "evaluate-reranker"}
"""These took `--reranker NAME`; each is a command of its own."""


def respelt(arguments: Sequence[str]) -> list[str]:
    """The same arguments as today's commands take them; says how to write it where that differs."""
    command = arguments[0] if arguments else ""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if command not in RERANKER_COMMANDS or not any(word.partition("=")[0] == "--reranker" for word in options):
        return list(arguments)
    today = RERANKER_COMMANDS[command]
    say(f"hint: acclimate {command} RUN --reranker NAME is now: acclimate {today} RUN NAME")
    return [today, *arguments[1:]]
