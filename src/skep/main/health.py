"""How a process without an API says how it is: by HTTP, to those who run it.  Nothing else is told there."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from skep.model.errors import Conflict

_PATIENCE = 5.0
_LONGEST = 8 * 1024


@asynccontextmanager
async def health_told(address: tuple[str, int] | None, ready: Callable[[], bool]) -> AsyncIterator[None]:
    """While entered, `/healthz` is answered, and `/readyz` as `ready` says; nothing is without an address.

    Raises:
        Conflict: somebody else has the address, or it is none of this machine.
    """
    if address is None:
        yield
        return

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _PATIENCE)
            writer.write(answer(head, ready()))
            await asyncio.wait_for(writer.drain(), _PATIENCE)
        writer.close()

    try:
        server = await asyncio.start_server(serve, *address, limit=_LONGEST)
    except OSError as error:
        raise Conflict(
            f"skep cannot tell its health on {address[0]}:{address[1]}: {error.strerror}"
        ) from error
    async with server:
        yield


def answer(head: bytes, ready: bool) -> bytes:
    """What is answered to the head of a request."""
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if method not in (b"GET", b"HEAD") or path not in (b"/healthz", b"/readyz"):
        return _response("404 Not Found", b"nothing is here\n", method)
    if path == b"/readyz" and not ready:
        return _response("503 Service Unavailable", b"starting\n", method)
    return _response("200 OK", b"ok\n", method)


def _response(status: str, body: bytes, method: bytes) -> bytes:
    fields = ("Content-Type: text/plain", f"Content-Length: {len(body)}", "Connection: close")
    head = "\r\n".join((f"HTTP/1.1 {status}", *fields, "", ""))
    return head.encode() + (b"" if method == b"HEAD" else body)
