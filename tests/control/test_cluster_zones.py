"""Zones on Kubernetes: added, reached otherwise, removed, and who hears of what they are reached with."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from tests.control.installation import Installation, installation

from skep.control.control import Control
from skep.control.hosts.cluster_zones import ClusterZones, open_access
from skep.control.hosts.zones import Zones
from skep.model.clusters import ClusterAccess, ClusterLook, ClusterOffers
from skep.model.errors import Conflict, InvalidInput, NotFound, Unavailable, Unsupported
from skep.model.host import HostFacts
from skep.model.ids import Bytes, ClusterId, DiskId, HostName, TenantId, ZoneName, new_id
from skep.model.images import RegistryCredentials
from skep.model.needs import Need
from skep.model.views.clusters import ClusterCheck, FindingView
from skep.store import clusters, disks, hosts, tables
from skep.store.clusters import ClusterRow
from skep.store.disks import DiskRow

LOGIN = RegistryCredentials(username="ann", password="s3cret")
FACTS = HostFacts(cpus=8, memory=Bytes(2**34), kernel="6.1", cgroups="unknown", boot_id="one")
REGISTRY = "registry.example.com:5000/skep"


class KnownClusters:
    """A kubeconfig here is `CLUSTER/TOKEN`."""

    def __init__(self) -> None:
        self.missing: list[FindingView] = []
        self.answers = True
        self.left: list[ClusterId] = []

    async def check(self, kubeconfig: str, context: str | None = None) -> ClusterCheck:
        return (await self.look(kubeconfig, context)).check

    async def look(self, kubeconfig: str, context: str | None = None) -> ClusterLook:
        if not self.answers:
            raise Unavailable("The cluster does not answer.")
        which = kubeconfig.partition("/")[0]
        check = ClusterCheck(
            server=f"https://{which}", version="1.33", usable=not self.missing, findings=self.missing
        )
        facts = msgspec.structs.replace(FACTS, boot_id=which)
        return ClusterLook(check=check, facts=facts, lacks=frozenset({Need.HOST_PATHS}))

    async def check_registry(self, place: str, credentials: RegistryCredentials | None) -> None:
        if credentials is not None and credentials != LOGIN:
            raise InvalidInput("The registry refuses these credentials.")

    async def leave(self, cluster: ClusterAccess) -> None:
        if not self.answers:
            raise Unavailable("The cluster does not answer.")
        self.left.append(cluster.id)

    def rights(self) -> str:
        return ""


class House:
    """An installation that reaches clusters."""

    def __init__(self, inside: Installation, folder: Path) -> None:
        self.inside = inside
        self.known = KnownClusters()
        self.seal = folder / "installation.key"
        self.zones = ClusterZones(inside.database, self.known, inside.bus, self.seal, inside.clock, new_id)
        self.admin = inside.admin
        self.control: Control = inside.control

    async def row(self) -> ClusterRow:
        async with self.inside.database.read() as connection:
            found = await clusters.of_zone(connection, ZoneName("k8s"))
        assert found is not None
        return found

    async def use(self, size: int = 2**20) -> None:
        """A disk is there."""
        disk = DiskRow(
            id=DiskId(new_id()),
            tenant_id=TenantId(self.admin.tenant),
            app_id=None,
            host=HostName("k8s"),
            name="shop_data",
            kind="data",
            size=Bytes(size),
            created=0.0,
        )
        await self.inside.database.write(lambda connection: disks.insert(connection, [disk]))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with installation(tmp_path) as inside:
        yield House(inside, tmp_path)


async def test_a_cluster_becomes_one_host_of_a_zone_of_its_own(house: House) -> None:
    made = await house.zones.add(house.admin, "k8s", "one", REGISTRY, credentials=LOGIN)

    assert (made.zone, made.host, made.region, made.state) == ("k8s", "k8s", "region", "joining")
    async with house.inside.database.read() as connection:
        host = await hosts.get(connection, HostName("k8s"))
    assert host is not None
    assert (host.zone, host.pool, host.facts) == ("k8s", "k8s", FACTS)
    listed = {one.name: one.engine for one in await house.control.zones.list(house.admin)}
    assert listed == {"k8s": "kubernetes", "zone": "skep"}


async def test_what_it_is_reached_with_is_sealed_and_shown_to_nobody(house: House) -> None:
    made = await house.zones.add(house.admin, "k8s", "one/t0ken", REGISTRY, credentials=LOGIN)
    row = await house.row()
    opened = open_access(house.seal, row)

    shown = await house.zones.show(house.admin, "k8s")

    assert (opened.kubeconfig, opened.credentials, opened.registry) == ("one/t0ken", LOGIN, REGISTRY)
    said = [repr(one) for one in (row, opened, made, shown)]
    assert not any(secret in one for one in said for secret in ("t0ken", "s3cret"))


async def test_a_cluster_that_cannot_be_a_zone_is_refused_with_what_to_do(house: House) -> None:
    house.known.missing = [
        FindingView(subject="rights", verdict="missing", message="Not allowed.", remedy="Give them."),
        FindingView(subject="nodes", verdict="missing", message="None is seen."),
    ]

    with pytest.raises(
        Conflict, match=r"https://one cannot be a zone.* Not allowed\. Give them\. .*names more"
    ):
        await house.zones.add(house.admin, "k8s", "one", REGISTRY)

    assert [one.name for one in await house.control.zones.list(house.admin)] == ["zone"]


async def test_names_that_are_taken_and_places_that_are_none_are_refused(house: House) -> None:
    for zone in ("zone", "host-1"):
        with pytest.raises(Conflict):
            await house.zones.add(house.admin, zone, "one", REGISTRY)

    for registry in ("registry.example.com", "https://registry.example.com/skep", "a/B", "a/b@sha256:0"):
        with pytest.raises(InvalidInput, match="HOST"):
            await house.zones.add(house.admin, "k8s", "one", registry)


async def test_a_cluster_is_not_drained_but_its_nodes_are(house: House) -> None:
    await house.zones.add(house.admin, "k8s", "one", REGISTRY)

    with pytest.raises(Conflict, match=r"whole cluster.*kubectl drain NODE.*skep host cordon k8s"):
        await house.control.hosts.drain(house.admin, "k8s")

    (row,) = [one for one in await house.control.hosts.list(house.admin) if one.name == "k8s"]
    assert row.state == "joining"


async def test_a_cluster_is_one_zone(house: House) -> None:
    await house.zones.add(house.admin, "k8s", "one", REGISTRY)

    with pytest.raises(Conflict, match="is zone 'k8s' already: 'skep zone set k8s'"):
        await house.zones.add(house.admin, "again", "one/another-token", REGISTRY)
    await house.zones.add(house.admin, "other", "two", REGISTRY)


async def test_a_new_token_for_the_same_cluster_is_taken_and_the_rest_stays(house: House) -> None:
    await house.zones.add(house.admin, "k8s", "one/old", REGISTRY, context="blue", credentials=LOGIN)
    await house.use()
    before = await house.row()

    await house.zones.change(house.admin, "k8s", kubeconfig="one/new", context="green")

    row = await house.row()
    opened = open_access(house.seal, row)
    assert (row.id, row.generation) == (before.id, before.generation + 1)
    assert (opened.kubeconfig, opened.context, opened.credentials) == ("one/new", "green", LOGIN)


async def test_what_apps_cannot_have_there_is_taken_down_anew_and_the_cluster_entered_again(
    house: House,
) -> None:
    await house.zones.add(house.admin, "k8s", "one", REGISTRY)
    before = await house.row()
    offered = ClusterOffers(lacks=frozenset({Need.VOLUMES, Need.EDGE}), ranges=("10.9.0.0/24",))

    await house.inside.database.write(lambda connection: clusters.set_offers(connection, before.id, offered))

    row = await house.row()
    assert (row.lacks, row.ranges) == (("edge", "volumes"), ("10.9.0.0/24",))
    assert row == msgspec.structs.replace(
        before, lacks=row.lacks, ranges=row.ranges, generation=before.generation + 1
    )


async def test_a_disk_there_is_not_asked_to_become_smaller(house: House) -> None:
    await house.zones.add(house.admin, "k8s", "one", REGISTRY)
    await house.use(2**22)
    resize = house.control.disks.resize

    with pytest.raises(Unsupported, match=r"do not become smaller.* another name"):
        await resize(house.admin, "shop_data", 2**21)

    assert (await resize(house.admin, "shop_data", 2**23)).run


async def test_another_cluster_is_refused_while_something_is_in_the_zone(house: House) -> None:
    await house.zones.add(house.admin, "k8s", "one", REGISTRY)
    await house.use()

    with pytest.raises(Conflict, match="another cluster"):
        await house.zones.change(house.admin, "k8s", kubeconfig="two")

    assert open_access(house.seal, await house.row()).kubeconfig == "one"


async def test_what_is_in_the_zone_keeps_its_registry_which_must_let_in(house: House) -> None:
    wrong = RegistryCredentials(username="ann", password="guessed")
    with pytest.raises(InvalidInput, match="refuses"):
        await house.zones.add(house.admin, "k8s", "one", REGISTRY, credentials=wrong)
    await house.zones.add(house.admin, "k8s", "one", REGISTRY)
    await house.use()

    await house.zones.change(house.admin, "k8s", credentials=LOGIN)
    with pytest.raises(InvalidInput, match="refuses"):
        await house.zones.change(house.admin, "k8s", credentials=wrong)
    with pytest.raises(Conflict, match="has its images at"):
        await house.zones.change(house.admin, "k8s", registry="elsewhere.example.com/skep")

    opened = open_access(house.seal, await house.row())
    assert (opened.registry, opened.credentials) == (REGISTRY, LOGIN)


async def test_credentials_are_of_one_registry(house: House) -> None:
    await house.zones.add(house.admin, "k8s", "one", REGISTRY, credentials=LOGIN)

    await house.zones.change(house.admin, "k8s", registry="elsewhere.example.com/skep")

    assert open_access(house.seal, await house.row()).credentials is None


async def test_a_zone_with_nothing_in_it_leaves_its_cluster_and_is_gone(house: House) -> None:
    await house.zones.add(house.admin, "k8s", "one", REGISTRY)
    cluster = (await house.row()).id

    await Zones(house.inside.database, house.zones).remove(house.admin, "k8s")

    assert house.known.left == [cluster]
    assert [one.name for one in await house.control.zones.list(house.admin)] == ["zone"]
    assert [one.name for one in await house.control.hosts.list(house.admin)] == ["host-1"]


async def test_a_zone_with_something_in_it_stays(house: House) -> None:
    await house.zones.add(house.admin, "k8s", "one", REGISTRY)
    await house.use()

    for lost in (False, True):
        with pytest.raises(Conflict, match="skep host show k8s"):
            await house.zones.remove(house.admin, "k8s", lost=lost)

    assert house.known.left == []


async def test_a_cluster_goes_with_its_zone_also_when_it_was_given_up_before(house: House) -> None:
    await house.zones.add(house.admin, "k8s", "one", REGISTRY)
    with pytest.raises(Conflict, match="skep zone rm k8s"):
        await house.control.hosts.remove(house.admin, "k8s", lost=True)
    await house.use()
    await house.control.hosts.remove(house.admin, "k8s", fenced=True)
    await house.inside.database.write(lambda connection: connection.execute(sa.delete(tables.disks)))

    await house.inside.database.write(hosts.forget_the_gone)
    await house.zones.remove(house.admin, "k8s", lost=True)

    assert [one.name for one in await house.control.hosts.list(house.admin)] == ["host-1"]


async def test_a_cluster_that_does_not_answer_is_left_only_if_it_is_lost(house: House) -> None:
    await house.zones.add(house.admin, "k8s", "one", REGISTRY)
    house.known.answers = False

    with pytest.raises(Unavailable):
        await house.zones.remove(house.admin, "k8s")
    shown = await house.zones.show(house.admin, "k8s")
    await house.zones.remove(house.admin, "k8s", lost=True)

    assert (shown.check, shown.trouble) == (None, "The cluster does not answer.")
    with pytest.raises(NotFound):
        await house.zones.show(house.admin, "k8s")
