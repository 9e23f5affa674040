"""Answers with citations: `POST /v1/answer`.

The run's index is searched, a language model reads what was found, and only what was found may be cited.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from acclimate.formats.chat import Completion, Message
from acclimate.retrieval.answers import Answer, AnswerReader, Passage, choose_passages, messages, refused, reply_of
from acclimate.retrieval.index.pictures import TEXTS, both
from acclimate.retrieval.index.records import Query
from acclimate.serve.answers import hash_headers, identity_of, named_hash, remaining_s
from acclimate.serve.errors import ServiceError
from acclimate.serve.replies import as_json, error_body, json_response
from acclimate.serve.result_cache import Identity, Reply, served
from acclimate.serve.routes.rerank import reranker_id
from acclimate.serve.routes.search import Found, Question, fused_by, ready, reranked, searched
from acclimate.serve.schemas import AnswerRequest, SearchRequest
from acclimate.serve.site import ANSWERS, Site, site_of
from acclimate.serve.strict_json import StrictRoute

if TYPE_CHECKING:
    from acclimate.retrieval.semantic_cache import Nominee
    from acclimate.serve.writer import Writer

router = APIRouter(route_class=StrictRoute)
NOTHING_SAID = Completion("")


class _Task(NamedTuple):
    """A question, ready to be answered."""

    request: Request
    site: Site
    writer: Writer
    question: Question
    asked: SearchRequest
    """The search that it needs."""

    @property
    def text(self) -> str:
        """The question."""
        return self.asked.query or ""

    @property
    def vector(self) -> NDArray[np.float32]:
        """Its vector."""
        vector = self.question.query.vector
        assert vector is not None  # there is a query, and its mode is hybrid
        return vector


class _Material(NamedTuple):
    """What a question is answered from."""

    passages: tuple[Passage, ...]
    """None where the question is refused."""
    facts: dict[str, Any]
    """What the reply says beside the answer."""

    def chat(self, question: str) -> list[Message]:
        """What the language model is told."""
        return messages(question, self.passages)


class _Keeping(NamedTuple):
    """Where the reply is kept."""

    identity: Identity | None
    near: Nominee[Reply] | None


@router.post(ANSWERS, tags=["search"], summary="An answer with citations")
async def answer(request: Request, body: AnswerRequest) -> Response:
    """What the documents of a run's index say about a question, written by a language model that cites them."""
    site = site_of(request)
    if site.writer is None:
        raise ServiceError(
            "no language model is served", status=404, fix="Start the service with --llm URL --llm-model NAME."
        )
    identity = await identity_of(request, body, body.query, {"stream"}) if body.cache else None
    if (kept := site.results.exact(identity)) is not None:
        return _replied(kept, body.stream)
    left = body.model_dump(exclude={"model", "stream"})
    asked = SearchRequest.model_validate({**left, "adapter": body.model})
    try:
        task = _Task(request, site, site.writer, await _about_texts(await ready(request, site, asked)), asked)
        near = site.results.look(identity, task.vector)
        if near is not None and near.serves:
            site.results.maybe_audit(near, functools.partial(_computed, task))
            return _replied(served(near, body.query), body.stream)
        material = await _material(task)
    except ServiceError as error:
        error.field = "model" if error.field == "adapter" else error.field  # its name in this request
        raise
    keeping = _Keeping(identity, near)
    if not body.stream or not material.passages:
        return _replied(_kept(task, keeping, await _written(task, material)), body.stream)
    pieces = task.writer.pieces(material.chat(body.query), remaining_s(request))
    first = await anext(pieces)  # what fails before it has begun is an error of the usual form
    return _events(_while_written(task, keeping, material, first, pieces), material.facts)


async def _about_texts(question: Question) -> Question:
    """Leave pictures out: the name of one is no source."""
    indexes = [one.searched for one in question.parties] or [question.searched]
    if not any([await one.has_pictures() for one in indexes]):
        return question
    return question._replace(query=dataclasses.replace(question.query, filter=both(TEXTS, question.query.filter)))


async def _computed(task: _Task) -> Reply:
    return await _written(task, await _material(task))


async def _material(task: _Task) -> _Material:
    """Search for passages; there are none where nothing is near enough to the question."""
    question, asked, site = task.question, task.asked, task.site
    index, pinned = question.searched, question.pinned
    score = _best(await searched(question._replace(query=_nearest(question.query)), asked))
    rule = index.refusal
    if rule is None or pinned is None or rule.model != (pinned.sha256 or pinned.served.base_sha256):
        rule = None
    facts: dict[str, Any] = {
        "model": task.writer.model,
        "index": index.name,
        "score": score,
        "threshold": None if rule is None else rule.threshold,
    }
    if pinned is not None:
        facts["acclimate"] = named_hash(pinned)
    if question.parties:
        facts["fused"] = fused_by(question)
    if asked.rerank is not None:
        facts |= {"reranker": reranker_id(site, None), "reranker_sha256": site.service.reranker_sha256}
    if score is None or (rule is not None and rule.refuses(score)):
        return _Material((), facts)
    hits = (await searched(question, asked)).hits
    if asked.rerank is not None:
        hits = [hit for hit, _ in await reranked(task.request, site, task.text, hits)]
    found = ((hit.id, hit.text) for hit in hits[: asked.top_k])
    return _Material(choose_passages(found, task.writer.context_tokens), facts)


def _best(found: Found) -> float | None:
    """The highest cosine; of results that are fused, before they are."""
    lists = list(found.by_party.values()) or [found.hits]
    return max((hits[0].score for hits in lists if hits), default=None)


def _nearest(query: Query) -> Query:
    return Query(None, query.vector, "dense", 1, query.filter)


async def _written(task: _Task, material: _Material) -> Reply:
    """The whole reply, written at once."""
    if not material.passages:
        return _told(task, refused(task.text), NOTHING_SAID, material)
    said = await task.writer.whole(material.chat(task.text), remaining_s(task.request))
    reader = AnswerReader(task.text, material.passages)
    reader.feed(said.text)
    reader.end()
    return _told(task, reader.answer, said, material)


def _told(task: _Task, answer: Answer, said: Completion, material: _Material) -> Reply:
    """The reply; it is counted."""
    refusal = "refused by the language model" if material.passages else "refused by score"
    task.site.metrics.answers.labels("answered" if answer.answered else refusal).inc()
    task.site.metrics.struck.inc(answer.struck)
    usage = {
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": said.completion_tokens,
        "context_tokens": sum(one.tokens for one in material.passages),
    }
    return {**reply_of(answer), "usage": usage, **material.facts}


def _kept(task: _Task, keeping: _Keeping, reply: Reply) -> Reply:
    """The reply, which is kept for requests like this one."""
    task.site.results.keep(keeping.identity, reply, task.vector, keeping.near)
    return reply


async def _while_written(
    task: _Task,
    keeping: _Keeping,
    material: _Material,
    first: str | Completion,
    pieces: AsyncGenerator[str | Completion],
) -> AsyncIterator[dict[str, Any]]:
    """The events of an answer: what may be shown, as soon as that is known, and at last the whole reply."""
    reader, item = AnswerReader(task.text, material.passages), first
    try:
        while not isinstance(item, Completion):
            if shown := reader.feed(item):
                yield {"delta": shown}
            item = await anext(pieces)
    except ServiceError as error:
        task.site.metrics.answers.labels("failed").inc()
        yield error_body(error, task.request.state.exchange.id)
        return
    finally:
        await pieces.aclose()
    if shown := reader.end():
        yield {"delta": shown}
    reply = _kept(task, keeping, _told(task, reader.answer, item, material))
    yield {"done": {"cache": None, **reply}}


def _replied(reply: Reply, stream: bool) -> Response:
    """A reply that is whole already."""

    async def events() -> AsyncIterator[dict[str, Any]]:
        yield {"delta": reply["answer"]}
        yield {"done": {"cache": None, **reply}}

    if stream:
        return _events(events(), reply)
    return json_response({"cache": None, **reply}, headers=hash_headers(reply.get("acclimate", {})))


def _events(values: AsyncIterator[dict[str, Any]], facts: dict[str, Any]) -> Response:
    """Values as server-sent events."""

    async def lines() -> AsyncIterator[bytes]:
        async for value in values:
            yield b"data: " + as_json(value) + b"\n\n"

    headers = {**hash_headers(facts.get("acclimate", {})), "cache-control": "no-cache"}
    return StreamingResponse(lines(), media_type="text/event-stream", headers=headers)
