"""Which model a request asks for, and whether its texts are queries or documents.

`NAME@query` and `NAME@document` are for clients that can send neither `input_type` nor `prompt_name`. Where a text
becomes the same vector on both sides, nobody has to say which it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from acclimate.serve.errors import ServiceError
from acclimate.types import Role

if TYPE_CHECKING:
    from acclimate.serve.registry import Served

SIDES: Mapping[str, Role] = {
    "query": "query",
    "search_query": "query",
    "retrieval.query": "query",
    "document": "document",
    "passage": "document",
    "corpus": "document",
    "search_document": "document",
    "retrieval.passage": "document",
}
"""What clients call the two: ours, sentence-transformers', Cohere's, Jina's."""
AT = "@"


class Asked(NamedTuple):
    """A model's name as a request has it, in its two parts."""

    name: str
    side: Role | None


class Use(NamedTuple):
    """Whose prompt is put before a request's texts."""

    role: Role
    task: str | None


def asked_model(model: str) -> Asked:
    """Split `NAME@query`; a name without a side, or with none of ours, is a name."""
    name, at, side = model.rpartition(AT)
    if at and side in ("query", "document"):
        return Asked(name, SIDES[side])
    return Asked(model, None)


def use_of(
    served: Served, side: Role | None, input_type: str | None, prompt_name: str | None, default: Role | None
) -> Use:
    """Find out whose prompt a request's texts get.

    Args:
        served: the model.
        side: of the name that it was asked for by.
        input_type: as the request has it.
        prompt_name: a side, a task of the model's prompts, or `TASK.query`.
        default: of the service.

    Raises:
        ServiceError: 422 a side that is not known or said twice, or none where it matters.
    """
    from acclimate.serve.registry import role_matters  # it needs torch, which is loaded when a request is answered

    said: dict[str, Role] = {} if side is None else {"model": side}
    task = None
    if input_type is not None:
        if input_type not in SIDES:
            raise _unknown("input_type", input_type, served)
        said["input_type"] = SIDES[input_type]
    if prompt_name is not None:
        found, task = _prompt_named(prompt_name, served)
        if found is not None:
            said["prompt_name"] = found
    if len(set(said.values())) > 1:
        given = " and ".join(f"{field} says {value}" for field, value in said.items())
        raise ServiceError(given, status=422, field=list(said)[-1], fix="Say it once.")
    role = next(iter(said.values()), default)
    if role is None:
        if role_matters(served.prompts, served.sides, task):
            raise ServiceError(
                f"{served.name} reads queries and documents differently, and the request does not say what its texts "
                "are",
                status=422,
                field="input_type",
                possible=f'input_type "query" or "document", prompt_name "query" or "document", '
                f"model {served.name}@query or {served.name}@document",
                fix="The service can have a --default-input-type.",
            )
        role = "document"
    return Use(role, task)


def _prompt_named(name: str, served: Served) -> tuple[Role | None, str | None]:
    """The side and the task that a prompt's name says."""
    if name in served.prompts.tasks:
        return None, name
    if name in SIDES:
        return SIDES[name], None
    task, _, side = name.rpartition(".")
    if task in served.prompts.tasks and side in SIDES:
        return SIDES[side], task
    raise _unknown("prompt_name", name, served)


def _unknown(field: str, value: str, served: Served) -> ServiceError:
    possible = list(SIDES) + (list(served.prompts.tasks) if field == "prompt_name" else [])
    return ServiceError(f"{field} = {value[:80]!r}", status=422, field=field, possible=", ".join(possible))
