"""`search`: the first documents for one query, through the run's index, or else by base and adapted side by side."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from acclimate.configs import RunConfig, load_config
from acclimate.core.filter_language import parse_filter
from acclimate.core.filters import Exists, Filter, conditions
from acclimate.data.dataset import Dataset
from acclimate.data.texts import typed_text
from acclimate.errors import UsageError
from acclimate.models.reading import reading_warnings
from acclimate.models.text_encoder import TextEncoder
from acclimate.progress import say
from acclimate.retrieval.experts import Experts, load_experts, names_of
from acclimate.retrieval.index.of_run import index_for, index_place, opened_index, read_fusion
from acclimate.retrieval.index.pictures import TEXTS, among_texts
from acclimate.retrieval.index.protocol import Index
from acclimate.retrieval.index.records import Fusion, Hit, Mode, Query, Vectors
from acclimate.retrieval.rank import rank
from acclimate.retrieval.rerank import rerank_hits
from acclimate.retrieval.routing import BASE, Route, RouteMode, fuse_hits
from acclimate.runs.opening import load_current, open_dataset
from acclimate.runs.resolve import load_pair, trained_folder
from acclimate.runs.run_folder import RunFolder
from acclimate.runs.tasks import Task, one_task

LOOKED_AT = 1000
"""Documents whose fields are named where a filter asks for one that none has."""


def search(run: Path, query: str, top: int, config: RunConfig) -> dict[str, Any]:
    """Search a run's corpus with the base and with the adapted model.

    The documents' vectors are kept in `RUN/.work/cache`, where `evaluate` puts them too.

    Args:
        run: the run's folder.
        query: what to search for.
        top: documents to return.
        config: the run's model, device and dtype; `task`: the one of several tasks whose corpus is searched.

    Returns:
        {"query", "base": [{"id", "text", "score"}], "adapted": [the same]}, best first.

    Raises:
        UsageError: the query is empty, the run holds labelled pairs, or `top` is below 1.
        StorageError: the run holds no dataset or no adapter.
    """
    _check(query, top)
    task = one_task(run, config)
    data = open_dataset(task.dataset)
    adapter = trained_folder(RunFolder(run).adapter)
    if data.kind == "pairs":
        raise UsageError(
            f"{run} holds labelled pairs, no documents to search", fix=f"Compare two texts: acclimate similarity {run}"
        )
    query, cache = typed_text(query), task.folder.cache
    base, adapted = load_pair(adapter, base=config.model, **task.config.loading)
    for note in reading_warnings({"words": adapted.reading([query], "query")}):
        say(f"warning: {note}")
    return {
        "query": query,
        "base": _hits(base, data, query, cache, top, "base"),
        "adapted": _hits(adapted, data, query, cache, top, "adapted"),
    }


def search_index(
    run: Path,
    query: str,
    top: int,
    config: RunConfig,
    *,
    mode: Mode = "hybrid",
    filter: str | None = None,
    rerank_first: int | None = None,
    reranker: str | None = None,
    adapter: RouteMode = "mix",
) -> dict[str, Any]:
    """Search the texts of a run's index; pictures in it are found by `search_images.search_index_pictures`.

    Args:
        run: the run's folder; its adapter, if there is one, else its model, encodes the query.
        query: what to search for.
        top: documents to return.
        config: the run's model, device and dtype; where the index is; the reranker's settings.
        mode: by meaning, by words, or by both, fused as `RUN/fusion.json` says.
        filter: on metadata, see `core.filter_language`.
        rerank_first: put the first so many in order anew by a reranker.
        reranker: a run with one, a folder, or a hub id; the run's own if not given.
        adapter: how the run's adapter and those of `config.route.experts` answer, where there are such.

    Returns:
        {"query", "mode", "place", "documents", "fusion" (in mode hybrid: {"constant", …}), "reranker" (its id, or
        None), "route" (of several experts: `Route.to_json`), "hits": [{"id", "score", "text", "metadata", and of a
        chunk "parent", "start", "end"}]}, best first; reranked hits have the reranker's raw logits as scores.

    Raises:
        UsageError: the query is empty, a setting that cannot be, or an index of another space.
        StorageError: there is no index, or no reranker.
    """
    query = typed_text(query)
    _check(query, top)
    if rerank_first is not None and rerank_first < top:
        raise UsageError(f"rerank = {rerank_first}, and top = {top}", possible=f"{top} or more")
    if reranker is not None and rerank_first is None:
        raise UsageError("a reranker is named, and nothing is to be reranked", fix="Say how many: --rerank 50")
    passed = None if filter is None else parse_filter(filter)
    task = one_task(run, config)
    asked = _Asked(query, mode, rerank_first or top, passed)
    search_with = _by_experts if config.route.experts else _by_own_model
    answer = search_with(run, task, asked, adapter, config)
    found = {"query": query, "mode": mode, "reranker": None, **answer.facts}
    hits = answer.hits
    if rerank_first is not None:
        name = reranker or str(run)
        found["reranker"], hits = rerank_hits(
            name, config.rerank, query, hits, device=config.device, dtype=config.reranker_dtype
        )
    return {**found, "hits": [_shown(hit) for hit in hits[:top]]}


class _Asked(NamedTuple):
    """What an index is asked."""

    query: str
    mode: Mode
    depth: int
    filter: Filter | None

    def to(self, index: Index, vector: Vectors | None, fusion: Fusion) -> list[Hit]:
        """Search the texts of an index."""
        passed = among_texts(index, self.filter)
        return index.search(Query(self.query, vector, self.mode, self.depth, passed, fusion))


class _Answer(NamedTuple):
    """Hits, and what is said of how they were found."""

    facts: dict[str, Any]
    hits: list[Hit]


def _by_own_model(run: Path, task: Task, asked: _Asked, _: RouteMode, config: RunConfig) -> _Answer:
    """Search with the adapter of the run, or its model where there is none."""
    place = index_place(task)
    lexical = asked.mode == "lexical"
    encoder = None if lexical else load_current(RunFolder(run).adapter, config.model, **task.config.loading)
    vector = None if encoder is None else encoder.encode([asked.query], "query")[0]
    with opened_index(place) if encoder is None else index_for(place, encoder, run) as index:
        fusion = read_fusion(task, index.space)[0]
        hits = asked.to(index, vector, fusion)
        return _Answer({"place": place, **_said_of(index, asked, fusion)}, hits)


def _by_experts(run: Path, task: Task, asked: _Asked, adapter: RouteMode, config: RunConfig) -> _Answer:
    """Search with what a router chooses among the adapters of several runs."""
    names, most = names_of([run, *config.route.experts]), config.route.mixed_experts
    if asked.mode == "lexical":
        raise UsageError("experts are named, and a lexical search encodes nothing", possible="mode dense or hybrid")
    experts = load_experts(names, config.model, device=config.device, dtype=config.dtype)
    first = next(iter(names))
    if adapter != "fuse":
        experts.check_mixable([first])  # its index has to hold base vectors
    found = experts.routes([asked.query], adapter, most)[0]
    facts: dict[str, Any] = {}
    lists: dict[str, list[Hit]] = {}
    for name, weights in _askers(found).items():
        own = _index_of(name, names, {first: task}, experts)
        if own is None:  # the base, and no index of base vectors
            continue
        with index_for(index_place(own.task), own.encoder, own.run) as index:
            fusion = read_fusion(own.task, index.space)[0]
            lists[name] = asked.to(index, experts.encode([asked.query], [weights])[0], fusion)
            facts = facts or {"place": index_place(own.task), **_said_of(index, asked, fusion)}
    if not lists:
        raise UsageError(f"{found.reason}, and no index here holds base vectors", fix="Name a run of --sides query.")
    hits = next(iter(lists.values())) if adapter != "fuse" else fuse_hits(lists, found.shares)[: asked.depth]
    return _Answer({**facts, "route": found.to_json()}, hits)


class _Searched(NamedTuple):
    """An index, by the run and task that it is of, and an encoder of its space."""

    run: Path
    task: Task
    encoder: TextEncoder


def _askers(found: Route) -> dict[str, Mapping[str, float]]:
    """Who searches by itself, with which weights: each that shares a query that is fused; else all in one vector."""
    if found.mode != "fuse":
        return {BASE: found.weights}
    return {name: {} if name == BASE else {name: 1.0} for name in found.shares}


def _index_of(name: str, names: Mapping[str, Path], known: Mapping[str, Task], experts: Experts) -> _Searched | None:
    """Where an expert searches: one index of base vectors serves the base and all that adapt queries alone."""
    one_sided, encoder = experts.one_sided, experts.base
    if name == BASE or name in one_sided:
        found = next((one for one in [*known, name, *names] if one in one_sided), None)
        if found is None:
            return None
    else:
        found, encoder = name, experts.base.with_adapter(experts.set.adapters[name])
    run = names[found]
    return _Searched(run, known.get(found) or one_task(run, _remembered(run)), encoder)


def _remembered(run: Path) -> RunConfig:
    path = RunFolder(run).remembered()
    return RunConfig() if path is None else load_config(path)


def _said_of(index: Index, asked: _Asked, fusion: Fusion) -> dict[str, Any]:
    """How large an index is, and how its rankings are fused; warns of mistyped fields."""
    for note in _unknown_fields(index, asked.filter):
        say(f"warning: {note}")
    facts: dict[str, Any] = {"documents": index.count()}
    if index.has_pictures() and not index.count(TEXTS):
        say("warning: the index holds pictures only, and this is a search for texts: find pictures with --images")
    if asked.mode == "hybrid":
        facts["fusion"] = {name: getattr(fusion, name) for name in Fusion.__slots__}
    return facts


def _check(query: str, top: int) -> None:
    if not query.strip():
        raise UsageError("the query is empty", fix="Give some words to search for.")
    if top < 1:
        raise UsageError(f"top = {top}", possible="1 or more")


def _unknown_fields(index: Index, filter: Filter | None) -> list[str]:
    """A line for each field of a filter that no document has: probably mistyped."""
    asked = {} if filter is None else dict.fromkeys(condition.field for condition in conditions(filter))
    unknown = [name for name in asked if not index.count(Exists(name))]
    if not unknown:
        return []
    known = {name for stored in islice(index.iterate(), LOOKED_AT) for name in stored.document.metadata}
    there = f"fields are {', '.join(sorted(known))}" if known else "there is no metadata"
    near = {name: difflib.get_close_matches(name, sorted(known), n=1) for name in unknown}
    meant = {name: f"; did you mean {found[0]}?" if found else "" for name, found in near.items()}
    return [f"no document has the field {name!r} of the filter; {there}{meant[name]}" for name in unknown]


def _hits(encoder: TextEncoder, data: Dataset, query: str, cache: Path, top: int, label: str) -> list[dict[str, Any]]:
    run = rank(encoder, {"query": query}, data.corpus, top, cache=cache, label=label)
    return [{"id": name, "text": data.corpus[name], "score": score} for name, score in run["query"].items()]


def _shown(hit: Hit) -> dict[str, Any]:
    row: dict[str, Any] = {"id": hit.id, "score": hit.score, "text": hit.text, "metadata": dict(hit.metadata)}
    if hit.document.parent is not None:
        row |= {"parent": hit.document.parent, "start": hit.document.start, "end": hit.document.end}
    return row
