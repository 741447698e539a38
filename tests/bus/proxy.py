"""A wire to the broker that can be cut."""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

from yarl import URL


class Proxy:
    """While entered it listens on loopback and passes on what comes, until told otherwise."""

    def __init__(self, url: str) -> None:
        self._target = URL(url)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._silent: set[asyncio.StreamWriter] = set()
        self._refuses = False

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return str(self._target.with_port(self._server.sockets[0].getsockname()[1]))

    def cut(self) -> None:
        """End every connection without a goodbye; new ones may come."""
        for writer in self._writers:
            writer.transport.abort()

    def silence(self) -> None:
        """Swallow what comes over the connections there are, and tell nobody; new ones may come."""
        self._silent |= self._writers

    def refuse(self) -> None:
        """Cut, and let no new connection through."""
        self._refuses = True
        self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(self._target.host, self._target.port)
        self._writers |= {writer, back}
        for task in (self._pass_on(reader, back), self._pass_on(there, writer)):
            self._tasks.add(asyncio.create_task(task))

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                if writer not in self._silent:
                    writer.write(data)
                    await writer.drain()
        writer.close()
