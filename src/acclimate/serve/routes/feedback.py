"""What searchers make of what they were shown: `POST /v1/feedback`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from acclimate.feedback.records import Mark
from acclimate.serve.errors import ServiceError
from acclimate.serve.replies import json_response
from acclimate.serve.schemas import FeedbackRequest, MarkIn
from acclimate.serve.site import Site, site_of
from acclimate.serve.strict_json import StrictRoute

if TYPE_CHECKING:
    from acclimate.serve.feedback import ServedFeedback

router = APIRouter(route_class=StrictRoute)


@router.post("/v1/feedback", tags=["search"], summary="Marks of searchers")
async def feedback(request: Request, body: FeedbackRequest) -> Response:
    """Keep marks: relevant, not_relevant, click, or another name. What cannot be kept is named, by its place."""
    site = site_of(request)
    site.check_writable()
    if not site.feedback:
        raise ServiceError("the service keeps no feedback", status=404, fix="Start it with --feedback.")
    if len(body.marks) > site.settings.max_inputs:
        most = f"up to {site.settings.max_inputs:,}"
        raise ServiceError(f"{len(body.marks):,} marks", status=413, field="marks", possible=most)
    stored = repeated = 0
    refused: list[dict[str, Any]] = []
    for kept, places in await _by_run(site, body):
        added = await kept.mark([_mark(body.marks[place]) for place in places])
        stored, repeated = stored + added.stored, repeated + added.repeated
        refused += [{"index": places[one.index], "reason": one.reason} for one in added.refused]
    refused.sort(key=lambda one: int(one["index"]))
    return json_response({"stored": stored, "repeated": repeated, "refused": refused})


async def _by_run(site: Site, body: FeedbackRequest) -> list[tuple[ServedFeedback, list[int]]]:
    """The runs that marks are for, each with the places of its marks: the one that is named, or whose impressions they
    are; one of an impression that nobody knows goes to the first, which says so."""
    every = range(len(body.marks))
    if body.index is not None or len(site.feedback) == 1:
        return [(site.feedback[site.index(body.index).name], list(every))]
    places: dict[str, list[int]] = {name: [] for name in site.feedback}
    known = {name: await kept.known(_impressions(body.marks)) for name, kept in site.feedback.items()}
    for place in every:
        impression = body.marks[place].impression_id
        if impression is None:
            site.index(None)  # says that several are served, and which
        owner = next((name for name in known if impression in known[name]), next(iter(places)))
        places[owner].append(place)
    return [(site.feedback[name], found) for name, found in places.items() if found]


def _impressions(marks: Sequence[MarkIn]) -> list[str]:
    return [mark.impression_id for mark in marks if mark.impression_id is not None]


def _mark(given: MarkIn) -> Mark:
    return Mark(given.id, given.mark, given.query, given.impression_id, given.user)
