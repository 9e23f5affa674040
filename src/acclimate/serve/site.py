"""Site: what all routes share: settings, keys, metrics, the models once they are loaded, the indexes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request

from acclimate.configs.serve import ServeConfig
from acclimate.serve.access import Keys
from acclimate.serve.errors import ServiceError
from acclimate.serve.metrics import Metrics
from acclimate.serve.result_cache import ResultCache

if TYPE_CHECKING:  # torch, which /livez does not wait for
    from acclimate.serve.feedback import ServedFeedback
    from acclimate.serve.indexes import ServedIndex
    from acclimate.serve.opening import Service
    from acclimate.serve.pictures import ServedPictures
    from acclimate.serve.writer import Writer

ANSWERS = "/v1/answer"
"""The path of the requests that may take longer than others."""
RETRY_LOADING_S = 2.0


@dataclass(slots=True)
class Site:
    """The state of one service; changed by its event loop only."""

    settings: ServeConfig
    keys: Keys
    metrics: Metrics
    results: ResultCache
    """What was answered before."""
    writer: Writer | None = None
    """The language model that answers; None where there is none."""
    loaded: Service | None = None
    """None while the models are loaded."""
    indexes: dict[str, ServedIndex] = field(default_factory=dict)
    """Name of a run -> its index."""
    pictures: dict[str, ServedPictures] = field(default_factory=dict)
    """The same names -> what turns pictures into vectors, of runs that have a projection."""
    feedback: dict[str, ServedFeedback] = field(default_factory=dict)
    """The same names -> what is shown and marked there; empty where it is not kept."""
    failure: Exception | None = None
    """Why nothing could be loaded."""
    is_draining: bool = False

    @staticmethod
    def new(settings: ServeConfig) -> Site:
        """Make a site that has not loaded anything.

        Raises:
            DataError: the file of keys cannot be used.
        """
        keys = Keys(None if settings.keys is None else Path(settings.keys))
        return Site(settings, keys, Metrics(), ResultCache(int(settings.results_mb * 1e6), settings.semantic_entries))

    def deadline_s(self, path: str) -> float:
        """How long a request to a path may take, in seconds."""
        return self.settings.answer_deadline_s if path == ANSWERS else self.settings.deadline_s

    @property
    def service(self) -> Service:
        """The models; there when `check_running` has let a request pass."""
        assert self.loaded is not None
        return self.loaded

    def check_running(self) -> None:
        """Refuse a request that comes too early or too late.

        Raises:
            ServiceError: 503.
        """
        if self.is_draining:
            raise ServiceError("the service is being stopped", status=503, retry_after_s=RETRY_LOADING_S)
        if self.loaded is None or not self.loaded.engine.ready:
            alive = self.loaded is None or self.loaded.engine.alive
            said = "the models are being loaded" if alive else "the thread that runs the models has stopped"
            raise ServiceError(said, status=503, retry_after_s=RETRY_LOADING_S)

    def check_writable(self) -> None:
        """Refuse to change anything where this is a replica.

        Raises:
            ServiceError: 403.
        """
        if self.settings.read_only:
            raise ServiceError(
                "this is a replica, which only reads (--read-only)",
                status=403,
                fix="Send it to the one service that writes.",
            )

    def pictures_of(self, model: str) -> ServedPictures:
        """Find what turns pictures into vectors in the space of a model.

        Raises:
            ServiceError: 422 there is none.
        """
        found = [one for one in self.pictures.values() if one.model == model]
        if not found:
            names = dict.fromkeys(one.model for one in self.pictures.values())
            raise ServiceError(
                f"no pictures are served for the model {model[:80]!r}",
                status=422,
                field="model",
                possible=", ".join(names) or "texts: no run is served that has a projection of pictures",
            )
        return found[0]

    def pictures_in(self, index: ServedIndex) -> ServedPictures:
        """Find what turns pictures into vectors of an index.

        Raises:
            ServiceError: 422 its run has no projection.
        """
        found = self.pictures.get(index.name)
        if found is None:
            raise ServiceError(
                f"the run {index.name} has no projection of pictures",
                status=422,
                field="index",
                possible=", ".join(self.pictures) or "none: no run is served that has one",
            )
        return found

    def index(self, name: str | None) -> ServedIndex:
        """Find an index by the name of its run; with one run, no name is needed.

        Raises:
            ServiceError: 404 there is none of that name, 422 there are several.
        """
        names = ", ".join(self.indexes)
        if name is None and len(self.indexes) == 1:
            return next(iter(self.indexes.values()))
        if name is None and self.indexes:
            raise ServiceError(
                "several runs are served, and the request names none", status=422, field="index", possible=names
            )
        if name is None or name not in self.indexes:
            raise ServiceError(
                "no run is served that could have an index" if not names else f"no index is called {str(name)[:80]!r}",
                status=404,
                field="index",
                possible=names,
            )
        return self.indexes[name]


def site_of(request: Request) -> Site:
    """The site that a request came to."""
    site: Site = request.app.state.site
    return site
