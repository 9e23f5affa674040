"""The command line's flags, made from the config's fields, so that no setting is described twice.

A command offers the settings that it reads (`configs/commands.py`), and gets those that were given: a TOML file's value
is not lost to a default.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_origin, get_type_hints

from cyclopts import Group, Parameter, Token

from acclimate.configs import MODEL, NONE, READS, RENAMED, SHORT, RunConfig, flag, settings_of, with_current_names

ConfigFile: TypeAlias = Annotated[Path | None, Parameter(help="TOML file with settings; flags win over it.")]
Json: TypeAlias = Annotated[bool, Parameter(name="--json", negative=())]
Given: TypeAlias = Mapping[str, Any]
"""The settings that were given, by name; `Command.parsed` puts flags in the place of a parameter of this type."""

FEW = 12
"""A command with no more settings shows all of them in its --help."""
HEADINGS: dict[str, tuple[str, ...]] = {
    "Model": MODEL,
    "Columns and labels": (
        "anchor_column",
        "positive_column",
        "label_column",
        "columns",
        "label_min",
        "label_max",
        "corpus",
    ),
    "Splits and cleaning": ("prepare",),
    "Pairs out of documents": ("pairs",),
    "Language model": ("endpoint",),
    "Seed and size": ("seed", "limit"),
    "Hard negatives": ("mine", "remine_steps", "group_size"),
    "Adapter": ("sides", "full", "start_adapter", "rank", "alpha", "lora_dropout", "targets"),
    "Dev scores and checkpoints": ("eval_steps", "dev_documents", "patience", "checkpoint_steps"),
    "Machine": (
        "device",
        "dtype",
        "quantise_base",
        "activation_memory_gb",
        "gradient_checkpointing",
        "compile_layers",
        "shard",
    ),
    "Training": ("train",),
    "Loss": ("objective",),
    "Three stages": ("stages",),
    "Evaluation": ("evaluate",),
    "Terms of the domain": ("domain",),
    "Merging": ("merge",),
    "Export": ("export",),
    "Stored vectors": ("vectors",),
    "Speed": ("tune",),
    "Reranker": ("rerank",),
    "Index": ("index",),
    "Experts": ("route",),
    "Images": ("images",),
    "Service": ("serve",),
    "Learning from feedback": ("refresh",),
    "Answers": ("answer",),
}
"""Heading of --help-all -> settings, and whole sections: the rest of a section goes to the heading that names it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a config, as a flag."""

    name: str
    section: str
    """Empty for a shared field."""
    hint: Any
    default: Any
    text: str
    """Its documentation, as one line."""


@dataclass(frozen=True)
class Command:
    """One command: what it does, and how its --help looks.

    Attributes:
        name: as it is typed.
        function: takes what was parsed; a keyword `settings` gets the settings that were given.
        example: a command line that works.
        first: the settings that matter, which --help shows; all of them where there are few.
    """

    name: str
    function: Callable[..., None]
    example: str
    first: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").partition("\n")[0]

    @property
    def shows_all(self) -> bool:
        """Whether --help shows every setting."""
        return len(settings_of(self.name)) <= FEW

    def parsed(self, everything: bool) -> Callable[..., None]:
        """The function with a flag for each setting that the command reads, for cyclopts.

        Args:
            everything: show all flags, under headings; else those that matter.
        """
        signature = inspect.signature(self.function, eval_str=True)
        own = [parameter for parameter in signature.parameters.values() if parameter.annotation is not Given]
        if len(own) == len(signature.parameters):
            return self.function
        names = {parameter.name for parameter in own}

        @functools.wraps(self.function)
        def called(*arguments: Any, **keywords: Any) -> None:
            given = {name: keywords.pop(name) for name in set(keywords) - names}
            values = with_current_names(given, spelled=self.flag)
            self.function(*arguments, **keywords, settings=values)

        ordered = dict.fromkeys((*self.first, *settings_of(self.name)))
        flags = [self._flag(name, everything or self.shows_all) for name in ordered]
        old_flags = [self._old_flag(old, new) for old, new in RENAMED.items() if new in ordered]
        called.__signature__ = signature.replace(parameters=[*own, *flags, *old_flags])  # type: ignore[attr-defined]
        return called

    def flag(self, name: str) -> str:
        """How a setting is spelt on this command's line."""
        short = {setting: typed for typed, setting in SHORT.get(self.name, {}).items()}
        return flag(short.get(name, name))

    def respelt(self, word: str) -> str:
        """A flag by a setting's own name as this command's flag; any other word as it is."""
        typed, equals, value = word.partition("=")
        for setting in SHORT.get(self.name, {}).values():
            for prefix in ("--", "--no-"):
                if typed == prefix + setting.replace("_", "-"):
                    return prefix + self.flag(setting).removeprefix("--") + equals + value
        return word

    def _flag(self, name: str, everything: bool) -> inspect.Parameter:
        setting = every_setting()[name]
        is_list = get_origin(setting.hint) is tuple
        parameter = Parameter(
            name=self.flag(name),
            help=setting.text,
            group=_group(setting) if everything else Group("Settings", sort_key=2),
            show=everything or name in self.first,
            show_default=_shown if setting.default is not None else False,
            negative_iterable=(),
            converter=_comma_separated if is_list else None,
        )
        return inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=setting.default,
            annotation=Annotated[setting.hint, parameter],
        )

    def _old_flag(self, old: str, new: str) -> inspect.Parameter:
        """A flag that no help shows, for the name that a setting had before."""
        setting = every_setting()[new]
        converter = _comma_separated if get_origin(setting.hint) is tuple else None
        hidden = Parameter(show=False, negative_iterable=(), converter=converter)
        return inspect.Parameter(
            old, inspect.Parameter.KEYWORD_ONLY, default=setting.default, annotation=Annotated[setting.hint, hidden]
        )


@cache
def every_setting() -> dict[str, Setting]:
    """All settings, by name: names are unique over the sections."""
    found: dict[str, Setting] = {}
    hints = get_type_hints(RunConfig)
    sections = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    classes: dict[str, Any] = {"": RunConfig, **sections}
    for section, cls in classes.items():
        texts, types = _field_docs(cls), get_type_hints(cls)
        for item in dataclasses.fields(cls):
            if item.name not in sections and item.name != "datasets":
                found[item.name] = Setting(item.name, section, types[item.name], item.default, texts[item.name])
    return found


def setting_of(word: str, command: str) -> str:
    """The name of the setting that a flag says; `--no-full` is about `full`. Empty where it is none of any command."""
    name = word.removeprefix("--").partition("=")[0].replace("-", "_")
    known = {setting for other in READS for setting in settings_of(other)}
    found = next((choice for choice in (name, name.removeprefix("no_")) if choice in known), "")
    return "" if found in settings_of(command) else found


def _group(setting: Setting) -> Group:
    """The heading that names the setting, or else its section."""
    wanted = (setting.name, setting.section)
    for name in wanted:
        for place, (heading, members) in enumerate(HEADINGS.items()):
            if name in members:
                return Group(heading, sort_key=3 + place)
    raise KeyError(f"no heading for the setting {setting.name}")


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
