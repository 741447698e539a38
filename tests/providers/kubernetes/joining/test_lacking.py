"""What apps cannot have on a cluster, and what a cluster is as if it were one machine."""

from dataclasses import replace

import pytest
from lightkube.models.core_v1 import NodeCondition, NodeStatus, NodeSystemInfo
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Node

from skep.model.needs import Need
from skep.providers.kubernetes.joining.addressing import Addressing, Plugin
from skep.providers.kubernetes.joining.facts import DiskClass, Facts, machine_of
from skep.providers.kubernetes.joining.lacking import ALWAYS, lacking
from skep.providers.kubernetes.joining.snapshots import SnapshotClass, chosen
from skep.providers.kubernetes.quantities import amount, size


def node(name: str, ready: str = "True") -> Node:
    info = NodeSystemInfo(
        architecture="amd64",
        bootID="",
        containerRuntimeVersion="",
        kernelVersion="6.1.0",
        kubeProxyVersion="",
        kubeletVersion="",
        machineID="",
        operatingSystem="linux",
        osImage="",
        systemUUID="",
    )
    status = NodeStatus(
        allocatable={"cpu": "1930m", "memory": "4Gi"},
        conditions=[NodeCondition(type="Ready", status=ready)],
        nodeInfo=info,
    )
    return Node(metadata=ObjectMeta(name=name), status=status)


def test_a_cluster_with_storage_ingress_and_addresses_lacks_what_no_cluster_has() -> None:
    whole = Facts(
        version=(1, 33),
        classes=(DiskClass("fast", "driver", default=True),),
        snapshot_classes=(SnapshotClass("kept", "driver"),),
        ingress_classes=("nginx",),
        addressing=Addressing(Plugin.CALICO, ("10.9.0.0/16",)),
    )

    assert lacking(whole) == ALWAYS


def test_without_a_usual_class_there_are_no_volumes_and_without_ingress_no_endpoints() -> None:
    bare = Facts(version=(1, 33), classes=(DiskClass("slow"),), addressing=Addressing(Plugin.CALICO))

    assert lacking(bare) - ALWAYS == {
        Need.VOLUMES,
        Need.ENDPOINTS,
        Need.SNAPSHOTS,
        Need.ADDRESSES,
        Need.MACS,
    }


def test_kube_ovn_gives_addresses_and_no_macs_since_nothing_keeps_those_of_gateways_apart() -> None:
    switched = Facts(version=(1, 33), addressing=Addressing(Plugin.KUBE_OVN, ("10.9.0.2-10.9.0.254",)))

    assert lacking(switched) & {Need.ADDRESSES, Need.MACS} == {Need.MACS}


def test_snapshots_are_those_of_the_driver_that_makes_disks() -> None:
    disks = (DiskClass("slow", "other"), DiskClass("fast", "driver", default=True))
    kept = (SnapshotClass("b", "driver"), SnapshotClass("o", "x"))
    whole = Facts(version=(1, 33), classes=disks, snapshot_classes=kept)

    assert Need.SNAPSHOTS not in lacking(whole)
    assert Need.SNAPSHOTS in lacking(replace(whole, snapshot_classes=(SnapshotClass("o", "other"),)))
    usual = SnapshotClass("z", "driver", default=True)
    assert chosen((*kept, SnapshotClass("a", "driver"), usual), "driver") == usual
    assert chosen((SnapshotClass("b", ""),), "") is None


def test_a_gateway_leads_in_and_its_api_alone_does_not() -> None:
    served = frozenset({"gateway.networking.k8s.io/v1"})

    without = lacking(Facts(version=(1, 33), groups=served))
    there = lacking(Facts(version=(1, 33), groups=served, gateways=("infra/main",)))

    assert without - there == {Need.ENDPOINTS}


def test_the_machine_is_the_sum_of_the_nodes_that_are_ready() -> None:
    machine = machine_of([node("a"), node("b"), node("c", ready="Unknown")], "uid")

    assert (machine.cpus, machine.memory) == (3, 8 * 2**30)
    assert (machine.kernel, machine.boot_id, machine.cgroups) == ("6.1.0", "uid", "unknown")


@pytest.mark.parametrize(
    ("text", "bytes_"),
    [("128974848", 128974848), ("129e6", 129_000_000), ("129M", 129_000_000), ("123Mi", 123 * 2**20),
     ("1500m", 1), ("8126464Ki", 8126464 * 2**10), ("2E", 2 * 10**18), ("1Ei", 2**60)],
)  # fmt: skip
def test_quantities_are_read_as_kubernetes_writes_them(text: str, bytes_: int) -> None:
    assert size(text) == bytes_


def test_what_is_no_quantity_is_none() -> None:
    for text in ("", "many", "1 Gi", "0x10"):
        with pytest.raises(ValueError, match="no quantity"):
            amount(text)
