"""What control may expect of every engine."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.agent.conftest import Hive
from tests.cluster.kubernetes.cluster import Cluster
from tests.contracts.remote import Parts, elsewhere
from tests.providers.kubernetes.yard import Yard, yard

from skep.control.ports import Engine
from skep.model.errors import Conflict, InvalidInput, NotFound, Unavailable
from skep.model.host import ContainerSpec, ContainerState, DiskSpec, ExecSpec, Health
from skep.model.ids import Bytes, ContainerId, DiskId, ReplicaId, Seconds, TenantId, new_id
from skep.model.spec import HealthCheck, RestartPolicy
from skep.providers.simulated import SimulatedHost
from skep.providers.simulated.images import image

MakeSpec = Callable[..., ContainerSpec]
"""A specification with all it needs on the host: `make_spec("sleep", "1000", restart=…)`."""

NEVER = RestartPolicy(condition="no")
SLEEP = ("/bin/sleep", "1000")


class EngineContract:
    async def test_nobody_is_connected_to_what_has_no_port_open(
        self, engine: Engine, make_spec: MakeSpec
    ) -> None:
        spec = make_spec(*SLEEP)
        await engine.start(spec)
        await engine.wait_ready(spec.id)

        assert await engine.connections(spec.id) == 0
        with pytest.raises(NotFound):
            await engine.connections(ContainerId("nothing"))

    async def test_a_started_container_runs_and_starting_it_again_is_success(
        self, engine: Engine, make_spec: MakeSpec
    ) -> None:
        spec = make_spec(*SLEEP)

        await engine.start(spec)
        await engine.start(spec)

        await engine.wait_ready(spec.id)
        (status,) = await engine.list()
        assert (status.id, status.replica, status.state) == (spec.id, spec.replica, ContainerState.RUNNING)
        assert await engine.inspect(spec.id) == status

    async def test_another_specification_of_a_running_container_is_a_conflict(
        self, engine: Engine, make_spec: MakeSpec
    ) -> None:
        spec = make_spec(*SLEEP)
        await engine.start(spec)

        with pytest.raises(Conflict):
            await engine.start(msgspec.structs.replace(spec, hostname="other"))

    async def test_a_program_that_is_not_there_is_named_and_leaves_nothing(
        self, engine: Engine, make_spec: MakeSpec
    ) -> None:
        spec = make_spec("/bin/nothing")

        with pytest.raises(InvalidInput, match="/bin/nothing"):
            await engine.start(spec)

        assert await engine.list() == []

    async def test_an_ended_program_leaves_its_exit_code_and_its_log(
        self, engine: Engine, make_spec: MakeSpec
    ) -> None:
        well, ill = make_spec("/bin/echo", "hello", "there"), make_spec("/bin/false")
        for spec in (well, ill):
            await engine.start(spec)

        codes = [await engine.wait_exit(spec.id) for spec in (well, ill)]

        assert codes == [0, 1]
        assert [line.text async for line in engine.logs(well.id)] == ["hello there"]
        assert (await engine.inspect(ill.id)).exit_code == 1

    async def test_readiness_of_what_failed_ends_with_its_last_words(
        self, engine: Engine, make_spec: MakeSpec
    ) -> None:
        spec = make_spec("/bin/false")
        await engine.start(spec)
        await engine.wait_exit(spec.id)

        with pytest.raises(Unavailable, match="exited with 1"):
            await engine.wait_ready(spec.id)

    async def test_a_stopped_container_stays_until_it_is_started_again(
        self, engine: Engine, make_spec: MakeSpec
    ) -> None:
        spec = make_spec(*SLEEP, restart=RestartPolicy(condition="always"))
        await engine.start(spec)

        await engine.stop(spec.id, 0.1)
        await engine.stop(spec.id, 0.1)
        stopped = (await engine.inspect(spec.id)).state
        await engine.start(spec)

        assert stopped is ContainerState.EXITED
        assert (await engine.inspect(spec.id)).state is ContainerState.RUNNING

    async def test_the_restart_policy_decides_what_follows_an_exit(
        self, engine: Engine, make_spec: MakeSpec
    ) -> None:
        twice = make_spec("/bin/false", restart=RestartPolicy(condition="on-failure", max_attempts=2))
        never = make_spec("/bin/true", restart=RestartPolicy(condition="on-failure"))

        for spec in (twice, never):
            await engine.start(spec)
            async with asyncio.timeout(30):
                await engine.wait_exit(spec.id)

        restarts = [(await engine.inspect(spec.id)).restarts for spec in (twice, never)]
        assert restarts == [2, 0]

    async def test_a_restarted_container_runs_anew(self, engine: Engine, make_spec: MakeSpec) -> None:
        spec = make_spec(*SLEEP)
        await engine.start(spec)

        await engine.restart(spec.id)

        status = await engine.inspect(spec.id)
        assert (status.state, status.restarts) == (ContainerState.RUNNING, 1)

    async def test_health_checks_decide_about_readiness(self, engine: Engine, make_spec: MakeSpec) -> None:
        quick = HealthCheck(test=("CMD", "/bin/true"), interval=0.1, start_interval=0.1, retries=1)
        well = make_spec(*SLEEP, healthcheck=quick)
        ill = make_spec(*SLEEP, healthcheck=msgspec.structs.replace(quick, test=("CMD", "/bin/false")))
        for spec in (well, ill):
            await engine.start(spec)

        async with asyncio.timeout(30):
            await engine.wait_ready(well.id)
            with pytest.raises(Unavailable, match="unhealthy"):
                await engine.wait_ready(ill.id)

        assert (await engine.inspect(well.id)).health is Health.HEALTHY

    async def test_commands_run_in_running_containers_only(self, engine: Engine, make_spec: MakeSpec) -> None:
        spec = make_spec(*SLEEP)
        await engine.start(spec)

        session = await engine.exec(spec.id, ExecSpec(args=("/bin/echo", "inside")))
        said = b"".join([chunk async for _, chunk in session.output()])
        code = await session.wait()
        await session.close()

        assert (said, code) == (b"inside\n", 0)
        await engine.stop(spec.id, 0.1)
        with pytest.raises(Conflict):
            await engine.exec(spec.id, ExecSpec(args=("/bin/true",)))

    async def test_removal_ends_those_who_wait_and_those_who_read(
        self, engine: Engine, make_spec: MakeSpec
    ) -> None:
        spec = make_spec(*SLEEP)
        await engine.start(spec)
        waiting = asyncio.create_task(engine.wait_exit(spec.id))
        reading = asyncio.create_task(_read(engine, spec.id))
        await asyncio.sleep(0.05)

        await engine.remove(spec.id)

        async with asyncio.timeout(30):
            with pytest.raises(NotFound):
                await waiting
            await reading
        assert await engine.list() == []

    async def test_what_is_not_there_is_not_found_but_may_be_removed(self, engine: Engine) -> None:
        nowhere = ContainerId(new_id())

        await engine.remove(nowhere)
        await engine.stop(nowhere)

        for asked in (engine.inspect(nowhere), engine.restart(nowhere), engine.wait_ready(nowhere)):
            with pytest.raises(NotFound):
                await asked

    async def test_a_container_needs_its_disk_and_its_image(
        self, engine: Engine, make_spec: MakeSpec
    ) -> None:
        spec = make_spec(*SLEEP)

        with pytest.raises(NotFound):
            await engine.start(msgspec.structs.replace(spec, image=image("0" * 64, 1).digest))

        assert await engine.list() == []


async def _read(engine: Engine, container: ContainerId) -> None:
    with suppress(NotFound):
        async for _ in engine.logs(container, follow=True):
            pass


class TestSimulatedEngine(EngineContract):
    @pytest.fixture
    def host(self) -> SimulatedHost:
        return SimulatedHost.make()

    @pytest.fixture
    async def engine(self, host: SimulatedHost) -> AsyncIterator[Engine]:
        async with host.engine as opened:
            yield opened

    @pytest.fixture
    async def make_spec(self, host: SimulatedHost) -> MakeSpec:
        busybox = host.images.add(image("b" * 64, 1024))
        disks = [DiskId(new_id()) for _ in range(2)]
        for disk in disks:
            await host.disks.create(DiskSpec(id=disk, size=Bytes(1024), kind="system"))

        def make(*args: str, **changes: Any) -> ContainerSpec:
            spec = ContainerSpec(
                id=ContainerId(new_id()),
                replica=ReplicaId(new_id()),
                tenant=TenantId(new_id()),
                name="shop/web-0",
                hostname="web-0",
                image=busybox.digest,
                args=args,
                environment={},
                working_dir="/",
                user="",
                system_disk=disks.pop(),
                restart=NEVER,
                stop_grace_period=Seconds(0.1),
            )
            return msgspec.structs.replace(spec, **changes)

        return make


@pytest.mark.root
@pytest.mark.kubernetes
@pytest.mark.timeout(900)
class TestKubernetesEngine(EngineContract):
    @pytest.fixture
    def yard(self, kubernetes: Cluster) -> Iterator[Yard]:
        with yard(kubernetes) as found:
            yield found

    @pytest.fixture
    async def engine(self, yard: Yard) -> AsyncIterator[Engine]:
        async with yard.engine() as engine:
            yield engine

    @pytest.fixture
    def make_spec(self, yard: Yard) -> MakeSpec:
        return yard.spec


@pytest.mark.root
class TestSupervisor(EngineContract):
    @pytest.fixture
    async def engine(self, hive: Hive) -> AsyncIterator[Engine]:
        async with hive.supervisor() as supervisor:
            yield supervisor

    @pytest.fixture
    def make_spec(self, hive: Hive) -> MakeSpec:
        return lambda *args, **changes: hive.spec(args=args, **{"stop_grace_period": Seconds(0.1)} | changes)


@pytest.mark.root
class TestRemoteEngine(TestSupervisor):
    @pytest.fixture
    async def engine(self, hive: Hive, tmp_path: Path) -> AsyncIterator[Engine]:
        async with (
            hive.supervisor() as supervisor,
            elsewhere(Parts(engine=supervisor), tmp_path) as host,
        ):
            yield host.engine
