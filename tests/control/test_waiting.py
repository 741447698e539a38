"""What is said while a step waits for a container."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from skep.control.flows import waiting
from skep.flow import Context
from skep.model.errors import Unavailable
from skep.model.host import ContainerState, ContainerStatus, Health
from skep.model.ids import ContainerId, ReplicaId

C = ContainerId("01hc0000000000000001")


def status(state: ContainerState, **more: Any) -> ContainerStatus:
    return ContainerStatus(id=C, replica=ReplicaId("01hr0000000000000001"), state=state, **more)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (status(ContainerState.CREATED), ""),
        (
            status(ContainerState.CREATED, error="None of 2 nodes can take it."),
            "None of 2 nodes can take it.",
        ),
        (
            status(ContainerState.RESTARTING, exit_code=137, oom_killed=True),
            "It ended with exit code 137, out of memory, and is started again.",
        ),
        (
            status(ContainerState.RUNNING, health=Health.STARTING, health_output="refused"),
            "Its health check says: refused",
        ),
        (status(ContainerState.RUNNING, health=Health.HEALTHY, health_output="fine"), ""),
        (status(ContainerState.EXITED, exit_code=1), ""),
    ],
)
def test_why_a_container_is_not_ready_is_what_its_host_knows(found: ContainerStatus, said: str) -> None:
    assert waiting.why(found) == said


@dataclass
class Looked:
    """A host whose container is in turn as these say; it does not answer to the first look."""

    found: list[ContainerStatus]
    looks: int = 0
    seen: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def host(self) -> Any:
        return self

    engine = host

    async def inspect(self, container: ContainerId) -> ContainerStatus:
        self.looks += 1
        if self.looks == 1:
            raise Unavailable("It does not answer.")
        if len(self.found) == 1:
            self.seen.set()
            return self.found[0]
        return self.found.pop(0)


async def test_each_new_reason_is_told_once_and_nothing_once_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(waiting, "_LOOK", 0.001)
    reasons = ["no room", "no room", "pulling", "pulling"]
    world = Looked([status(ContainerState.CREATED, error=one) for one in reasons])
    told: list[str] = []

    async with waiting.telling(Context(world, report=told.append), C) as last:  # type: ignore[arg-type]
        await world.seen.wait()
        await asyncio.sleep(0.01)
    looks = world.looks
    await asyncio.sleep(0.01)

    assert told == ["no room", "pulling"]
    assert last == ["pulling"]
    assert world.looks == looks


async def test_what_is_over_at_once_is_not_looked_at() -> None:
    world = Looked([status(ContainerState.RUNNING)])

    async with waiting.telling(Context(world), C):  # type: ignore[arg-type]
        await asyncio.sleep(0)

    assert world.looks == 0


async def test_of_what_is_to_end_only_what_is_in_the_way_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LOOK", 0.001)
    unwell = status(ContainerState.RUNNING, health=Health.UNHEALTHY, health_output="refused")
    world = Looked([unwell, status(ContainerState.RUNNING, error="its node has not said so yet")])
    told: list[str] = []

    async with waiting.telling(Context(world, report=told.append), C, waiting.ending):  # type: ignore[arg-type]
        await world.seen.wait()
        await asyncio.sleep(0.01)

    assert told == ["its node has not said so yet"]
