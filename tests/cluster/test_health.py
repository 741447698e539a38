"""How a worker tells that it lives, and a database that is brought to its schema by somebody else."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from tests.bench.installation import free_port

from skep.configuration import Configuration
from skep.main import migrate
from skep.main.database import open_database
from skep.main.health import answer, health_told
from skep.model.errors import Conflict, Unavailable


@pytest.mark.parametrize(
    ("head", "ready", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", False, b"200"),
        (b"GET /readyz HTTP/1.1\r\n\r\n", False, b"503"),
        (b"GET /readyz?verbose HTTP/1.1\r\n\r\n", True, b"200"),
        (b"GET /v1/apps HTTP/1.1\r\n\r\n", True, b"404"),
        (b"POST /healthz HTTP/1.1\r\n\r\n", True, b"404"),
        (b"\r\n\r\n", True, b"404"),
    ],
)
def test_health_and_nothing_else_is_told(head: bytes, ready: bool, status: bytes) -> None:
    assert answer(head, ready).split()[1] == status


async def test_a_worker_says_by_http_that_it_lives_and_when_it_is_ready() -> None:
    port, up = free_port(), asyncio.Event()

    async with health_told(("127.0.0.1", port), up.is_set), httpx.AsyncClient(trust_env=False) as client:
        url = f"http://127.0.0.1:{port}"
        alive = (await client.get(f"{url}/healthz")).status_code
        before = (await client.get(f"{url}/readyz")).status_code
        up.set()
        after = (await client.get(f"{url}/readyz")).status_code

    assert (alive, before, after) == (200, 503, 200)


async def test_an_address_that_is_taken_is_named() -> None:
    port = free_port()

    async with health_told(("127.0.0.1", port), bool):
        with pytest.raises(Conflict, match=str(port)):
            async with health_told(("127.0.0.1", port), bool):
                pass


async def test_a_process_that_waits_for_its_schema_begins_when_it_is_there(tmp_path: Path) -> None:
    settings = Configuration(data=tmp_path, etc=tmp_path, migrations="await")

    async with AsyncExitStack() as stack:
        waiting = asyncio.create_task(open_database(stack, settings))
        await asyncio.sleep(0)
        begun = waiting.done()
        await migrate.run(settings)
        await migrate.run(settings)
        await waiting

    assert not begun
    assert (tmp_path / "admin.token").exists()


async def test_a_database_that_refuses_is_not_waited_for(tmp_path: Path) -> None:
    settings = Configuration(data=tmp_path / "absent", migrations="await")

    async with AsyncExitStack() as stack:
        with pytest.raises(Unavailable):
            await open_database(stack, settings)
