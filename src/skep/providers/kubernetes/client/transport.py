"""HTTP to a cluster; connections are closed also when whoever asked gives up while they are made."""

import asyncio
from contextlib import suppress

import httpx2

_PATIENCE = 12.0
"""Seconds in which a connection that nobody wants any more comes to be, to be closed in an orderly way: more
than any request has, since a busy machine takes its time to shake hands."""


class ClosingTransport(httpx2.AsyncHTTPTransport):
    """httpx2 forgets a socket whose TLS handshake is cancelled: here nothing is cancelled in the middle."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.url.scheme not in ("https", "wss"):
            return await super().handle_async_request(request)
        asking = asyncio.ensure_future(super().handle_async_request(request))
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            await _close(asking)
            raise


async def _close(asking: asyncio.Future[httpx2.Response]) -> None:
    done, _ = await asyncio.wait([asking], timeout=_PATIENCE)
    if not done:
        asking.cancel()
    with suppress(Exception, asyncio.CancelledError):
        await (await asking).aclose()
