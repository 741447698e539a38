"""Steps of generated flows are called as people call the things they are about."""

import yaml
from tests.control.samples import HOST, TENANT

from skep.control.flows import documents
from skep.control.flows.catalogue import make_registry
from skep.control.plans.plans import NewDisk, Plan, ReplicaChange
from skep.model.ids import AppId, Bytes, ContainerId, DiskId, ReleaseId, ReplicaId, ServiceId
from skep.model.names import AppName, ServiceName
from skep.model.spec import AppSpec, ServiceSpec
from skep.store.replicas import ReplicaRow

SHOP = AppSpec(name=AppName("shop"), services={ServiceName("disk"): ServiceSpec(image="base")})


def applied(*volumes: str) -> list[str]:
    disks = tuple(
        NewDisk(id=DiskId(f"id{number}"), name=name, size=Bytes(1), host=HOST)
        for number, name in enumerate(volumes)
    )
    replica = ReplicaChange(
        action="create",
        replica=ReplicaId("r"),
        service=ServiceName("disk"),
        ordinal=0,
        host=HOST,
        container=ContainerId("c"),
        system_disk=DiskId("sys"),
        disks=volumes,
    )
    plan = Plan(
        app=AppId("a"),
        release=ReleaseId("r"),
        revision=1,
        base_version=0,
        disks=disks,
        services={ServiceName("disk"): ServiceId("s")},
        replicas=(replica,),
    )
    document = documents.apply(plan, SHOP, HOST)
    make_registry().parse(document, "<generated>")
    steps = yaml.safe_load(document)["steps"]
    assert {step for step in steps if step.startswith("disk-")} >= set(steps["disk-0"]["after"]) - {"prepare"}
    return [step for step, body in steps.items() if body.get("use") == "disk.create"]


def test_disks_are_called_by_their_names() -> None:
    assert applied("shop_data", "Über.alles-") == ["disk-shop_data", "disk--ber-alles"]


def test_a_name_that_another_step_has_gives_way_to_the_id() -> None:
    assert applied("a.b", "a-b", "0", "0-ready") == ["disk-a-b", "disk-id1", "disk-id2", "disk-id3"]


def test_a_removal_names_services_replicas_and_disks() -> None:
    row = ReplicaRow(
        id=ReplicaId("r"),
        tenant_id=TENANT,
        app_id=AppId("a"),
        service_id=ServiceId("s"),
        service="disk",
        ordinal=0,
        host=HOST,
        container_id=ContainerId("c"),
        desired="running",
        created=0.0,
    )

    document = documents.remove(
        AppId("a"),
        SHOP,
        replicas=[row],
        containers=[(ContainerId("c"), HOST)],
        sandboxes=[(ReplicaId("r"), HOST)],
        disks=[(DiskId("d1"), HOST), (DiskId("d2"), HOST)],
        services=[(ServiceId("s"), HOST)],
        networks=[],
        names={"r": "disk-0", "s": "disk", "d1": "0", "d2": "shop_data"},
    )

    make_registry().parse(document, "<generated>")
    assert list(yaml.safe_load(document)["steps"]) == [
        "unpublish-disk",
        "disk-0",
        "sandbox-disk-0",
        "disk-d1",
        "disk-shop_data",
        "forget",
    ]
