"""Whether an artifact is what its settings and inputs would make now, and if not, why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from acclimate.errors import StorageError
from acclimate.files import CONFIG_FILE, INPUTS_FILE, read_json, recover


def is_current(out: Path, config: Mapping[str, Any], inputs: Mapping[str, str]) -> bool:
    """Whether the artifact at `out` was made from this config and these inputs."""
    return not differences(out, config, inputs)


def differences(out: Path, config: Mapping[str, Any], inputs: Mapping[str, str]) -> list[str]:
    """Why the artifact at `out` is not what this config and these inputs make, in words; empty where it is."""
    recover(out)
    if not out.exists():
        return [f"{out} is not there yet"]
    try:
        old_config, old_inputs = _flat(read_json(out / CONFIG_FILE)), read_json(out / INPUTS_FILE)
    except StorageError as error:
        return [error.found]
    new_config = _flat(json.loads(json.dumps(config)))
    found = [f"{name} changed{_from_to(old, new)}" for name, old, new in _changed(old_config, new_config)]
    return [*found, *(f"{name} changed" for name, _, _ in _changed(old_inputs, inputs))]


_NOTHING = object()


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for name in dict.fromkeys([*new, *old]):
        before, after = old.get(name, _NOTHING), new.get(name, _NOTHING)
        if before != after:
            yield name, before, after


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"rank": 8}} -> {"train.rank": 8}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else {prefix + name: value}
    return flat


def _from_to(old: Any, new: Any) -> str:
    """The two values, unless they read alike: a setting that was not there is none, too."""
    before, after = _shown(old), _shown(new)
    return f" ({before} -> {after})" if before != after else ""


def _shown(value: Any) -> str:
    """A setting's value in a message: short, and without quotes where it is a text."""
    if value is _NOTHING or value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else text[:39] + "…"
