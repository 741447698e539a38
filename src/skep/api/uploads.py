"""Uploads of images and build contexts: streamed to a file, never held in memory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Any

from litestar import Request
from litestar.exceptions import InternalServerException

from skep.api.errors import TooLarge
from skep.model.errors import InvalidInput, Unavailable

LIMIT = 32 * 1024**3
"""Bytes of one upload."""
PATIENCE = 60.0
"""Seconds without a byte after which an upload counts as broken off."""
_BLOCK = 1024 * 1024


async def receive(
    request: Request[Any, Any, Any], path: Path, *, limit: int = LIMIT, patience: float = PATIENCE
) -> Path:
    """Write the body of the request to `path` and answer it; whatever goes wrong, no half file stays.

    Raises:
        InvalidInput: the body is empty.
        TooLarge: it has more than `limit` bytes.
        Unavailable: the client stopped sending.
    """
    announced = int(request.headers.get("Content-Length") or 0)
    if announced > limit:
        raise TooLarge(f"The upload has {announced} bytes; at most {limit} are taken.")
    try:
        with path.open("xb") as file:
            await _write(_patiently(request.stream(), patience), file, limit)
        if path.stat().st_size == 0:
            raise InvalidInput("The upload is empty: send the archive as the body of the request.")
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


async def _write(chunks: AsyncIterator[bytes], file: IO[bytes], limit: int) -> None:
    total, block = 0, bytearray()
    async for chunk in chunks:
        total += len(chunk)
        if total > limit:
            raise TooLarge(f"The upload is larger than {limit} bytes.")
        block += chunk
        if len(block) >= _BLOCK:
            await asyncio.to_thread(file.write, bytes(block))
            block.clear()
    await asyncio.to_thread(file.write, bytes(block))


async def _patiently(chunks: AsyncIterator[bytes], patience: float) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(patience):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except InternalServerException as error:  # what Litestar makes of a client that goes away
            raise Unavailable("The upload broke off.") from error
        except TimeoutError as error:
            raise Unavailable(f"The upload stood still for {patience:.0f} s and was dropped.") from error
        yield chunk
