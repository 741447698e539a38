"""Zones that stand on Kubernetes clusters.  For operators.

A cluster is one host of its zone, by the zone's name: whoever leads it gives its signs of life.  What it is
reached with is kept sealed, and is shown to nobody.
"""

import re
from collections.abc import Callable
from pathlib import Path

import msgspec
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.bus.bus import Bus
from skep.control.callers import Caller
from skep.control.clock import Now
from skep.control.ports import Clusters
from skep.control.sealed_keys import open_text, seal_text
from skep.flow import Database
from skep.model.clusters import ClusterAccess, ClusterLook
from skep.model.errors import Conflict, InvalidInput, NotFound, SkepError, Unsupported
from skep.model.ids import ClusterId, HostName, RegionName, ZoneName
from skep.model.images import RegistryCredentials
from skep.model.names import check_name
from skep.model.topology import Intent
from skep.model.views.clusters import ClusterCheck, ClusterZoneView
from skep.store import certificates, clusters, egress, hosts
from skep.store.clusters import ClusterRow
from skep.store.hosts import HostRow, ZoneRow
from skep.trust.peers import Role

log = structlog.get_logger(__name__)

_REGISTRY = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?(?::\d{1,5})?(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)+",
    re.ASCII,
)


class ClusterZones:
    def __init__(
        self,
        database: Database,
        known: Clusters | None,
        bus: Bus,
        seal: Path | None,
        now: Now,
        new_id: Callable[[], str],
    ) -> None:
        """`known` None: this process reaches none."""
        self._database = database
        self._known = known
        self._bus = bus
        self._seal = seal
        self._now = now
        self._new_id = new_id

    async def add(
        self,
        caller: Caller,
        zone: str,
        kubeconfig: str,
        registry: str,
        *,
        region: str | None = None,
        context: str | None = None,
        credentials: RegistryCredentials | None = None,
    ) -> ClusterZoneView:
        """Make a zone of the cluster; its images go to HOST[:PORT]/PREFIX of a registry that its nodes reach.

        The registry is asked, too, whether it lets in.  Without a `region` it is in the only one there is.
        Raises:
            Conflict: there is a zone or a host of that name, or the cluster is a zone already, or not good
                for one: says why.
            InvalidInput, Unavailable: see `Clusters.check`.
        """
        caller.must_operate()
        name = ZoneName(check_name(zone, "zone"))
        _must_be_registry(registry)
        async with self._database.read() as connection:
            await _must_be_free(connection, name)
            place = await _region(connection, region)
        look = await self._usable(kubeconfig, context)
        await self._clusters.check_registry(registry, credentials)
        access = ClusterAccess(
            id=ClusterId(self._new_id()),
            kubeconfig=kubeconfig,
            context=context,
            registry=registry,
            credentials=credentials,
        )
        row = self._row(name, access, look)

        async def enter(connection: AsyncConnection) -> None:
            await _must_be_free(connection, name)
            await _must_be_no_zone(connection, look)
            await hosts.ensure_zone(connection, ZoneRow(name=name, region=place))
            await hosts.save(connection, await _host(connection, row, look))
            await clusters.insert(connection, row)

        await self._database.write(enter)
        log.info("cluster.added", zone=zone, server=row.server, cluster=row.id)
        return await self._view(row, look.check)

    async def change(
        self,
        caller: Caller,
        zone: str,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        registry: str | None = None,
        credentials: RegistryCredentials | None = None,
    ) -> ClusterZoneView:
        """Reach the same cluster otherwise; what is None stays, but a new registry wants its own credentials.

        Raises:
            Conflict: it is another cluster, or another registry, which has nothing of what is in the zone; or
                the cluster is not good for a zone any more.
            NotFound: there is no such zone, or it stands on no cluster.
        """
        caller.must_operate()
        if registry is not None:
            _must_be_registry(registry)
        before = await self._find(zone)
        known = open_access(self._seal, before)
        access = msgspec.structs.replace(
            known,
            kubeconfig=kubeconfig if kubeconfig is not None else known.kubeconfig,
            context=context if kubeconfig is not None or context is not None else known.context,
            registry=registry if registry is not None else known.registry,
            credentials=credentials if credentials is not None or registry is not None else known.credentials,
        )
        look = await self._usable(access.kubeconfig, access.context)
        await self._clusters.check_registry(access.registry, access.credentials)
        changed = self._row(before.zone, access, look)

        async def save(connection: AsyncConnection) -> ClusterRow:
            row = await _of_zone(connection, zone)
            await _must_be_the_same(connection, row, look)
            await _must_have_its_images(connection, row, changed.registry)
            made = msgspec.structs.replace(changed, generation=row.generation + 1, created=row.created)
            await clusters.save(connection, made)
            return made

        row = await self._database.write(save)
        log.info("cluster.changed", zone=zone, server=row.server, generation=row.generation)
        return await self._view(row, look.check)

    async def show(self, caller: Caller, zone: str) -> ClusterZoneView:
        """The zone, and what works in its cluster now.

        Raises:
            NotFound: there is no such zone, or it stands on no cluster.
        """
        caller.must_operate()
        row = await self._find(zone)
        try:
            access = open_access(self._seal, row)
            look = await self._clusters.look(access.kubeconfig, access.context)
        except SkepError as error:
            return await self._view(row, None, error.message)
        return await self._view(row, look.check)

    async def remove(self, caller: Caller, zone: str, *, lost: bool = False) -> bool:
        """Leave the cluster and forget the zone; False: it stands on none.

        `lost`: the cluster is gone for good, so nothing of ours can be deleted there.
        Raises:
            Conflict: replicas or disks are there.
            Unavailable: the cluster does not answer; nothing was removed.
        """
        caller.must_operate()
        async with self._database.read() as connection:
            row = await clusters.of_zone(connection, ZoneName(zone))
        if row is None:
            return False
        await self._database.write(lambda connection: _must_be_empty(connection, row))
        if not lost:
            await self._clusters.leave(open_access(self._seal, row))
        await self._bus.drop(f"agent.{row.host}")

        async def forget(connection: AsyncConnection) -> None:
            await _must_be_empty(connection, row)
            await clusters.delete(connection, row.id)
            await certificates.revoke(connection, Role.AGENT.value, row.host)
            await hosts.delete(connection, row.host)
            await hosts.delete_zone(connection, row.zone)

        await self._database.write(forget)
        log.info("cluster.removed", zone=zone, cluster=row.id)
        return True

    async def _usable(self, kubeconfig: str, context: str | None) -> ClusterLook:
        look = await self._clusters.look(kubeconfig, context)
        if not look.check.usable:
            # Without rights nothing else can be seen, so the first is what to mend first.
            first, *more = [one for one in look.check.findings if one.verdict == "missing"]
            said = f"{first.message} {first.remedy}".strip()
            also = " ('skep cluster check' names more.)" if more else ""
            raise Conflict(f"{look.check.server} cannot be a zone as it is. {said}{also}")
        return look

    def _row(self, zone: ZoneName, access: ClusterAccess, look: ClusterLook) -> ClusterRow:
        login = access.credentials
        return ClusterRow(
            id=access.id,
            zone=zone,
            host=HostName(zone),
            server=look.check.server,
            context=access.context or "",
            sealed_kubeconfig=seal_text(self._seal, access.kubeconfig, _what(access.id, "kubeconfig")),
            registry=access.registry,
            sealed_login=b""
            if login is None
            else seal_text(self._seal, msgspec.json.encode(login).decode(), _what(access.id, "login")),
            lacks=tuple(sorted(look.lacks)),
            ranges=look.ranges,
            created=self._now(),
        )

    async def _view(self, row: ClusterRow, check: ClusterCheck | None, trouble: str = "") -> ClusterZoneView:
        async with self._database.read() as connection:
            regions = {one.name: one.region for one in await hosts.every_zone(connection)}
            host = await hosts.get(connection, row.host)
        return ClusterZoneView(
            zone=row.zone,
            region=regions.get(row.zone, ""),
            host=row.host,
            state=host.shown if host is not None else "",
            server=row.server,
            context=row.context or None,
            registry=row.registry,
            check=check,
            trouble=trouble,
        )

    async def _find(self, zone: str) -> ClusterRow:
        async with self._database.read() as connection:
            return await _of_zone(connection, zone)

    @property
    def _clusters(self) -> Clusters:
        if self._known is None:
            raise Unsupported("This process of skep does not work with Kubernetes.")
        return self._known


def open_access(seal: Path | None, row: ClusterRow) -> ClusterAccess:
    """Raises Unavailable: this process cannot open it."""
    login = open_text(seal, row.sealed_login, _what(row.id, "login")) if row.sealed_login else ""
    return ClusterAccess(
        id=row.id,
        kubeconfig=open_text(seal, row.sealed_kubeconfig, _what(row.id, "kubeconfig")),
        context=row.context or None,
        registry=row.registry,
        credentials=msgspec.json.decode(login, type=RegistryCredentials) if login else None,
    )


def _what(cluster: ClusterId, part: str) -> str:
    return f"cluster {cluster} {part}"


def _must_be_registry(text: str) -> None:
    if len(text) > 200 or not _REGISTRY.fullmatch(text):
        raise InvalidInput(
            f"{text[:200]!r} is no place in a registry: write it as HOST[:PORT]/PREFIX, such as "
            "'registry.example.com/skep'."
        )


async def _must_be_free(connection: AsyncConnection, zone: ZoneName) -> None:
    if zone in {one.name for one in await hosts.every_zone(connection)}:
        raise Conflict(f"There is a zone {zone!r} already; see 'skep zone ls', and 'skep zone set'.")
    if await hosts.get(connection, HostName(zone)) is not None:
        raise Conflict(f"There is a host {zone!r}, and the zone's cluster would be one of that name.")


async def _must_be_no_zone(connection: AsyncConnection, look: ClusterLook) -> None:
    """Two zones in one cluster would have the same namespaces."""
    for row in await clusters.every(connection):
        host = await hosts.get(connection, row.host)
        if host is not None and look.facts.boot_id and host.boot_id == look.facts.boot_id:
            raise Conflict(
                f"{look.check.server} is zone {row.zone!r} already: 'skep zone set {row.zone}' reaches it "
                "otherwise."
            )


async def _region(connection: AsyncConnection, wanted: str | None) -> RegionName:
    if wanted is not None:
        return RegionName(check_name(wanted, "region"))
    known = {one.region for one in await hosts.every_zone(connection)}
    if len(known) != 1:
        raise InvalidInput("There is not just one region: name the zone's with --region.")
    return known.pop()


async def _host(connection: AsyncConnection, row: ClusterRow, look: ClusterLook) -> HostRow:
    facts = look.facts
    return HostRow(
        name=row.host,
        zone=row.zone,
        pool=await hosts.default_pool(connection, row.zone),
        cpus=facts.cpus,
        memory=facts.memory,
        kernel=facts.kernel,
        cgroups=facts.cgroups,
        boot_id=facts.boot_id,
    )


async def _must_be_the_same(connection: AsyncConnection, row: ClusterRow, look: ClusterLook) -> None:
    host = await hosts.get(connection, row.host)
    if host is not None and host.boot_id != look.facts.boot_id and await hosts.in_use(connection, row.host):
        raise Conflict(
            f"{look.check.server} is another cluster than the one zone {row.zone!r} stands on, and has "
            "nothing of what is in the zone: add it as a zone of its own."
        )


async def _must_have_its_images(connection: AsyncConnection, row: ClusterRow, registry: str) -> None:
    if registry != row.registry and await hosts.in_use(connection, row.host):
        raise Conflict(
            f"What is in zone {row.zone!r} has its images at {row.registry}: its registry changes when the "
            "zone is empty."
        )


async def _must_be_empty(connection: AsyncConnection, row: ClusterRow) -> None:
    """From then on nothing is placed there."""
    if await hosts.in_use(connection, row.host):
        raise Conflict(
            f"Replicas or disks are in zone {row.zone!r}: see 'skep host show {row.host}', and remove them "
            "first."
        )
    if any(one.zone == row.zone for one in await egress.every(connection)):
        raise Conflict(f"Zone {row.zone!r} has egress addresses: take them away with 'skep net egress rm'.")
    await hosts.set_intent(connection, row.host, Intent.CORDONED)


async def _of_zone(connection: AsyncConnection, zone: str) -> ClusterRow:
    row = await clusters.of_zone(connection, ZoneName(zone))
    if row is None:
        raise NotFound(f"There is no zone {zone!r} that stands on a cluster; see 'skep zone ls'.")
    return row
