"""Random apps for property tests: valid ones, as validation lets them through."""

from typing import Any

from hypothesis import strategies as st

from skep.model.names import AppName, ServiceName
from skep.model.spec import (
    AppNetwork,
    AppSpec,
    AppVolume,
    Dependency,
    Extensions,
    HealthCheck,
    Mount,
    NetworkAttachment,
    PublishedPort,
    ServiceSpec,
)

NAMES = ["web", "db", "1e3", "0", "a_b", "image", "publish", "08", "null"]
"""Also such as YAML takes for something else, and such as steps are called."""
CONDITIONS = ["service_started", "service_healthy", "service_completed_successfully"]


@st.composite
def apps(draw: st.DrawFn, name: str = "shop") -> AppSpec:
    """An app of one to five services whose dependencies go to earlier ones."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    services = {
        ServiceName(service): draw(_services(service, names[:position]))
        for position, service in enumerate(names)
    }
    return AppSpec(
        name=AppName(name),
        services=services,
        networks={"back": AppNetwork(), "inside": AppNetwork(internal=True)},
        volumes={"data": AppVolume(), "logs": AppVolume(size=4096)},
    )


@st.composite
def _services(draw: st.DrawFn, name: str, earlier: list[str]) -> ServiceSpec:
    wanted = draw(st.lists(st.sampled_from(earlier), unique=True)) if earlier else []
    volumes = draw(st.lists(st.sampled_from(["data", "logs", ""]), unique=True, max_size=2))
    nets: list[Any] = draw(st.lists(st.sampled_from(["default", "back", "inside"]), unique=True, max_size=2))
    return ServiceSpec(
        image="busybox:1",
        command=draw(st.sampled_from([None, ("sleep", "1"), ("sleep", "2")])),
        replicas=draw(st.integers(0, 3)),
        ports=tuple(PublishedPort(target=port) for port in draw(st.lists(st.integers(1, 9), max_size=2))),
        mounts=tuple(
            Mount(type="volume", source=volume, target=f"/{volume or 'anonymous'}") for volume in volumes
        ),
        networks={
            net: NetworkAttachment(priority=draw(st.integers(0, 2)), aliases=(f"{name}-alias",))
            for net in nets
        },
        depends_on={
            ServiceName(other): Dependency(condition=draw(st.sampled_from(CONDITIONS))) for other in wanted
        },
        healthcheck=draw(st.sampled_from([None, HealthCheck(test=("CMD", "true"))])),
        x_skep=Extensions(stateful=draw(st.booleans()), keep_system_disk=draw(st.booleans())),
    )
