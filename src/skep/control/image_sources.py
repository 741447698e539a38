"""Where an image can be had that a host lacks: on another host."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from weakref import WeakValueDictionary

import structlog

from skep.bus.stamps import stamped
from skep.control.host_directory import HostDirectory
from skep.control.ports import Host
from skep.model.errors import NotFound, SkepError, Unavailable
from skep.model.ids import Digest, HostName

log = structlog.get_logger(__name__)

_NOWHERE = "No host that answers has the image {}: pull or build it again."


class ImageSources:
    def __init__(self, hosts: HostDirectory) -> None:
        self._hosts = hosts
        self._bringing: WeakValueDictionary[tuple[HostName, Digest], asyncio.Lock] = WeakValueDictionary()

    async def ensure(self, digest: Digest, host: HostName) -> None:
        """The host has the image afterwards, brought from whichever host answers first that it has it.

        Raises:
            Unavailable: no host that answers has it.
        """
        store = self._hosts.on(host).images
        async with self._turn(host, digest):
            try:
                await store.info(digest)
            except NotFound:
                await self._bring(digest, host)

    async def export(self, digest: Digest) -> AsyncIterator[bytes]:
        """The image as an OCI layout in a tar, from a host that has it.

        Raises:
            Unavailable: no host that answers has it.
        """
        async for name in self._owners(digest):
            return self._hosts.on(name).images.export(digest)
        raise Unavailable(_NOWHERE.format(digest))

    async def _bring(self, digest: Digest, host: HostName) -> None:
        store = self._hosts.on(host).images
        async for name in self._owners(digest, host):
            try:
                await store.receive(digest, self._hosts.on(name).images.export(digest))
            except SkepError as error:
                log.warning("image.not-brought", image=digest, source=name, to=host, error=error.message)
                continue
            log.info("image.brought", image=digest, source=name, to=host)
            return
        raise Unavailable(_NOWHERE.format(digest))

    async def _owners(self, digest: Digest, but: HostName | None = None) -> AsyncIterator[HostName]:
        """In the order in which they answer."""
        await self._hosts.look_again()
        others = [name for name in self._hosts.names() if name != but and not self._hosts.why_silent(name)]
        with stamped(None):  # who is away must not keep the run waiting
            asked = [asyncio.create_task(self._owner(digest, name)) for name in others]
        try:
            for answer in asyncio.as_completed(asked):
                if (name := await answer) is not None:
                    yield name
        finally:
            for task in asked:
                task.cancel()

    async def _owner(self, digest: Digest, name: HostName) -> HostName | None:
        try:
            host: Host = await self._hosts.answering(name)
            await host.images.info(digest)
        except NotFound:
            return None
        except SkepError as error:
            log.info("image.source-unknown", image=digest, source=name, error=error.message)
            return None
        return name

    def _turn(self, host: HostName, digest: Digest) -> AbstractAsyncContextManager[object]:
        """One at a time brings an image to a host; the others then find it there."""
        lock = self._bringing.get((host, digest)) or asyncio.Lock()
        self._bringing[host, digest] = lock
        return lock
