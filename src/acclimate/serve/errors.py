"""ServiceError: a request that the service refuses or fails, with the HTTP status that says so."""

from __future__ import annotations

from acclimate.errors import AcclimateError


class ServiceError(AcclimateError):
    """A request that was refused, or failed.

    Args:
        found: what was found.
        status: HTTP's status code: 400, 404, 409, 413, 422, 429, 500, 503 or 504.
        field: the field of the request that is wrong; empty where none is.
        retry_after_s: seconds after which the same request may be accepted (429 and 503).
        possible: what would have been accepted.
        fix: what the client can do.
    """

    def __init__(
        self,
        found: str,
        *,
        status: int,
        field: str = "",
        retry_after_s: float | None = None,
        possible: str = "",
        fix: str = "",
    ) -> None:
        super().__init__(found, possible=possible, fix=fix)
        self.status = status
        self.field = field
        self.retry_after_s = retry_after_s
