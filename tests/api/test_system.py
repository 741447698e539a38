"""What everybody may see, and that nothing else is."""

import re
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
from litestar import Litestar
from litestar.routes import HTTPRoute, WebSocketRoute
from tests.api.fake_control import FakeControl
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from skep.api.app import build_app
from skep.api.errors import problem_of
from skep.api.openapi import describe, document
from skep.flow import CommitFailed, Fenced

GOLDEN = Path(__file__).parent / "golden" / "openapi.json"

PUBLIC = {
    *("GET /v1", "GET /healthz", "GET /readyz", "GET /v1/openapi.json", "GET /v1/docs"),
    *("GET /v1/authority", "POST /v1/hosts/renew", "POST /v1/hosts/belongs"),
}
"""`GET /metrics` looks at the token itself: an installation may open it to everybody.
Hosts renew, and ask whether they are hosts still, by a signature."""


def _routes() -> list[str]:
    app: Litestar = build_app(None)  # type: ignore[arg-type]  # routes only
    found = []
    for route in app.routes:
        path = re.sub(r"{(\w+):\w+}", r"{\1}", route.path)
        if isinstance(route, HTTPRoute):
            found += [f"{method} {path}" for method in route.methods if method not in ("OPTIONS", "HEAD")]
        elif isinstance(route, WebSocketRoute):
            found.append(f"WEBSOCKET {path}")
    return sorted(found)


async def _refusal(url: str, route: str, headers: dict[str, str]) -> tuple[int, str]:
    """Status and media type of what a stranger gets."""
    method, _, path = route.partition(" ")
    path = re.sub(r"{\w+}", "x", path)
    if method == "WEBSOCKET":
        with pytest.raises(InvalidStatus) as refused:
            await connect(url.replace("http", "ws") + path, additional_headers=headers)
        answer = refused.value.response
        return answer.status_code, answer.headers["content-type"]
    async with httpx.AsyncClient(base_url=url) as stranger:
        reply = await stranger.request(method, path, headers=headers)
    return reply.status_code, reply.headers["content-type"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic eA=="}])
async def test_every_route_refuses_strangers(url: str, headers: dict[str, str]) -> None:
    closed = [route for route in _routes() if route not in PUBLIC]

    refusals = {route: await _refusal(url, route, headers) for route in closed}

    assert refusals == dict.fromkeys(closed, (401, "application/problem+json"))


def test_the_list_of_public_routes_is_exact() -> None:
    assert set(_routes()) >= PUBLIC
    assert len(_routes()) > 40


async def test_version_and_health_need_no_token(stranger: httpx.AsyncClient) -> None:
    for path in ("/v1", "/healthz", "/readyz", "/v1/openapi.json", "/v1/docs"):
        assert (await stranger.get(path)).status_code == 200


async def test_metrics_are_for_operators_unless_they_are_open(url: str, control: FakeControl) -> None:
    async def status(secret: str) -> int:
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        async with httpx.AsyncClient(base_url=url, headers=headers) as one:
            return (await one.get("/metrics")).status_code

    assert [await status(secret) for secret in ("", "viewer-secret", "admin-secret")] == [401, 403, 200]
    control.metrics.public = True
    assert await status("") == 200


async def test_it_is_not_ready_before_it_says_so(control: FakeControl) -> None:
    app = build_app(control.as_control(), ready=lambda: False)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(cast(Any, app)), base_url="http://skep"
    ) as client:
        answer = await client.get("/readyz")

    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def test_the_description_is_the_golden_one() -> None:
    """Refresh it with `python -m tests.api.refresh_golden` and read the difference."""
    assert msgspec.json.decode(document()) == msgspec.json.decode(GOLDEN.read_bytes())


def test_every_operation_is_described() -> None:
    for path, operations in describe()["paths"].items():
        for method, operation in operations.items():
            assert operation["tags"], (method, path)
            assert operation["description"], (method, path)


async def test_the_page_of_the_api_asks_nobody_else(stranger: httpx.AsyncClient) -> None:
    page = (await stranger.get("/v1/docs")).text

    assert "http://" not in page
    assert "https://" not in page


async def test_an_unknown_path_is_a_problem_document(stranger: httpx.AsyncClient) -> None:
    answer = await stranger.get("/v1/nothing")

    assert answer.status_code == 404
    assert answer.json()["code"] == "not-found"


@pytest.mark.parametrize(
    "error", [CommitFailed("the disk is full"), Fenced("worker w is held for dead")], ids=["commit", "fenced"]
)
def test_what_may_work_at_the_next_try_is_no_internal_error(error: Exception) -> None:
    problem = problem_of(error)

    assert (problem.status, problem.code) == (503, "unavailable")
    assert "othing was changed" in (problem.detail or "")
