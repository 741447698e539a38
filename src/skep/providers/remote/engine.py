"""The containers of a host elsewhere.  Satisfies `Engine` of control."""

from collections.abc import AsyncIterator

from skep.model.host import ContainerSpec, ContainerStatus, ContainerUsage, ExecSpec, LogLine
from skep.model.ids import ContainerId
from skep.providers.remote.line import Line
from skep.providers.remote.streams import HostStreams, RemoteSession


class RemoteEngine:
    """Orders go over the bus, logs and commands in containers over a stream to the host."""

    def __init__(self, line: Line, streams: HostStreams) -> None:
        self._line = line
        self._streams = streams

    async def start(self, spec: ContainerSpec) -> None:
        await self._line.tell("start", spec=spec)

    async def stop(self, container: ContainerId, grace: float | None = None) -> None:
        await self._line.tell("stop", container=container, grace=grace)

    async def restart(self, container: ContainerId) -> None:
        await self._line.tell("restart", container=container)

    async def remove(self, container: ContainerId) -> None:
        await self._line.tell("remove", container=container)

    async def inspect(self, container: ContainerId) -> ContainerStatus:
        return await self._line.ask("inspect", ContainerStatus, container=container)

    async def list(self) -> list[ContainerStatus]:
        return await self._line.ask("list", list[ContainerStatus])

    async def wait_ready(self, container: ContainerId) -> None:
        await self._line.ask("wait_ready", type(None), container=container)

    async def wait_exit(self, container: ContainerId) -> int:
        return await self._line.ask("wait_exit", int, container=container)

    async def logs(
        self,
        container: ContainerId,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str | None = None,
    ) -> AsyncIterator[LogLine]:
        async for line in self._streams.logs(container, follow=follow, tail=tail, since=since):
            yield line

    async def exec(self, container: ContainerId, spec: ExecSpec) -> RemoteSession:
        return await self._streams.exec(container, spec)

    async def connections(self, container: ContainerId) -> int:
        return await self._line.ask("connections", int, container=container)

    async def usage(self, container: ContainerId) -> ContainerUsage:
        return await self._line.ask("usage", ContainerUsage, container=container)
