"""One simulated container: its process, its restarts, its log."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

import msgspec

from skep.model.errors import Conflict, InvalidInput, NotFound, Unavailable
from skep.model.host import ContainerSpec, ContainerState, ContainerStatus, Health, LogLine
from skep.providers.simulated.programs import Life, life_of

_KILLED = 137
_LONGEST_DELAY = 60.0

Tell = Callable[[ContainerStatus], Awaitable[None]]
"""Called with every change."""


class SimulatedContainer:
    def __init__(self, spec: ContainerSpec, tell: Tell) -> None:
        self.spec = spec
        self._tell = tell
        self._status = ContainerStatus(id=spec.id, replica=spec.replica, state=ContainerState.CREATED)
        self._lines: list[LogLine] = []
        self._attempts = 0
        self._removed = False
        self._process: asyncio.Task[None] | None = None
        self._changed = asyncio.Condition()

    @property
    def status(self) -> ContainerStatus:
        return self._status

    @property
    def running(self) -> bool:
        return self._status.state is ContainerState.RUNNING

    async def start(self, spec: ContainerSpec) -> None:
        """Raises Conflict: it runs with another specification.  InvalidInput: there is no such program."""
        if self.running and spec != self.spec:
            raise Conflict(f"{spec.name} runs already, with another specification.")
        if self.running:
            return
        life = life_of(spec.name, spec.args)
        await self._cancel()
        self.spec, self._attempts = spec, 0
        await self._launch(life)

    async def stop(self) -> None:
        """Nothing here handles signals, so all end as if killed."""
        await self._cancel()
        if self._status.state in (ContainerState.RUNNING, ContainerState.RESTARTING):
            code = _KILLED if self.running else self._status.exit_code
            await self._become(ContainerState.EXITED, exit_code=code, finished_at=time.time())

    async def restart(self) -> None:
        await self.stop()
        self._attempts = 0
        await self._launch(life_of(self.spec.name, self.spec.args), restarts=self._status.restarts + 1)

    async def remove(self) -> None:
        await self._cancel()
        self._removed = True
        async with self._changed:
            self._changed.notify_all()

    async def wait_ready(self) -> None:
        await self._until(self._ready)

    async def wait_exit(self) -> int:
        await self._until(lambda: self._status.state is ContainerState.EXITED)
        return self._status.exit_code or 0

    async def logs(self, *, follow: bool, tail: int | None) -> AsyncIterator[LogLine]:
        position = 0 if tail is None else max(0, len(self._lines) - tail)
        while True:
            for line in self._lines[position:]:
                yield line
            position = len(self._lines)
            if not follow or self._removed:
                return
            await self._more_than(position)

    async def let_go(self) -> None:
        """End the process and tell nobody."""
        await self._cancel()

    async def _more_than(self, lines: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._removed or len(self._lines) > lines)

    def _ready(self) -> bool:
        """A run that ended well was ready, if no health check was to tell."""
        status = self._status
        unhealthy = self.running and status.health is Health.UNHEALTHY
        exited = status.state is ContainerState.EXITED
        if unhealthy or (exited and (status.exit_code != 0 or self._check() is not None)):
            what = "is unhealthy" if unhealthy else f"exited with {status.exit_code}"
            last = "\n".join(line.text for line in self._lines[-10:])
            raise Unavailable(f"{self.spec.name} {what}." + (f" Its last lines:\n{last}" if last else ""))
        return status.state is ContainerState.EXITED or (
            self.running and status.health is not Health.STARTING
        )

    async def _until(self, true: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._removed or true())
        if self._removed:
            raise NotFound(f"{self.spec.name} was removed.")

    async def _launch(self, life: Life, restarts: int = 0) -> None:
        if life.output:
            now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "000Z")
            self._lines.append(LogLine(time=now, stream="stdout", text=life.output))
        await self._become(
            ContainerState.RUNNING,
            health=self._health(),
            exit_code=None,
            restarts=restarts,
            started_at=time.time(),
            finished_at=None,
        )
        if life.lasts is not None:
            self._process = asyncio.create_task(self._live(life, life.lasts))

    async def _live(self, life: Life, lasts: float) -> None:
        """From start to end, and again as the restart policy wants it."""
        await asyncio.sleep(lasts)
        delay = self._delay(life.code)
        state = ContainerState.EXITED if delay is None else ContainerState.RESTARTING
        await self._become(state, exit_code=life.code, health=Health.NONE, finished_at=time.time())
        if delay is not None:
            await asyncio.sleep(delay)
            self._attempts += 1
            await self._launch(life, restarts=self._status.restarts + 1)

    def _delay(self, code: int) -> float | None:
        """Seconds until the next start; None: it stays exited."""
        policy = self.spec.restart
        wanted = policy.condition in ("always", "unless-stopped") or (
            policy.condition == "on-failure" and code != 0
        )
        if not wanted or (policy.max_attempts is not None and self._attempts >= policy.max_attempts):
            return None
        return float(min(_LONGEST_DELAY, max(0.1, policy.delay) * 2 ** min(self._attempts, 16)))

    def _health(self) -> Health:
        check = self._check()
        if check is None:
            return Health.NONE
        try:
            well = life_of(self.spec.name, check).code == 0
        except InvalidInput:
            well = False
        return Health.HEALTHY if well else Health.UNHEALTHY

    def _check(self) -> tuple[str, ...] | None:
        """The health check's command; its verdict is there at once."""
        test = self.spec.healthcheck.test if self.spec.healthcheck else ()
        if not test or test[0] == "NONE":
            return None
        return tuple(" ".join(test[1:]).split()) if test[0] == "CMD-SHELL" else test[1:]

    async def _become(self, state: ContainerState, **changes: object) -> None:
        self._status = msgspec.structs.replace(self._status, state=state, **changes)
        async with self._changed:
            self._changed.notify_all()
        await self._tell(self._status)

    async def _cancel(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.cancel()
            await asyncio.wait([process])
