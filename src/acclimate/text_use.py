"""How texts become vectors: one frozen value per model, adapter and encoder; and the space its document vectors lie in.

What a user wants changed of it are `TextSettings`, applied once by `TextUse.changed`, whatever is loaded.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypedDict, Unpack, cast

from acclimate.errors import ModelError
from acclimate.prompts import Prompts
from acclimate.types import BaseFormat, Pooling


class TaskPrompts(NamedTuple):
    """The prompts of one task; None is what the model has for a task of that name, else its default."""

    query: str | None = None
    document: str | None = None
    instruction: str | None = None
    """Put into the model's own query prompt instead of `query`."""


class TextSettings(TypedDict, total=False):
    """What a user asks for in place of a model's own `TextUse`; what is missing or None leaves the model's."""

    pooling: Pooling | None
    query_prompt: str | None
    """The default query prompt."""
    instruction: str | None
    """Another task in an instruction model's query prompt; not together with `query_prompt`."""
    document_prompt: str | None
    """The default document prompt."""
    max_tokens: int | None
    """Longer texts are cut; up to what the model's positions allow."""
    dim: int | None
    """Keep this many leading dimensions and renormalise."""
    tasks: Mapping[str, TaskPrompts]
    """Prompts of further tasks, by name."""


class LoadSettings(TextSettings, total=False):
    """`TextSettings`, and where and how a model shall run."""

    task: str | None
    """Whose prompts are used where no task is named; the default ones if missing."""
    device: str
    """auto, cpu, cuda, cuda:1 or mps."""
    dtype: str
    """auto, float32, bfloat16 or int8 (see `RunConfig.dtype`): of the weights; vectors are always float32."""
    quantise_base: BaseFormat | None
    """4bit keeps the linear layers' weights in 4 bits (CUDA only)."""


def text_settings(settings: LoadSettings) -> TextSettings:
    """Return the part of the settings that says how texts become vectors."""
    return cast(TextSettings, {name: settings[name] for name in TextSettings.__annotations__ if name in settings})  # type: ignore[literal-required]


@dataclass(frozen=True, slots=True)
class TextUse:
    """How texts become vectors. The same value trains, evaluates, searches and serves."""

    prompts: Prompts
    """What is put before texts, per task and role."""
    pooling: Pooling
    """How hidden states become one vector."""
    dim: int
    """Leading dimensions kept, then renormalised (Matryoshka)."""
    max_tokens: int
    """Longer texts are cut to this many tokens, special tokens included."""
    lowercase: bool = False
    """Lower-case texts before the tokenizer (sentence-transformers' `do_lower_case`)."""

    def changed(self, **settings: Unpack[TextSettings]) -> TextUse:
        """Return this use with a user's settings in it; whether a model can have them is `ModelSource.adjusted`'s.

        Raises:
            UsageError: an instruction, for which the query prompt has no place.
        """
        prompts = self.prompts.with_defaults(
            settings.get("query_prompt"), settings.get("document_prompt"), settings.get("instruction")
        )
        for task, own in settings.get("tasks", {}).items():
            prompts = prompts.with_task(task, *own)
        return dataclasses.replace(
            self,
            prompts=prompts,
            pooling=settings.get("pooling") or self.pooling,
            dim=settings.get("dim") or self.dim,
            max_tokens=settings.get("max_tokens") or self.max_tokens,
        )

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for `acclimate.json`."""
        return {
            "prompts": self.prompts.to_json(),
            "pooling": self.pooling,
            "dim": self.dim,
            "max_tokens": self.max_tokens,
            "lowercase": self.lowercase,
        }

    @staticmethod
    def from_json(values: Mapping[str, Any], where: str) -> TextUse:
        """Read what `to_json` gives; folders written before `lowercase` was among it have False.

        Args:
            values: may hold more than this.
            where: the file's name, for the message.

        Raises:
            ModelError: a field is missing or has a value that cannot be.
        """
        poolings = ("mean", "cls", "last")
        if values.get("pooling") not in poolings:
            raise ModelError(f"{where}: pooling is {values.get('pooling')!r}", possible=", ".join(poolings))
        for name in ("dim", "max_tokens"):
            if type(values.get(name)) is not int or values[name] < 1:
                raise ModelError(f"{where}: {name} is {values.get(name)!r}", possible="a whole number above 0")
        return TextUse(
            prompts=Prompts.from_json(values.get("prompts", {})),
            pooling=values["pooling"],
            dim=values["dim"],
            max_tokens=values["max_tokens"],
            lowercase=bool(values.get("lowercase", False)),
        )


@dataclass(frozen=True, slots=True)
class SpaceId:
    """The space that document vectors lie in: vectors of two spaces must never be compared.

    Made of the document side only. The query prompt, `max_tokens` and the element type (bfloat16, INT8) are not part
    of it: vectors that differ in those can be searched together. Keys of stored vectors hold them
    (`Encoder.role_fingerprint`). All vectors are unit rows.
    """

    base_sha256: str
    """Hash of the base's weights."""
    document_adapter: str | None
    """`Adapter.sha256` of what changes documents; None where the base alone encodes them."""
    document_prompt: str
    pooling: Pooling
    dim: int
    lowercase: bool
    base_config: str
    """Hash of what the base computes with its weights (`ModelSource.computation`): its layers, activations, heads."""

    @property
    def digest(self) -> str:
        """sha256 over all of it, as hex: the space's name in files."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def differences(self, other: SpaceId) -> dict[str, tuple[Any, Any]]:
        """Return name -> (this one's value, the other's) for all that differs; empty where the spaces are the same."""
        pairs = {
            field.name: (getattr(self, field.name), getattr(other, field.name)) for field in dataclasses.fields(self)
        }
        return {name: (mine, theirs) for name, (mine, theirs) in pairs.items() if mine != theirs}
