"""Endpoints from the use case to what hosts are told."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from tests.control.installation import Installation, installation
from tests.control.samples import stand_on_cluster
from tests.control.simulation import app, service

from skep.control.callers import Role
from skep.control.endpoints.endpoint_views import Endpoints, url
from skep.control.endpoints.endpoints import complete
from skep.control.settings import Settings
from skep.model.edge import AppEndpoints
from skep.model.endpoints import check_endpoint, meet
from skep.model.errors import Conflict, InvalidInput, NotFound, Unsupported
from skep.model.ids import AppId, EndpointId, HostName, ServiceId, TenantId
from skep.model.spec import AppExtensions, AppSpec, EndpointSpec, Extensions, ServiceSpec
from skep.providers.simulated import SimulatedEdge
from skep.store.endpoints import EndpointRow


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, hosts=2) as made:
        yield made


def web(*hosts: str, replicas: int = 1) -> ServiceSpec:
    found = tuple(EndpointSpec(host=host, port=8080) for host in hosts)
    return service(replicas=replicas, x_skep=Extensions(endpoints=found))


def endpoint_row(tls: str | None = None) -> EndpointRow:
    return EndpointRow(
        id=EndpointId("e"),
        tenant_id=TenantId("t"),
        app_id=AppId("a"),
        service_id=ServiceId("s"),
        host="shop.example.com",
        path="/",
        spec=EndpointSpec(host="shop.example.com", tls=tls),
        created=0.0,
    )


async def release(house: Installation, spec: AppSpec) -> None:
    await house.finish(await house.control.apps.apply(house.admin, spec))


def told(house: Installation) -> list[AppEndpoints]:
    """What each host knows of the only app."""
    found = []
    for host in house.hosts.values():
        assert isinstance(host.edge, SimulatedEdge)
        found += list(host.edge.told.values())
    return found


async def test_every_host_hears_of_every_endpoint_with_all_that_answer(house: Installation) -> None:
    await release(house, app(web=web("shop.localhost", replicas=2)))

    one, other = told(house)
    (endpoint,) = one.endpoints
    assert one.digest == other.digest
    assert (endpoint.host, endpoint.path) == ("shop.localhost", "/")
    assert [(server.replica, server.port, server.revision) for server in endpoint.servers] == [
        ("web-0", 8080, 1),
        ("web-1", 8080, 1),
    ]
    assert (await house.control.apps.list(house.admin))[0].urls == ("http://shop.localhost/",)


async def test_a_release_gives_up_endpoints_and_takes_others(house: Installation) -> None:
    await release(house, app(web=web("a.localhost", "b.localhost")))

    await release(house, app(web=web("b.localhost", "c.localhost")))

    listed = await house.control.endpoints.list(house.admin, "shop")
    assert [one.host for one in listed] == ["b.localhost", "c.localhost"]


async def test_a_name_belongs_to_the_tenant_that_has_it_first(house: Installation) -> None:
    await house.control.tenants.create(house.admin, "acme")
    other = await house.person("mia", Role.MEMBER, "acme")
    await release(house, app(web=web("shop.example.com", "*.example.org")))

    for taken in ("shop.example.com", "*.example.com", "a.example.org"):
        with pytest.raises(Conflict, match="another tenant"):
            await house.control.apps.apply(other, app(web=web(taken)))
    with pytest.raises(Conflict, match="another app"):
        await house.control.apps.apply(house.admin, app("other", web=web("shop.example.com")))

    assert await house.control.endpoints.list(other) == []
    with pytest.raises(NotFound):
        await house.control.endpoints.access(other, "shop")


async def test_of_requests_that_a_cluster_leads_nobody_is_told(house: Installation) -> None:
    await release(house, app(web=web("shop.localhost")))
    asked = await house.control.endpoints.access(house.admin, "shop")
    (there,) = (await house.control.apps.show(house.admin, "shop")).replicas
    await stand_on_cluster(house.database, "zone", HostName(there.host))

    with pytest.raises(Unsupported, match="log has them, that of the ingress controller or the gateway"):
        await house.control.endpoints.access(house.admin, "shop")

    assert asked == []


async def test_a_cluster_hears_of_endpoints_of_what_is_in_it_alone(tmp_path: Path) -> None:
    async with installation(tmp_path, hosts=2, zones=2) as house:
        ours, cluster = (house.hosts[HostName(name)].edge for name in ("host-1", "host-2"))
        await stand_on_cluster(house.database, "zone-2", HostName("host-2"))
        await release(house, app(web=web("shop.localhost")))

        assert isinstance(ours, SimulatedEdge)
        assert isinstance(cluster, SimulatedEdge)
        assert [one.host for told in ours.told.values() for one in told.endpoints] == ["shop.localhost"]
        assert cluster.told == {}


def test_an_app_in_a_cluster_is_found_at_the_usual_ports_and_others_at_those_of_hosts(tmp_path: Path) -> None:
    settings = Settings(spool=tmp_path, edge_http=8080, edge_https=0)
    plain, secure = endpoint_row(), endpoint_row(tls="shop")

    assert url(plain, settings) == "http://shop.example.com:8080/"
    assert url(plain, settings, in_cluster=True) == "http://shop.example.com/"
    assert url(secure, settings, in_cluster=True) == "https://shop.example.com/"


@pytest.mark.parametrize("replicas", [0, 1])
async def test_also_an_app_in_a_cluster_that_has_no_replica_is_found_at_the_usual_port(
    tmp_path: Path, replicas: int
) -> None:
    settings = Settings(spool=tmp_path, edge_http=8080)
    async with installation(tmp_path, hosts=2, zones=2) as house:
        await stand_on_cluster(house.database, "zone-2", HostName("host-2"))
        there = AppExtensions(zones=("zone-2",))
        spec = app("there", web=web("there.localhost", replicas=replicas))
        await release(house, msgspec.structs.replace(spec, x_skep=there))
        await release(house, app("here", web=web("here.localhost", replicas=replicas)))
        views = Endpoints(house.database, house.directory, None, settings, house.clock)

        found = {one.app: one.url for one in await views.list(house.admin)}

    assert found == {"there": "http://there.localhost/", "here": "http://here.localhost:8080/"}


async def test_a_certificate_must_be_there_before_an_endpoint_names_it(house: Installation) -> None:
    one = EndpointSpec(host="shop.example.com", port=80, tls="shop")
    spec = app(web=service(x_skep=Extensions(endpoints=(one,))))

    with pytest.raises(NotFound, match="skep cert add shop"):
        await house.control.apps.apply(house.admin, spec)


@pytest.mark.parametrize("host", ["", "localhost", "*.localhost", "com", "a b.com", "a.*.com", "-a.com"])
def test_what_is_no_name_for_one_app_is_refused(host: str) -> None:
    with pytest.raises(InvalidInput):
        check_endpoint(EndpointSpec(host=host))


def test_a_wildcard_covers_one_label() -> None:
    assert meet("*.example.com", "shop.example.com")
    assert not meet("*.example.com", "a.shop.example.com")
    assert not meet("*.example.com", "example.com")


def test_the_port_is_the_only_one_that_is_exposed_or_must_be_written() -> None:
    one = EndpointSpec(host="shop.localhost")

    assert complete(service(expose=("8080/tcp", "53/udp")), one).port == 8080
    for expose in ((), ("80", "81")):
        with pytest.raises(InvalidInput, match="which port"):
            complete(service(expose=expose), one)
