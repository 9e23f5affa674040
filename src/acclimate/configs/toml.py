"""Reading and writing `config.toml`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from acclimate.configs.renamed import with_current_names
from acclimate.configs.run import PROMPT_OR_INSTRUCTION, RunConfig
from acclimate.errors import DataError, UsageError

SETTINGS_MARK = "# Settings of an acclimate run, format 1. Every stage brings them up to date."
"""The first line of a `config.toml` that is ours to write."""
NONE = "none"
"""How TOML and flags spell None (TOML has no null)."""


def config_from_mapping(values: Mapping[str, Any], where: str) -> RunConfig:
    """Build a `RunConfig` from nested tables.

    Args:
        values: as `tomllib` gives them: shared fields at the top, a table per stage.
        where: the file's name, for the message.

    Raises:
        UsageError: an unknown key or a value of the wrong type, named with the possible ones.
    """
    config: RunConfig = _build(RunConfig, values, where)
    return config


def load_config(path: Path, *, over: Path | None = None) -> RunConfig:
    """Read a `config.toml`.

    Args:
        path: the file.
        over: another one; what `path` does not say is as it is there.

    Raises:
        DataError: the file is missing or is not TOML.
        UsageError: an unknown key or a value of the wrong type.
    """
    if over is None:
        return config_from_mapping(_read(path), str(path))
    below, above = (_current(_read(file), str(file)) for file in (over, path))
    for given, other in PROMPT_OR_INSTRUCTION:
        if above.get(given, NONE) != NONE:
            below.pop(other, None)
    for name, value in above.items():
        below[name] = {**below.get(name, {}), **value} if isinstance(value, dict) else value
    return config_from_mapping(below, str(path))


def _current(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a file by the names that settings have now."""
    tables = {name: with_current_names(value, where) for name, value in values.items() if isinstance(value, dict)}
    return {**with_current_names(values, where), **tables}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", fix="Give a TOML file to --config.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not valid TOML ({error})", fix="Correct the line named.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})", fix="Give a TOML file.") from None


def checked_settings(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Settings by their own names, whatever their section, as values of their types: what Python code gives.

    Args:
        values: None is allowed where the setting may be left out, a list for a tuple, a path for a string.
        where: who is told, for the message.

    Raises:
        UsageError: a value of the wrong type.
    """
    hints = get_type_hints(RunConfig)
    for section in [hint for hint in hints.values() if dataclasses.is_dataclass(hint)]:
        hints |= get_type_hints(section)
    converted: dict[str, Any] = {}
    for name, value in values.items():
        plain = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
        try:
            converted[name] = _convert(name, NONE if value is None else plain, hints[name], where)
        except UsageError as error:
            given = ",".join(map(str, plain)) if isinstance(plain, list) else repr(plain)
            raise UsageError(f"{where}: {name} = {given}", possible=error.possible) from None
    return converted


def dump_config(config: RunConfig) -> str:
    """Write the config as TOML, with every effective value; a dataset's table holds only the values that it sets."""
    hints = get_type_hints(RunConfig)
    lines = [SETTINGS_MARK]
    sections: list[str] = []
    tables: list[str] = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            sections += ["", f"[{item.name}]"]
            sections += [_toml_line(sub.name, getattr(value, sub.name)) for sub in dataclasses.fields(value)]
        elif _table_class(hints[item.name]) is not None:
            for table in value:
                rows = [(sub.name, getattr(table, sub.name), sub.default) for sub in dataclasses.fields(table)]
                tables += ["", f"[[{item.name}]]"]
                tables += [_toml_line(name, given) for name, given, default in rows if given != default]
        else:
            lines.append(_toml_line(item.name, value))
    return "\n".join(lines + sections + tables) + "\n"


def _toml_line(name: str, value: object) -> str:
    return f"{name} = {_toml_value(value)}"


def _toml_value(value: object) -> str:
    if value is None:
        return f'"{NONE}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    if isinstance(value, str):
        # JSON's escapes are TOML's; only DEL, which JSON leaves bare, must be escaped too.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)


def _build(cls: Any, values: Mapping[str, Any], where: str) -> Any:
    hints, values = get_type_hints(cls), with_current_names(values, where)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise UsageError(f"{where}: unknown key {unknown[0]!r}", possible=", ".join(sorted(hints)))
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise UsageError(f"{where}: [{name}] is a table, found {value!r}")
            arguments[name] = _build(hints[name], value, f"{where} [{name}]")
        elif (table := _table_class(hints[name])) is not None:
            if not isinstance(value, list) or not all(isinstance(row, Mapping) for row in value):
                raise UsageError(f"{where}: {name} is a list of tables, found {value!r}", fix=f"Write [[{name}]].")
            rows = enumerate(value, start=1)
            arguments[name] = tuple(_build(table, row, f"{where} [[{name}]] {number}") for number, row in rows)
        else:
            arguments[name] = _convert(name, value, hints[name], where)
    for item in dataclasses.fields(cls):
        if item.name not in arguments and item.default is item.default_factory is dataclasses.MISSING:
            raise UsageError(f"{where}: {item.name} is missing", fix=f"Add: {item.name} = ...")
    return cls(**arguments)


def _table_class(hint: Any) -> Any:
    """The dataclass of a list of tables; None for other types."""
    kinds = get_args(hint)
    return kinds[0] if get_origin(hint) is tuple and dataclasses.is_dataclass(kinds[0]) else None


def _convert(name: str, value: Any, hint: Any, where: str) -> Any:
    """`value` as the type of the hint, or our error; integers are taken for floats, lists for tuples."""
    for choice in _alternatives(hint):
        if choice is type(None) and value == NONE:
            return None
        if get_origin(choice) is Literal and value in get_args(choice):
            return value
        if choice is float and isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        if get_origin(choice) is tuple and isinstance(value, list):
            with contextlib.suppress(UsageError):  # of an item; the list as a whole is named below
                return tuple(_convert(name, item, get_args(choice)[0], where) for item in value)
        if choice in (str, int, bool) and type(value) is choice:
            return value
    raise UsageError(f"{where}: {name} = {value!r}", possible=_describe(hint))


def _alternatives(hint: Any) -> tuple[Any, ...]:
    choices = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    return tuple(sorted(choices, key=lambda choice: choice is not type(None)))


_PLURAL: dict[Any, str] = {str: "strings", int: "whole numbers", float: "numbers"}


def _describe(hint: Any) -> str:
    words = []
    for choice in _alternatives(hint):
        if get_origin(choice) is Literal:
            words += [repr(value) for value in get_args(choice)]
        elif get_origin(choice) is tuple:
            item = get_args(choice)[0]
            words.append("a list of " + (_PLURAL[item] if item in _PLURAL else _describe(item)))
        elif choice is not type(None):
            words.append({str: "a string", int: "a whole number", float: "a number", bool: "true or false"}[choice])
    return " or ".join(words)
