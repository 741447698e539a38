"""The storage class of a test cluster: directories of the node that a pod was placed on.

What Kubernetes has for that by itself are `local` volumes that somebody made before.  Claims of any
number and size want a provisioner, as rancher's local-path is one.  This one lets volumes grow, too, and
removes what was deleted.  Sizes are noted but not enforced: a directory has no limit.
"""

import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import httpx
import msgspec
from tests.cluster.kubernetes import client, snapshots
from tests.cluster.kubernetes.layout import Layout, saved
from tests.cluster.kubernetes.node import VOLUMES
from tests.cluster.kubernetes.snapshots import directory, node_of

CLASS = "local-path"
PROVISIONER = snapshots.DRIVER
PROGRAM = "provisioner"
Object = dict[str, Any]
"""Of Kubernetes, as its API has it."""
_SELECTED = "volume.kubernetes.io/selected-node"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_QUIET = 5
"""Seconds after which it looks without having heard of anything."""
_VOLUMES = "/api/v1/persistentvolumes"
_CLAIMS = "/api/v1/persistentvolumeclaims"


class Provision(msgspec.Struct, frozen=True):
    """Make this volume on this node; `content`: the copy that it begins with."""

    node: str
    volume: Object
    content: str = ""


class Grow(msgspec.Struct, frozen=True):
    """Let volume and claim say this size."""

    claim: str
    volume: str
    size: str


class Remove(msgspec.Struct, frozen=True):
    """Nobody has a claim to it any more."""

    node: str
    volume: str


Action = Provision | Grow | Remove


def storage_class() -> Object:
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER,
        "volumeBindingMode": "WaitForFirstConsumer",
        "reclaimPolicy": "Delete",
        "allowVolumeExpansion": True,
    }


def actions(
    claims: Iterable[Object],
    volumes: Iterable[Object],
    contents: Mapping[str, str | None] | None = None,
) -> Iterator[Action]:
    """What is to be done about these claims and volumes; those of other classes are left alone.

    `contents`: of claims that are to begin with something, by uid; None: it is not there yet.
    """
    begins = contents or {}
    ours = {v["metadata"]["name"]: v for v in volumes if _note(v, _PROVISIONED_BY) == PROVISIONER}
    for claim in claims:
        if claim["spec"].get("storageClassName") != CLASS or "deletionTimestamp" in claim["metadata"]:
            continue
        name, wanted = _volume_name(claim), claim["spec"]["resources"]["requests"]["storage"]
        content = begins.get(claim["metadata"]["uid"], "")
        if name not in ours and content is not None and (node := _note(claim, _SELECTED)):
            yield Provision(node, _volume(name, node, claim), content)
        elif name in ours and claim["status"].get("capacity", {}).get("storage", wanted) != wanted:
            meta = claim["metadata"]
            yield Grow(
                f"/api/v1/namespaces/{meta['namespace']}/persistentvolumeclaims/{meta['name']}", name, wanted
            )
    for name, volume in ours.items():
        if volume["status"].get("phase") == "Released":
            yield Remove(node_of(volume), name)


def _volume_name(claim: Object) -> str:
    return f"pvc-{claim['metadata']['uid']}"


def _note(thing: Object, key: str) -> str | None:
    note: str | None = thing["metadata"].get("annotations", {}).get(key)
    return note


def _volume(name: str, node: str, claim: Object) -> Object:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    meta = claim["metadata"]
    owner = {
        "kind": "PersistentVolumeClaim",
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {_PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "accessModes": claim["spec"]["accessModes"],
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "claimRef": {"apiVersion": "v1", **owner},
            "local": {"path": f"{VOLUMES}/{name}"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": CLASS,
        },
    }


def serve(layout: Layout) -> None:
    """For ever; the API server may come and go."""
    with client.connect(layout, "skep-test-provisioner") as api:
        while True:
            try:
                claims = client.get(api, _CLAIMS)
                volumes = client.get(api, _VOLUMES)
                contents = _contents(api, claims["items"])
                for action in actions(claims["items"], volumes["items"], contents):
                    print(action, flush=True)
                    carry_out(layout, api, action)
                client.wait_for_change(api, _CLAIMS, claims["metadata"]["resourceVersion"], _QUIET)
            except httpx.HTTPError as error:
                print(error, flush=True)
                client.pause(1)


def _contents(api: httpx.Client, claims: list[Object]) -> dict[str, str | None]:
    """Nobody is asked while nothing is to be made of a snapshot: there may be none."""
    if not any(map(snapshots.source_of, claims)):
        return {}
    return snapshots.contents_by_claim(claims, client.get(api, snapshots.SNAPSHOTS)["items"])


def carry_out(layout: Layout, api: httpx.Client, action: Action) -> None:
    """Repeating it is harmless.  Raises httpx.HTTPError."""
    match action:
        case Provision(node, volume, content):
            place = directory(layout, node, volume["metadata"]["name"])
            if content:
                place.parent.mkdir(parents=True, exist_ok=True)
                snapshots.copy(snapshots.found(layout, content), place)
            place.mkdir(parents=True, exist_ok=True)
            client.create(api, _VOLUMES, volume)
        case Grow(claim, volume, size):
            client.merge(api, f"{_VOLUMES}/{volume}", {"spec": {"capacity": {"storage": size}}})
            client.merge(api, f"{claim}/status", {"status": {"capacity": {"storage": size}}})
        case Remove(node, volume):
            shutil.rmtree(directory(layout, node, volume), ignore_errors=True)
            client.delete(api, f"{_VOLUMES}/{volume}")


if __name__ == "__main__":
    found = saved(sys.argv[1])
    assert found is not None, "there is no such cluster"
    serve(found)
