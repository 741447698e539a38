"""Endpoints where a Gateway leads into the cluster."""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable

import httpx
import msgspec
import pytest
from tests.cluster.kubernetes import gateway_rules
from tests.cluster.kubernetes.cluster import Cluster
from tests.cluster.kubernetes.layout import CONTROL
from tests.providers.kubernetes.network.test_networks import PORT, running
from tests.providers.kubernetes.zone import open_zone
from tests.providers.network.conftest import network

from skep.model.edge import AppEndpoints, EdgeEndpoint, EdgeServer
from skep.model.ids import AppId, EndpointId, TenantId, new_id
from skep.providers.kubernetes.joining.gateways import Gateway, open_gateways
from skep.providers.kubernetes.network.edge import entrance
from skep.providers.kubernetes.network.entrances import Entrance

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(900)]


@pytest.fixture
async def gate(kubernetes: Cluster) -> AsyncIterator[Entrance]:
    """A Gateway that takes routes of all namespaces."""
    name = f"t{secrets.token_hex(4)}"
    kubernetes.kubectl("create", "namespace", name)
    manifest = json.dumps(gateway_rules.gateway(name, "gate"))
    kubernetes.kubectl("apply", "--filename=-", stdin=manifest)
    yield Entrance(gateway=(name, "gate"))
    kubernetes.kubectl("delete", "namespace", name, "--wait=false")


async def test_behind_a_gateway_revisions_have_their_exact_shares_and_routes_come_back_and_go(
    kubernetes: Cluster, gate: Entrance
) -> None:
    host, net = f"{new_id()}.example", network()

    def asked(times: int) -> Counter[str]:
        url = f"http://{kubernetes.layout.address(CONTROL)}/"
        with httpx.Client(headers={"Host": host}, trust_env=False) as client:
            answers = [client.get(url) for _ in range(times)]
        return Counter(one.text.strip() if one.is_success else str(one.status_code) for one in answers)

    async with open_zone(kubernetes, entrance=gate) as zone:
        await zone.fabric.ensure_network(net)
        nics = await running(zone, net, 5, 6, 7)
        shares = dict(zip((nic.replica for nic in nics), (45, 45, 10), strict=True))
        servers = tuple(
            EdgeServer(
                replica=nic.replica,
                revision=2 if shares[nic.replica] == 10 else 1,
                network=net.id,
                address=nic.address,
                port=PORT,
                weight=shares[nic.replica],
            )
            for nic in nics
        )
        one = EdgeEndpoint(id=EndpointId(new_id()), host=host, servers=servers)
        told = AppEndpoints(app=AppId(new_id()), tenant=net.tenant, generation=1, endpoints=(one,))
        await zone.edge.set_endpoints(told)

        await until(lambda: asked(100) == shares, "a tenth of the requests is the new revision's")
        await zone.kubectl(net.tenant, "delete", "httproute", "--all")
        await until(lambda: zone.get(net.tenant, "httproute") != {}, "the route is there again")
        await until(lambda: asked(1).keys() <= shares.keys(), "it is heard of")
        async with open_zone(kubernetes, zone.cluster.installation, gate) as younger:
            known = younger.tenancies.tenancy(net.tenant).there
        none = msgspec.structs.replace(told, generation=2, endpoints=(), tenant=TenantId(""))
        await zone.edge.set_endpoints(none)
        await until(lambda: asked(1) == {"404": 1}, "nothing leads there")
        gates = open_gateways(await zone.cluster.list(Gateway, labels={}))
        found = await entrance(zone.cluster)

    assert gate.gateway in gates
    assert ("HTTPRoute", f"endpoint-{one.id}") in known
    assert found == Entrance(ingress_class="haproxy"), "an ingress class goes before gateways"


async def until(true: Callable[[], bool], what: str) -> None:
    for _ in range(300):
        if await asyncio.to_thread(true):
            return
        await asyncio.sleep(0.2)
    raise AssertionError(what)
