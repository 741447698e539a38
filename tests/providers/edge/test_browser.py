"""A browser takes names below localhost for the machine it runs on, and finds endpoints there."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path

import pytest
from tests.providers.edge.conftest import Site, endpoint
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

pytestmark = pytest.mark.root

PAGE = b"""<!doctype html><title>A site</title><script>
const socket = new WebSocket(`ws://${location.host}/talk`)
socket.onopen = () => socket.send(`${location.href} ${document.title}`)
</script>"""
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
]


@asynccontextmanager
async def browser(site: Site, url: str, profile: Path) -> AsyncIterator[None]:
    """On the host of the edge."""
    process = await asyncio.create_subprocess_exec(
        *("nsenter", f"--net={site.world.host}", "chromium", *QUIET, f"--user-data-dir={profile}", url),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def test_a_page_and_its_websocket_are_reached_by_a_name_below_localhost(
    site: Site, tmp_path: Path
) -> None:
    heard: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def talk(connection: ServerConnection) -> None:
        heard.put_nowait(await connection.recv())

    def page(connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/talk":
            return None
        kind = Headers({"Content-Type": "text/html", "Content-Length": str(len(PAGE))})
        return Response(HTTPStatus.OK, "OK", kind, PAGE)

    made = await site.plugged()
    where = site.fabric.sandbox(made.replica)
    listener = await site.world.socket(where, socket.SOCK_STREAM, ("0.0.0.0", 8080))
    await site.tell(endpoint("site.demo.localhost", made))

    async with serve(talk, sock=listener, process_request=page), asyncio.timeout(90):
        while not (await site.get("site.demo.localhost")).startswith("200"):
            await asyncio.sleep(0.1)
        async with browser(site, "http://site.demo.localhost/", tmp_path):
            said = await heard.get()

    assert said == "http://site.demo.localhost/ A site"
