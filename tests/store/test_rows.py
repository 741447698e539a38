"""Every function of the store on a real database: what is written is what is read."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, TypeVar

import msgspec
import pytest
from sqlalchemy.exc import IntegrityError

from skep.flow import Database
from skep.model.host import ContainerState, ContainerStatus, Health, HostFacts
from skep.model.ids import (
    AppId,
    Bytes,
    ContainerId,
    DiskId,
    HostName,
    ImageId,
    NetworkId,
    PortId,
    RegionName,
    ReleaseId,
    ReplicaId,
    ReservationId,
    ServiceId,
    ShareId,
    TenantId,
    TokenId,
    UserId,
    ZoneName,
)
from skep.model.names import AppName, ServiceName, TenantName
from skep.model.spec import AppFile, AppSpec, HealthCheck, ServiceSpec
from skep.model.topology import HostLoad, Intent, Liveness, PoolName
from skep.model.views.tenants import Quota
from skep.providers.simulated.images import image
from skep.store import (
    apps,
    certificates,
    disks,
    hosts,
    images,
    join_tokens,
    networks,
    releases,
    replicas,
    reservations,
    rows,
    shares,
    tenants,
    users,
)
from skep.store.apps import AppRow
from skep.store.certificates import AuthorityRow, CertificateRow
from skep.store.disks import DiskRow
from skep.store.hosts import HostRow, PoolRow, ZoneRow
from skep.store.images import SHARED, ImageRow
from skep.store.join_tokens import JoinTokenRow
from skep.store.networks import NetworkRow, PortRow, PublishedRow
from skep.store.releases import ReleaseRow
from skep.store.replicas import ContainerRow, ReplicaRow, ServiceRow
from skep.store.reservations import ReservationRow
from skep.store.shares import ShareRow
from skep.store.subnets import Subnet
from skep.store.tenants import TenantRow
from skep.store.users import TokenRow, UserRow

T = TypeVar("T")
MODULES = (
    *(apps, certificates, disks, hosts, images, join_tokens),
    *(networks, releases, replicas, reservations, shares, tenants, users),
)

A, B = TenantId("a"), TenantId("b")
HOST = HostName("host-1")
INFO = image("b" * 64, 5)
SPEC = AppSpec(
    name=AppName("shop"),
    services={
        ServiceName("web"): ServiceSpec(image="busybox:1", healthcheck=HealthCheck(test=("CMD", "true")))
    },
)
TENANTS = [
    TenantRow(id=one, name=TenantName(f"tenant-{one}"), quota=Quota(apps=3), created=1.5) for one in (A, B)
]
MACHINE = HostRow(
    name=HOST,
    zone=ZoneName("z"),
    pool=PoolName("z"),
    state="ready",
    cpus=2,
    memory=Bytes(2**40),
    kernel="6.18",
    cgroups="v2",
    boot_id="x",
)
APP = AppRow(id=AppId("app"), tenant_id=A, name=AppName("shop"), created=1.0, updated=2.0)
RELEASE = ReleaseRow(
    id=ReleaseId("release"),
    tenant_id=A,
    app_id=APP.id,
    revision=1,
    state="pending",
    spec=SPEC,
    plan="{}",
    images={"web": INFO},
    created_by="kim",
    created=1.0,
)
SERVICE = ServiceRow(id=ServiceId("service"), tenant_id=A, app_id=APP.id, name="web")
REPLICA = ReplicaRow(
    id=ReplicaId("replica"),
    tenant_id=A,
    app_id=APP.id,
    service_id=SERVICE.id,
    service="web",
    ordinal=0,
    host=HOST,
    container_id=ContainerId("container"),
    desired="running",
    created=1.0,
)
CONTAINER = ContainerRow(
    id=REPLICA.container_id,
    tenant_id=A,
    replica_id=REPLICA.id,
    release_id=RELEASE.id,
    system_disk=DiskId("disk"),
    fingerprint="f",
    created=1.0,
)
NETWORK = NetworkRow(
    id=NetworkId("network"),
    tenant_id=A,
    app_id=None,
    name="default",
    subnet="10.1.0.0/24",
    gateway="10.1.0.1",
    number=1,
    cursor=2**32 - 1,
    internal=False,
    created=1.0,
)
PORT = PortRow(
    id=PortId("port"),
    tenant_id=A,
    network_id=NETWORK.id,
    replica_id=REPLICA.id,
    address=2**32 - 2,
    mac="02:00:00:00:00:01",
    names=("web-0", "web"),
    position=0,
    address6=2**128 - 2,
)
PUBLISHED = PublishedRow(
    id="published",
    tenant_id=A,
    service_id=SERVICE.id,
    host_ip="0.0.0.0",
    protocol="tcp",
    published=8080,
    target=80,
)
DISK = DiskRow(
    id=DiskId("disk"),
    tenant_id=A,
    app_id=APP.id,
    name="shop_data",
    kind="data",
    size=Bytes(2**40),
    host=HOST,
    created=1.0,
)
IMAGE = ImageRow(
    id=ImageId("image"), tenant_id=A, reference="redis:7", digest=INFO.digest, info=INFO, created=1.0
)
USER = UserRow(id=UserId("user"), tenant_id=A, name="kim", role="member", created=1.0)
TOKEN = TokenRow(
    id=TokenId("token"),
    tenant_id=A,
    user_id=USER.id,
    name="laptop",
    hash="h",
    created=1.0,
    expires=None,
    last_used=None,
)


JOIN_TOKEN = JoinTokenRow(
    id="join",
    hash="j",
    host=None,
    zone=ZoneName("z"),
    pool="p",
    created=1.0,
    created_by="kim",
    expires=100.0,
)
AUTHORITY = AuthorityRow(
    fingerprint="sha256:a", place=1, certificate="PEM", sealed_key=b"\0sealed", created=1.0
)
CERTIFICATE = CertificateRow(serial="5e", role="agent", name=HOST, created=1.0, expires=100.0)


def changed(row: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(row, **changes)


class Store:
    """Calls functions of the store, each in a transaction of its own, and remembers which."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def do(self, function: Callable[..., Awaitable[T]], *args: Any, **named: Any) -> T:
        CALLED.add(function)
        return await self.database.write(lambda tx: function(tx, *args, **named))

    async def see(self, function: Callable[..., Awaitable[T]], *args: Any, **named: Any) -> T:
        CALLED.add(function)
        async with self.database.read() as connection:
            return await function(connection, *args, **named)


CALLED: set[Callable[..., object]] = set()


@pytest.fixture
async def store(database: Database) -> Store:
    """With two tenants, a host, and an app of one replica."""
    made = Store(database)
    for tenant in TENANTS:
        await made.do(tenants.insert, tenant)
    await made.do(hosts.ensure_zone, ZoneRow(name=ZoneName("z"), region=RegionName("r")))
    await made.do(hosts.save, MACHINE)
    await made.do(apps.insert, APP)
    await made.do(releases.insert, RELEASE)
    await made.do(replicas.insert_services, [SERVICE])
    await made.do(replicas.insert, [REPLICA])
    await made.do(replicas.insert_containers, [CONTAINER])
    await made.do(networks.insert, [NETWORK])
    await made.do(networks.insert_ports, [PORT])
    await made.do(networks.insert_published, [PUBLISHED])
    await made.do(disks.insert, [DISK])
    return made


async def test_tenants(store: Store) -> None:
    assert await store.see(tenants.every) == TENANTS
    assert await store.see(tenants.get, A) == TENANTS[0]
    assert await store.see(tenants.by_name, "tenant-b") == TENANTS[1]

    await store.do(tenants.delete, B)

    assert await store.see(tenants.get, B) is None


async def test_a_tenant_that_owns_rows_cannot_be_deleted(store: Store) -> None:
    with pytest.raises(IntegrityError):
        await store.do(tenants.delete, A)


async def test_hosts_and_zones(store: Store) -> None:
    zone = ZoneRow(name=ZoneName("z"), region=RegionName("r"))
    await store.do(hosts.ensure_zone, zone)
    await store.do(hosts.save, changed(MACHINE, boot_id="y"))

    assert await store.see(hosts.every) == [changed(MACHINE, boot_id="y")]
    assert await store.see(hosts.get, HOST) == changed(MACHINE, boot_id="y")
    assert await store.see(hosts.every_zone) == [zone]
    assert await store.see(hosts.every_pool) == [PoolRow(name=PoolName("z"), zone=ZoneName("z"))]


async def the_host(store: Store) -> HostRow:
    row = await store.see(hosts.get, HOST)
    assert row is not None
    return row


async def test_what_the_operator_decided_about_a_host_stays_when_it_comes_again(store: Store) -> None:
    await store.do(hosts.set_labels, HOST, {"disk": "ssd"})
    await store.do(hosts.set_intent, HOST, Intent.CORDONED)

    await store.do(hosts.save, changed(MACHINE, kernel="7"))

    row = await the_host(store)
    assert (row.kernel, row.labels, row.intent, row.shown) == ("7", {"disk": "ssd"}, "cordoned", "cordoned")
    assert not row.schedulable


async def test_the_certificate_of_a_host_and_where_it_is(store: Store) -> None:
    await store.do(hosts.set_certificate, HOST, "1f")
    await store.do(hosts.set_address, HOST, "192.0.2.7:1234")

    host = await the_host(store)
    assert (host.certificate, host.address) == ("1f", "192.0.2.7:1234")


async def test_a_host_without_a_lease_is_never_silent(store: Store) -> None:
    assert await store.see(hosts.silent) == []


async def test_a_silent_host_is_lost_until_its_next_sign_of_life(store: Store) -> None:
    facts = HostFacts(cpus=8, memory=Bytes(2**30), kernel="7", cgroups="v2", boot_id="y")
    await store.do(hosts.renew, HOST, -1.0, facts=facts, version="0.4", load=HostLoad(load=0.5))

    assert await store.see(hosts.silent) == [HOST]
    (lost,) = await store.do(hosts.lose, [HOST])
    assert await store.do(hosts.lose, [HOST]) == []
    before = await store.do(hosts.renew, HOST, 60.0)

    row = await the_host(store)
    assert [seen and seen.state for seen in (lost, before, row)] == ["lost", "lost", "ready"]
    assert (row.cpus, row.version, row.load) == (8, "0.4", HostLoad(load=0.5))
    assert row.seen is not None
    assert row.lease_expires == pytest.approx(row.seen + 60, abs=1)
    assert await store.see(hosts.silent) == []


async def test_a_host_that_renewed_meanwhile_is_not_lost(store: Store) -> None:
    await store.do(hosts.renew, HOST, 60.0)

    assert await store.do(hosts.lose, [HOST]) == []


async def test_a_host_that_is_gone_stays_so(store: Store) -> None:
    await store.do(hosts.set_state, HOST, Liveness.GONE)

    assert await store.do(hosts.renew, HOST, 60.0) is None
    assert await store.do(hosts.renew, HostName("unknown"), 60.0) is None
    assert (await the_host(store)).state == "gone"


async def test_pools_and_zones_come_and_go(store: Store) -> None:
    zone = ZoneRow(name=ZoneName("y"), region=RegionName("r"))
    await store.do(hosts.ensure_zone, zone)
    gold = PoolRow(name=PoolName("gold"), zone=zone.name, memory_overcommit=1.0, tenant_id=A)
    await store.do(hosts.save_pool, gold)
    await store.do(hosts.save_pool, changed(gold, labels={"tier": "gold"}))

    assert await store.see(hosts.pool, gold.name) == changed(gold, labels={"tier": "gold"})
    assert await store.do(hosts.default_pool, zone.name) == "y"

    await store.do(hosts.delete_pool, gold.name)
    await store.do(hosts.delete_zone, zone.name)

    assert [row.name for row in await store.see(hosts.every_zone)] == ["z"]
    assert [row.name for row in await store.see(hosts.every_pool)] == ["z"]


async def test_ports_with_where_their_replicas_are(store: Store) -> None:
    (found,) = await store.see(networks.attachments, [NETWORK.id])

    assert (found.id, found.host, found.app) == (PORT.id, HOST, "shop")
    assert await store.see(networks.attachments) == [found]
    assert await store.see(networks.attachments, []) == []
    assert await store.see(networks.networks_of, [found.replica_id]) == [NETWORK.id]


async def test_a_replica_moves_with_its_system_disk(store: Store) -> None:
    other = HostName("host-2")
    await store.do(hosts.save, changed(MACHINE, name=other))

    await store.do(replicas.set_host, REPLICA.id, other)
    await store.do(disks.set_host, DISK.id, other)

    assert await store.see(replicas.get, REPLICA.id) == changed(REPLICA, host=other)
    assert await store.see(replicas.on_host, other) == [changed(REPLICA, host=other)]
    assert await store.see(disks.get, DISK.id) == changed(DISK, host=other)


async def test_whether_a_host_has_something(store: Store) -> None:
    await store.do(hosts.save, changed(MACHINE, name=HostName("empty")))

    assert await store.see(hosts.in_use, HOST)
    assert not await store.see(hosts.in_use, HostName("empty"))

    await store.do(hosts.delete, HostName("empty"))

    assert await store.see(hosts.get, HostName("empty")) is None


async def test_users_and_tokens(store: Store) -> None:
    await store.do(users.insert, USER)
    await store.do(users.insert_token, TOKEN)
    await store.do(users.touch_token, TOKEN.id, 9.0)

    assert await store.see(users.every) == await store.see(users.every, A) == [USER]
    assert await store.see(users.every, B) == []
    assert await store.see(users.get, USER.id) == await store.see(users.by_name, "kim") == USER
    assert await store.see(users.token_by_hash, "h") == changed(TOKEN, last_used=9.0)
    assert len(await store.see(users.tokens_of, USER.id)) == len(await store.see(users.tokens_of, None)) == 1

    await store.do(users.insert_token, changed(TOKEN, id=TokenId("other"), hash="i"))
    await store.do(users.delete_token, TokenId("other"))
    await store.do(users.delete, USER.id)

    assert await store.see(users.tokens_of, None) == []
    assert await store.see(users.every) == []


async def test_join_tokens(store: Store) -> None:
    other = changed(JOIN_TOKEN, id="other", hash="k", created=2.0, expires=50.0)
    await store.do(join_tokens.insert, JOIN_TOKEN)
    await store.do(join_tokens.insert, other)

    assert await store.see(join_tokens.every) == [JOIN_TOKEN, other]
    assert await store.see(join_tokens.by_hash, "j") == JOIN_TOKEN
    assert await store.see(join_tokens.by_hash, "none") is None

    await store.do(join_tokens.forget, 100.0)
    assert await store.see(join_tokens.every) == [JOIN_TOKEN]
    await store.do(join_tokens.delete, "join")
    assert await store.see(join_tokens.every) == []


async def test_a_join_token_is_taken_once_and_in_time(store: Store) -> None:
    await store.do(join_tokens.insert, JOIN_TOKEN)
    late = await store.do(join_tokens.take, "join", "key-0", 100.0, HOST)

    both = await asyncio.gather(
        *(store.do(join_tokens.take, "join", key, 99.0, HOST) for key in ("key-1", "key-2"))
    )

    assert late is False
    assert sorted(both) == [False, True]
    taken = await store.see(join_tokens.by_hash, "j")
    assert taken == changed(JOIN_TOKEN, used=99.0, used_by=f"key-{both.index(True) + 1}", host=HOST)


async def test_of_two_processes_one_takes_a_join_token(store: Store, url: str) -> None:
    other = await Database.open(url, durable=False)
    try:
        for number in range(20):
            token = changed(JOIN_TOKEN, id=f"join-{number}", hash=f"j-{number}")
            await store.do(join_tokens.insert, token)

            both = await asyncio.gather(
                store.do(join_tokens.take, token.id, "key-1", 2.0, HOST),
                Store(other).do(join_tokens.take, token.id, "key-2", 2.0, HOST),
            )

            assert sorted(both) == [False, True]
    finally:
        await other.close()


async def test_certificates_and_who_signed_them(store: Store) -> None:
    second = changed(AUTHORITY, fingerprint="sha256:b", place=2)
    await store.do(certificates.insert_authority, second)
    await store.do(certificates.insert_authority, AUTHORITY)
    await store.do(certificates.insert, CERTIFICATE)
    await store.do(certificates.insert, changed(CERTIFICATE, serial="5f", role="worker"))

    assert await store.see(certificates.every_authority) == [AUTHORITY, second]
    assert await store.see(certificates.of, "agent", HOST) == [CERTIFICATE]
    assert await store.see(certificates.is_known, "agent", HOST, "5e", 99.0)
    for role, name, serial, at in (
        ("worker", HOST, "5e", 99.0),
        ("agent", "host-2", "5e", 99.0),
        ("agent", HOST, "5f", 99.0),
        ("agent", HOST, "5e", 100.0),
    ):
        assert not await store.see(certificates.is_known, role, name, serial, at)

    await store.do(certificates.revoke, "agent", HOST)
    assert not await store.see(certificates.is_known, "agent", HOST, "5e", 99.0)
    await store.do(certificates.forget, 101.0)
    assert await store.see(certificates.of, "worker", HOST) == []


async def test_two_processes_do_not_both_make_the_first_authority(store: Store) -> None:
    await store.do(certificates.insert_authority, AUTHORITY)

    with pytest.raises(IntegrityError):
        await store.do(certificates.insert_authority, changed(AUTHORITY, fingerprint="sha256:b"))


async def test_apps(store: Store) -> None:
    assert await store.see(apps.get, APP.id) == await store.see(apps.by_name, A, "shop") == APP
    assert await store.see(apps.by_name, B, "shop") is None
    assert await store.see(apps.removing) == set()

    later = changed(APP, release_id=RELEASE.id, revision=1, version=2, removing=True, remove_volumes=True)
    await store.do(apps.save, later)

    assert await store.see(apps.every) == await store.see(apps.every, A) == [later]
    assert await store.see(apps.every, B) == []
    assert await store.see(apps.removing) == {APP.id}


async def test_an_app_is_wanted_as_its_current_release_or_as_the_first_that_is_being_made(
    store: Store,
) -> None:
    first = await store.see(releases.wanted)
    await store.do(releases.set_state, RELEASE.id, "current")
    await store.do(releases.insert, changed(RELEASE, id="next", revision=2))

    assert [row.id for row in first] == [RELEASE.id]
    assert [row.id for row in await store.see(releases.wanted)] == [RELEASE.id]


async def test_a_deleted_app_takes_its_own_rows_along_and_leaves_disks(store: Store) -> None:
    await store.do(networks.insert, [changed(NETWORK, id="own", app_id=APP.id, name="shop_own", number=2)])
    await store.do(networks.delete_ports, [PORT.id])
    await store.do(networks.delete_published, [PUBLISHED.id])

    await store.do(apps.delete, APP.id)

    assert await store.see(releases.of_app, APP.id) == []
    assert await store.see(replicas.find) == []
    assert await store.see(replicas.containers_of) == []
    assert await store.see(networks.every) == [NETWORK]
    assert await store.see(disks.every) == [DISK]


async def test_files_are_kept_by_digest_for_each_tenant(store: Store) -> None:
    await store.do(apps.save_files, A, {"d": b"\0one"})
    await store.do(apps.save_files, A, {"d": b"never", "e": b"two"})
    await store.do(apps.save_files, B, {"e": b"two"})

    assert await store.see(apps.known_files, A) == {"d", "e"}
    assert await store.see(apps.known_files, B) == {"e"}
    assert await store.see(apps.file, "d") == b"\0one"
    assert await store.see(apps.file, "e") == b"two"
    assert await store.see(apps.file, "f") is None


async def test_contents_that_no_release_of_their_tenant_needs_are_forgotten(store: Store) -> None:
    spec = msgspec.structs.replace(SPEC, configs={"site": AppFile(digest="d")})
    await store.do(apps.save_files, A, {"d": b"one", "e": b"two"})
    await store.do(apps.save_files, B, {"d": b"one"})
    await store.do(releases.insert, changed(RELEASE, id=ReleaseId("second"), revision=2, spec=spec))

    await store.do(apps.forget_files)

    assert await store.see(apps.known_files, A) == {"d"}
    assert await store.see(apps.known_files, B) == set()
    assert await store.do(apps.hold_files, A, {"d"})
    assert not await store.do(apps.hold_files, A, {"d", "e"})


async def test_replicas_have_shares_of_the_connections(store: Store) -> None:
    await store.do(replicas.set_weights, {REPLICA.id: 5})

    found = await store.see(replicas.get, REPLICA.id)
    assert found is not None
    assert found.weight == 5


async def test_a_stand_in_takes_the_place_of_its_ordinal(store: Store) -> None:
    beside = changed(REPLICA, id=ReplicaId("beside"), ordinal=1, stand_in=True)
    await store.do(replicas.insert, [beside])

    await store.do(replicas.take_places, [beside.id])

    assert [row.stand_in for row in await store.see(replicas.find)] == [False, False]
    assert await store.see(replicas.containers_on, [REPLICA.id, beside.id]) == [CONTAINER]


async def test_a_host_that_is_given_up_stays_as_long_as_something_is_on_it(store: Store) -> None:
    await store.do(hosts.save, changed(MACHINE, name=HostName("idle")))
    for name in (HOST, HostName("idle")):
        await store.do(hosts.give_up, name, fenced=True)

    await store.do(hosts.forget_the_gone)

    assert [(row.name, row.given_up) for row in await store.see(hosts.every)] == [(HOST, True)]


async def test_contents_have_owners(store: Store) -> None:
    for tenant in (A, B):
        await store.do(apps.save_files, tenant, {"d": b"one"})

    assert await store.see(apps.owners, "d") == {A, B}


async def test_old_releases_can_be_forgotten(store: Store) -> None:
    await store.do(releases.insert, changed(RELEASE, id=ReleaseId("second"), revision=2))

    await store.do(releases.delete, [RELEASE.id])

    assert [row.revision for row in await store.see(releases.of_app, APP.id)] == [2]


async def test_releases(store: Store) -> None:
    assert await store.see(releases.get, RELEASE.id) == RELEASE
    assert await store.see(releases.current) == []
    assert await store.see(releases.highest_revision, APP.id) == 1
    assert await store.see(releases.highest_revision, AppId("none")) == 0

    await store.do(releases.insert, changed(RELEASE, id=ReleaseId("second"), revision=2))
    await store.do(releases.set_state, RELEASE.id, "current")
    await store.do(releases.set_images, RELEASE.id, {})

    now = changed(RELEASE, state="current", images={})
    assert await store.see(releases.current) == [now]
    in_use = await store.see(releases.in_use, RELEASE.tenant_id)
    assert {row.id for row in in_use} == {RELEASE.id, ReleaseId("second")}
    assert await store.see(releases.in_use, TenantId("none")) == []
    assert [row.revision for row in await store.see(releases.of_app, APP.id)] == [2, 1]


async def test_services_replicas_and_containers(store: Store) -> None:
    assert await store.see(replicas.services_of, APP.id) == [SERVICE]
    assert await store.see(replicas.of_service, SERVICE.id) == [REPLICA]
    assert await store.see(replicas.get, REPLICA.id) == REPLICA
    assert await store.see(replicas.services_with, {REPLICA.id, ReplicaId("gone")}) == [SERVICE.id]
    assert await store.see(replicas.services_with, set()) == []
    assert await store.see(replicas.by_container, CONTAINER.id) == REPLICA
    owner = await store.see(replicas.owner, CONTAINER.id)
    assert owner is not None
    assert (owner.tenant_id, owner.app) == (A, "shop")
    assert await store.see(replicas.find, tenant=A) == await store.see(replicas.find, app=APP.id) == [REPLICA]
    assert await store.see(replicas.find, tenant=B) == []
    assert await store.see(replicas.container, CONTAINER.id) == CONTAINER
    assert await store.see(replicas.containers_of, APP.id) == [CONTAINER]
    assert await store.see(replicas.containers_of, AppId("none")) == []

    await store.do(replicas.set_groups, SERVICE.id, ("inside",))
    assert (await store.see(replicas.services_of, APP.id))[0].security_groups == ("inside",)
    await store.do(replicas.set_desired, [REPLICA.id], "stopped")
    await store.do(replicas.delete_containers, [CONTAINER.id])
    assert (await store.see(replicas.find))[0].desired == "stopped"

    await store.do(networks.delete_ports, [PORT.id])
    await store.do(replicas.delete, [REPLICA.id])
    await store.do(networks.delete_published, [PUBLISHED.id])
    await store.do(replicas.delete_services, [SERVICE.id])
    assert await store.see(replicas.find) == []
    assert await store.see(replicas.services_of, APP.id) == []


async def test_news_of_a_replaced_container_is_dropped(store: Store) -> None:
    status = ContainerStatus(
        id=CONTAINER.id,
        replica=REPLICA.id,
        state=ContainerState.RUNNING,
        health=Health.HEALTHY,
        started_at=1.5,
    )
    await store.do(replicas.set_status, status)
    await store.do(replicas.correct_status, changed(status, restarts=7), None)
    seen = (await store.see(replicas.find))[0].status

    await store.do(replicas.set_container, REPLICA.id, ContainerId("next"))
    await store.do(replicas.set_status, status)

    assert seen == status, "what was read before the news came does not replace it"
    assert await store.see(replicas.get, REPLICA.id) == changed(REPLICA, container_id="next")


async def test_networks_and_ports(store: Store) -> None:
    assert await store.see(networks.every, A) == [await store.see(networks.get, NETWORK.id)] == [NETWORK]
    assert await store.see(networks.every, B) == []
    assert await store.see(networks.numbers) == {1}
    assert await store.see(networks.port, PORT.id) == PORT
    for its in ({"tenant": A}, {"app": APP.id}, {"replica": REPLICA.id}, {"network": NETWORK.id}, {}):
        assert await store.see(networks.ports_of, **its) == [PORT]
    for other in ({"tenant": B}, {"app": "no"}, {"replica": "no"}, {"network": "no"}):
        assert await store.see(networks.ports_of, **other) == []

    grown = Subnet(cidr="10.2.0.0/24", gateway="10.2.0.1", cursor=1)
    await store.do(networks.set_ranges, changed(NETWORK, cursor=7, more=(grown,)))
    await store.do(networks.set_names, PORT.id, ("other",))

    assert await store.see(networks.every) == [changed(NETWORK, cursor=7, more=(grown,))]
    assert (await store.see(networks.ports_of))[0].names == ("other",)


async def test_reservations(store: Store) -> None:
    row = ReservationRow(
        id=ReservationId("kept"),
        tenant_id=A,
        network_id=NETWORK.id,
        first=2**32 - 9,
        last=2**32 - 5,
        purpose="printers",
        created=1.0,
    )
    await store.do(reservations.insert, row)
    assert await store.see(reservations.of_network, NETWORK.id) == [row]
    assert await store.see(reservations.of_network, NetworkId("other")) == []

    six = changed(row, id=ReservationId("six"), first=0xFD << 120, last=2**128 - 1)
    await store.do(reservations.insert, six)
    assert await store.see(reservations.of_network, NETWORK.id) == [row, six]

    await store.do(reservations.delete, [row.id, six.id])
    assert await store.see(reservations.of_network, NETWORK.id) == []


async def test_a_share_counts_once_it_is_accepted_and_goes_with_its_guest(store: Store) -> None:
    row = ShareRow(
        id=ShareId("share"),
        tenant_id=A,
        network_id=NETWORK.id,
        guest="b",
        guest_id=None,
        alias=None,
        created=1.0,
        accepted=None,
    )
    await store.do(shares.insert, row)
    (offer,) = await store.see(shares.of_tenant, B, "b")
    assert [offer] == await store.see(shares.of_tenant, A, "a")
    assert (offer.network, offer.owner, offer.guest) == ("default", TENANTS[0].name, "b")
    assert await store.see(shares.of_tenant, B, "other") == []
    assert await store.see(networks.reachable, B) == {}
    assert not await store.see(shares.accepted, NETWORK.id, B)

    await store.do(shares.accept, row.id, B, "theirs", 2.0)
    assert await store.see(networks.reachable, B) == {"theirs": changed(NETWORK, name="theirs")}
    assert await store.see(networks.reachable, A) == {"default": NETWORK}
    assert await store.see(shares.accepted, NETWORK.id, B)
    assert not await store.see(shares.accepted, NETWORK.id, A)

    await store.do(shares.delete, [row.id])
    assert await store.see(shares.of_tenant, B, "b") == []
    await store.do(shares.insert, row)
    await store.do(shares.delete_of_guest, B, "b")
    assert await store.see(shares.of_tenant, B, "b") == []


async def test_ports_of_others_are_told_from_the_owners(store: Store) -> None:
    assert await store.see(networks.guests, [NETWORK.id]) == {}
    (own,) = await store.see(networks.attachments, [NETWORK.id])
    await store.do(networks.delete_ports, [PORT.id])
    await store.do(networks.insert_ports, [changed(PORT, tenant_id=B)])

    (foreign,) = await store.see(networks.attachments, [NETWORK.id])
    assert (own.guest, foreign.guest) == ("", TENANTS[1].name)
    assert await store.see(networks.guests, [NETWORK.id]) == {PORT.id: TENANTS[1].name}


async def test_an_address_is_given_once_in_a_network(store: Store) -> None:
    with pytest.raises(IntegrityError):
        await store.do(networks.insert_ports, [changed(PORT, id="twice", replica_id="other")])


async def test_a_network_with_ports_cannot_be_deleted(store: Store) -> None:
    with pytest.raises(IntegrityError):
        await store.do(networks.delete, [NETWORK.id])

    await store.do(networks.delete_ports, [PORT.id])
    await store.do(networks.delete, [NETWORK.id])

    assert await store.see(networks.every) == []


async def test_published_ports(store: Store) -> None:
    for its in ({}, {"tenant": A}, {"services": [SERVICE.id]}):
        assert await store.see(networks.published_ports, **its) == [PUBLISHED]
    assert await store.see(networks.published_ports, tenant=B) == []
    assert await store.see(networks.published_ports, services=[]) == []

    with pytest.raises(IntegrityError):
        await store.do(networks.insert_published, [changed(PUBLISHED, id="twice")])


async def test_disks(store: Store) -> None:
    assert await store.see(disks.get, DISK.id) == await store.see(disks.by_name, A, "shop_data") == DISK
    assert await store.see(disks.by_name, B, "shop_data") is None
    assert await store.see(disks.every, A) == await store.see(disks.every, app=APP.id) == [DISK]
    assert await store.see(disks.every, B) == []

    await store.do(disks.set_size, DISK.id, Bytes(5))
    await store.do(disks.set_app, [DISK.id], None)
    assert await store.see(disks.get, DISK.id) == changed(DISK, size=5, app_id=None)

    await store.do(disks.delete, [DISK.id, "absent"])
    assert await store.see(disks.every) == []


async def test_disks_of_an_app_that_moves_stand_beside_the_one_that_it_has(store: Store) -> None:
    new = changed(DISK, id=DiskId("new"), name=disks.beside("shop_data", DiskId("new")), side=disks.ARRIVING)
    await store.do(disks.insert, [new])

    await store.do(disks.set_side, DISK.id, "shop_data", disks.LEFT)
    await store.do(disks.set_side, new.id, "shop_data", "")

    assert await store.see(disks.by_name, A, "shop_data") == changed(new, name="shop_data", side="")
    left = await store.see(disks.get, DISK.id)
    assert left is not None
    assert (left.side, left.volume) == (disks.LEFT, "shop_data")
    assert left.name != left.volume


async def test_a_tenants_own_image_comes_before_a_shared_one(store: Store) -> None:
    shared = changed(IMAGE, id="shared", tenant_id=SHARED, digest=image("c" * 64, 5).digest)
    await store.do(images.save, shared)
    await store.do(images.save, IMAGE)
    await store.do(images.save, changed(IMAGE, id="again"))

    assert await store.see(images.resolve, A, ["redis:7", "absent:1"]) == {
        "redis:7": changed(IMAGE, id="again")
    }
    assert await store.see(images.resolve, B, ["redis:7"]) == {"redis:7": shared}
    assert len(await store.see(images.visible, A)) == len(await store.see(images.visible, None)) == 2
    assert await store.see(images.visible, B) == [shared]

    await store.do(images.remove, A, "redis:7")
    assert await store.see(images.visible, None) == [shared]


async def test_images_of_releases_are_referenced_save_of_those_that_failed(store: Store) -> None:
    await store.do(releases.set_state, RELEASE.id, "superseded")
    assert await store.see(images.referenced_by_releases) == {INFO.digest}

    await store.do(releases.set_state, RELEASE.id, "failed")

    assert await store.see(images.referenced_by_releases) == set()


async def test_more_ids_than_a_query_may_have_parameters(store: Store) -> None:
    many = [changed(DISK, id=f"disk-{number}", name=f"d{number}") for number in range(2500)]
    await store.do(disks.insert, many)

    await store.do(disks.delete, [disk.id for disk in many])

    assert await store.see(disks.every) == [DISK]


async def test_inserting_nothing_is_no_query(database: Database) -> None:
    await database.write(lambda tx: disks.insert(tx, []))


def test_rows_have_the_columns_of_their_tables() -> None:
    columns = {"id", "tenant_id", "app_id", "name", "kind", "size", "host", "created", "side"}
    assert set(rows.columns(DISK)) == columns


def functions(module: ModuleType) -> set[Callable[..., object]]:
    return {
        value
        for name, value in vars(module).items()
        if inspect.iscoroutinefunction(value) and value.__module__ == module.__name__ and name[0] != "_"
    }


def test_every_function_of_the_store_was_called() -> None:
    """The last test of the file; alone it has nothing to say."""
    if len(CALLED) < 40:
        pytest.skip("only part of the file was run")

    missed = {f"{one.__module__}.{one.__name__}" for module in MODULES for one in functions(module) - CALLED}
    assert missed == set()
