"""The objects that a ledger stands for.  Pure."""

from collections.abc import Mapping
from typing import Any

from skep.providers.kubernetes.pods import addresses
from skep.providers.kubernetes.pods.ledger import Entry, Ledger
from skep.providers.kubernetes.pods.naming import CarrierKind

DOMAIN = "skep.dev/"
CONTAINER, MEMBER, CARRIER = f"{DOMAIN}container", f"{DOMAIN}member", f"{DOMAIN}carrier"
"""`member` is what a Deployment selects by: a pod without it is its carrier's, but no longer counted."""
SHAPE = f"{DOMAIN}shape"
Manifest = dict[str, Any]


def owner(ledger: Ledger, uid: str) -> Manifest:
    """What makes an object go when the ledger does."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "name": ledger.name, "uid": uid}


def labels_of(ledger: Ledger, base: Mapping[str, str]) -> dict[str, str]:
    """`base`: those of the installation."""
    own = {"tenant": ledger.tenant, "app": ledger.app, "service": ledger.service, "carrier": ledger.name}
    return {**base, **{f"{DOMAIN}{key}": value for key, value in own.items()}}


def bound(entry: Entry) -> dict[str, str]:
    return {CONTAINER: entry.id, f"{DOMAIN}replica": entry.replica}


def workload(ledger: Ledger, base: Mapping[str, str], uid: str) -> Manifest:
    """The Deployment, or the StatefulSet of one, with as many replicas as containers are wanted."""
    labels = labels_of(ledger, base)
    wanted = ledger.wanted
    spec: Manifest = {
        "replicas": len(wanted),
        "revisionHistoryLimit": 0,
        "selector": {"matchLabels": {MEMBER: ledger.name}},
    }
    pod_labels = {**labels, MEMBER: ledger.name}
    if ledger.kind is CarrierKind.STATEFUL_SET:
        # Pods of an earlier container end when it is stopped, by nobody else.
        spec |= {"serviceName": ledger.name, "updateStrategy": {"type": "OnDelete"}}
        pod_labels |= bound(wanted[0]) if wanted else {}
    if addresses.is_fixed(ledger.template["metadata"].get("annotations") or {}):
        spec |= {"strategy": {"type": "Recreate"}} if ledger.kind is CarrierKind.DEPLOYMENT else {}
    spec["template"] = _labelled(ledger.template, pod_labels)
    return _object("apps/v1", ledger.kind.value, ledger, labels, uid, {SHAPE: ledger.shape}) | {"spec": spec}


def pod(ledger: Ledger, entry: Entry, base: Mapping[str, str], uid: str) -> Manifest:
    """The pod of one start."""
    own = {**bound(entry), f"{DOMAIN}attempt": str(entry.attempt)}
    labels = {**ledger.template["metadata"].get("labels", {}), **labels_of(ledger, base), **own}
    found = _object("v1", "Pod", ledger, labels, uid, ledger.template["metadata"].get("annotations") or {})
    found["metadata"]["name"] = f"{ledger.name}-{entry.attempt}"
    return found | {"spec": ledger.template["spec"]}


def secret(ledger: Ledger, part: str, data: Mapping[str, str], base: Mapping[str, str], uid: str) -> Manifest:
    """`part`: `env` or `files`; `data` in base64."""
    found = _object("v1", "Secret", ledger, labels_of(ledger, base), uid, {})
    found["metadata"]["name"] = f"{ledger.name}-{part}"
    return found | {"type": "Opaque", "data": dict(data)}


def _labelled(template: Manifest, labels: Mapping[str, str]) -> Manifest:
    metadata = {**template["metadata"], "labels": {**template["metadata"].get("labels", {}), **labels}}
    return {"metadata": metadata, "spec": template["spec"]}


def _object(
    api: str,
    kind: str,
    ledger: Ledger,
    labels: Mapping[str, str],
    uid: str,
    annotations: Mapping[str, str],
) -> Manifest:
    metadata = {
        "name": ledger.name,
        "namespace": ledger.namespace,
        "labels": dict(labels),
        "ownerReferences": [owner(ledger, uid)],
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": api, "kind": kind, "metadata": metadata}
