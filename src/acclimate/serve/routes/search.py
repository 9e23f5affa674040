"""Documents that answer a query: `POST /v1/search`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from acclimate.core.filter_language import parse_filter
from acclimate.core.filters import Filter, from_json
from acclimate.data.texts import typed_text
from acclimate.errors import AcclimateError, DataError, UsageError
from acclimate.retrieval.index.records import Hit, Mode, Query
from acclimate.retrieval.routing import ROUTE_MODES, Route, fuse_hits
from acclimate.serve.answers import hash_headers, identity_of, named_hash, remaining_s, space_of
from acclimate.serve.errors import ServiceError
from acclimate.serve.replies import json_response
from acclimate.serve.result_cache import served
from acclimate.serve.routes.documents import shown
from acclimate.serve.routes.rerank import best_first, reranker_id
from acclimate.serve.routing import Party, check_mixture, pinned_as, routed, space_in
from acclimate.serve.schemas import SearchRequest
from acclimate.serve.site import Site, site_of
from acclimate.serve.strict_json import StrictRoute

if TYPE_CHECKING:
    from acclimate.serve.indexes import ServedIndex
    from acclimate.serve.registry import Pinned

router = APIRouter(route_class=StrictRoute)
SPACE = "_space"
"""The field of a kept reply that is not shown: the digest of the space that was searched."""


class Question(NamedTuple):
    """A request, made ready for its index."""

    searched: ServedIndex
    query: Query
    pinned: Pinned | None
    """What encodes the query: None in lexical mode, where the vector is given, or where several search."""
    route: Route | None = None
    """How that was chosen, where the request left it to the service."""
    parties: tuple[Party, ...] = ()
    """Those whose results are fused."""


class _Found(NamedTuple):
    """A document, and which score a reply has for it."""

    hit: Hit
    score: float


class Found(NamedTuple):
    """What a question has found."""

    hits: list[Hit]
    by_party: dict[str, list[Hit]]
    """Name -> what it has found, of those whose results are fused."""


@router.post("/v1/search", tags=["search"], summary="Documents that answer a query")
async def search(request: Request, body: SearchRequest) -> Response:
    """The first documents of a run's index, by meaning, by words, or by both, best first."""
    site = site_of(request)
    identity = await identity_of(request, body, body.query, {"impression"}) if body.cache else None
    if (kept := site.results.exact(identity)) is not None:
        return _replied(site, body, kept)
    question = await ready(request, site, body)
    # Only reranking takes long enough for a result of another query to save much.
    own = body.explain or body.highlight  # what the query's own words say
    vector = question.query.vector if body.rerank is not None and not own else None
    near = None if vector is None else site.results.look(identity, vector)
    if near is not None and near.serves:
        site.results.maybe_audit(near, functools.partial(_computed, request, site, body, question))
        return _replied(site, body, served(near, body.query or ""))
    reply = await _computed(request, site, body, question)
    site.results.keep(identity, reply, vector, near)
    return _replied(site, body, reply)


def _replied(site: Site, body: SearchRequest, reply: Mapping[str, Any]) -> Response:
    """What this request is shown of a reply that was computed for it, or was kept; that it is shown is kept, too, where
    a searcher is shown it."""
    own = {"cache": None, **reply}
    digest = own.pop(SPACE, "")
    feedback, own["impression_id"] = site.feedback.get(reply["index"]), None
    if feedback is not None and body.impression and body.query and reply["hits"]:
        adapter = reply.get("acclimate", {}).get("sha256", "")
        own["hits"], own["impression_id"] = feedback.show(
            body.query, reply["hits"], lambda row: row["id"], adapter=adapter, space=digest
        )
    return json_response(own, headers=hash_headers(reply.get("acclimate", {})))


async def _computed(request: Request, site: Site, body: SearchRequest, question: Question) -> dict[str, Any]:
    """Search, rerank, explain."""
    answer = await searched(question, body)
    reply: dict[str, Any] = {"query": body.query, "mode": question.query.mode, "index": question.searched.name}
    if question.pinned is not None:
        reply["acclimate"] = named_hash(question.pinned)
        reply[SPACE] = space_in(question.searched, question.pinned.served).digest
    if question.parties:
        reply["fused"] = fused_by(question)
    found = [_Found(hit, hit.score) for hit in answer.hits]
    if body.rerank is not None:
        reply["reranker"] = reranker_id(site, None)
        reply["reranker_sha256"] = site.service.reranker_sha256
        found = [_Found(hit, score) for hit, score in await reranked(request, site, body.query or "", answer.hits)]
    rows = [{**shown(one.hit.document), "score": one.score} for one in found[: body.top_k]]
    if body.explain:
        reply["fusion"] = _fusion(question) if question.query.mode == "hybrid" else None
        reply["route"] = None if question.route is None else question.route.to_json()
        why = await _reasons(question, answer)
        rows = [{**row, "explanation": why[row["id"]]} for row in rows]
    if body.highlight and body.query is not None:
        marked = await question.searched.highlights(body.query, [row["text"] for row in rows])
        rows = [{**row, "highlights": spans} for row, spans in zip(rows, marked, strict=True)]
    return {**reply, "hits": rows}


async def ready(request: Request, site: Site, body: SearchRequest) -> Question:
    """Check a request, and encode its query where that is needed."""
    text = None if body.query is None else _read(typed_text, body.query, "query")
    if not text and body.vector is None:
        raise ServiceError("the request has neither a query nor a vector", status=422, field="query")
    if body.vector is not None and body.adapter is not None:
        raise ServiceError("a vector is given, so no adapter encodes the query", status=422, field="adapter")
    if body.rerank is not None and (not text or body.rerank < body.top_k):
        raise ServiceError(
            f"rerank = {body.rerank}", status=422, field="rerank", possible=f"{body.top_k} (top_k) or more, and a query"
        )
    if body.rerank is not None and body.rerank > site.settings.max_inputs:
        raise ServiceError(
            f"rerank = {body.rerank}", status=422, field="rerank", possible=f"up to {site.settings.max_inputs}"
        )
    index = site.index(body.index)
    mode: Mode = body.mode or ("hybrid" if text else "dense")
    if mode != "dense" and not text:
        raise ServiceError(f"a search in mode {mode} has no query", status=422, field="query")
    passed = None if body.filter is None else _read(_filter, body.filter, "filter")
    depth = body.rerank or body.top_k

    def query(vector: NDArray[np.float32] | None) -> Query:
        return Query(text, vector, mode, depth, passed, index.fusion)

    if mode == "lexical":
        return Question(index, query(None), None)
    if body.vector is not None:
        return Question(index, query(_given_vector(site, index, body)), None)
    assert text is not None
    for routing in ROUTE_MODES:
        if body.adapter == routing:
            found = await routed(site, index, routing, text, remaining_s(request))
            first = found.parties[0]
            if routing == "fuse":
                return Question(index, query(first.vector), None, found.route, found.parties)
            return Question(index, query(first.vector), first.pinned, found.route)
    pinned = pinned_as(site.service.registry, body.adapter or index.model)
    if isinstance(body.adapter, dict):
        check_mixture(site.service.registry, body.adapter, index)
    embedded = await site.service.engine.embed(
        [text], pinned=pinned, role="query", task=index.task, deadline_s=remaining_s(request)
    )
    return Question(index, query(embedded.vectors[0]), pinned)


def _given_vector(site: Site, index: ServedIndex, body: SearchRequest) -> NDArray[np.float32]:
    own = space_of(site.service.registry.pin(index.model).served, index.task)
    if body.space not in (None, own.digest):
        raise ServiceError(
            "the vector is of another space than the index", status=422, field="space", possible=own.digest
        )
    return np.asarray(body.vector, np.float32)


async def searched(question: Question, body: SearchRequest) -> Found:
    """Search, by one vector, or by those of several and fuse what they find."""
    try:
        if not question.parties:
            space = None if question.pinned is None else space_in(question.searched, question.pinned.served)
            return Found(await question.searched.search(question.query, space), {})
        lists = {}
        for one in question.parties:
            asked = dataclasses.replace(question.query, vector=one.vector, fusion=one.searched.fusion)
            lists[one.name] = await one.searched.search(asked, space_in(one.searched, one.pinned.served))
    except UsageError as error:
        raise _of_another_space(error, body) from error
    except DataError as error:
        raise _refused(error, "vector") from error
    fused = fuse_hits(lists, {one.name: one.share for one in question.parties})
    return Found(fused[: question.query.top_k], lists)


def fused_by(question: Question) -> list[dict[str, str]]:
    """The models whose results are fused, and the index that each has searched."""
    return [{**named_hash(one.pinned), "index": one.searched.name} for one in question.parties]


async def reranked(request: Request, site: Site, query: str, hits: list[Hit]) -> list[tuple[Hit, float]]:
    """The hits in the reranker's order, with its raw logits."""
    if not hits:
        return []
    texts = [hit.text for hit in hits]
    scored = await site.service.engine.rerank(query, texts, deadline_s=remaining_s(request))
    return [(hits[place], float(scored.scores[place])) for place in best_first(scored.scores, None)]


async def _reasons(question: Question, answer: Found) -> dict[str, dict[str, Any]]:
    """Id -> the rank and the score of each way of searching that has found it, and those of the result."""
    query, hits = question.query, answer.hits
    if question.parties:
        of_all: dict[str, dict[str, Any]] = {}
        for name, own in {"fuse": hits, **answer.by_party}.items():
            for rank, hit in enumerate(own, 1):
                of_all.setdefault(hit.id, {})[name] = {"rank": rank, "score": hit.score}
        return of_all
    why: dict[str, dict[str, Any]] = {
        hit.id: {query.mode: {"rank": rank, "score": hit.score}} for rank, hit in enumerate(hits, 1)
    }
    for mode in ("dense", "lexical") if query.mode == "hybrid" else ():
        alone = Query(query.text, query.vector, mode, query.depth, query.filter)
        for rank, hit in enumerate(await question.searched.search(alone, None), 1):
            if hit.id in why:
                why[hit.id][mode] = {"rank": rank, "score": hit.score}
    return why


def _fusion(question: Question) -> dict[str, float]:
    fusion = question.query.fusion
    return {name: getattr(fusion, name) for name in type(fusion).__slots__}


def _filter(given: Any) -> Filter:
    return parse_filter(given) if isinstance(given, str) else from_json(given)


def _read(read: Any, given: Any, field: str) -> Any:
    """What a field says; an error names the field."""
    try:
        return read(given)
    except AcclimateError as error:
        raise _refused(error, field) from error


def _of_another_space(error: UsageError, body: SearchRequest) -> ServiceError:
    """The adapter that was asked for is at fault, or else the run's own, which is another one than when it was made."""
    if body.adapter is not None:
        return _refused(error, "adapter")
    fix = "Encode its documents again: acclimate index RUN --reencode."
    return ServiceError(error.found, status=409, field="index", fix=fix)


def _refused(error: AcclimateError, field: str) -> ServiceError:
    return ServiceError(error.found, status=422, field=field, possible=error.possible, fix=error.fix)
