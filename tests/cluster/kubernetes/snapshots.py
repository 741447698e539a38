"""Snapshots of a test cluster's volumes: copies of their directories.

Clusters have no kinds of their own for that: the definitions are of the standard, with the fields that matter
here, and this program does what elsewhere the snapshot controller and a driver's csi-snapshotter do.
https://kubernetes.io/docs/concepts/storage/volume-snapshots/
"""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
from tests.cluster.kubernetes import client
from tests.cluster.kubernetes.custom import definition
from tests.cluster.kubernetes.layout import Layout, saved
from tests.cluster.kubernetes.node import VOLUMES

GROUP = "snapshot.storage.k8s.io"
CLASS = "local-path"
DRIVER = "skep.test/local-path"
"""Makes volumes of the storage class, and snapshots of them."""
PROGRAM = "snapshotter"
RECIPE = 2
"""The first with an API server that survives custom resources."""
Object = dict[str, Any]
"""Of Kubernetes, as its API has it."""
_ROOT = f"/apis/{GROUP}/v1"
SNAPSHOTS, _CONTENTS, _CLASSES = (
    f"{_ROOT}/{plural}" for plural in ("volumesnapshots", "volumesnapshotcontents", "volumesnapshotclasses")
)
_CLAIMS = "/api/v1/persistentvolumeclaims"
_VOLUMES = "/api/v1/persistentvolumes"
_HELD = [f"snapshot.storage.kubernetes.io/volumesnapshot-{why}-protection" for why in ("as-source", "bound")]
_CONTENT_HELD = ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"]
_QUIET = 5
"""Seconds after which it looks without having heard of anything."""


class Hold(msgspec.Struct, frozen=True):
    """The snapshot stays until everything that it stands for is gone."""

    snapshot: str


class Refuse(msgspec.Struct, frozen=True):
    """It cannot be made now, and says why."""

    snapshot: str
    why: str


class Copy(msgspec.Struct, frozen=True):
    """Make the content, of this volume of this node, and let the snapshot say so."""

    snapshot: str
    node: str
    volume: str
    content: Object
    size: str


class Forget(msgspec.Struct, frozen=True):
    """Nobody wants it any more: its content and copy go, too, unless their class keeps them."""

    snapshot: str
    content: str
    keep: bool


Action = Hold | Refuse | Copy | Forget


def definitions() -> list[Object]:
    """The kinds.  Apply the class once the API serves them."""
    source = {"persistentVolumeClaimName": _TEXT, "volumeSnapshotContentName": _TEXT}
    content_source = {"volumeHandle": _TEXT, "snapshotHandle": _TEXT}
    error = _fields(message=_TEXT, time={"type": "string", "format": "date-time"})
    number = {"type": "integer", "format": "int64"}
    snapshot = _fields(
        spec=_fields(source=_fields(**source), volumeSnapshotClassName=_TEXT),
        status=_fields(
            boundVolumeSnapshotContentName=_TEXT,
            creationTime={"type": "string", "format": "date-time"},
            readyToUse={"type": "boolean"},
            restoreSize={"x-kubernetes-int-or-string": True},
            error=error,
        ),
    )
    content = _fields(
        spec=_fields(
            deletionPolicy=_POLICY,
            driver=_TEXT,
            source=_fields(**content_source),
            volumeSnapshotClassName=_TEXT,
            volumeSnapshotRef={"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        ),
        status=_fields(
            snapshotHandle=_TEXT,
            creationTime=number,
            readyToUse={"type": "boolean"},
            restoreSize=number,
            error=error,
        ),
    )
    parameters = {"type": "object", "additionalProperties": _TEXT}
    snapshot_class = _fields(driver=_TEXT, deletionPolicy=_POLICY, parameters=parameters)
    return [
        _definition("VolumeSnapshot", "volumesnapshots", "Namespaced", snapshot),
        _definition("VolumeSnapshotContent", "volumesnapshotcontents", "Cluster", content),
        _definition("VolumeSnapshotClass", "volumesnapshotclasses", "Cluster", snapshot_class),
    ]


def snapshot_class() -> Object:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "VolumeSnapshotClass",
        "metadata": {
            "name": CLASS,
            "annotations": {"snapshot.storage.kubernetes.io/is-default-class": "true"},
        },
        "driver": DRIVER,
        "deletionPolicy": "Delete",
    }


_TEXT: Object = {"type": "string"}
_POLICY: Object = {"type": "string", "enum": ["Delete", "Retain"]}


def _fields(**properties: Object) -> Object:
    return {"type": "object", "properties": properties}


def _definition(kind: str, plural: str, scope: str, schema: Object) -> Object:
    approved = {
        "api-approved.kubernetes.io": "https://github.com/kubernetes-csi/external-snapshotter/pull/814"
    }
    return definition((GROUP, "v1"), plural, kind, scope, schema, notes=approved, status=True)


def actions(
    snapshots: Iterable[Object],
    classes: Iterable[Object],
    claims: Iterable[Object],
    volumes: Iterable[Object],
) -> Iterator[Action]:
    """What is to be done about these snapshots; those of other drivers are left alone."""
    ours = {one["metadata"]["name"]: one for one in classes if one["driver"] == DRIVER}
    known = {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in claims}
    made = {one["metadata"]["name"]: one for one in volumes}
    for snapshot in snapshots:
        its_class = ours.get(snapshot["spec"].get("volumeSnapshotClassName", CLASS))
        if its_class is None:
            continue
        meta, path = snapshot["metadata"], _path(snapshot)
        if "deletionTimestamp" in meta:
            if not any(_is_made_of(claim, snapshot) for claim in known.values()):
                yield Forget(path, _content_name(snapshot), its_class["deletionPolicy"] == "Retain")
        elif not meta.get("finalizers"):
            yield Hold(path)
        elif not snapshot.get("status", {}).get("readyToUse"):
            claim = known.get((meta["namespace"], snapshot["spec"]["source"]["persistentVolumeClaimName"]))
            yield from _made(snapshot, its_class, claim, made)


def _made(
    snapshot: Object, its_class: Object, claim: Object | None, volumes: dict[str, Object]
) -> Iterator[Action]:
    volume = volumes.get(claim["spec"].get("volumeName", "")) if claim else None
    if claim is not None and volume is not None and claim.get("status", {}).get("phase") == "Bound":
        name, size = volume["metadata"]["name"], volume["spec"]["capacity"]["storage"]
        yield Copy(_path(snapshot), node_of(volume), name, _content(snapshot, its_class, name), size)
        return
    why = "the claim to be kept is " + ("not found" if claim is None else "not bound")
    if snapshot.get("status", {}).get("error", {}).get("message") != why:
        yield Refuse(_path(snapshot), why)


def _content(snapshot: Object, its_class: Object, volume: str) -> Object:
    meta = snapshot["metadata"]
    of = {key: meta[key] for key in ("name", "namespace", "uid")}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": _content_name(snapshot), "finalizers": _CONTENT_HELD},
        "spec": {
            "driver": its_class["driver"],
            "deletionPolicy": its_class["deletionPolicy"],
            "source": {"volumeHandle": volume},
            "volumeSnapshotClassName": its_class["metadata"]["name"],
            "volumeSnapshotRef": {"apiVersion": f"{GROUP}/v1", "kind": "VolumeSnapshot", **of},
        },
    }


def _content_name(snapshot: Object) -> str:
    return f"snapcontent-{snapshot['metadata']['uid']}"


def _path(snapshot: Object) -> str:
    meta = snapshot["metadata"]
    return f"{_ROOT}/namespaces/{meta['namespace']}/volumesnapshots/{meta['name']}"


def _is_made_of(claim: Object, snapshot: Object) -> bool:
    """The claim waits for its volume, which is to be made of the snapshot."""
    meta, waits = claim["metadata"], claim.get("status", {}).get("phase") != "Bound"
    same = meta["namespace"] == snapshot["metadata"]["namespace"] and "deletionTimestamp" not in meta
    return same and waits and source_of(claim) == snapshot["metadata"]["name"]


def source_of(claim: Object) -> str | None:
    """The snapshot that its volume is to be made of."""
    source = claim["spec"].get("dataSource") or {}
    return source.get("name") if source.get("kind") == "VolumeSnapshot" else None


def contents_by_claim(claims: Iterable[Object], snapshots: Iterable[Object]) -> dict[str, str | None]:
    """Of claims (by uid) that are to be made of a snapshot: its content, or None: it is not ready."""
    ready = {
        (one["metadata"]["namespace"], one["metadata"]["name"]): one["status"][
            "boundVolumeSnapshotContentName"
        ]
        for one in snapshots
        if one.get("status", {}).get("readyToUse") and "deletionTimestamp" not in one["metadata"]
    }
    return {
        one["metadata"]["uid"]: ready.get((one["metadata"]["namespace"], source))
        for one in claims
        if (source := source_of(one)) is not None
    }


def node_of(volume: Object) -> str:
    terms = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    node: str = terms[0]["matchExpressions"][0]["values"][0]
    return node


def directory(layout: Layout, node: str, name: str) -> Path:
    """From outside of the node: of a volume or of a copy."""
    return layout.folder / node / Path(VOLUMES).relative_to("/") / name


def found(layout: Layout, content: str) -> Path:
    """Where the copy is, whatever node that is."""
    places = (directory(layout, node, content) for node in layout.node_names)
    return next(one for one in places if one.exists())


def copy(source: Path, target: Path) -> None:
    """All or nothing; blocks are shared where the file system can."""
    if target.exists():
        return
    half = target.with_name(f".{target.name}")
    subprocess.run(["rm", "-rf", half], check=True)
    subprocess.run(["cp", "--archive", "--reflink=auto", "--no-target-directory", source, half], check=True)
    half.rename(target)


def serve(layout: Layout) -> None:
    """For ever; the API server may come and go."""
    with client.connect(layout, "skep-test-snapshotter") as api:
        while True:
            try:
                snapshots = client.get(api, SNAPSHOTS)
                others = [client.get(api, path)["items"] for path in (_CLASSES, _CLAIMS, _VOLUMES)]
                for action in actions(snapshots["items"], *others):
                    print(action, flush=True)
                    carry_out(layout, api, action)
                client.wait_for_change(api, SNAPSHOTS, snapshots["metadata"]["resourceVersion"], _QUIET)
            except httpx.HTTPError as error:
                print(error, flush=True)
                client.pause(1)


def carry_out(layout: Layout, api: httpx.Client, action: Action) -> None:
    """Repeating it is harmless.  Raises httpx.HTTPError."""
    now = datetime.now(UTC)
    written = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    match action:
        case Hold(snapshot):
            client.merge(api, snapshot, {"metadata": {"finalizers": _HELD}})
        case Refuse(snapshot, why):
            error = {"message": why, "time": written}
            client.merge(api, f"{snapshot}/status", {"status": {"readyToUse": False, "error": error}})
        case Copy(snapshot, node, volume, content, size):
            name = content["metadata"]["name"]
            client.create(api, _CONTENTS, content)
            copy(directory(layout, node, volume), directory(layout, node, name))
            told = {"snapshotHandle": name, "creationTime": int(now.timestamp() * 1e9), "readyToUse": True}
            client.merge(api, f"{_CONTENTS}/{name}/status", {"status": told})
            status = {"boundVolumeSnapshotContentName": name, "creationTime": written, "readyToUse": True}
            more = {"restoreSize": size, "error": None}
            client.merge(api, f"{snapshot}/status", {"status": status | more})
        case Forget(snapshot, content, keep):
            if not keep:
                _remove(layout, api, content)
            client.merge(api, snapshot, {"metadata": {"finalizers": None}})


def _remove(layout: Layout, api: httpx.Client, content: str) -> None:
    for node in layout.node_names:
        subprocess.run(["rm", "-rf", directory(layout, node, content)], check=True)
    client.delete(api, f"{_CONTENTS}/{content}")
    if api.get(f"{_CONTENTS}/{content}").is_success:
        client.merge(api, f"{_CONTENTS}/{content}", {"metadata": {"finalizers": None}})


if __name__ == "__main__":
    plan = saved(sys.argv[1])
    assert plan is not None, "there is no such cluster"
    serve(plan)
