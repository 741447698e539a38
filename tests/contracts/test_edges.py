"""What control may expect of every edge."""

from collections.abc import AsyncIterator
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import pytest
from tests.cluster.kubernetes.cluster import Cluster
from tests.contracts.remote import Parts, elsewhere
from tests.providers.edge.conftest import Site
from tests.providers.edge.conftest import fabric as fabric
from tests.providers.edge.conftest import site as site
from tests.providers.edge.conftest import world as world
from tests.providers.kubernetes.zone import open_zone

from skep.control.ports import Edge
from skep.model.edge import AppEndpoints, EdgeEndpoint, EdgeServer
from skep.model.errors import Stale, Unsupported
from skep.model.host import PeersInForce
from skep.model.ids import AppId, EndpointId, NetworkId, TenantId, new_id
from skep.providers.simulated import SimulatedEdge


def endpoints(generation: int = 1, app: str = "", revision: int = 1) -> AppEndpoints:
    server = EdgeServer(
        replica="web-0",
        revision=revision,
        network=NetworkId(new_id()),
        address=IPv4Address("10.1.0.5"),
        port=80,
    )
    one = EdgeEndpoint(id=EndpointId(new_id()), host=f"{new_id()}.localhost", servers=(server,))
    return AppEndpoints(
        app=AppId(app or new_id()), tenant=TenantId(new_id()), generation=generation, endpoints=(one,)
    )


class EdgeContract:
    async def test_what_was_told_last_is_in_force(self, edge: Edge) -> None:
        one, other = endpoints(generation=5), endpoints(generation=3)
        for told in (one, other, one):
            await edge.set_endpoints(told)

        newer = endpoints(generation=6, app=one.app)
        await edge.set_endpoints(newer)

        assert await edge.endpoints() == {
            newer.app: PeersInForce(generation=6, digest=newer.digest),
            other.app: PeersInForce(generation=3, digest=other.digest),
        }

    async def test_older_news_of_an_app_are_refused_also_when_it_has_no_endpoints_any_more(
        self, edge: Edge
    ) -> None:
        told = endpoints(generation=5)
        await edge.set_endpoints(told)
        # As control says it: whose it was is not known any more.
        none = msgspec.structs.replace(told, generation=6, endpoints=(), tenant=TenantId(""))
        await edge.set_endpoints(none)

        with pytest.raises(Stale):
            await edge.set_endpoints(told)

        assert (await edge.endpoints())[told.app] == PeersInForce(generation=6, digest=none.digest)

    async def test_nobody_asked_for_anything_yet(self, edge: Edge) -> None:
        told = endpoints()
        await edge.set_endpoints(told)

        traffic = await edge.traffic()

        assert [one.requests for one in traffic] == [0] * len(traffic)
        assert await edge.access(told.endpoints[0].id) == []


class TestSimulatedEdge(EdgeContract):
    @pytest.fixture
    def edge(self) -> Edge:
        return SimulatedEdge()


@pytest.mark.root
class TestHaproxyEdge(EdgeContract):
    @pytest.fixture
    def edge(self, site: Site) -> Edge:
        return site.edge


class TestEdgeElsewhere(EdgeContract):
    @pytest.fixture
    async def edge(self, tmp_path: Path) -> AsyncIterator[Edge]:
        async with elsewhere(Parts(edge=SimulatedEdge()), tmp_path) as host:
            yield host.edge


@pytest.mark.root
@pytest.mark.kubernetes
class TestClusterEdge(EdgeContract):
    @pytest.fixture
    async def edge(self, kubernetes: Cluster) -> AsyncIterator[Edge]:
        async with open_zone(kubernetes) as zone:
            yield zone.edge

    async def test_what_the_standard_has_no_word_for_is_refused_by_name(self, edge: Edge) -> None:
        told = endpoints()
        sticky = msgspec.structs.replace(told.endpoints[0], sticky=True, rate=5)

        with pytest.raises(Unsupported, match="sticky, rate"):
            await edge.set_endpoints(msgspec.structs.replace(told, endpoints=(sticky,)))

        assert await edge.endpoints() == {}
