"""Documents that answer a query: `POST /v1/search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from acclimate.core.filter_language import parse_filter
from acclimate.core.filters import Filter, from_json
from acclimate.data.texts import typed_text
from acclimate.errors import AcclimateError, DataError, UsageError
from acclimate.retrieval.index.records import Hit, Mode, Query
from acclimate.serve.answers import model_headers, named_hash, remaining_s, space_of
from acclimate.serve.errors import ServiceError
from acclimate.serve.replies import json_response
from acclimate.serve.routes.documents import shown
from acclimate.serve.routes.rerank import best_first, reranker_id
from acclimate.serve.schemas import SearchRequest
from acclimate.serve.site import Site, site_of
from acclimate.serve.strict_json import StrictRoute

if TYPE_CHECKING:
    from acclimate.serve.indexes import ServedIndex
    from acclimate.serve.registry import Pinned

router = APIRouter(route_class=StrictRoute)


class _Question(NamedTuple):
    """A request, made ready for its index."""

    searched: ServedIndex
    query: Query
    pinned: Pinned | None
    """What encodes the query: None in lexical mode, or where the vector is given."""


class _Found(NamedTuple):
    """A document, and in which order a reply has it."""

    hit: Hit
    score: float


@router.post("/v1/search", tags=["search"], summary="Documents that answer a query")
async def search(request: Request, body: SearchRequest) -> Response:
    """The first documents of a run's index, by meaning, by words, or by both, best first."""
    site = site_of(request)
    question = await _question(request, site, body)
    space = None if question.pinned is None else space_of(question.pinned.served, question.searched.task)
    try:
        hits = await question.searched.search(question.query, space)
    except UsageError as error:
        raise _of_another_space(error, body) from error
    except DataError as error:
        raise _refused(error, "vector") from error
    reply: dict[str, Any] = {"query": body.query, "mode": question.query.mode, "index": question.searched.name}
    headers = {}
    if question.pinned is not None:
        reply["acclimate"], headers = named_hash(question.pinned), model_headers(question.pinned)
    found = [_Found(hit, hit.score) for hit in hits]
    if body.rerank is not None:
        reply["reranker"] = reranker_id(site, None)
        found = await _reranked(request, site, body, hits)
    rows = [{**shown(one.hit.document), "score": one.score} for one in found[: body.top_k]]
    if body.explain:
        reply["fusion"] = _fusion(question) if question.query.mode == "hybrid" else None
        why = await _reasons(question, hits)
        rows = [{**row, "explanation": why[row["id"]]} for row in rows]
    if body.highlight and body.query is not None:
        marked = await question.searched.highlights(body.query, [row["text"] for row in rows])
        rows = [{**row, "highlights": spans} for row, spans in zip(rows, marked, strict=True)]
    return json_response({**reply, "hits": rows}, headers=headers)


async def _question(request: Request, site: Site, body: SearchRequest) -> _Question:
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
    own = space_of(site.service.registry.pin(index.model).served, index.task)
    vector, pinned = None, None
    if body.vector is not None and mode != "lexical":
        if body.space not in (None, own.digest):
            raise ServiceError(
                "the vector is of another space than the index", status=422, field="space", possible=own.digest
            )
        vector = np.asarray(body.vector, np.float32)
    elif mode != "lexical":
        pinned = _pinned(site, body.adapter or index.model)
        assert text is not None
        engine = site.service.engine
        task, left = index.task, remaining_s(request)
        found = await engine.embed([text], pinned=pinned, role="query", task=task, deadline_s=left)
        vector = found.vectors[0]
    depth = body.rerank or body.top_k
    return _Question(index, Query(text, vector, mode, depth, passed, index.fusion), pinned)


def _pinned(site: Site, adapter: str | dict[str, float]) -> Pinned:
    try:
        return site.service.registry.pin(adapter)
    except ServiceError as error:
        error.field = "adapter"  # by the name that a request has for it
        raise


async def _reranked(request: Request, site: Site, body: SearchRequest, hits: list[Hit]) -> list[_Found]:
    """The hits in the reranker's order, with its raw logits as scores."""
    if not hits or body.query is None:
        return []
    texts = [hit.text for hit in hits]
    scored = await site.service.engine.rerank(body.query, texts, deadline_s=remaining_s(request))
    return [_Found(hits[place], float(scored.scores[place])) for place in best_first(scored.scores, None)]


async def _reasons(question: _Question, hits: list[Hit]) -> dict[str, dict[str, Any]]:
    """Id -> the rank and the score of each way of searching that has found it, and those of the result."""
    query = question.query
    why: dict[str, dict[str, Any]] = {
        hit.id: {query.mode: {"rank": rank, "score": hit.score}} for rank, hit in enumerate(hits, 1)
    }
    for mode in ("dense", "lexical") if query.mode == "hybrid" else ():
        alone = Query(query.text, query.vector, mode, query.depth, query.filter)
        for rank, hit in enumerate(await question.searched.search(alone, None), 1):
            if hit.id in why:
                why[hit.id][mode] = {"rank": rank, "score": hit.score}
    return why


def _fusion(question: _Question) -> dict[str, float]:
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
