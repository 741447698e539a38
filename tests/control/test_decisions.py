"""What reconcilers find missing, and what they find too much."""

import msgspec
import pytest
from tests.control.samples import carried_out, known, nothing, plan
from tests.control.simulation import app, service

from skep.control.reconcilers.decisions import HostState, Rows, ended, leftovers, missing
from skep.model.host import ContainerState, ContainerStatus, DiskUsage
from skep.model.ids import Bytes, ContainerId, DiskId, NetworkId, PortId, ReplicaId, ServiceId

SPEC = app(web=service())
BEFORE = known(nothing(), SPEC)
FACTS = carried_out(BEFORE, plan(BEFORE, SPEC), SPEC)
(ROW,) = FACTS.replicas
PORTS = {ROW.id: FACTS.ports}


def status(state: ContainerState, code: int | None = None) -> ContainerStatus:
    return ContainerStatus(id=ROW.container_id, replica=ROW.id, state=state, exit_code=code)


def host(found: ContainerStatus | None, *, plugged: bool = True, sandbox: bool = True) -> HostState:
    return HostState(
        containers={found.id: found} if found else {},
        ports={port.id for port in FACTS.ports} if plugged else set(),
        sandboxes={ROW.id} if sandbox else set(),
        networks=set(),
        services=set(),
        disks={},
    )


RUNS = status(ContainerState.RUNNING)


def test_what_runs_and_is_plugged_needs_nothing() -> None:
    assert missing([ROW], PORTS, host(RUNS)) == []


def test_a_container_that_is_not_there_is_missing() -> None:
    assert missing([ROW], PORTS, host(None)) == [(ROW, False)]


def test_a_stopped_replica_is_not_missed() -> None:
    stopped = msgspec.structs.replace(ROW, desired="stopped")

    assert missing([stopped], PORTS, host(None)) == []


def test_a_container_that_was_seen_to_end_is_left_to_its_restart_policy() -> None:
    assert missing([ROW], PORTS, host(status(ContainerState.EXITED, 1))) == []
    assert missing([ROW], PORTS, host(status(ContainerState.RESTARTING, 1))) == []


def test_what_never_ends_by_itself_and_has_ended_is_started_again() -> None:
    """It was stopped, to be started with another network, and that did not come about."""
    stopped = host(status(ContainerState.EXITED, 137))

    assert ended([ROW], stopped) == [ROW]
    assert ended([ROW], host(RUNS)) == ended([msgspec.structs.replace(ROW, desired="stopped")], stopped) == []
    assert missing([ROW], PORTS, stopped, {ROW.container_id}) == [(ROW, False)]
    assert missing([ROW], PORTS, host(RUNS), {ROW.container_id}) == []


def test_a_lost_port_is_plugged_again_and_a_lost_sandbox_needs_a_new_process() -> None:
    assert missing([ROW], PORTS, host(RUNS, plugged=False)) == [(ROW, False)]
    assert missing([ROW], PORTS, host(RUNS, plugged=False, sandbox=False)) == [(ROW, True)]


def test_what_has_ended_needs_no_ports() -> None:
    done = status(ContainerState.EXITED, 0)

    assert missing([ROW], PORTS, host(done, plugged=False, sandbox=False)) == []


NOTHING = Rows(containers=set(), ports=set(), replicas=set(), networks=set(), services=set(), disks=set())
FULL = HostState(
    containers={RUNS.id: RUNS},
    ports={PortId("p")},
    sandboxes={ReplicaId("r")},
    networks={NetworkId("n")},
    services={ServiceId("s")},
    disks={
        DiskId("system"): DiskUsage(size=Bytes(1), used=Bytes(0), kind="system"),
        DiskId("data"): DiskUsage(size=Bytes(1), used=Bytes(0), kind="data"),
    },
)


def test_what_no_row_knows_is_left_over_but_never_data() -> None:
    found = leftovers(FULL, NOTHING)

    assert found.containers == [RUNS.id]
    assert (found.ports, found.sandboxes, found.networks, found.services) == (["p"], ["r"], ["n"], ["s"])
    assert found.system_disks == ["system"]
    assert not found.empty


@pytest.mark.parametrize("kind", ["containers", "ports", "sandboxes", "networks", "services", "system_disks"])
def test_what_a_row_knows_is_not_left_over(kind: str) -> None:
    rows = Rows(
        containers={ContainerId(RUNS.id)},
        ports={PortId("p")},
        replicas={ReplicaId("r")},
        networks={NetworkId("n")},
        services={ServiceId("s")},
        disks={DiskId("system")},
    )

    assert getattr(leftovers(FULL, rows), kind) == []
    assert leftovers(FULL, rows).empty
