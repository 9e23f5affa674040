"""What this service can do, for a client that shows only what is there: `GET /v1/capabilities`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from acclimate.core.filters import Metadata, Scalar
from acclimate.errors import AcclimateError
from acclimate.retrieval.routing import ROUTE_MODES
from acclimate.serve.answers import space_of
from acclimate.serve.replies import json_response
from acclimate.serve.site import Site, site_of
from acclimate.serve.strict_json import StrictRoute

if TYPE_CHECKING:
    from acclimate.serve.embedding_cache import CacheState
    from acclimate.serve.indexes import IndexSummary, ServedIndex

router = APIRouter(route_class=StrictRoute, tags=["models"])
MAX_VALUES = 12
"""A field with more values has none of them listed: nobody chooses from a list of a hundred."""

FEATURES: Mapping[str, Callable[[Site], Any]] = {
    "rerank": lambda site: site.service.reranker_id,
    "feedback": lambda site: bool(site.feedback),
    "answer": lambda site: None if site.writer is None else site.writer.model,
    "route": lambda site: _routes(site),
    "pictures": lambda site: list(site.pictures),
}
"""What not every service has -> what there is to say of it; None or false where it is not there."""
CACHES: Mapping[str, Callable[[Site], Any]] = {
    "embeddings": lambda site: _numbers(site.service.engine.cache()),
    "results": lambda site: _results(site),
    "semantic": lambda site: _semantic(site),
}
"""Name of a cache -> its state, numbers by name; None where there is none."""


@router.get("/v1/capabilities", summary="What this service can do")
async def capabilities(request: Request) -> Response:
    """Its features, its indexes with the fields of their documents, and what its caches hold."""
    site = site_of(request)
    states = {name: state(site) for name, state in CACHES.items()}
    return json_response(
        {
            "version": version("acclimate"),
            "base": site.service.registry.models()[0].base_id,
            "features": {name: feature(site) for name, feature in FEATURES.items()},
            "indexes": [await _index(site, one) for one in site.indexes.values()],
            "caches": {name: state for name, state in states.items() if state is not None},
        }
    )


def _numbers(state: CacheState | None) -> dict[str, int] | None:
    return None if state is None else state._asdict()


def _results(site: Site) -> dict[str, int] | None:
    """Replies that are kept for the same request."""
    if not site.settings.results_mb:
        return None
    kept = site.results
    return {"entries": len(kept), "bytes": kept.bytes_used, "hits": kept.exact_hits, "misses": kept.exact_misses}


def _semantic(site: Site) -> dict[str, int] | None:
    """Replies that are kept for requests that mean the same."""
    kept, counts = site.results.semantic, site.results.counts
    if kept is None or counts is None:
        return None
    row = {"entries": len(kept), "hits": counts.hits, "misses": counts.queries - counts.hits}
    return {**row, "shadows": counts.shadows, "audited": counts.audited, "false_hits": counts.false_hits}


def _routes(site: Site) -> list[str]:
    """The ways of choosing adapters by the query; none where no adapter says where its queries lie."""
    known = any(model.domain is not None for model in site.service.registry.models())
    return list(ROUTE_MODES) if known else []


async def _index(site: Site, index: ServedIndex) -> dict[str, Any]:
    """One index; of one that cannot be read, why."""
    row = {"name": index.name, "model": index.model, "task": index.task}
    try:
        summary = await index.summary()
    except AcclimateError as error:
        return {**row, "documents": 0, "pictures": 0, "models": [], "fields": [], "problem": error.found}
    return {**row, **_facts(summary), "models": _models(site, index, summary), "problem": None}


def _facts(summary: IndexSummary) -> dict[str, Any]:
    info = summary.info
    return {
        "documents": info.documents,
        "pictures": summary.pictures,
        "backend": info.backend,
        "space": info.space.digest,
        "epoch": info.details.get("seq"),
        "bytes": info.details.get("bytes"),
        "language": summary.language,
        "fields": fields_of(summary.sample),
    }


def _models(site: Site, index: ServedIndex, summary: IndexSummary) -> list[str]:
    """The models whose queries may search it: their document vectors are those that it holds."""
    models = site.service.registry.models()
    return [one.name for one in models if not summary.info.space.differences(space_of(one, index.task))]


def fields_of(sample: Iterable[Metadata]) -> list[dict[str, Any]]:
    """The metadata fields of some documents, the most frequent first, for those who write filters.

    Returns:
        `name`, `kind` (text, number, flag, mixed), `documents` (how many have it), `values` (the most frequent first;
        empty where there are more than `MAX_VALUES`), and of numbers `least` and `most`.
    """
    holders: Counter[str] = Counter()
    values: dict[str, Counter[Scalar]] = {}
    for metadata in sample:
        for name, value in metadata.items():
            holders[name] += 1
            values.setdefault(name, Counter()).update(value if isinstance(value, tuple) else (value,))
    return [_field(name, count, values[name]) for name, count in holders.most_common()]


def _field(name: str, documents: int, values: Counter[Scalar]) -> dict[str, Any]:
    kinds = {_kind(value) for value in values}
    kind = kinds.pop() if len(kinds) == 1 else "mixed"
    listed = [value for value, _ in values.most_common()] if len(values) <= MAX_VALUES else []
    row = {"name": name, "kind": kind, "documents": documents, "values": listed}
    if kind == "number":
        numbers = [float(value) for value in values]
        row |= {"least": min(numbers), "most": max(numbers)}
    return row


def _kind(value: Scalar) -> str:
    if isinstance(value, bool):
        return "flag"
    return "text" if isinstance(value, str) else "number"
