"""What one tenant may use of the API that all share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from tests.api.conftest import serving
from tests.api.fake_control import FakeControl

from skep.api import crowd

GREEDY = {"Authorization": "Bearer member-secret"}
OTHER = {"Authorization": "Bearer admin-secret", "X-Skep-Tenant": "other"}
TRIED = 40


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    (tmp_path / "spool").mkdir()
    async with (
        serving(FakeControl(tmp_path / "spool").as_control()) as url,
        httpx.AsyncClient(base_url=url, limits=httpx.Limits(max_connections=None)) as made,
    ):
        yield made


async def follow(client: httpx.AsyncClient, stack: AsyncExitStack) -> int:
    """Follow what never ends; the status of the answer."""
    opened = await stack.enter_async_context(client.stream("GET", "/v1/events", headers=GREEDY))
    return opened.status_code


async def followed(client: httpx.AsyncClient) -> tuple[list[int], int]:
    """What one tenant gets that follows all it can, and another one that only asks."""
    async with AsyncExitStack() as stack:
        answers = [await follow(client, stack) for _ in range(TRIED)]
        asked = await client.get("/v1/apps", headers=OTHER)
    return answers, asked.status_code


async def test_a_tenant_cannot_follow_without_end(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "AT_ONCE", 30)

    answers, other = await followed(client)

    assert answers == [200] * 30 + [429] * 10
    assert other == 200


async def test_streams_that_ended_do_not_count(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "AT_ONCE", 30)
    await followed(client)

    async with asyncio.timeout(10):
        while (await client.get("/v1/apps", headers=GREEDY)).status_code != 200:
            await asyncio.sleep(0.05)


async def test_a_tenant_follows_without_end_where_nobody_counts(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crowd, "AT_ONCE", 1_000_000)

    answers, _ = await followed(client)

    assert answers == [200] * TRIED
