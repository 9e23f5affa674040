"""Acclimate adapts a text-embedding model to a domain, proves that it got better, and serves it.

The public face. Each name is imported when it is first asked for: `import acclimate` loads nothing.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from acclimate import errors
    from acclimate.configs import RunConfig
    from acclimate.flows.export import export, tune, vectors
    from acclimate.flows.feedback_verbs import export_feedback, feedback_info, import_feedback, refresh, rollback
    from acclimate.flows.from_documents import pairs
    from acclimate.flows.image_verbs import search_by_picture, search_pictures
    from acclimate.flows.index_verbs import (
        adopt_index,
        answer,
        evaluate_index,
        export_index,
        index,
        move_index,
        reencode_index,
        route,
        search,
    )
    from acclimate.flows.verbs import (
        adapt,
        compare,
        evaluate,
        evaluate_reranker,
        merge,
        mine,
        prepare,
        similarity,
        train,
        train_reranker,
    )
    from acclimate.models.adapter_set import AdapterSet, Row
    from acclimate.models.encoder import Encoder
    from acclimate.models.reranker import Reranker
    from acclimate.runs.resolve import load

__all__ = [
    "AdapterSet",
    "Encoder",
    "Reranker",
    "Row",
    "RunConfig",
    "adapt",
    "adopt_index",
    "answer",
    "compare",
    "errors",
    "evaluate",
    "evaluate_index",
    "evaluate_reranker",
    "export",
    "export_feedback",
    "export_index",
    "feedback_info",
    "import_feedback",
    "index",
    "load",
    "merge",
    "mine",
    "move_index",
    "pairs",
    "prepare",
    "reencode_index",
    "refresh",
    "rollback",
    "route",
    "search",
    "search_by_picture",
    "search_pictures",
    "similarity",
    "train",
    "train_reranker",
    "tune",
    "vectors",
]

_PLACES = {
    "AdapterSet": "acclimate.models.adapter_set:AdapterSet",
    "Row": "acclimate.models.adapter_set:Row",
    "Encoder": "acclimate.models.encoder:Encoder",
    "Reranker": "acclimate.models.reranker:Reranker",
    "RunConfig": "acclimate.configs:RunConfig",
    **{name: f"acclimate.flows.export:{name}" for name in ("export", "tune", "vectors")},
    "load": "acclimate.runs.resolve:load",
    "pairs": "acclimate.flows.from_documents:pairs",
    **{
        name: f"acclimate.flows.feedback_verbs:{name}"
        for name in ("export_feedback", "feedback_info", "import_feedback", "refresh", "rollback")
    },
    "search_by_picture": "acclimate.flows.image_verbs:search_by_picture",
    "search_pictures": "acclimate.flows.image_verbs:search_pictures",
    **{
        name: f"acclimate.flows.index_verbs:{name}"
        for name in (
            "adopt_index",
            "answer",
            "evaluate_index",
            "export_index",
            "index",
            "move_index",
            "reencode_index",
            "route",
            "search",
        )
    },
}
"""Name -> where it is; the other verbs are in `flows.verbs`, under their own names."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'acclimate' has no attribute {name!r}")
    if name == "errors":
        return importlib.import_module("acclimate.errors")
    module, _, attribute = _PLACES.get(name, f"acclimate.flows.verbs:{name}").partition(":")
    with _no_collection():
        value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


@contextmanager
def _no_collection() -> Iterator[None]:
    """Import without looking for garbage: torch and transformers make a million objects that stay, and going through
    them again and again takes half a second. They end up among the old objects, where they would have come anyway."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_freeze_count() == 0:  # else somebody froze objects of their own, for a fork
            gc.freeze()
            gc.unfreeze()
        if collects:
            gc.enable()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
