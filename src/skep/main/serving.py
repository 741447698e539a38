"""Serves the API on a listener, until somebody asks the process to end."""

import asyncio
import socket
from contextlib import AsyncExitStack

import structlog

from skep.api.app import build_app
from skep.api.server import make_server
from skep.configuration import Configuration
from skep.control.control import Control
from skep.main.tls import tls_of_api

log = structlog.get_logger("skep")


async def serve_api(
    control: Control, settings: Configuration, listener: socket.socket, stop: asyncio.Event
) -> None:
    async with AsyncExitStack() as stack:
        tls = await tls_of_api(stack, settings, control.authorities)
        server = make_server(build_app(control), *settings.address, tls)
        serving = asyncio.create_task(server.serve([listener]))
        log.info("skep.up", listen=settings.listen, tls=tls is not None)
        await asyncio.wait([serving, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
