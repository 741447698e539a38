"""What networks, names, virtual IPs, published ports and endpoints become in a cluster."""

from ipaddress import IPv4Address
from typing import Any

import msgspec
import pytest
from tests.providers.network.conftest import network, port, publications

from skep.model.edge import AppEndpoints, EdgeEndpoint, EdgeServer
from skep.model.errors import Unsupported
from skep.model.groups import GroupRule
from skep.model.host import (
    Backend,
    GroupPolicy,
    GuardedPort,
    NetworkConfig,
    NetworkGuards,
    NetworkVirtualIps,
    VirtualIp,
)
from skep.model.ids import AppId, EndpointId, GroupId, ReplicaId, ServiceId, TenantId
from skep.providers.kubernetes.applied import stamped
from skep.providers.kubernetes.manifests import TenantNamespace, app_service
from skep.providers.kubernetes.network.entrances import Entrance, check
from skep.providers.kubernetes.network.pod_dns import pod_dns
from skep.providers.kubernetes.network.records import NetworkRecord, TenantRecord
from skep.providers.kubernetes.network.standing import Bearing, Standing, Standings
from skep.providers.kubernetes.network.tenancy import Tenancy
from skep.providers.kubernetes.network.wanted import Circumstances, wanted

OF = TenantNamespace("inst", TenantId("acme"))
UNPROXIED = "service.kubernetes.io/headless"
Things = dict[tuple[str, str], dict[str, Any]]


def plugged(net: NetworkConfig, *numbers: int, names: tuple[str, ...] = ("web",)) -> NetworkRecord:
    """Replicas `r5`, `r6`, … called `web-5`, `web-6`, …"""
    made = NetworkRecord(config=net)
    for number in numbers:
        nic = port(net, number, names=(f"web-{number}", *names))
        made.plug(msgspec.structs.replace(nic, replica=ReplicaId(f"r{number}")))
    return made


def tenant(*known: NetworkRecord) -> TenantRecord:
    return TenantRecord(networks={one.config.id: one for one in known})


def running(*numbers: int, failing: tuple[int, ...] = ()) -> dict[ReplicaId, Standing]:
    return {
        ReplicaId(f"r{one}"): Standing(f"pod-{one}", OF.name, f"10.64.0.{one}", one not in failing)
        for one in numbers
    }


def things(record: TenantRecord, now: Circumstances | None = None) -> Things:
    """By kind and name."""
    made = wanted(OF, record, now or Circumstances())
    return {(one["kind"], one["metadata"]["name"]): one for one in made}


def called(found: Things, app: str = "shop") -> dict[str, set[str]]:
    """Addresses by the names of an app."""
    known: dict[str, set[str]] = {}
    for subset in found["Endpoints", app]["subsets"]:
        for one in subset["addresses"]:
            known.setdefault(one["hostname"], set()).add(one["ip"])
    return known


def policies_of(record: TenantRecord) -> Things:
    return {key: one for key, one in things(record).items() if key[0] == "NetworkPolicy"}


def selected(policy: dict[str, Any]) -> list[str]:
    values: list[str] = policy["spec"]["podSelector"]["matchExpressions"][0]["values"]
    return values


def reaching(rule: dict[str, Any], side: str = "from") -> list[object]:
    """Replicas, and blocks of addresses."""
    return [
        one["podSelector"]["matchExpressions"][0]["values"]
        if "podSelector" in one
        else one["ipBlock"]["cidr"]
        for one in rule[side]
    ]


# names


def test_replicas_that_run_are_found_under_their_own_name_and_that_of_their_service() -> None:
    record = tenant(plugged(network(), 5, 6, 7, names=("web", "front")))

    found = called(things(record, Circumstances(pods=running(5, 6))))

    both = {"10.64.0.5", "10.64.0.6"}
    assert found == {"web-5": {"10.64.0.5"}, "web-6": {"10.64.0.6"}, "web": both, "front": both}


def test_one_that_fails_its_checks_keeps_its_own_name_only_unless_it_is_the_last() -> None:
    record = tenant(plugged(network(), 5, 6))

    one = called(things(record, Circumstances(pods=running(5, 6, failing=(6,)))))
    all_of_them = called(things(record, Circumstances(pods=running(5, 6, failing=(5, 6)))))

    assert (one["web"], one["web-6"]) == ({"10.64.0.5"}, {"10.64.0.6"})
    assert all_of_them["web"] == {"10.64.0.5", "10.64.0.6"}


def test_hidden_replicas_have_no_names() -> None:
    record = tenant(plugged(network(), 5, 6))

    found = called(things(record, Circumstances(pods=running(5, 6), hidden=[ReplicaId("r5")])))

    assert found == {"web-6": {"10.64.0.6"}, "web": {"10.64.0.6"}}


def test_an_app_whose_name_is_none_for_a_service_has_another_that_nobody_else_has() -> None:
    assert app_service("shop") == "shop"
    assert app_service("1shop").startswith("app-1shop-")
    assert app_service("my_app") != app_service("my-app")


def test_pods_ask_for_names_of_their_own_app_before_those_of_other_apps() -> None:
    own, all_of_it = "shop.skep-acme.svc.cluster.local", "skep-acme.svc.cluster.local"

    assert pod_dns("shop", "skep-acme", "10.0.0.10")["dnsConfig"]["searches"][:2] == [own, all_of_it]
    assert pod_dns("shop", "skep-acme") == {"dnsConfig": {"searches": [own]}}


# virtual IPs


def led(net: NetworkRecord, *ports: int, weights: tuple[int, ...] = (100, 100)) -> NetworkRecord:
    web = VirtualIp(
        service=ServiceId("s1"),
        address=net.config.subnet[200],
        app="shop",
        names=("web",),
        backends=tuple(
            Backend(address=net.config.subnet[5 + number], weight=weight)
            for number, weight in enumerate(weights)
        ),
        ports=tuple((one, "tcp") for one in ports),
    )
    net.lead(NetworkVirtualIps(network=net.config.id, generation=1, virtual_ips=(web,)))
    return net


def test_a_service_is_called_by_the_address_that_the_cluster_gave_it() -> None:
    record = tenant(led(plugged(network(), 5, 6), 8080))
    now = Circumstances(pods=running(5, 6), virtual={ServiceId("s1"): "10.128.0.9"})

    found = things(record, now)

    assert called(found)["web"] == {"10.128.0.9"}
    assert found["Service", "virtual-ip-s1"]["spec"]["ports"][0]["port"] == 8080
    (subset,) = found["Endpoints", "virtual-ip-s1"]["subsets"]
    assert [one["ip"] for one in subset["addresses"]] == ["10.64.0.5", "10.64.0.6"]


def test_who_has_no_weight_is_left_out() -> None:
    now = Circumstances(pods=running(5, 6))

    with_ports = things(tenant(led(plugged(network(), 5, 6), 80, weights=(0, 100))), now)
    without = things(tenant(led(plugged(network(), 5, 6), weights=(0, 100))), now)

    (subset,) = with_ports["Endpoints", "virtual-ip-s1"]["subsets"]
    assert [one["ip"] for one in subset["addresses"]] == ["10.64.0.6"]
    assert called(without)["web"] == {"10.64.0.6"}
    assert ("Service", "virtual-ip-s1") not in without


def test_a_service_on_two_networks_is_one_with_the_pods_of_both() -> None:
    one, two = (
        led(plugged(network(), 5), 80),
        led(plugged(network(2, "10.2.0.0/24"), 6), 80, weights=(0, 100)),
    )

    found = things(tenant(one, two), Circumstances(pods=running(5, 6)))

    (subset,) = found["Endpoints", "virtual-ip-s1"]["subsets"]
    assert [one["ip"] for one in subset["addresses"]] == ["10.64.0.5", "10.64.0.6"]


def test_slices_are_written_where_clusters_have_them_in_pieces_they_take() -> None:
    pods = {
        ReplicaId(f"r{number}"): Standing("p", OF.name, f"10.64.{number // 250}.{number % 250}", True)
        for number in range(2, 1_502)
    }
    net = network(subnet="10.1.0.0/20")
    record = tenant(plugged(net, *range(2, 1_502), names=()))

    found = things(record, Circumstances(pods=pods, slices=True))

    slices = [found["EndpointSlice", f"shop-{number}"] for number in range(2)]
    assert [len(one["endpoints"]) for one in slices] == [1000, 500]
    labels = slices[0]["metadata"]["labels"]
    assert (labels["kubernetes.io/service-name"], labels[UNPROXIED]) == ("shop", "")
    assert not [name for kind, name in found if kind == "Endpoints"]


@pytest.mark.parametrize("slices", [True, False])
def test_nodes_lead_to_virtual_ips_and_need_not_hear_of_names(slices: bool) -> None:
    record = tenant(led(plugged(network(), 5, 6), 8080))

    found = things(record, Circumstances(pods=running(5, 6), slices=slices))

    leading = {name: one["metadata"]["labels"] for (kind, name), one in found.items() if "Endpoint" in kind}
    marked = {name.removesuffix("-0") for name, labels in leading.items() if UNPROXIED in labels}
    assert marked == {"shop"}
    assert "virtual-ip-s1" in {name.removesuffix("-0") for name in leading}


# who reaches whom


def test_on_a_network_everybody_reaches_everybody_and_the_outside() -> None:
    net = network()

    found = things(tenant(plugged(net, 5, 6)))

    inside = found["NetworkPolicy", f"network-{net.id}"]["spec"]
    out = found["NetworkPolicy", f"network-{net.id}-outside"]["spec"]
    members = {"matchExpressions": [{"key": f"skep.dev/network-{net.id}", "operator": "Exists"}]}
    led_out = {
        "matchExpressions": [{"key": f"skep.dev/network-{net.id}", "operator": "In", "values": ["out"]}]
    }
    assert (inside["podSelector"], inside["ingress"]) == (members, [{"from": [{"podSelector": members}]}])
    assert (out["podSelector"], reaching(out["egress"][0], "to")) == (led_out, ["0.0.0.0/0", "::/0"])
    assert out["egress"][0]["to"][0]["ipBlock"]["except"] == ["169.254.0.0/16"]


def test_who_comes_and_goes_on_a_network_changes_no_policy() -> None:
    net = network()

    none, one, more = (policies_of(tenant(plugged(net, *numbers))) for numbers in ((), (5,), (5, 6, 7)))

    assert none == one == more
    assert len(none) == 3


def test_pods_that_do_not_bear_their_network_are_named() -> None:
    net = network()
    record = tenant(plugged(net, 5, 6, 7))
    bears = {
        ReplicaId("r5"): Bearing("pod-5", frozenset()),
        ReplicaId("r6"): Bearing("pod-6", frozenset([net.id])),
        ReplicaId("r9"): Bearing("pod-9", frozenset()),
    }

    found = things(record, Circumstances(bearings=bears))

    for kind in "", "-within", "-outside":
        assert selected(found["NetworkPolicy", f"network-{net.id}{kind}-named"]) == ["r5"]
    first = found["NetworkPolicy", f"network-{net.id}"]["spec"]["ingress"]
    (label, names) = (one["podSelector"]["matchExpressions"][0] for one in first[0]["from"])
    assert (label["operator"], names["values"]) == ("Exists", ["r5"])
    assert found["NetworkPolicy", f"network-{net.id}-named"]["spec"]["ingress"] == first


def test_of_pods_without_a_mark_only_those_have_the_way_out_whose_port_leads_there() -> None:
    net = network()
    record = plugged(net, 5, 6)
    key, aside = next((key, one) for key, one in record.ports.items() if one.replica == "r6")
    record.ports[key] = msgspec.structs.replace(aside, default_route=False)
    bears = {ReplicaId(one): Bearing("pod", frozenset()) for one in ("r5", "r6")}

    found = things(tenant(record), Circumstances(bearings=bears))

    assert selected(found["NetworkPolicy", f"network-{net.id}-named"]) == ["r5", "r6"]
    assert selected(found["NetworkPolicy", f"network-{net.id}-outside-named"]) == ["r5"]


def test_a_policy_that_is_new_comes_before_another_admits_less() -> None:
    net = network()
    held = Tenancy(OF)
    key = "NetworkPolicy", f"network-{net.id}"
    held.there[key] = "as an older version of skep wrote it"
    bare = Circumstances(bearings={ReplicaId("r5"): Bearing("pod-5", frozenset())})

    first, then, *_ = held.waves(wanted(OF, tenant(plugged(net, 5)), bare))

    assert {one["metadata"]["name"].rpartition("-")[2] for one in first} == {"named", "within", "outside"}
    assert {one["kind"] for one in first} == {"NetworkPolicy"}
    assert [one["metadata"]["name"] for one in then if one["kind"] == "NetworkPolicy"] == [key[1]]


def test_an_internal_network_has_no_way_out() -> None:
    internal = network(internal=True)

    assert ("NetworkPolicy", f"network-{internal.id}-outside") not in things(tenant(plugged(internal, 5)))


def guarded(net: NetworkRecord, *rules: GroupRule) -> NetworkRecord:
    """Replica r5 is in group `db`, which r6, of group `web`, is named by."""
    net.guard(
        NetworkGuards(
            network=net.config.id,
            generation=1,
            ports=(GuardedPort(address=net.config.subnet[5], groups=(GroupId("db"),)),),
            groups=(
                GroupPolicy(id=GroupId("db"), rules=rules),
                GroupPolicy(id=GroupId("web"), members=(net.config.subnet[6], IPv4Address("192.0.2.1"))),
            ),
        )
    )
    return net


def test_a_guarded_replica_is_reached_by_the_rules_of_its_groups_alone() -> None:
    net = network()
    rule = GroupRule(protocol="tcp", ports="5432-5433", group="web")

    found = things(tenant(guarded(plugged(net, 5, 6, 7), rule)))

    assert selected(found["NetworkPolicy", f"network-{net.id}"]) == ["r6", "r7"]
    of_group = found["NetworkPolicy", f"network-{net.id}-db"]
    (ingress,) = of_group["spec"]["ingress"]
    assert (selected(of_group), reaching(ingress)) == (["r5"], [["r6"]])
    assert [one["port"] for one in ingress["ports"]] == [5432, 5433]
    assert of_group["spec"]["policyTypes"] == ["Ingress"]
    assert selected(found["NetworkPolicy", f"network-{net.id}-outside"]) == ["r5", "r6", "r7"]


def test_a_group_that_speaks_of_what_leaves_closes_the_rest_of_it() -> None:
    net = network()
    rule = GroupRule(direction="egress", cidr="192.0.2.0/24", protocol="udp")

    found = things(tenant(guarded(plugged(net, 5, 6), rule)))

    of_group = found["NetworkPolicy", f"network-{net.id}-db"]["spec"]
    assert of_group["policyTypes"] == ["Ingress", "Egress"]
    assert of_group["ingress"] == []
    assert reaching(of_group["egress"][0], "to") == ["192.0.2.0/24"]
    assert selected(found["NetworkPolicy", f"network-{net.id}-within"]) == ["r6"]
    assert selected(found["NetworkPolicy", f"network-{net.id}-outside"]) == ["r6"]


def test_rules_that_mean_nobody_or_that_policies_have_no_word_for_admit_nothing() -> None:
    net = network()
    rules = GroupRule(protocol="icmp"), GroupRule(group="db", protocol="tcp", ports="1-65535")

    found = things(tenant(guarded(plugged(net, 5, 6), *rules)))

    assert found["NetworkPolicy", f"network-{net.id}-db"]["spec"]["ingress"] == []


def test_a_long_range_of_ports_is_one() -> None:
    net = network()
    rule = GroupRule(protocol="tcp", ports="1000-2000")

    found = things(tenant(guarded(plugged(net, 5), rule)))

    (ingress,) = found["NetworkPolicy", f"network-{net.id}-db"]["spec"]["ingress"]
    assert ingress["ports"] == [{"protocol": "TCP", "port": 1000, "endPort": 2000}]
    assert reaching(ingress) == [["r5"], "0.0.0.0/0", "::/0"]


# from outside


def test_what_is_published_is_open_to_all_but_where_a_group_guards_it() -> None:
    net = plugged(network(), 5, 6)
    record = tenant(guarded(net))
    told = publications(net.config, 30_080, 80, (net.config.subnet[5], net.config.subnet[6]))
    record.publish(told)

    found = things(record, Circumstances(pods=running(5, 6)))

    service = found["Service", f"published-{told.service}"]["spec"]
    assert (service["type"], service["ports"][0]["nodePort"], service["ports"][0]["targetPort"]) == (
        "NodePort",
        30_080,
        80,
    )
    policy = found["NetworkPolicy", f"published-{told.service}-0"]
    assert (selected(policy), policy["spec"]["ingress"]) == (
        ["r6"],
        [{"ports": [{"protocol": "TCP", "port": 80}]}],
    )


PEM = b"""-----BEGIN CERTIFICATE-----
AA==
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
BB==
-----END PRIVATE KEY-----
"""


def served(net: NetworkRecord, **more: Any) -> AppEndpoints:
    servers = tuple(
        EdgeServer(
            replica=f"web-{number}",
            revision=number - 4,
            network=net.config.id,
            address=net.config.subnet[number],
            port=8000,
            weight=weight,
        )
        for number, weight in ((5, 90), (6, 10), (7, 0))
    )
    one = EdgeEndpoint(id=EndpointId("e1"), host="shop.example", path="/api", servers=servers, **more)
    return AppEndpoints(app=AppId("a1"), tenant=OF.tenant, generation=1, endpoints=(one,))


def test_an_endpoint_is_an_ingress_to_whoever_has_a_weight() -> None:
    net = plugged(network(), 5, 6, 7)
    record = tenant(net)
    record.endpoints[AppId("a1")] = served(net, certificate="sha256:" + "c" * 64)
    now = Circumstances(
        pods=running(5, 6, 7),
        entrance=Entrance(ingress_class="nginx"),
        certificates={"sha256:" + "c" * 64: PEM},
    )

    found = things(record, now)

    ingress = found["Ingress", "endpoints-a1"]["spec"]
    (path,) = ingress["rules"][0]["http"]["paths"]
    assert (ingress["ingressClassName"], ingress["rules"][0]["host"]) == ("nginx", "shop.example")
    assert (path["path"], path["pathType"], path["backend"]["service"]["name"]) == (
        "/api",
        "Prefix",
        "endpoint-e1",
    )
    (subset,) = found["Endpoints", "endpoint-e1"]["subsets"]
    assert ([one["ip"] for one in subset["addresses"]], subset["ports"][0]["port"]) == (
        ["10.64.0.5", "10.64.0.6"],
        8000,
    )
    secret = found["Secret", ingress["tls"][0]["secretName"]]
    assert (secret["type"], secret["data"].keys()) == ("kubernetes.io/tls", {"tls.crt", "tls.key"})
    policy = found["NetworkPolicy", "endpoints-a1-8000"]["spec"]
    assert "namespaceSelector" in policy["ingress"][0]["from"][0]


def test_behind_a_gateway_revisions_have_their_shares() -> None:
    net = plugged(network(), 5, 6, 7)
    record = tenant(net)
    record.endpoints[AppId("a1")] = served(net)
    now = Circumstances(pods=running(5, 6, 7), entrance=Entrance(gateway=("infra", "main")))

    found = things(record, now)

    route = found["HTTPRoute", "endpoint-e1"]["spec"]
    assert route["parentRefs"] == [{"namespace": "infra", "name": "main"}]
    assert [(one["name"], one["weight"]) for one in route["rules"][0]["backendRefs"]] == [
        ("endpoint-e1-1", 90),
        ("endpoint-e1-2", 10),
        ("endpoint-e1-3", 0),
    ]


def test_a_revision_of_which_nobody_serves_gets_no_requests_unless_nobody_does_at_all() -> None:
    net = plugged(network(), 5, 6, 7)
    record = tenant(net)
    record.endpoints[AppId("a1")] = served(net)
    gateway = Entrance(gateway=("infra", "main"))

    def shares(pods: Standings) -> list[int]:
        route = things(record, Circumstances(pods=pods, entrance=gateway))["HTTPRoute", "endpoint-e1"]
        return [one["weight"] for one in route["spec"]["rules"][0]["backendRefs"]]

    assert shares(running(5)) == [90, 0, 0]
    assert shares(running(6, 7)) == [0, 10, 0]
    assert shares(running(7)) == shares({}) == [90, 10, 0]


@pytest.mark.parametrize(
    ("more", "entrance", "said"),
    [
        ({"sticky": True}, Entrance(ingress_class="nginx"), "sticky"),
        ({"rate": 5, "timeout": 3.0}, Entrance(ingress_class="nginx"), "rate, timeout"),
        ({"hold": True}, Entrance(ingress_class="nginx"), "scaling to nothing"),
        ({"proof": "x"}, Entrance(ingress_class="nginx"), "acme"),
        ({"certificate": "c"}, Entrance(gateway=("infra", "main")), "certificate of its own"),
        ({}, None, "neither an ingress class nor a gateway"),
    ],
)
def test_what_the_standard_has_no_word_for_is_refused_by_name(
    more: dict[str, Any], entrance: Entrance | None, said: str
) -> None:
    with pytest.raises(Unsupported, match=said):
        check(served(plugged(network(), 5), **more), entrance)


# what is kept


def test_a_younger_process_reads_what_was_told() -> None:
    net = led(plugged(network(), 5, 6), 80)
    record = tenant(guarded(net))
    record.publish(publications(net.config, 30_080, 80, (net.config.subnet[5],)))
    record.endpoints[AppId("a1")] = served(net)
    read = TenantRecord()

    for one in record.manifests(OF):
        read.read(one["metadata"]["labels"]["skep.dev/record"], one["data"])
    read.read("network", {"told": "{"})

    assert read == record


def test_only_what_changed_is_applied_and_what_nobody_wants_is_deleted() -> None:
    record = tenant(plugged(network(), 5))
    there = Tenancy(OF, record)
    all_of_it, _ = there.changes(wanted(OF, record, Circumstances()), ())
    there.there = {(one["kind"], one["metadata"]["name"]): "" for one in all_of_it}
    there.there["Service", "old"] = ""
    new, gone = there.changes(wanted(OF, record, Circumstances()), ())

    assert (len(new), gone) == (len(all_of_it), [("Service", "old")])


def test_what_leads_somewhere_is_made_after_what_it_leads_to_and_changed_together_with_it() -> None:
    record, there = tenant(plugged(network(), 5)), Tenancy(OF)
    all_of_it = wanted(OF, record, Circumstances())
    made = [{one["kind"] for one in wave} for wave in there.waves(all_of_it)]
    there.there = {(one["kind"], one["metadata"]["name"]): "" for one in all_of_it}
    changed = [len(wave) for wave in there.waves(all_of_it)]

    del there.there["Service", "shop"]
    added = [{one["kind"] for one in wave} for wave in there.waves(all_of_it)]

    assert made == added == [{"ConfigMap", "NetworkPolicy", "Service"}, {"Endpoints"}, set()]
    assert changed == [len(all_of_it)]


def test_what_an_earlier_process_left_as_it_is_to_be_is_not_applied_again() -> None:
    record = tenant(led(plugged(network(), 5), 80))
    all_of_it = wanted(OF, record, Circumstances())
    changed = next(one for one in all_of_it if one["kind"] == "NetworkPolicy")
    younger = Tenancy(OF)

    for one in all_of_it:
        found = msgspec.json.decode(msgspec.json.encode(stamped(one)))
        if one is changed:
            found["spec"]["policyTypes"] = ["Egress"]
        younger.take(one["kind"], one["metadata"]["name"], found)
    first, _ = younger.changes(all_of_it, ())
    second, _ = younger.changes(all_of_it, ())

    assert younger.record == record
    assert (first, second) == ([changed], [changed])  # until it is applied


def test_what_somebody_deleted_is_lost_and_what_was_there_before_it_is_not() -> None:
    there, service = Tenancy(OF), ("Service", "shop")
    there.take(*service, {"metadata": {"uid": "second"}, "spec": {}})

    assert not there.lost(service, "first")
    assert there.there == {service: ""}
    assert there.lost(service, "second")
    assert not there.lost(service, "second")


def test_a_younger_process_knows_the_addresses_that_the_cluster_gave() -> None:
    record = tenant(led(plugged(network(), 5), 80))
    younger = Tenancy(OF)

    for one in wanted(OF, record, Circumstances()):
        given = {"spec": one["spec"] | {"clusterIP": "10.128.0.7"}} if one["kind"] == "Service" else {}
        younger.take(one["kind"], one["metadata"]["name"], one | given)

    assert set(younger.virtual.values()) == {"10.128.0.7"}


def test_a_tenant_without_networks_has_nothing() -> None:
    record = TenantRecord()
    record.endpoints[AppId("a1")] = AppEndpoints(app=AppId("a1"), tenant=OF.tenant, generation=2)

    assert wanted(OF, record, Circumstances()) == []
