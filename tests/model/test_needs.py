"""What services ask for that not every kind of zone has."""

import msgspec
import pytest

from skep.model.names import AppName, ServiceName
from skep.model.needs import Need, needs_of
from skep.model.spec import (
    AppExtensions,
    AppSpec,
    Autoscale,
    EndpointSpec,
    Extensions,
    Mount,
    NetworkAttachment,
    Placement,
    PublishedPort,
    ReleasePolicy,
    Resources,
    ServiceSpec,
    Ulimit,
)

DATA = Mount(type="volume", source="data", target="/data")


def needs(service: ServiceSpec) -> dict[Need, str]:
    return needs_of(AppSpec(name=AppName("shop"), services={ServiceName("web"): service}), service)


def test_a_plain_service_can_run_anywhere() -> None:
    plain = ServiceSpec(
        image="web:1",
        user="1000:1000",
        cap_add=("CAP_NET_BIND_SERVICE",),
        cap_drop=("ALL",),
        mounts=(Mount(type="tmpfs", target="/tmp"),),
        sysctls={"net.ipv4.tcp_syncookies": "1"},
        networks={"default": NetworkAttachment(aliases=("www",))},
        ports=(PublishedPort(target=80), PublishedPort(target=81, published=30_081)),
    )

    assert needs(plain) == {}


@pytest.mark.parametrize(
    ("service", "need", "words"),
    [
        (
            ServiceSpec(image="a", mounts=(Mount(type="bind", source="/srv", target="/data"),)),
            *(Need.HOST_PATHS, "mounts the path /srv of a host"),
        ),
        (
            ServiceSpec(image="a", mounts=(Mount(type="volume", source="data", target="/data"),)),
            *(Need.VOLUMES, "has a volume at /data"),
        ),
        (
            ServiceSpec(image="a", networks={"back": NetworkAttachment(ipv4_address="10.1.0.9")}),
            *(
                Need.ADDRESSES,
                "asks for the address 10.1.0.9 on network 'back' (nothing there gives fixed ones: leave it "
                "out, and use names)",
            ),
        ),
        (
            ServiceSpec(image="a", networks={"back": NetworkAttachment(mac_address="02:00:00:00:00:01")}),
            *(Need.MACS, "asks for the MAC 02:00:00:00:00:01 on network 'back'"),
        ),
        (
            ServiceSpec(image="a", x_skep=Extensions(keep_system_disk=True)),
            *(Need.KEPT_ROOT, "keeps its system disk"),
        ),
        (
            ServiceSpec(image="a", x_skep=Extensions(endpoints=(EndpointSpec(host="shop.example"),))),
            *(Need.ENDPOINTS, "has the endpoint shop.example/"),
        ),
        (ServiceSpec(image="a", cap_add=("net_admin",)), Need.CAPABILITIES, "adds the capability NET_ADMIN"),
        (ServiceSpec(image="a", sysctls={"vm.swappiness": "1"}), Need.SYSCTLS, "sets vm.swappiness"),
        (
            ServiceSpec(image="a", ulimits={"nofile": Ulimit(soft=1, hard=1)}),
            *(Need.ULIMITS, "sets the ulimit nofile"),
        ),
        (
            ServiceSpec(image="a", resources=Resources(pids=9)),
            Need.PIDS,
            "limits its processes itself (`pids`)",
        ),
        (
            ServiceSpec(image="a", ports=(PublishedPort(target=80, published=8080),)),
            *(Need.PORTS, "publishes port 8080 (30000 to 32767 are possible)"),
        ),
        (
            ServiceSpec(image="a", ports=(PublishedPort(target=80, host_ip="127.0.0.1"),)),
            *(Need.PORTS, "publishes a port on 127.0.0.1 alone"),
        ),
        (ServiceSpec(image="a", user="www-data"), Need.NAMED_USERS, "runs as 'www-data', not as a number"),
        (ServiceSpec(image="a", group_add=("adm",)), Need.NAMED_USERS, "runs as 'adm', not as a number"),
    ],
)
def test_what_it_needs_is_said_in_words(service: ServiceSpec, need: Need, words: str) -> None:
    assert needs(service) == {need: words}


def test_the_edge_of_a_cluster_waits_no_longer_than_usual_and_counts_no_requests() -> None:
    patient = EndpointSpec(host="shop.example", timeout=300.0)
    busy = Extensions(endpoints=(EndpointSpec(host="shop.example"),), scale=Autoscale(requests=50.0))

    one = needs(ServiceSpec(image="a", x_skep=Extensions(endpoints=(patient,))))
    other = needs(ServiceSpec(image="a", x_skep=busy))

    assert one[Need.EDGE] == "has timeout at the endpoint shop.example"
    assert other[Need.EDGE] == "scales by requests"


PLAIN = ServiceSpec(image="b")


@pytest.mark.parametrize(
    ("web", "db", "shared"),
    [
        (ServiceSpec(image="a", mounts=(DATA,)), PLAIN, False),
        (ServiceSpec(image="a", mounts=(DATA,)), ServiceSpec(image="b", mounts=(DATA,)), True),
        (ServiceSpec(image="a", mounts=(DATA,), replicas=2), PLAIN, True),
        (ServiceSpec(image="a", mounts=(DATA,), replicas=2, x_skep=Extensions(stateful=True)), PLAIN, False),
        (ServiceSpec(image="a", mounts=(Mount(type="volume", target="/x"),), replicas=2), PLAIN, False),
    ],
)
def test_a_volume_is_shared_if_several_replicas_have_it(
    web: ServiceSpec, db: ServiceSpec, shared: bool
) -> None:
    spec = AppSpec(name=AppName("shop"), services={ServiceName("web"): web, ServiceName("db"): db})

    assert (Need.SHARED_VOLUMES in needs_of(spec, web)) == shared


@pytest.mark.parametrize(
    ("replicas", "steps", "words"),
    [
        (
            *(2, (5, 50)),
            "has a canary of 5 % with 2 replicas, of whole ones it is 33 % "
            "(`x-skep: {release: {steps: [34, …]}}`)",
        ),
        (
            *(1, (33,)),
            "has a canary of 33 % with 1 replica, of whole ones it is 50 % "
            "(`x-skep: {release: {steps: [50, …]}}`)",
        ),
        (3, (25, 50), ""),
        (20, (5, 25, 50), ""),
    ],
)
def test_a_canary_of_whole_replicas_is_said_to_be_as_large_as_it_is(
    replicas: int, steps: tuple[int, ...], words: str
) -> None:
    policy = AppExtensions(release=ReleasePolicy(strategy="canary", steps=steps))
    web = ServiceSpec(image="a", expose=("80",), replicas=replicas)
    aside = ServiceSpec(image="a", replicas=replicas)
    spec = AppSpec(name=AppName("shop"), services={ServiceName("web"): web}, x_skep=policy)
    rolling = msgspec.structs.replace(spec, x_skep=AppExtensions(release=ReleasePolicy(steps=steps)))

    assert needs_of(spec, web).get(Need.SHARES, "") == words
    assert needs_of(spec, aside) == needs_of(rolling, web) == {}


@pytest.mark.parametrize(("most", "asked"), [(None, False), (1, False), (2, True)])
def test_replicas_of_a_node_are_not_counted_beyond_one(most: int | None, asked: bool) -> None:
    found = needs(ServiceSpec(image="a", replicas=3, placement=Placement(max_per_host=most)))

    assert (Need.MAX_PER_NODE in found) == asked


def test_what_nobody_counts_judges_no_canary() -> None:
    web = ServiceSpec(
        image="a", x_skep=Extensions(endpoints=(EndpointSpec(host="shop.example"),)), replicas=20
    )
    policy = ReleasePolicy(strategy="canary", max_error_rate=0.2)
    spec = AppSpec(
        name=AppName("shop"), services={ServiceName("web"): web}, x_skep=AppExtensions(release=policy)
    )

    assert needs_of(spec, web)[Need.EDGE] == "judges its canary by errors or latency"


@pytest.mark.parametrize(
    ("service", "need"),
    [
        (ServiceSpec(image="a", init=True), Need.INIT),
        (ServiceSpec(image="a", mounts=(Mount(type="tmpfs", target="/t", mode=0o700),)), Need.TMPFS_MODES),
        (ServiceSpec(image="a", mounts=(Mount(type="tmpfs", target="/t", mode=0o1777),)), None),
        (ServiceSpec(image="a", environment={"A B": "1"}), Need.VARIABLES),
        (ServiceSpec(image="a", environment={"my.name-1": "1"}), None),
    ],
)
def test_what_clusters_have_no_word_for_is_asked_for_by_name(service: ServiceSpec, need: Need | None) -> None:
    assert set(needs(service)) == ({need} if need else set())
