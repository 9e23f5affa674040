"""Vectors of texts: `POST /v1/embeddings` as OpenAI has it, and `POST /embed` as text-embeddings-inference has it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from acclimate.serve.answers import hash_headers, named_hash, remaining_s
from acclimate.serve.errors import ServiceError
from acclimate.serve.image_input import GivenPicture
from acclimate.serve.replies import json_response
from acclimate.serve.schemas import EmbeddingsRequest, TeiEmbedRequest
from acclimate.serve.sides import asked_model, use_of
from acclimate.serve.site import Site, site_of
from acclimate.serve.strict_json import StrictRoute

if TYPE_CHECKING:
    from acclimate.serve.engine import Embedded
    from acclimate.serve.registry import Pinned

router = APIRouter(route_class=StrictRoute)


@router.post("/v1/embeddings", tags=["embeddings"], summary="Vectors of texts (OpenAI)")
async def embeddings(request: Request, body: EmbeddingsRequest) -> Response:
    """Vectors of one or several texts, in their order; `model` says with which adapter, or `base`."""
    site = site_of(request)
    given = body.input if body.messages is None else body.messages
    if given is None or (body.input is not None and body.messages is not None):
        raise ServiceError("input: one of input and messages is needed", status=422, field="input")
    if any(isinstance(item, GivenPicture) for item in given):
        found, pinned = await _with_pictures(request, body, given)
    else:
        found, pinned = await _embedded(
            request, _texts(site, given), body.model, body.input_type, body.prompt_name, body.dimensions
        )
    named, vectors = named_hash(pinned), list[Any](found.vectors)
    if body.encoding_format == "base64":
        vectors = [base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode() for row in vectors]
    return json_response(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(vectors)],
            "model": body.model,
            "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
            "acclimate": named,
        },
        headers=hash_headers(named),
    )


@router.post("/embed", tags=["text-embeddings-inference"], summary="Vectors of texts (TEI)")
async def embed(request: Request, body: TeiEmbedRequest) -> Response:
    """Vectors of one or several texts as a list of lists; the headers name the model and its hash."""
    model = body.model or only_model(site_of(request))
    found, pinned = await _embedded(request, body.inputs, model, None, body.prompt_name, body.dimensions)
    return json_response(list(found.vectors), headers=hash_headers(named_hash(pinned)))


def only_model(site: Site) -> str:
    """The model of a request that cannot name one: the only adapter, or the base where there is none.

    Raises:
        ServiceError: 422 there are several.
    """
    names = [model.name for model in site.service.registry.models()]
    if len(names) > 2:
        raise ServiceError(
            "several models are served, and the request names none",
            status=422,
            field="model",
            possible=", ".join(names),
        )
    return names[-1]


async def _embedded(
    request: Request,
    texts: Sequence[str],
    model: str,
    input_type: str | None,
    prompt_name: str | None,
    dimensions: int | None,
) -> tuple[Embedded, Pinned]:
    """The vectors, and what they were computed with."""
    site = site_of(request)
    asked = asked_model(model)
    pinned = site.service.registry.pin(asked.name)
    served = pinned.served
    role, task = use_of(served, asked.side, input_type, prompt_name, site.settings.default_input_type)
    if dimensions is not None and dimensions != served.dim and not (served.matryoshka and dimensions < served.dim):
        possible = f"1 to {served.dim}" if served.matryoshka else f"{served.dim}: {served.name} is no Matryoshka model"
        raise ServiceError(f"dimensions = {dimensions}", status=400, field="dimensions", possible=possible)
    found = await site.service.engine.embed(
        texts, pinned=pinned, role=role, task=task, dim=dimensions, deadline_s=remaining_s(request)
    )
    return found, pinned


async def _with_pictures(
    request: Request, body: EmbeddingsRequest, items: Sequence[str | GivenPicture]
) -> tuple[Embedded, Pinned]:
    """The vectors of pictures, and of texts among them, in the order of the request."""
    from acclimate.serve.engine import Embedded
    from acclimate.serve.pictures import check_same_space

    site, name = site_of(request), asked_model(body.model).name
    pictures = site.pictures_of(name)
    pinned = site.service.registry.pin(name)
    check_same_space(pictures, pinned.served.space)
    if body.dimensions not in (None, pinned.served.dim):
        possible = f"{pinned.served.dim}, all of them, of pictures"
        raise ServiceError(f"dimensions = {body.dimensions}", status=400, field="dimensions", possible=possible)
    is_picture = np.array([isinstance(item, GivenPicture) for item in items])
    given = [item.data for item in items if isinstance(item, GivenPicture)]
    vectors, tokens = np.empty((len(items), pinned.served.dim), np.float32), 0
    vectors[is_picture] = await pictures.vectors(given, remaining_s(request))
    if texts := [item for item in items if isinstance(item, str)]:
        of_texts, pinned = await _embedded(request, texts, body.model, body.input_type, body.prompt_name, None)
        vectors[~is_picture], tokens = of_texts.vectors, of_texts.tokens
    return Embedded(vectors, tokens), pinned


def _texts(site: Site, given: list[str] | list[list[int]]) -> list[str]:
    """The texts of a request; token ids are turned back into texts, where that is allowed."""
    texts = [item for item in given if isinstance(item, str)]
    if texts:
        return texts
    if not site.settings.accept_token_ids:
        raise ServiceError(
            "input holds token ids, and of which tokenizer they are cannot be known: those of another one give "
            "plausible, wrong vectors",
            status=400,
            field="input",
            possible="texts",
            fix="LangChain's OpenAIEmbeddings sends texts with check_embedding_ctx_length=False. Ids of this model's "
            "own tokenizer are accepted by a service that was started with --accept-token-ids.",
        )
    return [site.service.engine.text_of(ids) for ids in given if not isinstance(ids, str)]
