"""What the service says: one shape for every error, and JSON written once.

```
{"error": {"message", "type", "code", "field", "param", "fix", "request_id"}}
```
`message` says what was found and what is possible, `fix` what to do; `field` names the part of the request, and
`param` is the same, by the name under which OpenAI's clients look for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from acclimate.errors import AcclimateError, DataError, MissingExtraError, ModelError, StorageError, UsageError
from acclimate.serve.errors import ServiceError

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout_of_request",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    421: "unknown_host",
    422: "invalid_value",
    431: "too_large",
    429: "too_much_waiting",
    500: "internal_error",
    501: "not_installed",
    502: "language_model_failed",
    503: "not_available",
    504: "deadline_exceeded",
}
"""Status -> one word for programs."""
_STATUS: dict[type[AcclimateError], int] = {
    UsageError: 422,
    DataError: 422,
    ModelError: 422,
    StorageError: 503,
    MissingExtraError: 501,
}
"""Our error -> status, where a route says nothing better."""


def as_service_error(error: AcclimateError) -> ServiceError:
    """Give one of our errors a status; one that has its own keeps it."""
    if isinstance(error, ServiceError):
        return error
    status = next((found for kind, found in _STATUS.items() if isinstance(error, kind)), 500)
    return ServiceError(error.found, status=status, possible=error.possible, fix=error.fix)


def error_response(error: ServiceError, request_id: str, headers: Mapping[str, str] | None = None) -> Response:
    """Write an error as its reply.

    Args:
        error: what is wrong.
        request_id: by which it is found in the logs.
        headers: further ones of the reply.
    """
    more = dict(headers or {})
    if error.retry_after_s is not None:
        more["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    if error.status == 401:
        more["www-authenticate"] = "Bearer"
    return json_response(error_body(error, request_id), status=error.status, headers=more)


def error_body(error: ServiceError, request_id: str) -> dict[str, Any]:
    """Give the JSON of an error; arguments are those of `error_response`."""
    code = _CODES.get(error.status, "error")
    said = {
        "message": str(AcclimateError(error.found, possible=error.possible)),
        "type": _TYPES.get(error.status, "server_error" if error.status >= 500 else "invalid_request_error"),
        "code": "model_not_found" if (error.status, error.field) == (404, "model") else code,
        "field": error.field or None,
        "param": error.field or None,
        "fix": error.fix or None,
        "request_id": request_id,
    }
    return {"error": said}


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Write a value as JSON; numpy's numbers and arrays as they are, float32 in as few digits as it has."""
    return Response(as_json(value), status, headers=headers, media_type="application/json")


def as_json(value: Any) -> bytes:
    """Write a value as `json_response` does."""
    return orjson.dumps(value, option=_OPTIONS)
