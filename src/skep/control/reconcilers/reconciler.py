"""Desired against actual, for ever.

What is missing becomes an `app.restore` run, a damaged network a `network.restore`, what is too much a
`host.collect`, an unfinished removal a new `app.remove`, what is on a host that is to be emptied an
`app.relocate`.  An app with an active run is left alone.  Published ports follow the health of replicas
directly: that is a reaction of the data plane, not a change anybody asked for.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Set
from contextlib import suppress
from functools import partial

import structlog
from msgspec.structs import replace

from skep.control.apps.apps import Apps
from skep.control.apps.changes import Overtaken
from skep.control.desired import DesiredState
from skep.control.endpoints.edges import Edges
from skep.control.flows import documents
from skep.control.host_directory import HostDirectory
from skep.control.ports import Host
from skep.control.reconcilers.backoff import Backoff
from skep.control.reconcilers.decisions import HostState, Rows, ended, leftovers, missing, vanished
from skep.control.reconcilers.emptying import Emptying
from skep.control.reconcilers.widening import Widening
from skep.control.telling.balancing import Balancing
from skep.control.telling.egressing import Egressing
from skep.control.telling.guarding import Guarding
from skep.control.telling.peering import Peering
from skep.flow import Database, FlowEngine
from skep.model.errors import Conflict, NotFound, SkepError, Stale, Unavailable, Unsupported
from skep.model.host import ContainerStatus
from skep.model.ids import AppId, ContainerId, HostName, NetworkId, ReplicaId, SnapshotId
from skep.model.names import ServiceName
from skep.store import apps, disks, egress, networks, releases, replicas, snapshots
from skep.store.egress import EgressRow
from skep.store.networks import PortRow
from skep.store.replicas import ReplicaRow

INTERVAL = 10.0
"""Seconds between passes when nothing wakes the reconciler."""
SETTLE = 0.2
"""Seconds to wait after a wake-up, so that a hundred changes make one pass."""
LONGEST = 1.0
"""Seconds: the same, after a pass that took its time."""
PATIENCE = 5.0
"""Seconds for which a pass waits for slow hosts."""
AT_ONCE = 16
"""Hosts that are looked at at the same time."""

log = structlog.get_logger("skep.reconciler")


class Reconciler:
    """`woken` is set by whoever knows that something changed."""

    def __init__(
        self,
        *,
        database: Database,
        flows: FlowEngine,
        hosts: HostDirectory,
        desired: DesiredState,
        apps: Apps,
        woken: asyncio.Event,
        monotonic: Callable[[], float],
        peering: Peering | None = None,
        guarding: Guarding | None = None,
        edges: Edges | None = None,
        balancing: Balancing | None = None,
        egressing: Egressing | None = None,
        emptying: Emptying | None = None,
    ) -> None:
        self._database = database
        self._flows = flows
        self._hosts = hosts
        self._desired = desired
        self._apps = apps
        self._attempts = defaultdict[str, Backoff](lambda: Backoff(monotonic))
        self._monotonic = monotonic
        self._woken = woken
        self._peering = peering
        self._guarding = guarding
        self._egressing = egressing
        self._widening = Widening()
        self._edges = edges
        self._balancing = balancing
        self._emptying = emptying
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._looking: dict[HostName, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Pass after pass, until cancelled.  A pass that fails is logged and tried again."""
        try:
            while True:
                began = self._monotonic()
                try:
                    await self.reconcile()
                except Exception:
                    log.exception("reconciler.failed")
                await self._pause(self._monotonic() - began)
        finally:
            for looking in self._looking.values():
                looking.cancel()

    async def reconcile(self) -> None:
        """One pass over all hosts and apps.

        A slow host keeps nobody else waiting: after `PATIENCE` the pass goes on without it, and it is looked
        at again when it has come to its end.  One that is lost is left alone.
        """
        if self._egressing is not None:
            await self._egressing.reconcile()
        if self._peering is not None:
            await self._peering.reconcile()
        if self._guarding is not None:
            await self._guarding.reconcile()
        if self._balancing is not None:
            await self._balancing.reconcile()
        for name in self._hosts.names():
            if name not in self._looking and not self._hosts.why_silent(name):
                looking = asyncio.create_task(self._look_at(name), name=f"reconcile {name}")
                self._looking[name] = looking
                looking.add_done_callback(partial(self._looked, name))
        if self._looking:
            await asyncio.wait(list(self._looking.values()), timeout=PATIENCE)
        await self._removals()
        if self._emptying is not None:
            await self._emptying.reconcile()
        if self._edges is not None:
            await self._edges.reconcile()

    async def _look_at(self, name: HostName) -> None:
        async with self._at_once:
            try:
                await self._host(name, self._hosts.on(name))
            except Unavailable as error:
                log.warning("reconciler.host-silent", host=name, error=error.message)
            except Exception:
                log.exception("reconciler.host-failed", host=name)

    def _looked(self, name: HostName, _looking: asyncio.Task[None]) -> None:
        self._looking.pop(name, None)

    async def _pause(self, took: float) -> None:
        """Where much changes all the time, looking does not take all of the time."""
        try:
            await asyncio.wait_for(self._woken.wait(), INTERVAL)
            await asyncio.sleep(min(max(SETTLE, 2 * took), LONGEST))
        except TimeoutError:
            pass
        self._woken.clear()

    async def _host(self, name: HostName, host: Host) -> None:
        state = await _look(host)
        busy = await self._busy()
        async with self._database.read() as connection:
            every = await replicas.find(connection)
            known = await networks.every(connection)
            ports = await networks.ports_of(connection)
            rows = Rows(
                containers={row.id for row in await replicas.containers_of(connection)},
                ports={row.id for row in ports},
                replicas={row.id for row in every},
                networks={row.id for row in known},
                services={row.service_id for row in await networks.published_ports(connection)}
                & {row.service_id for row in every if row.host == name},
                disks={row.id for row in await disks.every(connection)},
                snapshots={row.id for row in await snapshots.every(connection)},
            )
            led = [one for one in (await egress.by_network(connection)).values() if one.host == name]
            own = {row.id for row in every if row.host == name}
            used = {port.network_id for port in ports if port.replica_id in own}
            leaving = await apps.removing(connection)
        members = [row for row in every if row.host == name]
        here = [row for row in members if row.app_id not in busy | leaving]
        await self._record(host, state, members, here)
        await self._restore_networks(name, state, here, ports)
        await self._restore_leading(name, state, [one for one in led if one.network_id not in used])
        await self._widening.reconcile(name, host, known, state.networks)
        changing = {row.id for row in members if row.app_id in busy}
        await self._restore_replicas(name, state, here, ports, changing)
        await self._publish(name, host, here)
        await self._collect(name, state, rows)

    async def _record(
        self, host: Host, state: HostState, members: list[ReplicaRow], here: list[ReplicaRow]
    ) -> None:
        """What the host sees is what is shown, also where news of it got lost.

        The host is asked once more, and news that came meanwhile stands: the first look may be old by now.
        """
        known = {row.id: row.status for row in members}
        differing = [
            seen.id
            for row in members
            if (seen := state.containers.get(row.container_id)) is not None and seen != row.status
        ]
        news = [status for container in differing if (status := await _inspect(host, container)) is not None]
        news += [status for status in vanished(here, state) if await _inspect(host, status.id) is None]
        for status in news:
            correct = partial(replicas.correct_status, status=status, known=known[status.replica])
            await self._database.write(correct)

    async def _restore_replicas(
        self,
        name: HostName,
        state: HostState,
        here: list[ReplicaRow],
        ports: list[PortRow],
        changing: Set[ReplicaId],
    ) -> None:
        """Whether a `changing` one is well again will be seen when its run has ended."""
        by_replica: dict[ReplicaId, list[PortRow]] = {}
        for port in ports:
            by_replica.setdefault(port.replica_id, []).append(port)
        lacking = missing(here, by_replica, state, await self._endless(ended(here, state)))
        attempts = self._attempts[f"restore:{name}"]
        attempts.keep_only({row.id for row, _ in lacking} | changing)
        by_app: dict[AppId, list[tuple[ReplicaRow, bool]]] = {}
        for row, fresh in lacking:
            if attempts.ready(row.id):
                attempts.attempted(row.id)
                by_app.setdefault(row.app_id, []).append((row, fresh))
        for app, rows in by_app.items():
            names = ", ".join(row.name for row, _ in rows[:5])
            await self._start(documents.restore(app, rows), f"restore {names}", rows[0][0].tenant_id, app)

    async def _endless(self, rows: list[ReplicaRow]) -> set[ContainerId]:
        """The containers of these that their policy starts again for ever."""
        found: set[ContainerId] = set()
        if not rows:
            return found
        async with self._database.read() as connection:
            for row in rows:
                made = await replicas.container(connection, row.container_id)
                release = await releases.get(connection, made.release_id) if made else None
                service = release.spec.services.get(ServiceName(row.service)) if release else None
                if service is not None and service.restart.endless:
                    found.add(row.container_id)
        return found

    async def _restore_networks(
        self, name: HostName, state: HostState, here: list[ReplicaRow], ports: list[PortRow]
    ) -> None:
        containers = {row.id: row.container_id for row in here if row.desired == "running"}
        users: dict[NetworkId, list[PortRow]] = {}
        for port in ports:
            if port.replica_id in containers:
                users.setdefault(port.network_id, []).append(port)
        attempts = self._attempts[f"network:{name}"]
        attempts.keep_only(users.keys() - state.networks)
        for network, members in users.items():
            if network in state.networks or not attempts.ready(network):
                continue
            attempts.attempted(network)
            for tenant in {
                port.tenant_id for port in members
            }:  # a run shows its tenant no replicas of others
                own = [containers[port.replica_id] for port in members if port.tenant_id == tenant]
                await self._flows.start(
                    "network.restore",
                    {"network": network, "containers": own, "host": name},
                    tenant=tenant,
                    title="restore a network",
                )

    async def _restore_leading(self, name: HostName, state: HostState, led: list[EgressRow]) -> None:
        """Networks that the host leads outside, and has no replicas on."""
        lacking = {
            one.network_id: one for one in led if one.network_id and one.network_id not in state.networks
        }
        attempts = self._attempts[f"egress:{name}"]
        attempts.keep_only(lacking.keys())
        async with self._database.read() as connection:
            owners = {row.id: row.tenant_id for row in await networks.every(connection)} if lacking else {}
        for network in filter(attempts.ready, lacking):
            attempts.attempted(network)
            await self._flows.start(
                "network.restore",
                {"network": network, "containers": [], "host": name},
                tenant=owners.get(network, ""),
                title="restore the way outside of a network",
            )

    async def _publish(self, name: HostName, host: Host, here: list[ReplicaRow]) -> None:
        """What is in force is asked before the rows are read: these are younger, whatever the clock says."""
        actual = await host.fabric.published()
        at_least = max((one.generation for one in actual.values()), default=0) + 1
        for service in {row.service_id for row in here}:
            wanted = await self._desired.publications(service, name)
            if wanted.publications != (actual[service].publications if service in actual else ()):
                try:
                    await host.fabric.publish(replace(wanted, generation=max(wanted.generation, at_least)))
                except Stale as error:
                    log.info("publish.outdated", service=service, error=error.message)
                except SkepError as error:
                    log.warning("publish.failed", service=service, error=error.message)

    async def _collect(self, name: HostName, state: HostState, rows: Rows) -> None:
        if await self._flows.list(labels={"collect": name}, active=True, limit=1):
            return
        found, attempts = leftovers(state, rows), self._attempts[f"collect:{name}"]
        attempts.keep_only(set(found.ids))
        due = found.only(attempts.ready)
        if due.empty:
            return
        for leftover in due.ids:
            attempts.attempted(leftover)
        log.info("leftovers.found", host=name, leftovers=due)
        await self._flows.start(
            "host.collect", {"host": name, "leftovers": due}, title="clean up", labels={"collect": name}
        )

    async def _removals(self) -> None:
        busy = await self._busy()
        async with self._database.read() as connection:
            leaving = [app for app in await apps.every(connection) if app.removing]
        attempts = self._attempts["remove"]
        attempts.keep_only({app.id for app in leaving})
        for app in leaving:
            if app.id not in busy and attempts.ready(app.id):
                attempts.attempted(app.id)
                with suppress(Conflict, Overtaken):
                    await self._apps.start_removal(app)

    async def _start(self, document: str, title: str, tenant: str, app: AppId) -> None:
        """Beside others of the app, on other hosts: what is restored is what is wanted by then."""
        await self._flows.start(
            self._flows.parse(document), {}, tenant=tenant, title=title, labels={"app": app}
        )

    async def _busy(self) -> set[str]:
        """Apps with an active run."""
        return {run.labels.get("app", "") for run in await self._flows.list(active=True, limit=100_000)}


async def _inspect(host: Host, container: ContainerId) -> ContainerStatus | None:
    try:
        return await host.engine.inspect(container)
    except NotFound:
        return None


async def _snapshots(host: Host) -> set[SnapshotId]:
    """None on a host of the release before, which makes none."""
    try:
        return set(await host.disks.snapshots())
    except Unsupported:
        return set()


async def _look(host: Host) -> HostState:
    return HostState(
        containers={status.id: status for status in await host.engine.list()},
        ports=await host.fabric.ports(),
        sandboxes=await host.fabric.sandboxes(),
        networks=await host.fabric.networks(),
        services=set(await host.fabric.published()),
        disks=await host.disks.list(),
        snapshots=await _snapshots(host),
    )
