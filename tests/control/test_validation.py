"""What no client can make us release."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from tests.control.simulation import ALICE, DATA, app, service
from tests.control.strategies import apps

from skep.control.apps.validation import LARGEST_DISK, LARGEST_FILE, MOST_SERVICES, check
from skep.control.callers import Caller, Role
from skep.model.errors import InvalidInput
from skep.model.names import ServiceName
from skep.model.placement import Priority
from skep.model.spec import (
    AppFile,
    AppNetwork,
    AppSpec,
    AppVolume,
    Autoscale,
    Dependency,
    Extensions,
    FileMount,
    Mount,
    NetworkAttachment,
    PublishedPort,
    ServiceSpec,
    Ulimit,
)

ADMIN = msgspec.structs.replace(ALICE, role=Role.ADMIN)
NEEDS_WEB = {ServiceName("web"): Dependency()}


def spec(web: ServiceSpec | None = None, **changes: Any) -> AppSpec:
    return msgspec.structs.replace(app(web=web or service()), **changes)


def problems(wanted: AppSpec, caller: Caller = ALICE) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        check(wanted, caller)
    found = caught.value.details["problems"]
    assert isinstance(found, list)
    return found


def a_file(target: str = "/c", source: str = "c") -> FileMount:
    return FileMount(source=source, target=target)


def bind(source: str = "/etc", target: str = "/data") -> Mount:
    return Mount(type="bind", source=source, target=target)


def on(name: str, **place: Any) -> dict[str, NetworkAttachment]:
    return {name: NetworkAttachment(**place)}


@given(apps())
def test_a_reasonable_app_is_allowed(wanted: AppSpec) -> None:
    check(wanted, ALICE)


HOSTILE = {
    "app name": (spec(name="../etc"), "app '../etc' is not a valid name"),
    "no services": (spec(services={}), "has no services"),
    "too many services": (
        spec(services={ServiceName(f"s{n}"): service(replicas=0) for n in range(MOST_SERVICES + 1)}),
        "201 services",
    ),
    "too many replicas": (
        app(a=service(replicas=600), b=service(replicas=600)),
        "1200 replicas in all",
    ),
    "network name": (spec(networks={"a b": AppNetwork()}), "network or volume 'a b'"),
    "volume name": (spec(volumes={"a/b": AppVolume()}), "network or volume 'a/b'"),
    "volume size": (spec(volumes={"v": AppVolume(size=LARGEST_DISK + 1)}), "more than a disk may have"),
    "file size": (spec(configs={"c": AppFile(content=b"x" * (LARGEST_FILE + 1))}), "config c: larger"),
    "empty file": (spec(secrets={"s": AppFile()}), "secret s: has no content"),
    "service name": (spec(services={ServiceName("Web"): service()}), "service 'Web' is not a valid name"),
    "circle": (
        app(web=service(depends_on={ServiceName("db"): Dependency()}), db=service(depends_on=NEEDS_WEB)),
        "depends_on goes in a circle: web -> db -> web",
    ),
    "itself": (spec(service(depends_on=NEEDS_WEB)), "depends_on goes in a circle: web -> web"),
    "one port twice": (
        app(
            a=service(ports=(PublishedPort(target=80, published=80),)),
            b=service(ports=(PublishedPort(target=81, published=80),)),
        ),
        "services a and b both publish port 80/tcp",
    ),
    "image": (spec(service(image="Not An Image")), "'Not An Image' is not an image reference"),
    "unknown dependency": (
        spec(service(depends_on={ServiceName("db"): Dependency()})),
        "depends_on: there is no service 'db'",
    ),
    "unknown network": (spec(service(networks=on("back"))), "networks: there is no network 'back'"),
    "unknown volume": (
        spec(service(mounts=(DATA,)), volumes={}),
        "volumes: there is no volume 'data'",
    ),
    "unknown config": (spec(service(configs=(a_file(),))), "configs: there is no config 'c'"),
    "unknown secret": (spec(service(secrets=(a_file(),))), "secrets: there is no secret 'c'"),
    "relative target": (
        spec(service(mounts=(Mount(type="tmpfs", target="data"),))),
        "'data' is not a clean absolute path",
    ),
    "climbing target": (
        spec(service(mounts=(Mount(type="tmpfs", target="/data/../../etc"),))),
        "is not a clean absolute path",
    ),
    "climbing file": (
        spec(service(configs=(a_file("/../c"),)), configs={"c": AppFile(content=b"")}),
        "'/../c' is not a clean absolute path",
    ),
    "NUL in target": (
        spec(service(mounts=(Mount(type="tmpfs", target="/a\0b"),))),
        "is not a clean absolute path",
    ),
    "two mounts at one place": (
        spec(service(mounts=(Mount(type="tmpfs", target="/a"), Mount(type="tmpfs", target="/a")))),
        "two mounts at /a",
    ),
    "bind mount": (spec(service(mounts=(bind(),))), "only admins may mount paths of the host"),
    "relative bind": (spec(service(mounts=(bind("etc"),))), "bind mount 'etc' is not an absolute path"),
    "variable": (spec(service(environment={"A=B": "1"})), "cannot be the name of a variable"),
    "NUL in variable": (spec(service(environment={"A": "1\0"})), "has a NUL byte"),
    "NUL in command": (spec(service("sleep", "1\0")), "a NUL byte in its command"),
    "capability": (spec(service(cap_add=("cap_sys_admin", "CHOWN"))), "cap_add: SYS_ADMIN is for admins"),
    "every capability": (spec(service(cap_add=("all",))), "cap_add: ALL is for admins"),
    "real time": (spec(service(cap_add=("SYS_NICE",))), "cap_add: SYS_NICE is for admins"),
    "real time by ulimit": (
        spec(service(ulimits={"rtprio": Ulimit(soft=99, hard=99)})),
        "ulimits: rtprio is for admins",
    ),
    "priority": (spec(service(x_skep=Extensions(priority=Priority.HIGH))), "priority: high is for admins"),
    "sysctl": (spec(service(sysctls={"kernel.panic": "1"})), "'kernel.panic' is not a namespaced one"),
    "hostname": (spec(service(hostname="-a b")), "'-a b' is not a host name"),
    "signal": (spec(service(stop_signal="; rm")), "'; rm' is not a signal"),
    "fixed address": (
        spec(service(networks=on("default", ipv4_address="10.1.0.5"), replicas=2)),
        "networks.default: a fixed address needs replicas: 1",
    ),
    "fixed address and scaling": (
        spec(
            service(networks=on("default", ipv6_address="fd00::5"), x_skep=Extensions(scale=Autoscale(max=2)))
        ),
        "networks.default: a fixed address needs replicas: 1",
    ),
    "too many networks": (
        spec(
            service(networks={f"n{n}": NetworkAttachment() for n in range(9)}),
            networks={f"n{n}": AppNetwork() for n in range(9)},
        ),
        "more than 8 networks",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_makes_no_sense_or_is_not_allowed_is_refused(case: str) -> None:
    wanted, words = HOSTILE[case]

    assert words in "; ".join(problems(wanted))


def test_admins_may_mount_paths_of_the_host_and_add_any_capability() -> None:
    check(spec(service(mounts=(bind(),), cap_add=("SYS_ADMIN",))), ADMIN)


def test_who_gives_way_to_others_need_not_ask() -> None:
    check(spec(service(x_skep=Extensions(priority=Priority.LOW))), ALICE)
    check(spec(service(x_skep=Extensions(priority=Priority.HIGH))), ADMIN)


def test_all_problems_are_named_at_once() -> None:
    wanted = spec(service(hostname="?", stop_signal="?", cap_add=("SYS_ADMIN",)))

    assert len(problems(wanted)) == 3


def test_problems_name_their_service() -> None:
    assert problems(spec(service(hostname="?"))) == ["service web: hostname: '?' is not a host name"]


def test_a_long_chain_of_dependencies_is_no_circle() -> None:
    names = [ServiceName(f"s{n}") for n in range(MOST_SERVICES)]
    services = {
        name: service(depends_on={names[n - 1]: Dependency()} if n else {}, replicas=1)
        for n, name in enumerate(names)
    }

    check(spec(services=dict(reversed(services.items()))), ALICE)
