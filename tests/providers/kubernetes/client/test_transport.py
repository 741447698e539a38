"""What comes of answers that are none: an error that passes, and never a wait without end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest

from skep.providers.kubernetes.client.refusals import passes
from skep.providers.kubernetes.client.transport import Transport

BEGUN = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello\n\r\n"


@asynccontextmanager
async def answering(*pieces: bytes) -> AsyncIterator[str]:
    """A server that says these, each on its own, and no more; answers where it is."""
    writers = list[asyncio.StreamWriter]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.05)

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def heard(url: str) -> list[str]:
    async with (
        httpx2.AsyncClient(transport=Transport(verify=False)) as client,
        client.stream("GET", url, timeout=httpx2.Timeout(5.0, read=0.3)) as answer,
    ):
        return [line async for line in answer.aiter_lines()]


@pytest.mark.parametrize("pieces", [(b"nonsense\r\n\r\n",), (BEGUN,), (BEGUN, b"zzz\r\nnonsense\r\n")])
async def test_what_is_no_answer_or_does_not_go_on_is_an_error_that_passes(pieces: tuple[bytes, ...]) -> None:
    async with answering(*pieces) as url:
        with pytest.raises(httpx2.TransportError) as error:
            await heard(url)

    assert passes(error.value)


async def test_what_is_whole_is_heard() -> None:
    async with answering(BEGUN, b"0\r\n\r\n") as url:
        assert await heard(url) == ["hello"]
