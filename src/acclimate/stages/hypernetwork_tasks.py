"""`hypernetwork tasks`: from corpora to a library of tasks, with what is held out of the training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from acclimate.configs import RunConfig
from acclimate.configs.commands import FEW_PAIRS
from acclimate.configs.endpoint import EndpointConfig
from acclimate.counting import counted
from acclimate.data.collections import Collection, collect
from acclimate.data.definitions import Family, families, is_domain
from acclimate.data.descriptions import ATTRIBUTES, WORDINGS, Language
from acclimate.data.readers import read_source, source_hash
from acclimate.data.task_library import TaskFacts, group_definitions, write_library
from acclimate.errors import UsageError
from acclimate.evaluation.topics import lexical_topics
from acclimate.files import work_folder
from acclimate.formats.chat import ChatClient
from acclimate.pairing.rewording import reworded
from acclimate.pairing.writing import LOG_FILE, Endpoint
from acclimate.progress import progress, say
from acclimate.runs.step import Work, step

THEMES = 8
"""Coarse clusters of a collection; the fine ones are as many as its size asks for."""
NEW_SHARE = 0.25
"""Share of the combinations of several attributes that is held out of every collection."""
APART_SHARE = 0.2
"""Share of the other definitions, counted once for each collection, that is held out of one collection alone."""
DOMAIN_EVERY = 4
"""One domain out of so many is held out."""
ENOUGH = 75
"""Fewer training tasks than this have made a generator worse than none."""


def hypernetwork_tasks(
    sources: Sequence[str],
    out: Path,
    config: RunConfig,
    *,
    held_out: Sequence[str] = (),
    far: Sequence[str] = ("ending",),
    domains: int = 4,
    group_column: str | None = None,
    languages: Sequence[str] = ("en",),
) -> dict[str, Any]:
    """Write a library of tasks.

    Args:
        sources: whatever `prepare` reads: queries with the documents that answer them.
        out: the library's folder.
        config: `seed`, `limit` (most queries, and most documents, of each source), `prepare` (columns), `endpoint` (a
            language model that rewords descriptions).
        held_out: sources that are never trained on.
        far: attributes that are never trained on.
        domains: so many themes of each source become a task of their own.
        group_column: a column of the sources' files that says where a text comes from, its module or category: one
            attribute more.
        languages: of the descriptions; tests ask in the first.

    Returns:
        what report.json holds: "tasks" and "groups" (how many of each), "collections".

    Raises:
        UsageError: no source that is trained on; an attribute or a language that is none; a column that no source has.
        DataError: a source that cannot be read, or has too few texts.
        ChatError: the endpoint fails; what it has answered is kept.
    """
    names = [_name(source) for source in (*sources, *held_out)]
    _check(names, sources, far, domains)
    spoken = _languages(languages)
    settings = {
        "seed": config.seed,
        "limit": config.limit,
        "prepare": _columns(config),
        "held_out": list(held_out),
        "far": list(far),
        "domains": domains,
        "languages": spoken,
        **({"group_column": group_column} if group_column is not None else {}),
        **({"llm_model": config.endpoint.llm_model} if config.endpoint.llm else {}),
    }
    inputs = {source: source_hash(source) for source in (*sources, *held_out)}

    def make() -> Work[dict[str, Any]]:
        collections = _collections(dict(zip(names, (*sources, *held_out), strict=True)), config, group_column)
        found, written = _reworded(
            _families(collections, config.seed, domains, spoken), config.endpoint, work_folder(out)
        )
        facts = _grouped(found, far, names[len(sources) :], config.seed)
        if group_column is not None and not any("group" in one.definition.split("+") for one in facts):
            say(f"warning: no definition uses {group_column!r}: too few texts share a value of it, or it names splits")
        return Work(lambda folder: _write(folder, found, facts) | written)

    return step("hypernetwork tasks", out, settings, inputs, make, seconds="hypernetwork_tasks_s", reads=list(inputs))


def _collections(sources: Mapping[str, str], config: RunConfig, group_column: str | None) -> dict[str, Collection]:
    """Read sources (name -> where) as collections by where they are, with each text's group if there is the column."""
    found, unused, grouped = {}, dict[str, None](), False
    for name, source in sources.items():
        raw = read_source(source, config.prepare)
        columns = raw.columns.get("ignored", [])
        if group_column is not None and group_column in columns:
            raw = read_source(source, replace(config.prepare, split_by=group_column))  # it keeps this column's values
            grouped = True
        unused |= dict.fromkeys(columns)
        found[source] = collect(name, raw, config.limit, config.seed)
    if group_column is not None and not grouped:
        possible = ", ".join(unused) or "none: the sources hold nothing but queries and documents"
        raise UsageError(f"no source has a column {group_column!r} to group by", possible=possible)
    return found


def _families(
    collections: Mapping[str, Collection], seed: int, domains: int, languages: Sequence[Language]
) -> list[Family]:
    """The families of collections, by where they are."""
    found: list[Family] = []
    with progress("corpora", len(collections), "corpora") as advance:
        for source, collection in collections.items():
            clusters = _clusters(collection, seed)
            made = families(collection, *clusters, seed, domains=domains, languages=languages)
            if not made:
                say(f"{source}: no definition has enough texts; it is left out")
            found += made
            advance(1)
    return found


def _check(names: Sequence[str], sources: Sequence[str], far: Sequence[str], domains: int) -> None:
    if not sources:
        raise UsageError("no source to train on", possible="one or more files or folders of queries with documents")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"two sources are called {twice[0]}", fix="Rename one of them.")
    if unknown := [name for name in far if name not in ATTRIBUTES]:
        raise UsageError(f"--far {unknown[0]} is no attribute", possible=", ".join(ATTRIBUTES))
    if domains < 0:
        raise UsageError(f"--domains {domains}", possible="0 or more")


def _languages(names: Sequence[str]) -> list[Language]:
    """The languages by their names, each once."""
    known: dict[str, Language] = {name: name for name in WORDINGS}
    if not names or (unknown := [name for name in names if name not in known]):
        asked = f"--languages {unknown[0]} is not known" if names else "no language for the descriptions"
        raise UsageError(asked, possible=", ".join(known))
    return [known[name] for name in dict.fromkeys(names)]


def _reworded(
    found: Sequence[Family], endpoint: EndpointConfig, work: Path
) -> tuple[list[Family], dict[str, dict[str, Any]]]:
    """The families with wordings of a language model, if there is one, and what the report says of it."""
    if endpoint.llm is None or endpoint.llm_model is None:
        return list(found), {}
    work.mkdir(parents=True, exist_ok=True)
    with ChatClient(endpoint.llm, endpoint.llm_model, requests_per_minute=endpoint.llm_requests_per_minute) as client:
        asked = Endpoint(client, work / LOG_FILE, endpoint.llm_parallel)
        families_of, added = reworded(found, asked)
        facts = {"model": client.model, "address": client.shown_url, "wordings": added, **asked.usage.report(())}
    say(f"{client.model}: {counted(added, 'wordings')} of descriptions, beside those of the templates")
    return families_of, {"llm": facts}


def _columns(config: RunConfig) -> dict[str, Any]:
    """How the sources are read."""
    return {name: getattr(config.prepare, name) for name in FEW_PAIRS}


def _write(folder: Path, found: Sequence[Family], facts: Sequence[TaskFacts]) -> dict[str, Any]:
    write_library(folder, found, facts)
    groups = Counter(one.group for one in facts)
    if groups["train"] < ENOUGH:
        trained = counted(groups["train"], "tasks")
        say(f"warning: {trained} to train on; below about {ENOUGH} a generator has done harm: give more corpora")
    collections = {
        family.collection: {
            "tasks": sum(one.collection == family.collection for one in facts),
            **{f"{part} queries": len(family.queries[part]) for part in ("train", "test")},
            **{f"{part} documents": len(family.documents[part]) for part in ("train", "test")},
        }
        for family in reversed(found)
    }
    return {
        "tasks": len(facts),
        "groups": dict(groups),
        "definitions": len({one.definition for one in facts}),
        "families": len(found),
        "collections": collections,
        "held_out": sorted({one.definition for one in facts if one.group == "new-definition"}),
    }


def _grouped(found: Sequence[Family], far: Sequence[str], unseen: Sequence[str], seed: int) -> list[TaskFacts]:
    """All tasks, with what is held out by a draw and by name."""
    new = _new_definitions(found, far, seed)
    apart = _held_apart(group_definitions(found, new=new, far=far, unseen=unseen), seed)
    return group_definitions(found, new=new, apart=apart, far=far, unseen=unseen)


def _new_definitions(found: Sequence[Family], far: Sequence[str], seed: int) -> list[str]:
    """Combinations and domains that no family trains on: a share of the combinations, every fourth domain."""
    counts = Counter(definition.name for family in found for definition in family.definitions)
    combined = sorted(name for name in counts if "+" in name and not set(name.split("+")) & set(far))
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(combined))[: round(NEW_SHARE * len(combined))]
    domains = sorted((name for name in counts if is_domain(name)), key=lambda name: int(name.split()[-1]))
    return [*(combined[place] for place in sorted(order.tolist())), *domains[DOMAIN_EVERY - 1 :: DOMAIN_EVERY]]


def _held_apart(facts: Sequence[TaskFacts], seed: int) -> set[tuple[str, str]]:
    """Definitions that one collection does not train on, with the collection; another one does."""
    cells = sorted({(one.collection, one.definition) for one in facts if one.group == "train"})
    left = Counter(definition for _, definition in cells)
    apart: set[tuple[str, str]] = set()
    for place in np.random.default_rng([seed, 1]).permutation(len(cells)).tolist():
        collection, definition = cells[place]
        if len(apart) < round(APART_SHARE * len(cells)) and left[definition] > 1 and not is_domain(definition):
            apart.add((collection, definition))
            left[definition] -= 1
    return apart


def _clusters(collection: Collection, seed: int) -> tuple[list[int], list[int]]:
    """Themes and topics of the queries, then of the documents."""
    texts = (*collection.queries, *collection.documents)
    return lexical_topics(texts, seed, THEMES), lexical_topics(texts, seed)


def _name(source: str) -> str:
    return Path(source).name.split(".")[0]
