"""HTTP to a cluster, by aiohttp: most that skep hears of a busy cluster are its watches, parsed in C there.

WebSockets go by httpx2's own transport; aiohttp's hands no connection out.
"""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import aiohttp
import httpx2
from httpx_aiohttp.httpx2 import AiohttpTransport

_KEPT = 30.0
"""Seconds for which a connection waits for the next request: a TLS handshake costs as much as an order."""
_PATIENCE = 12.0
"""Seconds in which a connection that nobody wants any more comes to be, to be closed in an orderly way: more
than any request has, since a busy machine takes its time to shake hands."""


class Transport(httpx2.AsyncBaseTransport):
    """`verify` as httpx2 has it."""

    def __init__(self, verify: ssl.SSLContext | str | bool) -> None:
        self._requests = _Requests(verify=verify, trust_env=False)
        self._sockets = ClosingTransport(verify=verify, trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Errors are httpx2's."""
        if "Upgrade" in request.headers:
            return await self._sockets.handle_async_request(request)
        try:
            answer = await self._requests.handle_async_request(request)
        except aiohttp.ClientError as error:  # an answer that is none has no error of httpx2's
            raise httpx2.RemoteProtocolError(str(error), request=request) from error
        stream: Any = answer.stream  # whose type is that of both clients'
        answer.stream = _Patient(stream, request.extensions.get("timeout", {}).get("read"))
        return answer

    async def aclose(self) -> None:
        await self._requests.aclose()
        await self._sockets.aclose()
        await asyncio.sleep(0)  # aiohttp has given its connections up; now the loop does, too


class _Patient(httpx2.AsyncByteStream):
    """aiohttp waits for ever, whatever it was told, for what comes after a chunk that is none."""

    def __init__(self, stream: httpx2.AsyncByteStream, seconds: float | None) -> None:
        self._stream = stream
        self._seconds = seconds

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._stream)
        while True:
            try:
                async with asyncio.timeout(self._seconds):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise httpx2.ReadTimeout("Nothing more has come.") from error
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Requests(AiohttpTransport):
    def get_client(self) -> aiohttp.ClientSession:
        """As many connections as there are watches, and logs that somebody follows."""
        connector = aiohttp.TCPConnector(
            ssl=self.ssl_context,
            limit=0,
            keepalive_timeout=_KEPT,
            enable_cleanup_closed=sys.version_info < (3, 12),  # of no use, and warned of, since
        )
        return aiohttp.ClientSession(connector=connector)


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
