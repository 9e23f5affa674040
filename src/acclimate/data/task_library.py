"""A library of tasks on disk: families of texts, definitions of relevance over them, and which are held out.

Folder: `tasks.json` (languages, families and definitions with their descriptions), `texts.jsonl` (`{"family", "part",
"role", "text"}`, in the order of the keys), `keys.safetensors` (`PART.ROLE.FAMILY`: int32 [definitions, texts]).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from acclimate.data.definitions import PARTS, Family, Part, is_domain
from acclimate.data.descriptions import Language
from acclimate.data.relevance import ABSENT, Keys, RelevanceTask, TaskLibrary
from acclimate.errors import DataError, StorageError
from acclimate.files import iter_jsonl, read_json, storage_errors, write_json, write_jsonl

Group: TypeAlias = Literal["train", "known-definition", "new-definition", "new-attribute", "new-data", "domain"]
"""train: trained on. known-definition: trained on, but not over this collection. new-definition: a combination of
known attributes that is trained on nowhere. new-attribute: a definition with an attribute that is trained on nowhere.
new-data: a collection that is not trained on. domain: a theme that is not trained on, of any collection."""
GROUPS: tuple[Group, ...] = ("train", "known-definition", "new-definition", "new-attribute", "new-data", "domain")
KNOWN_ATTRIBUTES: tuple[Group, ...] = ("known-definition", "new-definition")
"""The groups of what a hypernetwork can know: every attribute has been trained on, over other texts or with others."""
TASKS_FILE, TEXTS_FILE, KEYS_FILE = "tasks.json", "texts.jsonl", "keys.safetensors"
VERSION = 3
ROLES = ("query", "document")


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What is known of a task beside its keys."""

    name: str
    family: str
    collection: str
    definition: str
    group: Group


@dataclass(frozen=True, eq=False)
class SplitLibrary:
    """A library's tasks over the texts of training, and the same tasks over those of the test."""

    train: TaskLibrary
    """Its descriptions are those that are trained with."""
    test: TaskLibrary
    """Its descriptions are never trained with."""
    facts: tuple[TaskFacts, ...]
    """What is known of each task, in both libraries' order."""
    languages: tuple[Language, ...] = ("en",)
    """Those of the descriptions that are trained with; tests ask in the first."""

    def numbers(self, *groups: Group) -> list[int]:
        """Numbers of the tasks of these groups."""
        return [number for number, facts in enumerate(self.facts) if facts.group in groups]

    def only(self, numbers: Sequence[int]) -> SplitLibrary:
        """Return the library with these tasks and the texts of their families."""
        kept = tuple(self.facts[number] for number in numbers)
        names = [facts.name for facts in kept]
        return SplitLibrary(_lean(self.train.only(names)), _lean(self.test.only(names)), kept, self.languages)


def group_definitions(
    found: Sequence[Family],
    *,
    new: Container[str],
    apart: Container[tuple[str, str]] = (),
    far: Iterable[str],
    unseen: Container[str],
) -> list[TaskFacts]:
    """Say for each definition of each family whether it is trained on, or how far it is from that.

    Args:
        found: the families.
        new: definitions that are held out of every collection.
        apart: (collection, definition) pairs that are held out where other collections train on the definition.
        far: attributes that are held out, with all definitions that have one.
        unseen: collections that are held out.
    """
    facts = []
    for family in found:
        for definition in family.definitions:
            group: Group = "train"
            if is_domain(definition.name):
                group = "domain" if family.collection in unseen or definition.name in new else "train"
            elif family.collection in unseen:
                group = "new-data"
            elif set(definition.name.split("+")) & set(far):
                group = "new-attribute"
            elif definition.name in new:
                group = "new-definition"
            elif (family.collection, definition.name) in apart:
                group = "known-definition"
            name = f"{family.name}: {definition.name}"
            facts.append(TaskFacts(name, family.name, family.collection, definition.name, group))
    return facts


def write_library(folder: Path, found: Sequence[Family], facts: Sequence[TaskFacts]) -> None:
    """Write families and their tasks into an existing folder.

    Raises:
        StorageError: it cannot be written.
    """
    groups = {one.name: one.group for one in facts}
    rows: list[dict[str, Any]] = []
    keys: dict[str, np.ndarray] = {}
    for number, family in enumerate(found):
        definitions = [
            {
                "name": definition.name,
                "group": groups[f"{family.name}: {definition.name}"],
                "descriptions": [text for texts in definition.descriptions.values() for text in texts],
                "asked": definition.asked,
            }
            for definition in family.definitions
        ]
        rows.append({"name": family.name, "collection": family.collection, "definitions": definitions})
        for part in PARTS:
            for role in ROLES:
                sides = [
                    definition.query if role == "query" else definition.document for definition in family.definitions
                ]
                keys[f"{part}.{role}.{number}"] = np.stack([side[part] for side in sides]).astype(np.int32)
    languages = dict.fromkeys(
        name for family in found for definition in family.definitions for name in definition.descriptions
    )
    write_json(folder / TASKS_FILE, {"version": VERSION, "languages": list(languages), "families": rows})
    write_jsonl(folder / TEXTS_FILE, _text_rows(found))
    with storage_errors(folder):
        save_file(keys, folder / KEYS_FILE)


def _text_rows(found: Sequence[Family]) -> Iterator[dict[str, Any]]:
    for number, family in enumerate(found):
        for part in PARTS:
            for role in ROLES:
                texts = family.queries if role == "query" else family.documents
                for text in texts[part]:
                    yield {"family": number, "part": part, "role": role, "text": text}


def read_library(folder: Path) -> SplitLibrary:
    """Read what `write_library` wrote.

    Raises:
        DataError: no library there, or one of a later release.
        StorageError: a file is missing or damaged.
    """
    if not (folder / TASKS_FILE).is_file():
        raise DataError(
            f"{folder} holds no library of tasks", fix="Make one: acclimate hypernetwork tasks DATA --out FOLDER"
        )
    stored = read_json(folder / TASKS_FILE)
    if stored.get("version") != VERSION:
        found = f"{folder / TASKS_FILE}: version is {stored.get('version')!r}"
        raise DataError(found, possible=str(VERSION), fix="Make the library again: acclimate hypernetwork tasks")
    try:
        keys = load_file(folder / KEYS_FILE)
        texts: dict[tuple[int, str, str], list[str]] = defaultdict(list)
        for line in iter_jsonl(folder / TEXTS_FILE):
            row: Any = line.value
            texts[row["family"], row["part"], row["role"]].append(row["text"])
        libraries = {part: _library(stored["families"], texts, keys, part) for part in PARTS}
        languages = tuple(stored["languages"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{folder} is damaged ({error})", fix="Make the library again.") from None
    facts = tuple(
        TaskFacts(f"{row['name']}: {one['name']}", row["name"], row["collection"], one["name"], one["group"])
        for row in stored["families"]
        for one in row["definitions"]
    )
    return SplitLibrary(libraries["train"], libraries["test"], facts, languages)


def _library(
    rows: Sequence[Mapping[str, Any]],
    texts: Mapping[tuple[int, str, str], list[str]],
    keys: Mapping[str, np.ndarray],
    part: Part,
) -> TaskLibrary:
    """All families' texts of one part, one after the other."""
    lists = {role: [texts.get((number, part, role), []) for number in range(len(rows))] for role in ROLES}
    starts = {role: np.cumsum([0, *map(len, found)]) for role, found in lists.items()}
    tasks = []
    for number, row in enumerate(rows):
        placed = {}
        for role in ROLES:
            start, end = int(starts[role][number]), int(starts[role][number + 1])
            of_family = keys[f"{part}.{role}.{number}"]
            if of_family.shape != (len(row["definitions"]), end - start):
                raise ValueError(f"keys of {row['name']} have the shape {of_family.shape}")
            whole = np.full((len(of_family), int(starts[role][-1])), ABSENT, np.int64)
            whole[:, start:end] = of_family
            placed[role] = whole
        candidates = np.arange(starts["document"][number], starts["document"][number + 1])
        for place, one in enumerate(row["definitions"]):
            wordings = one["descriptions" if part == "train" else "asked"]
            tasks.append(
                RelevanceTask(
                    f"{row['name']}: {one['name']}",
                    tuple(wordings),
                    placed["query"][place],
                    placed["document"][place],
                    row["name"],
                    candidates,
                )
            )
    queries, documents = (tuple(text for found in lists[role] for text in found) for role in ROLES)
    return TaskLibrary(queries, documents, tuple(tasks))


def _lean(library: TaskLibrary) -> TaskLibrary:
    """The library without texts that no task of it ranks or asks."""
    queries = _used([task.query_N >= 0 for task in library.tasks])
    documents = _used([_mask(task.ranked(), len(library.documents)) for task in library.tasks])
    place_M = np.cumsum(_mask(documents, len(library.documents))) - 1
    tasks = tuple(
        replace(
            task,
            query_N=task.query_N[queries],
            document_M=task.document_M[documents],
            candidates=place_M[task.ranked()],
        )
        for task in library.tasks
    )
    return TaskLibrary(
        tuple(library.queries[place] for place in queries),
        tuple(library.documents[place] for place in documents),
        tasks,
    )


def _used(masks: Sequence[np.ndarray]) -> Keys:
    """Places that any of the masks has."""
    return np.flatnonzero(np.any(masks, axis=0))


def _mask(places: Keys, count: int) -> np.ndarray:
    mask = np.zeros(count, bool)
    mask[places] = True
    return mask
