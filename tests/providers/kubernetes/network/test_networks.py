"""Networks of tenants in a real cluster: who is found under which name, and what is left at the end."""

import asyncio
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest
from tests.cluster.kubernetes.cluster import Cluster
from tests.providers.kubernetes.zone import Zone, counted, no_certificate, open_zone
from tests.providers.network.conftest import network, port, publications
from tests.providers.network.test_guards import WEB, guards, rule

from skep.model.errors import Stale
from skep.model.host import Backend, NetworkConfig, NetworkVirtualIps, PortConfig, VirtualIp
from skep.model.ids import ServiceId, TenantId, new_id
from skep.model.needs import NODE_PORTS
from skep.providers.kubernetes.client import access
from skep.providers.kubernetes.client.cluster import Cluster as SkepsCluster
from skep.providers.kubernetes.network.tenancies import Tenancies
from skep.providers.kubernetes.tenants.tenants import Tenants

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(900)]

PORT = 8080


@pytest.fixture
async def zone(kubernetes: Cluster) -> AsyncIterator[Zone]:
    async with open_zone(kubernetes) as opened:
        yield opened


async def plugged(zone: Zone, net: NetworkConfig, number: int, app: str = "shop") -> PortConfig:
    """Replica `web-NUMBER` of an app, with its port."""
    nic = port(net, number, app, names=(f"web-{number}", "web", "shop-front"))
    await zone.fabric.plug(nic)
    return nic


async def running(zone: Zone, net: NetworkConfig, *numbers: int) -> list[PortConfig]:
    """Replicas that serve."""
    nics = [await plugged(zone, net, number) for number in numbers]
    pods = [await zone.run(net.tenant, nic.replica) for nic in nics]
    await zone.ready(net.tenant, *pods)
    return nics


def told(net: NetworkConfig, generation: int, *backends: Backend, ports: bool = False) -> NetworkVirtualIps:
    web = VirtualIp(
        service=ServiceId("web"),
        address=net.subnet[200],
        app="shop",
        names=("web", "shop-front"),
        backends=backends,
        ports=((PORT, "tcp"),) if ports else (),
    )
    return NetworkVirtualIps(network=net.id, generation=generation, virtual_ips=(web,))


async def until(true: Callable[[], object], what: str) -> None:
    for _ in range(100):
        if await asyncio.to_thread(true):
            return
        await asyncio.sleep(0.5)
    raise AssertionError(what)


async def answering(zone: Zone, asker: PortConfig, tenant: TenantId, url: str) -> set[str]:
    """Everybody who answers there."""
    script = f"for _ in $(seq 20); do timeout 5 wget -q -O - {url} 2>/dev/null; done; true"
    said = await zone.kubectl(tenant, "exec", f"pod-{asker.replica}", "--", "sh", "-c", script)
    return set(said.split())


async def answers_become(zone: Zone, asker: PortConfig, net: NetworkConfig, url: str, who: set[str]) -> bool:
    """Names and rules reach the nodes a moment after they were changed."""
    for _ in range(20):
        if await answering(zone, asker, net.tenant, url) == who:
            return True
        await asyncio.sleep(0.5)
    return False


async def looked_up(zone: Zone, asker: PortConfig, net: NetworkConfig, name: str) -> str:
    """What the cluster's name service says of `web.shop`."""
    full = f"{name}.{zone.cluster.namespace(net.tenant)}.svc.cluster.local"
    return await zone.kubectl(
        net.tenant, "exec", f"pod-{asker.replica}", "--", "sh", "-c", f"nslookup {full} || true"
    )


async def addresses_become(
    zone: Zone, asker: PortConfig, net: NetworkConfig, name: str, whose: set[PortConfig]
) -> bool:
    pods = zone.get(net.tenant, "pods")
    wanted = {pods[f"pod-{one.replica}"]["status"]["podIP"] for one in whose}
    every = {pod["status"]["podIP"] for pod in pods.values()}
    for _ in range(40):
        said = (await looked_up(zone, asker, net, name)).split()
        if every.intersection(said) == wanted:
            return True
        await asyncio.sleep(0.3)
    return False


async def test_replicas_find_each_other_by_the_names_of_compose(zone: Zone) -> None:
    net = network()
    await zone.fabric.ensure_network(net)
    first, second = await running(zone, net, 5, 6)
    stranger = await plugged(zone, net, 7, app="other")
    await zone.ready(net.tenant, await zone.run(net.tenant, stranger.replica, app="other"))

    members = {
        name: await addresses_become(zone, stranger, net, f"{name}.shop", {first, second})
        for name in ("web", "shop-front")
    }

    assert members == {"web": True, "shop-front": True}
    assert await answering(zone, first, net.tenant, f"http://web:{PORT}") <= {first.replica, second.replica}
    assert await answers_become(zone, first, net, f"http://web-6:{PORT}", {second.replica})
    assert await answers_become(zone, stranger, net, f"http://web-5.shop:{PORT}", {first.replica})
    assert await answers_become(zone, stranger, net, f"http://web:{PORT}", {stranger.replica})


async def test_names_of_other_tenants_lead_nowhere(zone: Zone) -> None:
    net, other = network(), network(index=2, subnet="10.2.0.0/24")
    for one in (net, other):
        await zone.fabric.ensure_network(one)
    (here,) = await running(zone, net, 5)
    (there,) = await running(zone, other, 6)

    assert await answers_become(zone, here, net, f"http://web.shop:{PORT}", {here.replica})
    assert await answering(zone, here, net.tenant, f"http://web-6.shop:{PORT}") == set()
    assert await answers_become(zone, there, other, f"http://web.shop:{PORT}", {there.replica})
    closed = zone.get(other.tenant, "networkpolicies")["default-deny"]["spec"]
    assert (closed["podSelector"], closed["policyTypes"]) == ({}, ["Ingress", "Egress"])


async def test_a_virtual_ip_spreads_and_who_has_no_weight_gets_nothing(zone: Zone) -> None:
    net = network()
    await zone.fabric.ensure_network(net)
    first, second = await running(zone, net, 5, 6)
    one, two = Backend(address=first.address), Backend(address=second.address)
    none = Backend(address=first.address, weight=0)

    await zone.fabric.set_virtual_ips(told(net, 1, one, two, ports=True))
    spread = await answers_become(zone, first, net, f"http://web:{PORT}", {first.replica, second.replica})
    await zone.fabric.set_virtual_ips(told(net, 2, none, two, ports=True))
    alone = await answers_become(zone, first, net, f"http://web.shop:{PORT}", {second.replica})

    given = zone.get(net.tenant, "services")["virtual-ip-web"]["spec"]["clusterIP"]
    assert (spread, alone) == (True, True)
    assert given in await looked_up(zone, first, net, "web.shop")


async def test_a_service_that_does_not_say_where_it_listens_is_its_replicas(zone: Zone) -> None:
    net = network()
    await zone.fabric.ensure_network(net)
    first, second = await running(zone, net, 5, 6)
    one, two = Backend(address=first.address), Backend(address=second.address)

    await zone.fabric.set_virtual_ips(told(net, 1, one, two))
    both = await addresses_become(zone, first, net, "web.shop", {first, second})
    await zone.fabric.set_virtual_ips(told(net, 2, one, msgspec.structs.replace(two, weight=0)))
    alone = await addresses_become(zone, first, net, "web.shop", {first})

    assert (both, alone) == (True, True)


async def test_a_pod_that_is_not_ready_gets_nothing_while_another_is(zone: Zone) -> None:
    net = network()
    await zone.fabric.ensure_network(net)
    first, second = await running(zone, net, 5, 6)
    assert await addresses_become(zone, first, net, "web.shop", {first, second})

    await zone.kubectl(net.tenant, "exec", f"pod-{second.replica}", "--", "rm", "/tmp/index.html")

    assert await addresses_become(zone, first, net, "web.shop", {first})


async def test_a_published_port_is_at_every_node(zone: Zone) -> None:
    net = network()
    await zone.fabric.ensure_network(net)
    (nic,) = await running(zone, net, 5)
    number = NODE_PORTS[1234]
    nodes = [zone.world.layout.address(name) for name in ("node-1", "node-2")]

    await zone.fabric.publish(publications(net, number, PORT, (nic.address,)))

    for node in nodes:
        assert await answers_become(zone, nic, net, f"http://{node}:{number}", {nic.replica})


async def test_with_its_last_network_everything_of_a_tenant_is_gone(zone: Zone) -> None:
    tenant = TenantId(new_id())
    one, two = (msgspec.structs.replace(net, tenant=tenant) for net in (network(), network(2, "10.2.0.0/24")))
    for net in (one, two):
        await zone.fabric.ensure_network(net)
        await plugged(zone, net, 5)
    await zone.fabric.set_virtual_ips(told(one, 1, Backend(address=one.subnet[5]), ports=True))

    await zone.fabric.delete_network(one.id)
    left = (
        {"services", "configmaps"},
        {name for kind in ("services", "configmaps") for name in zone.get(tenant, kind) if one.id in name},
    )
    there = zone.namespaces()
    await zone.fabric.delete_network(two.id)

    assert left[1] == set()
    assert there == {f"skep-{tenant}"}
    assert zone.namespaces() == set()


async def test_a_younger_process_knows_what_was_told_and_refuses_older_news(
    zone: Zone, kubernetes: Cluster
) -> None:
    net = network()
    await zone.fabric.ensure_network(net)
    nic = await plugged(zone, net, 5)
    await zone.fabric.set_virtual_ips(news := told(net, 7, Backend(address=nic.address)))
    before = zone.get(net.tenant, "networkpolicies,services,endpoints,configmaps")

    async with open_zone(kubernetes, zone.cluster.installation) as younger:
        fabric = younger.fabric
        with pytest.raises(Stale):
            await fabric.set_virtual_ips(told(net, 6))
        known = (await fabric.networks(), await fabric.ports(), await fabric.sandboxes())
        in_force = await fabric.virtual_ips()
        await fabric.set_virtual_ips(news)

    assert known == ({net.id}, {nic.id}, {nic.replica})
    assert in_force[net.id].generation == 7
    assert zone.get(net.tenant, "networkpolicies,services,endpoints,configmaps").keys() == before.keys()


async def applied_anew(zone: Zone, tenant: TenantId) -> list[str]:
    """By a process that begins."""
    config = access.read(zone.world.kubeconfig.read_text())
    async with SkepsCluster(config, zone.cluster.installation) as cluster:
        names = counted(cluster)
        async with Tenancies(cluster, Tenants(cluster), no_certificate) as younger:
            await younger.brought(younger.tenancy(tenant))
        return names


async def test_a_younger_process_leaves_what_stands_and_shuts_what_somebody_has_opened(zone: Zone) -> None:
    net = network()
    await zone.fabric.ensure_network(net)
    web, db = await plugged(zone, net, 5), await plugged(zone, net, 6, "db")
    rules = (rule("80", group=WEB), rule("1000-1010", cidr="10.0.0.0/8"), rule("", "any", direction="egress"))
    await zone.fabric.set_guards(guards(net, 1, db, rules=rules, members=(web,)))
    await zone.fabric.publish(publications(net, 31080, PORT, (web.address,)))
    await zone.fabric.set_virtual_ips(told(net, 7, Backend(address=web.address), ports=True))
    policy = f"network-{net.id}"
    before = zone.get(net.tenant, "networkpolicies")[policy]["spec"]

    standing = await applied_anew(zone, net.tenant)
    opened = ("--type=json", '--patch=[{"op": "add", "path": "/spec/ingress/-", "value": {}}]')
    await zone.kubectl(net.tenant, "patch", "networkpolicy", policy, *opened)
    shut = await applied_anew(zone, net.tenant)

    assert (standing, set(shut)) == ([], {policy})
    assert zone.get(net.tenant, "networkpolicies")[policy]["spec"] == before


async def test_pods_that_do_not_bear_their_network_are_named_as_long_as_they_do_not(zone: Zone) -> None:
    """As older versions of skep made them."""
    net = network()
    await zone.fabric.ensure_network(net)
    name = f"network-{net.id}"
    nic = await plugged(zone, net, 5)
    before = zone.get(net.tenant, "networkpolicies").keys()

    pod = await zone.run(net.tenant, nic.replica)
    await until(lambda: f"{name}-named" in zone.get(net.tenant, "networkpolicies"), "it is named")
    named = zone.get(net.tenant, "networkpolicies")
    await zone.kubectl(net.tenant, "label", "pod", pod, f"skep.dev/{name}=out")
    await until(lambda: f"{name}-named" not in zone.get(net.tenant, "networkpolicies"), "it bears it itself")

    assert before >= {name, f"{name}-within", f"{name}-outside"}
    assert named[f"{name}-named"]["spec"]["podSelector"]["matchExpressions"][0]["values"] == [nic.replica]
    assert len(named[name]["spec"]["ingress"][0]["from"]) == 2
    assert zone.get(net.tenant, "networkpolicies").keys() == before


async def test_what_somebody_deletes_is_made_again(zone: Zone) -> None:
    net = network()
    await zone.fabric.ensure_network(net)
    web = await plugged(zone, net, 5)
    policy, virtual = f"network-{net.id}", "virtual-ip-web"
    backend = Backend(address=web.address)
    await zone.fabric.set_virtual_ips(told(net, 1, backend, ports=True))
    before = zone.get(net.tenant, "services")[virtual]

    def again() -> bool:
        found = zone.get(net.tenant, "services").get(virtual)
        return found is not None and found["metadata"]["uid"] != before["metadata"]["uid"]

    await zone.kubectl(net.tenant, "delete", "networkpolicy", policy)
    await zone.kubectl(net.tenant, "delete", "service", "shop")

    await until(lambda: policy in zone.get(net.tenant, "networkpolicies"), "the policy is back")
    await until(lambda: "shop" in zone.get(net.tenant, "services"), "the service is back")
    await zone.kubectl(net.tenant, "delete", "service", virtual)
    await until(again, "the virtual IP is back")
    address = before["spec"]["clusterIP"]
    assert zone.get(net.tenant, "services")[virtual]["spec"]["clusterIP"] == address  # which programs know
    await applied_anew(zone, net.tenant)  # a younger process does not ask for that address
    await zone.fabric.set_virtual_ips(told(net, 2, backend, Backend(address=net.subnet[6]), ports=True))
    assert zone.get(net.tenant, "services")[virtual]["spec"]["clusterIP"] == address


async def test_networks_of_a_namespace_that_somebody_deletes_are_not_there_until_they_are_ensured(
    zone: Zone,
) -> None:
    net = network()
    await zone.fabric.ensure_network(net)
    nic = await plugged(zone, net, 5)

    await zone.kubectl(net.tenant, "delete", "namespace", f"skep-{net.tenant}", "--wait=false")
    for _ in range(100):
        if not await zone.fabric.networks():
            break
        await asyncio.sleep(0.1)
    lost = (await zone.fabric.networks(), await zone.fabric.ports())
    await zone.fabric.ensure_network(net)
    await zone.fabric.plug(nic)

    assert lost == (set(), set())
    assert await zone.fabric.ports() == {nic.id}
    assert zone.namespaces() == {f"skep-{net.tenant}"}


async def test_a_hundred_plugs_are_a_handful_of_rounds(zone: Zone) -> None:
    net = network()
    await zone.fabric.ensure_network(net)
    asked = counted(zone.cluster)

    await asyncio.gather(*(plugged(zone, net, number) for number in range(2, 102)))

    assert len(await zone.fabric.ports()) == 100
    assert 0 < len(asked) < 50
