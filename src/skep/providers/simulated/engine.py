"""Containers without processes.  Satisfies `Engine` of control."""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Protocol, Self

from skep.model.errors import Conflict, HostFailure, NotFound
from skep.model.host import ContainerSpec, ContainerStatus, ContainerUsage, ExecSpec, LogLine
from skep.model.ids import Bytes, ContainerId
from skep.providers.simulated.containers import SimulatedContainer
from skep.providers.simulated.disks import SimulatedPool
from skep.providers.simulated.fabric import SimulatedFabric
from skep.providers.simulated.images import SimulatedImages
from skep.providers.simulated.programs import Session, life_of

_MEMORY = Bytes(1024 * 1024)
"""What every simulated container uses."""


class Events(Protocol):
    """Where the engine tells what it observed (control's `ContainerEvents`)."""

    async def observed(self, status: ContainerStatus) -> None: ...

    async def removed(self, container: ContainerId) -> None: ...


class _Nobody:
    """Takes note of nothing."""

    async def observed(self, status: ContainerStatus) -> None: ...

    async def removed(self, container: ContainerId) -> None: ...


class SimulatedEngine:
    """What a container needs must be in the other parts of its host, as on a real one.

    Leaving the context ends all processes: there is no kernel in which they could go on.
    """

    def __init__(
        self,
        *,
        disks: SimulatedPool,
        fabric: SimulatedFabric,
        images: SimulatedImages,
        events: Events | None = None,
    ) -> None:
        self._disks = disks
        self._fabric = fabric
        self._images = images
        self._events = events or _Nobody()
        self._containers: dict[ContainerId, SimulatedContainer] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for container in self._containers.values():
            await container.let_go()

    async def start(self, spec: ContainerSpec) -> None:
        await self._check_ingredients(spec)
        life_of(spec.name, spec.args)
        found = self._containers.get(spec.id) or SimulatedContainer(spec, self._observed)
        self._containers[spec.id] = found
        await found.start(spec)

    async def stop(self, container: ContainerId, grace: float | None = None) -> None:
        """Absent is success: what is not there does not run."""
        if found := self._containers.get(container):
            await found.stop()

    async def restart(self, container: ContainerId) -> None:
        await self._get(container).restart()

    async def remove(self, container: ContainerId) -> None:
        found = self._containers.pop(container, None)
        if found is not None:
            await found.remove()
            await self._fabric.set_resolvable(found.spec.replica, False)
        await self._events.removed(container)

    async def inspect(self, container: ContainerId) -> ContainerStatus:
        return self._get(container).status

    async def list(self) -> list[ContainerStatus]:
        return [container.status for container in self._containers.values()]

    async def wait_ready(self, container: ContainerId) -> None:
        await self._get(container).wait_ready()

    async def wait_exit(self, container: ContainerId) -> int:
        return await self._get(container).wait_exit()

    async def logs(
        self,
        container: ContainerId,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str | None = None,
    ) -> AsyncIterator[LogLine]:
        async for line in self._get(container).logs(follow=follow, tail=tail):
            if since is None or line.time >= since:
                yield line

    async def exec(self, container: ContainerId, spec: ExecSpec) -> Session:
        found = self._get(container)
        if not found.running:
            raise Conflict(f"{found.spec.name} does not run (it is {found.status.state}).")
        return Session(life_of(found.spec.name, spec.args))

    async def usage(self, container: ContainerId) -> ContainerUsage:
        found = self._get(container)
        if not found.running:
            raise HostFailure(f"{found.spec.name} does not run.")
        return ContainerUsage(cpu_seconds=0.0, memory=_MEMORY, memory_limit=found.spec.memory, pids=1)

    async def connections(self, container: ContainerId) -> int:
        """Nobody talks to what is simulated."""
        self._get(container)
        return 0

    async def _check_ingredients(self, spec: ContainerSpec) -> None:
        """Raises NotFound: the image, a disk or a port is not there."""
        await self._images.unpack(spec.image)
        for disk in (spec.system_disk, *(mount.disk for mount in spec.mounts if mount.disk)):
            await self._disks.path(disk)
        lacking = set(spec.ports) - await self._fabric.ports()
        if lacking:
            raise NotFound(f"{spec.name}: ports {', '.join(sorted(lacking))} are not plugged on this host.")

    async def _observed(self, status: ContainerStatus) -> None:
        found = self._containers.get(status.id)
        up = found is not None and found.running and status.health != "unhealthy"
        await self._fabric.set_resolvable(status.replica, up)
        await self._events.observed(status)

    def _get(self, container: ContainerId) -> SimulatedContainer:
        if container not in self._containers:
            raise NotFound(f"There is no container {container} on this host.")
        return self._containers[container]
