"""What a host that was taken over can say and ask of control: about itself, and nothing about others.

Without the defence nobody knows who asks, as it is where messages are not signed.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import NoneType

import msgspec
import pytest
from tests.control.installation import Installation, installation
from tests.control.simulation import app, service
from tests.trust.conftest import enrol

from skep.agent.zone import ZoneSigns, ZoneSupplies
from skep.bus.bus import Bus
from skep.bus.client import CallClient, Pace
from skep.bus.signing import SignedBus
from skep.control.desired import DesiredState
from skep.control.events import Observations
from skep.control.hosts.holdings import Holdings
from skep.control.hosts.liveness import Heartbeats, HostNews
from skep.control.hosts.zone_desk import HostDesk, key_of, zone_desk
from skep.control.plans.specifications import Limits
from skep.model.errors import Forbidden, NotFound, SkepError, Unauthenticated
from skep.model.host import ContainerState, ContainerStatus
from skep.model.ids import HostName, ZoneName
from skep.model.spec import AppFile, FileMount
from skep.store import networks, replicas
from skep.store.replicas import ReplicaRow
from skep.trust.authority import Authority
from skep.trust.peers import Role
from skep.trust.signatures import Signatures

ONE, TWO = HostName("host-1"), HostName("host-2")
ZONE = ZoneName("zone")
SECRET = b"s3cret"
QUICK = Pace(first=0.1, longest=0.2, patience=1.0)


class Desk:
    """Control's desk for hosts, and who asks at it; `gone`: certificates that were revoked."""

    def __init__(self, made: Installation, folder: Path, victim: ReplicaRow) -> None:
        self.made = made
        self.folder = folder
        self.victim = victim
        self.authority = Authority.make("inst1", time.time())
        self.gone: set[HostName] = set()

    @property
    def taken(self) -> HostName:
        return TWO if self.victim.host == ONE else ONE

    async def asked(self, host: HostName, question: "Question", *, signed: bool) -> object:
        """What the host gets; an error is its answer, too."""
        server, client = self._as(Role.WORKER, "worker-1", signed), self._as(Role.AGENT, host, signed)
        desk = self._desk()
        async with (
            zone_desk(server, ZONE, desk, desk, desk),
            CallClient(client, f"agent.{host}", pace=QUICK) as calls,
        ):
            try:
                return await question(self, calls)
            except SkepError as error:
                return error

    def _as(self, role: Role, name: str, signed: bool) -> Bus:
        if not signed:
            return self.made.bus
        return SignedBus(
            self.made.bus, Signatures(enrol(self.authority, self.folder / f"{role}-{name}", role, name))
        )

    def _desk(self) -> HostDesk:
        made = self.made
        desired = DesiredState(made.database, Limits())
        news = HostNews(made.bus, made.clock)
        return HostDesk(
            desired,
            Observations(made.database, made.bus, lambda: None, made.clock),
            Heartbeats(made.database, news, lambda: None, 20),
            Holdings(made.database, desired),
            self._is_known,
        )

    async def _is_known(self, host: HostName, _serial: str) -> bool:
        return host not in self.gone


Question = Callable[[Desk, CallClient], Awaitable[object]]


async def its_secret(desk: Desk, calls: CallClient) -> object:
    async with desk.made.database.read() as connection:
        container = await replicas.container(connection, desk.victim.container_id)
    assert container is not None
    spec = await DesiredState(desk.made.database, Limits()).container(container.id)
    return await ZoneSupplies(calls, ZONE).file(spec.files[0].digest)


async def its_port(desk: Desk, calls: CallClient) -> object:
    async with desk.made.database.read() as connection:
        (port,) = await networks.ports_of(connection, replica=desk.victim.id)
    return (await ZoneSupplies(calls, ZONE).port(port.id)).replica


async def its_death(desk: Desk, calls: CallClient) -> object:
    """Whether the replica counts as dead now."""
    status = ContainerStatus(
        id=desk.victim.container_id, replica=desk.victim.id, state=ContainerState.EXITED, exit_code=1
    )
    await calls.tell(key_of(ZONE), "events.observed", NoneType, {"status": status})
    async with desk.made.database.read() as connection:
        row = await replicas.get(connection, desk.victim.id)
    return row is not None and row.status is not None and row.status.state


async def its_sign_of_life(desk: Desk, calls: CallClient) -> object:
    return await ZoneSigns(calls, ZONE).heartbeat(desk.victim.host)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    """Control with a replica that has a secret."""
    async with installation(tmp_path, hosts=2) as made:
        spec = app(web=service(replicas=1, secrets=(FileMount(source="key", target="/run/secrets/key"),)))
        spec = msgspec.structs.replace(spec, secrets={"key": AppFile(content=SECRET)})
        await made.finish(await made.control.apps.apply(made.admin, spec))
        async with made.database.read() as connection:
            (row,) = await replicas.find(connection)
        yield Desk(made, tmp_path, row)


QUESTIONS: dict[str, tuple[Question, type[SkepError]]] = {
    "secret": (its_secret, NotFound),
    "port": (its_port, NotFound),
    "death": (its_death, Forbidden),
    "sign-of-life": (its_sign_of_life, Forbidden),
}


@pytest.fixture
def question(request: pytest.FixtureRequest) -> tuple[Question, type[SkepError]]:
    return QUESTIONS[request.param]


everything = pytest.mark.parametrize("question", QUESTIONS, indirect=True, ids=QUESTIONS)


@everything
async def test_a_host_has_nothing_to_do_with_replicas_of_another(
    desk: Desk, question: tuple[Question, type[SkepError]]
) -> None:
    ask, refused = question

    answer = await desk.asked(desk.taken, ask, signed=True)

    assert type(answer) is refused, answer


@everything
async def test_it_has_where_nobody_knows_who_asks(
    desk: Desk, question: tuple[Question, type[SkepError]]
) -> None:
    ask, _ = question

    answer = await desk.asked(desk.taken, ask, signed=False)

    assert answer in (SECRET, desk.victim.id, ContainerState.EXITED, True)


@everything
async def test_a_host_is_believed_and_answered_about_its_own(
    desk: Desk, question: tuple[Question, type[SkepError]]
) -> None:
    ask, _ = question

    answer = await desk.asked(desk.victim.host, ask, signed=True)

    assert answer in (SECRET, desk.victim.id, ContainerState.EXITED, True)


async def test_a_host_that_was_removed_gets_nothing(desk: Desk) -> None:
    desk.gone.add(desk.victim.host)

    answer = await desk.asked(desk.victim.host, its_secret, signed=True)

    assert type(answer) is Unauthenticated, answer


async def test_a_host_that_was_removed_gets_it_where_nobody_knows_who_asks(desk: Desk) -> None:
    desk.gone.add(desk.victim.host)

    assert await desk.asked(desk.victim.host, its_secret, signed=False) == SECRET
