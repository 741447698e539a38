"""Every step and every flow of the cloud, checked when the process starts."""

from skep.control.canary import Counters, Sides
from skep.control.flows import app, disk, engine, host, image, network, release, replica, rollout, traffic
from skep.flow import Registry
from skep.model import ids
from skep.model.images import BuildSpec, ImageInfo


def make_registry() -> Registry:
    """Raises FlowError: a document of this folder does not fit the steps."""
    registry = Registry()
    for module in (app, disk, engine, host, image, network, release, replica, rollout, traffic):
        registry.add_module(module)
    registry.add_type(
        ids.AppId,
        ids.Bytes,
        ids.ContainerId,
        ids.Digest,
        ids.DiskId,
        ids.HostName,
        ids.NetworkId,
        ids.PortId,
        ids.ReleaseId,
        ids.ReplicaId,
        ids.ServiceId,
        BuildSpec,
        ImageInfo,
        host.Leftovers,
        ids.SnapshotId,
        Counters,
        Sides,
        rollout.Verdict,
    )
    registry.add_flows("skep.control.flows")
    return registry
