"""`--columns a b c`: several words behind a flag that takes a list, read as `--columns a --columns b --columns c`."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import get_args, get_origin

from acclimate.cli.options import Command, Given, every_setting
from acclimate.configs import RENAMED, flag, settings_of


def one_flag_a_word(command: Command, words: Sequence[str]) -> list[str]:
    """The same words, with a list's flag before every word of the list.

    Words behind such a flag belong to it up to the next flag, less those that the command needs for itself and that
    stand nowhere else: in `train --targets query key RUN` the last is the run.

    Args:
        command: whose words they are.
        words: without the command's name.
    """
    settings = {command.flag(name): every_setting()[name] for name in settings_of(command.name)}
    settings |= {flag(old): every_setting()[new] for old, new in RENAMED.items() if new in settings_of(command.name)}
    own = list(inspect.signature(command.function, eval_str=True).parameters.values())
    switches = {flag(item.name) for item in own if item.annotation is bool or bool in get_args(item.annotation)}
    switches |= {name for name, setting in settings.items() if setting.hint is bool}
    lists = {name: get_args(setting.hint)[0] for name, setting in settings.items() if get_origin(setting.hint) is tuple}
    runs: list[list[int]] = []
    alone, at = 0, 0
    while at < len(words) and words[at] != "--":
        word, at = words[at], at + 1
        if word in lists:
            start = at
            while at < len(words) and _belongs(words[at], lists[word]):
                at += 1
            runs.append([start, at])
        elif word.startswith("--"):
            at += not (word in switches or "=" in word or word.startswith("--no-") or word in ("--help", "--json"))
        else:
            alone += 1
    wanted = sum(_is_needed(item) for item in own) - alone
    optional = any(item.kind is item.POSITIONAL_ONLY and item.default is not item.empty for item in own) and not alone
    for run in reversed(runs):
        while run[1] - run[0] > 1 and (wanted > 0 or (optional and Path(words[run[1] - 1]).exists())):
            run[1], wanted, optional = run[1] - 1, wanted - 1, False
    spread = list(words)
    for start, end in reversed(runs):
        name = words[start - 1]
        spread[start:end] = [part for word in words[start:end] for part in (name, word)][1:]
    return spread


def _belongs(word: str, kind: type) -> bool:
    """Whether a word may stand in a list: no flag, and a number where numbers are asked for."""
    if word.startswith("--"):
        return False
    if kind not in (int, float):
        return True
    try:
        return all(kind(part) is not None for part in word.split(",") if part.strip())
    except ValueError:
        return False


def _is_needed(parameter: inspect.Parameter) -> bool:
    if parameter.annotation is Given:
        return False
    if parameter.kind is parameter.VAR_POSITIONAL:
        return True
    return parameter.kind is parameter.POSITIONAL_ONLY and parameter.default is parameter.empty
