"""The container engine of a host: keeps containers as they were asked to be.

Satisfies `control.ports.Engine`.  Entering adopts what an earlier supervisor left running; leaving leaves it
running.  One pidfd per container tells of its end; nothing is polled but the sizes of logs.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import structlog

from skep.agent.container import Container, Surroundings
from skep.agent.exec import LocalExec
from skep.agent.ingredients import Pantry
from skep.agent.launcher import Launcher
from skep.agent.processes import ProcessMaker, check
from skep.agent.records import Record, Records
from skep.control.ports import ContainerEvents, DiskPool, ExecSession, HostFabric, ImageStore, Supplies
from skep.model.errors import Conflict, NotFound
from skep.model.host import ContainerSpec, ContainerStatus, ContainerUsage, ExecSpec, LogLine
from skep.model.ids import ContainerId
from skep.providers.local.connections import inbound
from skep.providers.local.runtime import Runtime

_ROTATION = 2.0
_THREADS_PER_CORE = 2
"""Making a container waits about as long as it computes: more at once only makes each one slower."""


class Supervisor:
    """`data` outlives the machine's boot, `run` need not."""

    def __init__(
        self,
        *,
        instance: str,
        data: Path,
        run: Path,
        disks: DiskPool,
        fabric: HostFabric,
        images: ImageStore,
        supplies: Supplies,
        events: ContainerEvents,
        runtime: Runtime,
    ) -> None:
        self._log = structlog.get_logger(__name__).bind(instance=instance)
        self._runtime = runtime
        self._events = events
        self._records = Records(data / "containers")
        self._launcher = Launcher(runtime=runtime, records=self._records, run=run)
        self._pantry = Pantry(disks=disks, fabric=fabric, images=images, supplies=supplies)
        self._fabric = fabric
        self._processes = ProcessMaker(runtime)
        self._containers: dict[ContainerId, Container] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        cores = os.cpu_count() or 1
        self._threads = ThreadPoolExecutor(cores * _THREADS_PER_CORE, thread_name_prefix="containers")
        self._probing = asyncio.Semaphore(cores * _THREADS_PER_CORE)
        self._rotation: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._launcher.prepare()
        for record in self._records.read_all():
            self._containers[record.spec.id] = Container(record, self._surroundings())
        await self._remove_strays()
        await asyncio.gather(*(container.adopt() for container in self._containers.values()))
        self._rotation = asyncio.create_task(self._rotate_logs())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._rotation:
            self._rotation.cancel()
        self._let_go()
        while self._tasks:  # an order that was under way may have begun to watch anew
            await asyncio.wait(self._tasks)
            self._let_go()
        await asyncio.to_thread(self._threads.shutdown)

    def _let_go(self) -> None:
        for container in self._containers.values():
            container.let_go()

    async def start(self, spec: ContainerSpec) -> None:
        container = self._containers.get(spec.id)
        if container is None or container.removed:
            container = Container(Record(spec=spec), self._surroundings())
            self._containers[spec.id] = container
        try:
            await container.start(spec)
        finally:
            self._drop_if_removed(container)

    async def stop(self, container: ContainerId, grace: float | None = None) -> None:
        """Absent is success: what is not there does not run."""
        if found := self._containers.get(container):
            await found.stop(grace)

    async def restart(self, container: ContainerId) -> None:
        await self._get(container).restart()

    async def remove(self, container: ContainerId) -> None:
        if found := self._containers.get(container):
            try:
                await found.remove()
            finally:
                self._drop_if_removed(found)
        else:
            await self._in_thread(self._launcher.remove, container)
        with contextlib.suppress(Exception):
            await self._events.removed(container)

    async def inspect(self, container: ContainerId) -> ContainerStatus:
        return self._get(container).status()

    async def list(self) -> list[ContainerStatus]:
        return [container.status() for container in self._containers.values()]

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
        found = self._get(container)
        async for line in found.log.lines(tail=tail, since=since, more=lambda: follow and not found.removed):
            yield line

    async def exec(self, container: ContainerId, spec: ExecSpec) -> ExecSession:
        return await self._exec(self._get(container), spec)

    async def usage(self, container: ContainerId) -> ContainerUsage:
        return await asyncio.to_thread(self._runtime.cgroups.usage, self._get(container).spec.id)

    async def connections(self, container: ContainerId) -> int:
        pid = self._get(container).status().pid
        return 0 if pid is None else await asyncio.to_thread(inbound, pid)

    async def _exec(self, container: Container, spec: ExecSpec) -> LocalExec:
        if not container.running:
            raise Conflict(f"{container.spec.name} does not run (it is {container.state}).")
        return await self._processes.start(container.spec, spec)

    async def _probe(self, container: Container, timeout: float) -> tuple[int | None, str]:  # noqa: ASYNC109
        async with self._probing:
            return await check(lambda spec: self._exec(container, spec), container.spec.healthcheck, timeout)

    async def _remove_strays(self) -> None:
        """What has no readable record belongs to nobody: a removal that was cut short."""
        for stray in (self._launcher.left() | self._records.left()) - set(self._containers):
            self._log.warning("container.stray-removed", container=stray)
            await self._in_thread(self._launcher.remove, ContainerId(stray))

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(_ROTATION)
            for container in list(self._containers.values()):
                if container.running:
                    self._rotate(container)

    def _rotate(self, container: Container) -> None:
        try:
            container.log.rotate_if_large(lambda: self._runtime.reopen_log(container.spec.id))
        except OSError as error:
            self._log.warning("container.log-not-rotated", container=container.spec.id, error=str(error))

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            runtime=self._runtime,
            launcher=self._launcher,
            records=self._records,
            pantry=self._pantry,
            fabric=self._fabric,
            events=self._events,
            in_thread=self._in_thread,
            spawn=self._spawn,
            probe=self._probe,
        )

    async def _in_thread(self, work: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._log.info("container.order-failed", error=str(error))

    def _get(self, container: ContainerId) -> Container:
        if found := self._containers.get(container):
            return found
        raise NotFound(f"This host has no container {container}.")

    def _drop_if_removed(self, container: Container) -> None:
        if container.removed and self._containers.get(container.spec.id) is container:
            del self._containers[container.spec.id]
