"""How control hears what becomes of containers."""

import asyncio
from contextlib import suppress
from typing import Any

from msgspec.structs import replace
from tests.providers.kubernetes.pods.test_plans import entry

from skep.model.host import ContainerState, ContainerStatus
from skep.model.ids import ContainerId, ReplicaId
from skep.providers.kubernetes.pods.teller import Teller


class Control:
    """Is told, and knows how many told it at the same time."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []
        self.most = self._now = 0

    async def observed(self, status: ContainerStatus) -> None:
        self._now += 1
        self.most = max(self.most, self._now)
        await asyncio.sleep(0)
        self._now -= 1
        self.told.append((status.id, status.state.value))

    async def removed(self, container: ContainerId) -> None:
        self.told.append((container, "removed"))


class Names:
    def __init__(self) -> None:
        self.up: dict[str, bool] = {}

    async def set_resolvable(self, replica: ReplicaId, up: bool) -> None:
        await asyncio.sleep(0)
        self.up[replica] = up


def status(container: str, replica: str, state: ContainerState) -> ContainerStatus:
    return ContainerStatus(id=ContainerId(container), replica=ReplicaId(replica), state=state)


async def told(teller: Teller, until: Any) -> None:
    telling = asyncio.create_task(teller.forever())
    while not until():
        await asyncio.sleep(0)
    telling.cancel()
    with suppress(asyncio.CancelledError):
        await telling


async def test_many_containers_are_told_of_together() -> None:
    control = Control()
    teller = Teller(control, None)
    for number in range(20):
        teller.tell(status(f"c{number}", f"r{number}", ContainerState.RUNNING), entry("a"))

    await told(teller, lambda: len(control.told) == 20)

    assert control.most == 20


async def test_containers_of_one_replica_are_told_of_in_their_order() -> None:
    """The one of before fails, and its successor runs: it has its name."""
    control, names = Control(), Names()
    teller = Teller(control, names)
    has_ports = replace(entry("a"), ports=True)
    teller.tell(status("before", "r", ContainerState.RESTARTING), has_ports)
    teller.tell(status("after", "r", ContainerState.RUNNING), has_ports)
    teller.removed(ContainerId("other"))

    await told(teller, lambda: len(control.told) == 3)

    assert [one for one in control.told if one[0] != "other"] == [
        ("before", "restarting"),
        ("after", "running"),
    ]
    assert names.up == {"r": True}


async def test_of_names_nothing_is_said_while_all_goes_well() -> None:
    """Who runs is seen in the cluster itself: a hundred replicas that begin are no hundred orders."""
    control, names = Control(), Names()
    teller = Teller(control, names)
    has_ports = replace(entry("a"), ports=True)
    teller.tell(status("first", "r", ContainerState.CREATED), has_ports)
    teller.tell(status("second", "r", ContainerState.RUNNING), has_ports)
    teller.tell(status("third", "r", ContainerState.EXITED), has_ports)

    await told(teller, lambda: len(control.told) == 3)

    assert names.up == {}
