"""The OpenAPI document is true: whatever it allows, no request makes the service fail."""

from __future__ import annotations

import httpx
import pytest

from tests.serve.http.world import PATIENCE_S

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is a package of [dev]")


def check(client: httpx.Client, examples: int) -> None:
    """Send requests of all routes, valid ones and others."""
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_dict(client.get("/openapi.json").json())
    url = str(client.base_url)
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=examples,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def answered(case: schemathesis.Case) -> None:
            reply = case.call(base_url=url, timeout=PATIENCE_S)
            assert reply.status_code < 500 or reply.status_code in (503, 504), (reply.status_code, reply.text)
            if reply.status_code >= 400:
                assert set(reply.json()["error"]) >= {"message", "code", "field", "fix"}

        answered()


def test_no_request_makes_the_service_fail(client: httpx.Client) -> None:
    check(client, examples=10)


@pytest.mark.long
def test_no_request_of_many_makes_the_service_fail(client: httpx.Client) -> None:
    check(client, examples=300)


def test_the_document_says_what_can_go_wrong_and_who_may_call(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["responses"]["default"]["content"]["application/json"], path
            assert operation["summary"] and operation["description"], path
    assert "swagger" in client.get("/docs").text.lower()
