"""The command line's flags, made from the config's fields, so that no setting is described twice.

A flag that is not given is absent from the overrides, so that a TOML file's value is not lost to a default.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter, Token

from acclimate.configs import NONE, RENAMED, RunConfig, flag, load_config, with_current_names, with_overrides
from acclimate.runs.run_folder import RunFolder


class _NotGiven:
    def __repr__(self) -> str:
        return "not given"


NOT_GIVEN = _NotGiven()


def flags(name: str, *sections: str) -> type[Any]:
    """A dataclass whose fields are the shared settings and those of the sections, none given by default."""
    fields: list[tuple[str, Any, Any]] = _fields_of(RunConfig, Group("Shared settings", sort_key=2), skip_sections=True)
    hints = get_type_hints(RunConfig)
    for position, section in enumerate(sections):
        fields += _fields_of(hints[section], Group(f"Settings of {section}", sort_key=3 + position))
    made = dataclasses.make_dataclass(name, fields, kw_only=True)
    # cyclopts takes classes of the module `types`, where make_dataclass leaves them on Python 3.11, for built-ins.
    made.__module__ = __name__
    return made


def given(options: Any) -> dict[str, Any]:
    """The flags that were given, by field name."""
    if options is None:
        return {}
    values = {item.name: getattr(options, item.name) for item in dataclasses.fields(options)}
    return with_current_names({name: value for name, value in values.items() if value is not NOT_GIVEN}, spelled=flag)


def configured(options: Any, config_file: Path | None, run: Path | None = None) -> RunConfig:
    """The effective config: defaults, then `--config` (or else the run's own config.toml), then flags."""
    base = RunConfig()
    if config_file is not None:
        base = load_config(config_file)
    elif run is not None and RunFolder(run).config.exists():
        base = load_config(RunFolder(run).config)
    return with_overrides(base, given(options))


def _fields_of(cls: Any, group: Group, *, skip_sections: bool = False) -> list[tuple[str, Any, Any]]:
    documentation, hints = _field_docs(cls), get_type_hints(cls)
    made = []
    for item in dataclasses.fields(cls):
        if skip_sections and any(map(dataclasses.is_dataclass, (hints[item.name], *get_args(hints[item.name])))):
            continue  # sections have flags of their own, lists of tables have none
        text = f"{documentation[item.name]} [default: {_shown(item.default)}]"
        is_list = get_origin(hints[item.name]) is tuple
        converter = _comma_separated if is_list else None
        parameter = Parameter(help=text, group=group, show_default=False, negative_iterable=(), converter=converter)
        made.append((item.name, Annotated[hints[item.name], parameter], dataclasses.field(default=NOT_GIVEN)))
        for old in (old for old, new in RENAMED.items() if new == item.name):
            hidden = Parameter(help="", show=False, negative_iterable=(), converter=converter)
            made.append((old, Annotated[hints[item.name], hidden], dataclasses.field(default=NOT_GIVEN)))
    return made


def _comma_separated(hint: Any, tokens: Sequence[Token]) -> tuple[Any, ...]:
    """`--targets query,key --targets value` and `--targets query key value` say the same."""
    kind = get_args(hint)[0]
    read: Callable[[str], Any] = kind if kind in (int, float) else str
    return tuple(read(word.strip()) for token in tokens for word in token.value.split(",") if word.strip())


def _shown(value: object) -> str:
    if value is None:
        return NONE
    return ",".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def _field_docs(cls: type[Any]) -> dict[str, str]:
    """Field name -> the string under it, as one line: the help breaks it where the terminal does."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    texts: dict[str, str] = {}
    for pair in itertools.pairwise(ast.iter_child_nodes(definition)):
        match pair:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                texts[name] = " ".join(text.split())
    return texts
