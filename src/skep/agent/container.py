"""One container's life: started, watched, restarted, probed, stopped.

Orders (start, stop, restart, remove) take turns; the end of the process comes from the kernel at any time.
An order goes on when its caller gives up waiting, so that no half-done order is left.  Used by the
supervisor, which owns one of these per record.
"""

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec
import structlog

from skep.agent.ingredients import Pantry
from skep.agent.launcher import Launcher
from skep.agent.prober import Prober
from skep.agent.probes import ProbeState, command
from skep.agent.records import Record, Records, boot_id
from skep.control.ports import ContainerEvents, Fabric
from skep.model.errors import Conflict, HostFailure, NotFound, SkepError, Unavailable
from skep.model.host import ContainerSpec, ContainerState, ContainerStatus, Health
from skep.model.ids import Seconds
from skep.model.restarts import HOPELESS, History, decide
from skep.providers.local.logs import ContainerLog
from skep.providers.local.processes import ExitWatch, send
from skep.providers.local.runtime import Runtime

_KILLED = 128 + signal.SIGKILL
_UNKNOWN = 255
"""As Docker: the exit code of what ended while nobody could see it."""
_AFTER_KILL = 15.0
_log = structlog.get_logger(__name__)
T = TypeVar("T")
InThread = Callable[..., Awaitable[Any]]


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What every container of the host shares."""

    runtime: Runtime
    launcher: Launcher
    records: Records
    pantry: Pantry
    fabric: Fabric
    events: ContainerEvents
    in_thread: InThread
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
    probe: Callable[["Container", float], Awaitable[tuple[int | None, str]]]
    """Run the container's health check: exit code (None: timed out) and output."""


class Container:
    def __init__(self, record: Record, around: Surroundings) -> None:
        self._around = around
        self.record = record
        self.log = ContainerLog(around.records.log(record.spec.id))
        self.state = ContainerState.CREATED if record.started_at is None else ContainerState.EXITED
        self.removed = False
        self._let_go = False
        self._pid: int | None = None
        self._orders = asyncio.Lock()
        self._changed = asyncio.Condition()
        self._watch: ExitWatch | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._prober: Prober | None = None
        self._name = _log.bind(container=record.spec.id, name=record.spec.name)

    @property
    def spec(self) -> ContainerSpec:
        return self.record.spec

    @property
    def running(self) -> bool:
        return self.state is ContainerState.RUNNING

    def status(self) -> ContainerStatus:
        record, probes = self.record, self._prober.state if self._prober else ProbeState(health=Health.NONE)
        return ContainerStatus(
            id=record.spec.id,
            replica=record.spec.replica,
            state=self.state,
            health=probes.health if self.running else Health.NONE,
            health_output=probes.output,
            pid=self._pid if self.running else None,
            exit_code=None if self.running else record.exit_code,
            oom_killed=record.oom_killed,
            error=record.error,
            restarts=record.restarts,
            started_at=record.started_at,
            finished_at=None if self.running else record.finished_at,
        )

    # -- orders -----------------------------------------------------------------------------------

    async def start(self, spec: ContainerSpec) -> None:
        """Raises Conflict: it runs with another specification."""
        await self._order(self._start(spec))

    async def stop(self, grace: float | None) -> None:
        await self._order(self._stop(grace))

    async def restart(self) -> None:
        await self._order(self._restart())

    async def remove(self) -> None:
        await self._order(self._remove())

    async def adopt(self) -> None:
        """Take up what an earlier supervisor left: a running process, one that ended unseen, or none."""
        await self._order(self._adopt())

    def let_go(self) -> None:
        """Stop watching; the container goes on.  An order that waits for its end gives up."""
        self._calm()
        self._unwatch()
        if not self._let_go:
            self._let_go = True
            self._around.spawn(self._tell_waiting())

    # -- waiting ----------------------------------------------------------------------------------

    async def wait_ready(self) -> None:
        """As Engine.wait_ready; a run that ended well without a health check was ready."""
        await self._until(self._ready)

    async def wait_exit(self) -> int:
        return await self._until(self._exited)

    def _ready(self) -> bool | None:
        # Between its end and the note of it nobody looks at its health, which says nothing then.
        health, checked = self.status().health, command(self.spec.healthcheck) is not None
        if self.running and health is (Health.HEALTHY if checked else Health.NONE):
            return True
        if self.running and health is Health.UNHEALTHY:
            raise Unavailable(self._lament(f"is unhealthy: {self.status().health_output}"))
        if self.state is ContainerState.EXITED:
            if self.record.exit_code == 0 and not checked:
                return True
            raise Unavailable(self._lament(f"exited with {self.record.exit_code}"))
        if not self.running and self.record.history.attempts >= HOPELESS:
            again = f"ends again and again, the last time with exit code {self.record.exit_code}"
            raise Unavailable(self._lament(again))
        return None

    def _exited(self) -> int | None:
        if self.state is not ContainerState.EXITED:
            return None
        return _UNKNOWN if self.record.exit_code is None else self.record.exit_code

    async def _until(self, answer: Callable[[], T | None]) -> T:
        async with self._changed:
            while True:
                if self.removed:
                    raise NotFound(f"{self.spec.name} was removed.")
                if (result := answer()) is not None:
                    return result
                await self._changed.wait()

    def _lament(self, what: str) -> str:
        lines = "\n".join(self.log.last(10))
        why = f" {self.record.error}" if self.record.error else ""
        return f"{self.spec.name} {what.rstrip('. ')}.{why}" + (f" Its last lines:\n{lines}" if lines else "")

    # -- carrying out -----------------------------------------------------------------------------

    async def _start(self, spec: ContainerSpec) -> None:
        self._check_present()
        if self.running:
            if spec != self.spec:
                raise Conflict(f"{spec.name} runs already, with another specification.")
            return
        self._calm()
        fresh = self.record.started_at is None
        before = self.record
        self.record = Record(
            spec=spec, restarts=before.restarts, started_at=before.started_at, boot=boot_id()
        )
        self._write()
        try:
            await self._launch()
        except BaseException as error:
            await (self._forget() if fresh else self._fail(error))
            raise

    async def _launch(self) -> None:
        ingredients = await self._around.pantry.gather(self.spec)
        await self._run(lambda: self._around.launcher.launch(ingredients))

    async def _run(self, launch: Callable[[], int]) -> None:
        self._pid = await self._around.in_thread(launch)
        self._remember(started_at=time.time(), started_boot=_boottime(), boot=boot_id())
        self._remember(finished_at=None, exit_code=None, oom_killed=False, error="")
        self._write()
        await self._now_running()

    async def _now_running(self) -> None:
        self.state = ContainerState.RUNNING
        monitor = self._around.runtime.monitor(self.spec.id)
        if (check := self.spec.healthcheck) and command(check):
            started, spawn = self.record.started_boot, self._around.spawn
            self._prober = Prober(check, self._probe, self._announce, started, spawn)
        await self._announce()
        if monitor is None:
            self._around.spawn(self._ended())
        else:
            self._watch = ExitWatch(monitor, self._monitor_gone)

    def _monitor_gone(self) -> None:
        self._around.spawn(self._ended())

    async def _probe(self, timeout: float) -> tuple[int | None, str]:  # noqa: ASYNC109 - the probe's own
        return await self._around.probe(self, timeout)

    async def _stop(self, grace: float | None) -> None:
        self._check_present()
        self._calm()
        if self.record.wanted:
            self._remember(wanted=False)
            self._write()
        if self.running:
            await self._end(self.spec.stop_grace_period if grace is None else grace)
        elif self.state is ContainerState.RESTARTING:
            await self._settle()

    async def _end(self, grace: float) -> None:
        await self._signal(_signal(self.spec.stop_signal))
        if await self._gone_within(grace):
            return
        await self._around.in_thread(self._around.runtime.cgroups.kill, self.spec.id)
        if not await self._gone_within(_AFTER_KILL):
            raise HostFailure(f"{self.spec.name} does not die; a process of it hangs in the kernel.")

    async def _restart(self) -> None:
        await self._stop(None)
        self._remember(wanted=True, history=History(), restarts=self.record.restarts + 1)
        self._write()
        try:
            await self._launch()
        except BaseException as error:
            await self._fail(error)
            raise

    async def _again(self) -> None:
        """What the restart policy decided, at the end of its delay."""
        if self.removed or self.state is not ContainerState.RESTARTING or not self.record.wanted:
            return
        self._remember(restarts=self.record.restarts + 1)
        launcher, spec = self._around.launcher, self.spec
        try:
            if launcher.can_relaunch(spec.id):
                await self._run(lambda: launcher.relaunch(spec))
            else:
                await self._launch()
        except Exception as error:
            self._name.warning("container.restart-failed", error=str(error))
            self._remember(error=str(error))
            await self._after_exit(_KILLED, ran_for=Seconds(0))

    async def _remove(self) -> None:
        if self.removed:
            return
        self._calm()
        self._unwatch()
        self._remember(wanted=False)
        self._write()
        self.state = ContainerState.EXITED
        await self._forget()

    async def _forget(self) -> None:
        """Leave nothing, not even the record; those who wait learn that it is gone."""
        self.removed = True  # from now on nothing writes the record again
        try:
            await self._resolvable(False)
            await self._around.in_thread(self._around.launcher.remove, self.spec.id)
        except BaseException:
            self.removed = False
            raise
        await self._tell_waiting()

    async def _fail(self, error: BaseException) -> None:
        self._remember(error=str(error), finished_at=time.time())
        self.state = ContainerState.EXITED
        self._write()
        await self._announce()

    async def _adopt(self) -> None:
        runtime, record = self._around.runtime, self.record
        if runtime.lives(self.spec.id):
            await self._adopt_running()
        elif record.started_at is None:
            await self._around.in_thread(self._around.launcher.clear, self.spec.id)
        elif record.boot != boot_id():
            await self._lost()
        elif record.finished_at is None:
            self.state = ContainerState.RUNNING
            await self._ended()
        elif record.wanted:
            await self._after_exit(record.exit_code or 0, Seconds(0))

    async def _adopt_running(self) -> None:
        if self.record.started_at is None:  # a crash came between its start and the note of it
            self._remember(started_at=time.time(), started_boot=_boottime())
        self._remember(boot=boot_id(), finished_at=None)
        self._pid = self._around.runtime.pid(self.spec.id)
        await self._now_running()

    async def _lost(self) -> None:
        """Machine or skep went down: what ran is gone, what it wrote is on its disks.

        No exit code means that nobody saw its end, so that reconcilers start it again.
        """
        await self._around.in_thread(self._around.launcher.clear, self.spec.id)
        if self.record.finished_at is None or self._was_to_restart():
            self._remember(
                exit_code=None,
                error="The host was restarted, or skep was taken down.",
                finished_at=self.record.finished_at or time.time(),
            )
            self._write()
        self.state = ContainerState.EXITED
        await self._announce()

    def _was_to_restart(self) -> bool:
        """Whether it had ended, and its policy would have started it again."""
        record = self.record
        if not record.wanted or record.exit_code is None:
            return False
        return decide(self.spec.restart, record.exit_code, Seconds(0), record.history) is not None

    # -- what the kernel tells --------------------------------------------------------------------

    async def _ended(self) -> None:
        """conmon is gone: the container ended, or it lost its keeper and must not go on unseen."""
        if not self.running or self.removed:
            return
        runtime, container = self._around.runtime, self.spec.id
        self._unwatch()
        code, ooms = runtime.exit_code(container), runtime.cgroups.oom_kills(container)
        error = "" if code is not None else "Its monitor process (conmon) died, so it was killed."
        code = _KILLED if code is None else code
        await self._around.in_thread(runtime.delete, container)
        if self._was_removed():
            return
        ran_for = Seconds(_boottime() - self.record.started_boot)
        self._remember(exit_code=code, oom_killed=ooms > 0, error=error, finished_at=time.time())
        self._name.info("container.exited", code=code, oom_killed=ooms > 0, ran_for=round(ran_for, 3))
        await self._after_exit(code, ran_for)

    async def _after_exit(self, code: int, ran_for: Seconds) -> None:
        again = decide(self.spec.restart, code, ran_for, self.record.history) if self.record.wanted else None
        if again is None:
            await self._settle()
            return
        self._remember(history=again.history)
        self.state = ContainerState.RESTARTING
        self._timer = asyncio.get_running_loop().call_later(again.after, self._due)
        self._write()
        await self._announce()

    def _due(self) -> None:
        self._around.spawn(self._order(self._again()))

    async def _settle(self) -> None:
        """Exited for good: give back all but record, configs, log, and what is on its disks."""
        await self._around.in_thread(self._around.launcher.clear, self.spec.id)
        self.state = ContainerState.EXITED
        self._write()
        await self._announce()

    # -- small things -----------------------------------------------------------------------------

    async def _order(self, work: Coroutine[Any, Any, None]) -> None:
        async def in_turn() -> None:
            async with self._orders:
                await work

        await asyncio.shield(self._around.spawn(in_turn()))

    def _was_removed(self) -> bool:
        """Asked again after waiting: the answer may have changed meanwhile."""
        return self.removed

    def _check_present(self) -> None:
        if self.removed:
            raise NotFound(f"{self.spec.name} was removed.")

    def _calm(self) -> None:
        """No restart that was planned will happen."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _unwatch(self) -> None:
        if self._watch:
            self._watch.close()
            self._watch = None
        if self._prober:
            self._prober.stop()
            self._prober = None

    async def _signal(self, number: signal.Signals) -> None:
        process = self._around.runtime.first_process(self.spec.id)
        if process is None:
            return
        try:
            send(process, number)
        finally:
            os.close(process)

    async def _gone_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                async with self._changed:
                    await self._changed.wait_for(lambda: not self.running or self._let_go)
        except TimeoutError:
            return False
        if self.running:
            raise Unavailable(f"{self.spec.name}: skep ends before the container did.")
        return True

    async def _tell_waiting(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _remember(self, **changes: Any) -> None:
        self.record = msgspec.structs.replace(self.record, **changes)

    def _write(self) -> None:
        if self.removed:
            return
        try:
            self._around.records.write(self.record)
        except OSError as error:
            raise HostFailure(f"{self.spec.name}: its record cannot be written: {error.strerror}") from error

    async def _announce(self) -> None:
        """Tell everybody who waits, the resolver, and control."""
        status = self.status()
        await self._tell_waiting()
        await self._resolvable(self.running and status.health is not Health.UNHEALTHY)
        try:
            await self._around.events.observed(status)
        except Exception as error:
            self._name.warning("container.event-lost", error=str(error))

    async def _resolvable(self, up: bool) -> None:
        if not self.spec.ports:
            return
        try:
            await self._around.fabric.set_resolvable(self.spec.replica, up)
        except (SkepError, OSError) as error:
            self._name.warning("container.names-not-switched", up=up, error=str(error))


def _signal(name: str) -> signal.Signals:
    """`SIGTERM`, `TERM` or `15`; what means nothing is SIGTERM."""
    try:
        if name.isdecimal():
            return signal.Signals(int(name))
        return signal.Signals[name.upper() if name.upper().startswith("SIG") else f"SIG{name.upper()}"]
    except (ValueError, KeyError):
        return signal.SIGTERM


def _boottime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
