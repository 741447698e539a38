"""Steps that plug replicas into their networks.  Most run on the replica's host."""

from collections.abc import Collection
from contextlib import suppress

from skep.control.flows.environment import Cloud, OnHost
from skep.flow import step
from skep.model.errors import Conflict, HostFailure, InvalidInput, NotFound, Stale
from skep.model.ids import ContainerId, HostName, NetworkId, ReplicaId, ServiceId
from skep.store import networks


async def plug_container(cx: OnHost, container: ContainerId) -> None:
    """Plug every port of the container's replica; a network that lacks something is made whole first.

    Networks are there nearly always, and looking costs as much as plugging: so the plug is tried first.  Then
    the network's other hosts are told, and this one hears of them.
    """
    fabric = cx.env.host.fabric
    spec = await cx.env.desired.container(container)
    plugged = []
    for port_id in spec.ports:
        port = await cx.env.desired.port(port_id)
        plugged.append(port.network)
        try:
            await _prepare(cx, port.network)
            await fabric.plug(port)
        except (NotFound, HostFailure, InvalidInput):  # the last: it lacks a subnet that joined
            await _ensure(cx, port.network)
            await _prepare(cx, port.network)
            await fabric.plug(port)
    await _announce(cx, plugged)


async def _ensure(cx: OnHost, network: NetworkId) -> None:
    await cx.env.host.fabric.ensure_network(await cx.env.desired.network(network))
    if cx.env.peering is not None:
        cx.env.peering.forget(HostName(cx.env.name), network)
    if cx.env.guarding is not None:
        cx.env.guarding.forget(HostName(cx.env.name), network)
    if cx.env.balancing is not None:
        cx.env.balancing.forget(HostName(cx.env.name), network)


async def _prepare(cx: OnHost, network: NetworkId) -> None:
    """Before a port is plugged the host knows what guards it: it is never open for a moment.  And where names
    of services lead."""
    if cx.env.guarding is not None:
        await cx.env.guarding.prepare(HostName(cx.env.name), network)
    if cx.env.balancing is not None:
        await cx.env.balancing.prepare(HostName(cx.env.name), network)


async def _announce(cx: OnHost, chosen: Collection[NetworkId]) -> None:
    if cx.env.peering is not None:
        await cx.env.peering.announce(chosen)
    if cx.env.guarding is not None:
        await cx.env.guarding.announce(chosen)


@step
async def plug(cx: OnHost, container: ContainerId, replica: ReplicaId) -> None:
    """Give a new replica its network sandbox with all its ports."""
    await plug_container(cx, container)


@plug.undo
async def _remove_sandbox(cx: OnHost, container: ContainerId, replica: ReplicaId) -> None:
    await cx.env.host.fabric.remove_sandbox(replica)


@step
async def withdraw(cx: OnHost, container: ContainerId, replica: ReplicaId) -> None:
    """Take a replica's sandbox from a host that it leaves; undone, it has its ports there again."""
    await cx.env.host.fabric.remove_sandbox(replica)


@withdraw.undo
async def _plug_again(cx: OnHost, container: ContainerId, replica: ReplicaId) -> None:
    await plug_container(cx, container)


@step
async def ensure(cx: OnHost, container: ContainerId) -> None:
    """Make sure that a replica's ports are plugged; nothing to undo, since the replica stays."""
    await plug_container(cx, container)


@step
async def repair(cx: OnHost, network: NetworkId, containers: list[ContainerId]) -> None:
    """Make a damaged network whole, with the ports of its containers."""
    await _ensure(cx, network)
    for container in containers:
        await plug_container(cx, container)


@step(retry=3)
async def widen(cx: OnHost, network: NetworkId) -> None:
    """Let the host know the subnets of the network, with all that is plugged in there."""
    await _ensure(cx, network)


@step(retry=3)
async def remove_sandbox(cx: OnHost, replica: ReplicaId) -> None:
    """Remove the replica's network sandbox with all its ports."""
    await cx.env.host.fabric.remove_sandbox(replica)


@step
async def publish(cx: OnHost, service: ServiceId, host: str = "") -> None:
    """Make the published ports of the service lead to its replicas, those of the host first."""
    await _publish(cx, service, host)


async def _publish(cx: OnHost, service: ServiceId, host: str) -> None:
    with suppress(Stale):  # somebody told it something younger meanwhile
        await cx.env.host.fabric.publish(await cx.env.desired.publications(service, HostName(host)))


@publish.undo
async def _unpublish(cx: OnHost, service: ServiceId, host: str = "") -> None:
    """The ports' reconciler publishes again what the release before had published."""
    await cx.env.host.fabric.unpublish(service)


@step
async def republish(cx: OnHost, service: ServiceId, host: str = "") -> None:
    """As publish, of a service that was there: on the way back `traffic.recall` tells hosts again."""
    await _publish(cx, service, host)


@step(retry=3)
async def unpublish(cx: OnHost, service: ServiceId) -> None:
    await cx.env.host.fabric.unpublish(service)


@step(retry=3)
async def delete(cx: OnHost, network: NetworkId) -> None:
    await cx.env.host.fabric.delete_network(network)


@step(kind="transactional")
async def ensure_unused(cx: Cloud, network: NetworkId) -> None:
    """Raises Conflict: replicas are still on it."""
    if await networks.ports_of(cx.tx, network=network):
        raise Conflict("Replicas are still plugged into this network: remove them first.")


@step(kind="transactional")
async def forget(cx: Cloud, network: NetworkId) -> None:
    """Raises Conflict: a replica was plugged in meanwhile; the network is made again when it is needed."""
    if await networks.ports_of(cx.tx, network=network):
        raise Conflict("A replica was plugged into this network meanwhile.")
    await networks.delete(cx.tx, [network])
