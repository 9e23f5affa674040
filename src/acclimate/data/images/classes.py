"""classes.json: the classes of a folder of images, and the texts that are made of what it says about each."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acclimate.data.records import normalise
from acclimate.errors import DataError, UsageError

CLASSES_FILE = "classes.json"
NAMES = ("class", "name", "label")
"""What a class's name is called in its entry; the first that is there counts."""
FIX = 'Write a list such as [{"class": "Granny Smith", "id": 0, "description": "a green apple"}].'


@dataclass(frozen=True, slots=True)
class ImageClass:
    """One class of images: its name, and what else is said of it, for the templates."""

    name: str
    fields: Mapping[str, tuple[str, ...]]
    """Field -> its texts; "class" is the name."""


def read_classes(path: Path) -> dict[str, ImageClass]:
    """Read classes.json: by name, by id, and by the name of a folder, so that rows may use any of them.

    A list of objects with `class` (or `name`), maybe `id`, and any further fields of text or lists of texts; or an
    object: name -> a description, a list of them, or an object as above.

    Raises:
        DataError: it is none of these; a class comes twice.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error})", fix=FIX) from None
    found: dict[str, ImageClass] = {}
    for number, entry in enumerate(_entries(value, path)):
        name = next((str(entry[key]) for key in NAMES if str(entry.get(key) or "").strip()), "")
        if not name:
            raise DataError(f"{path}: class {number + 1} has no name", possible=", ".join(NAMES), fix=FIX)
        fields = {key: _texts(item) for key, item in entry.items() if key not in NAMES and key != "id"}
        one = ImageClass(
            name.strip(), {"class": (name.strip(),)} | {key: texts for key, texts in fields.items() if texts}
        )
        for key in dict.fromkeys((one.name, str(entry.get("id", one.name)))):
            if found.setdefault(key, one) is not one:
                raise DataError(f"{path}: two classes are called {key!r}", fix="Give each a name and an id of its own.")
    return found


def by_name(name: str) -> ImageClass:
    """Make a class of which nothing but its name is known."""
    return ImageClass(name, {"class": (name,)})


def class_texts(one: ImageClass, templates: Sequence[str]) -> list[str]:
    """Fill the templates with what is said of a class; a template for a field that it lacks gives no text.

    Args:
        one: the class.
        templates: such as "a photo of {class}" or "{description}"; a field of several texts gives one each.

    Raises:
        UsageError: a template is no format string of named fields.
    """
    texts: dict[str, None] = {}
    for template in templates:
        names = template_fields(template)
        if not all(name in one.fields for name in names):
            continue
        for number in range(max((len(one.fields[name]) for name in names), default=1)):
            values = {name: one.fields[name][min(number, len(one.fields[name]) - 1)] for name in names}
            texts[normalise(template.format_map(values))] = None
    return [text for text in texts if text]


def template_fields(template: str) -> list[str]:
    """Name the fields of a template.

    Raises:
        UsageError: it has a field without a name, a format, or a brace too many.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UsageError(f"the template {template!r} cannot be read ({error})", fix="Write {class}.") from None
    names = [name for _, name, _, _ in parts if name is not None]
    plain = all(name.isidentifier() for name in names) and not any(spec or conv for _, _, spec, conv in parts)
    if not names or not plain:
        raise UsageError(f"the template {template!r}", possible="text with fields such as {class} or {description}")
    return names


def _entries(value: Any, path: Path) -> list[Mapping[str, Any]]:
    if isinstance(value, dict):
        value = [
            {"class": name, **item} if isinstance(item, dict) else {"class": name, "description": item}
            for name, item in value.items()
        ]
    if not isinstance(value, list) or not value or not all(isinstance(item, dict) for item in value):
        raise DataError(f"{path} is no list of classes", fix=FIX)
    return value


def _texts(item: Any) -> tuple[str, ...]:
    items = item if isinstance(item, list) else [item]
    return tuple(normalise(text) for text in items if isinstance(text, str) and text.strip())
