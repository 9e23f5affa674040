"""Texts in the order in which they answer a query: Cohere's, Jina's and TEI's routes, over one reranker."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from acclimate.serve.answers import remaining_s
from acclimate.serve.errors import ServiceError
from acclimate.serve.replies import json_response
from acclimate.serve.schemas import RerankRequest, TeiRerankRequest
from acclimate.serve.site import Site, site_of
from acclimate.serve.strict_json import StrictRoute

router = APIRouter(route_class=StrictRoute)
ALIASES = ("reranker",)
"""Names of whichever is served."""


@router.post("/v1/rerank", tags=["rerank"], summary="Texts in order (Cohere, Jina)")
@router.post("/v2/rerank", tags=["rerank"], summary="Texts in order (Cohere)")
async def rerank(request: Request, body: RerankRequest) -> Response:
    """The documents that answer the query best; `relevance_score` is the sigmoid of the reranker's logit."""
    site = site_of(request)
    name = reranker_id(site, body.model)
    found = await site.service.engine.rerank(body.query, body.documents, deadline_s=remaining_s(request))
    scores = sigmoid(found.scores)
    results: list[dict[str, Any]] = [
        {"index": place, "relevance_score": float(scores[place])} for place in best_first(scores, body.top_n)
    ]
    if body.return_documents:
        results = [{**row, "document": {"text": body.documents[row["index"]]}} for row in results]
    return json_response(
        {
            "id": str(uuid.uuid4()),
            "object": "list",
            "model": name,
            "reranker_sha256": site.service.reranker_sha256,
            "results": results,
            "usage": {"total_tokens": found.tokens},
            "meta": {"api_version": {"version": request.scope["path"][2]}, "billed_units": {"search_units": 1}},
        },
        headers=_headers(site, name),
    )


@router.post("/rerank", tags=["text-embeddings-inference"], summary="Texts in order (TEI)")
async def tei_rerank(request: Request, body: TeiRerankRequest) -> Response:
    """The texts' places and scores, best first."""
    site = site_of(request)
    name = reranker_id(site, None)
    found = await site.service.engine.rerank(body.query, body.texts, deadline_s=remaining_s(request))
    scores: NDArray[np.floating[Any]] = found.scores if body.raw_scores else sigmoid(found.scores)
    rows: list[dict[str, Any]] = [{"index": place, "score": float(scores[place])} for place in best_first(scores, None)]
    if body.return_text:
        rows = [{**row, "text": body.texts[row["index"]]} for row in rows]
    return json_response(rows, headers=_headers(site, name))


def reranker_id(site: Site, asked: str | None) -> str:
    """The id of the reranker that is served.

    Args:
        site: where.
        asked: by which name the request asks for it.

    Raises:
        ServiceError: 404 there is none, or none of that name.
    """
    served = site.service.reranker_id
    if served is None:
        raise ServiceError(
            "no reranker is served", status=404, field="model", fix="Start the service with --reranker NAME."
        )
    if asked not in (None, *ALIASES, served, served.rpartition("/")[2]):
        raise ServiceError(
            f"no reranker is called {str(asked)[:80]!r}",
            status=404,
            field="model",
            possible=", ".join((served, *ALIASES)),
        )
    return served


def _headers(site: Site, name: str) -> dict[str, str]:
    """The reranker by its name and content hash; TEI's form of a reply has no other place for them."""
    return {
        "x-acclimate-model": quote(name, safe="=+@:/.-_"),
        "x-acclimate-reranker-sha256": site.service.reranker_sha256 or "",
    }


def best_first(scores: NDArray[np.floating[Any]], top: int | None) -> list[int]:
    """The places of scores, highest first, equal ones in their order; as many as `top`, or all."""
    order = np.argsort(-scores, kind="stable")
    return [int(place) for place in order[:top]]


def sigmoid(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """Logits as numbers from 0 to 1."""
    found: NDArray[np.float64] = 0.5 * (1 + np.tanh(scores.astype(np.float64) / 2))
    return found
