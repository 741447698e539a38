"""Specifications and pods for tests of what is decided from them."""

from datetime import UTC, datetime
from typing import Any

import msgspec
from lightkube.resources.core_v1 import Pod

from skep.model.host import ContainerSpec
from skep.model.ids import Bytes, ContainerId, Digest, DiskId, ReplicaId, TenantId
from skep.model.spec import RestartPolicy
from skep.providers.kubernetes.pods.seen import SeenPod, see

ALWAYS = RestartPolicy(condition="always")
NEVER = RestartPolicy(condition="no")


def spec(**changes: Any) -> ContainerSpec:
    found = ContainerSpec(
        id=ContainerId("01hc0000000000000001"),
        replica=ReplicaId("01hr0000000000000001"),
        tenant=TenantId("01ht0000000000000001"),
        name="shop/web-0",
        hostname="web-0",
        image=Digest("sha256:aa"),
        args=("serve",),
        environment={"PATH": "/bin"},
        working_dir="/srv",
        user="",
        system_disk=DiskId("01hd0000000000000001"),
        memory=Bytes(2**31),
        restart=ALWAYS,
    )
    return msgspec.structs.replace(found, **changes)


def moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def pod(
    state: dict[str, Any] | None = None,
    *,
    last: dict[str, Any] | None = None,
    labels: dict[str, str] | None = None,
    node: str = "node-1",
    deleting: bool = False,
    ready: tuple[bool, float] = (False, 0.0),
    restarts: int = 0,
    name: str = "web-x",
    made: float = 0.0,
    **status: Any,
) -> SeenPod:
    """As the API server writes it: `state` and `last` are those of the container."""
    main = {
        "name": "main",
        "image": "i",
        "imageID": "i",
        "ready": ready[0],
        "restartCount": restarts,
        "state": state or {},
        "lastState": last or {},
    }
    conditions = [
        {"type": "Ready", "status": str(ready[0]), "lastTransitionTime": moment(ready[1])},
        *status.pop("conditions", []),
    ]
    metadata: dict[str, Any] = {"name": name, "namespace": "n", "uid": f"uid-{name}", "labels": labels or {}}
    metadata["creationTimestamp"] = moment(made)
    if deleting:
        metadata["deletionTimestamp"] = moment(0)
    document = {
        "metadata": metadata,
        "spec": {"containers": [], "nodeName": node},
        "status": {"containerStatuses": [main], "conditions": conditions} | status,
    }
    return see(msgspec.convert(document, Pod))


def running(since: float = 100.0) -> dict[str, Any]:
    return {"running": {"startedAt": moment(since)}}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": message}}


def ended(code: int, reason: str = "Error", message: str = "", at: float = 200.0) -> dict[str, Any]:
    return {
        "terminated": {
            "exitCode": code,
            "reason": reason,
            "message": message,
            "startedAt": moment(at - 50),
            "finishedAt": moment(at),
        }
    }
