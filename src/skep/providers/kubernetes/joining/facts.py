"""What a cluster says of itself to somebody who may not be allowed everything there."""

import asyncio
from collections.abc import AsyncIterable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from httpx2 import AsyncClient as HttpClient
from httpx2 import HTTPError, HTTPStatusError
from lightkube import ApiError, AsyncClient
from lightkube.models.authorization_v1 import ResourceAttributes, SelfSubjectAccessReviewSpec
from lightkube.resources.apps_v1 import DaemonSet
from lightkube.resources.authorization_v1 import SelfSubjectAccessReview
from lightkube.resources.core_v1 import Namespace, Node, Service
from lightkube.resources.networking_v1 import IngressClass
from lightkube.resources.storage_v1 import StorageClass

from skep.model.errors import InvalidInput, Unavailable
from skep.model.host import HostFacts
from skep.model.ids import Bytes
from skep.providers.kubernetes.joining import snapshots
from skep.providers.kubernetes.joining.addressing import NOTHING, Addressing, source_of
from skep.providers.kubernetes.joining.gateways import GATEWAYS, Gateway, open_gateways
from skep.providers.kubernetes.joining.rights import BIND, MADE, OWNED, SEEN, Rule
from skep.providers.kubernetes.joining.snapshots import SnapshotClass, VolumeSnapshotClass
from skep.providers.kubernetes.quantities import amount

_AT_ONCE = 8
"""Questions under way at one time: clusters limit their clients."""
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"
SYSTEM = "kube-system"
"""The namespace of the cluster's own."""


NO_MACHINE = HostFacts(cpus=0, memory=Bytes(0), kernel="", cgroups="unknown", boot_id="")


@dataclass(frozen=True)
class DiskClass:
    """A storage class.  `driver` makes its volumes; `grows`: claims of it may become larger."""

    name: str
    driver: str = ""
    grows: bool = False
    default: bool = False


@dataclass(frozen=True)
class Facts:
    """`groups`: API groups with their versions, as `policy/v1`.  `denied`: rights that are missing, in words.

    What may not be read looks as if it were not there.
    """

    version: tuple[int, int]
    groups: frozenset[str] = frozenset()
    nodes: int = 0
    ready: int = 0
    unready: tuple[str, ...] = ()
    cordoned: tuple[str, ...] = ()
    """Nodes that are not Ready, and those that take no new pods, by name."""
    classes: tuple[DiskClass, ...] = ()
    snapshot_classes: tuple[SnapshotClass, ...] = ()
    ingress_classes: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    """Those that take routes of all namespaces."""
    daemons: frozenset[str] = frozenset()
    """DaemonSets of kube-system, where network plug-ins are."""
    services: frozenset[str] = frozenset()
    """Services of kube-system, where the name service is."""
    addressing: Addressing = NOTHING
    denied: tuple[str, ...] = ()
    machine: HostFacts = NO_MACHINE

    @property
    def usual_class(self) -> DiskClass | None:
        """That of disks."""
        return next((one for one in self.classes if one.default), None)

    @property
    def snapshots(self) -> SnapshotClass | None:
        """That of snapshots of disks."""
        usual = self.usual_class
        return snapshots.chosen(self.snapshot_classes, usual.driver) if usual else None

    def serves(self, group: str) -> bool:
        """In whatever version."""
        return any(one.startswith(f"{group}/") for one in self.groups)


async def ask(client: AsyncClient, documents: HttpClient) -> Facts:
    """Everything at once.

    Raises:
        Unavailable: nobody answers there, or not as a Kubernetes would.
        InvalidInput: the cluster does not let in who asks.
    """
    try:
        version = _version(await _document(documents, "/version"))
        groups = _groups(await _document(documents, "/apis"))
        found = await asyncio.gather(
            _items(client.list(Node)),
            _items(client.list(StorageClass)),
            _items(client.list(IngressClass)),
            _items(client.list(DaemonSet, namespace=SYSTEM)),
            _items(client.list(Service, namespace=SYSTEM)),
            _gateways(client, groups),
        )
        snapshot_classes = await _snapshot_classes(client, groups)
        denied, identity, addressing = await asyncio.gather(
            _denied(client), _identity(client), _addressing(client, groups)
        )
    except HTTPError as error:
        raise _refused(error, _server(documents)) from error
    except (KeyError, TypeError, ValueError) as error:
        raise Unavailable(f"What answers at {_server(documents)} is no Kubernetes: {error!r}.") from error
    nodes, classes, ingresses, daemons, services, gateways = found
    return Facts(
        version=version,
        groups=groups,
        nodes=len(nodes),
        ready=sum(map(is_ready, nodes)),
        unready=tuple(sorted(_name(one) for one in nodes if not is_ready(one))),
        cordoned=tuple(sorted(_name(one) for one in nodes if one.spec and one.spec.unschedulable)),
        classes=tuple(map(_disk_class, classes)),
        snapshot_classes=snapshot_classes,
        ingress_classes=tuple(_names(ingresses)),
        gateways=gateways,
        daemons=frozenset(_names(daemons)),
        services=frozenset(_names(services)),
        addressing=addressing,
        denied=denied,
        machine=machine_of(nodes, identity),
    )


def machine_of(nodes: Iterable[Node], identity: str) -> HostFacts:
    """The cluster as if it were one machine: what pods may have of its Ready nodes, in sum."""
    ready = [node for node in nodes if is_ready(node)]
    pods_may_have = [(node.status and node.status.allocatable) or {} for node in ready]
    infos = [node.status.nodeInfo for node in ready if node.status is not None]
    kernels = {info.kernelVersion for info in infos if info is not None}
    return HostFacts(
        cpus=int(sum(amount(one.get("cpu", "0")) for one in pods_may_have)),
        memory=Bytes(int(sum(amount(one.get("memory", "0")) for one in pods_may_have))),
        kernel=", ".join(sorted(kernels)),
        cgroups="unknown",
        boot_id=identity,
    )


async def _identity(client: AsyncClient) -> str:
    """What no other cluster has, and this one keeps for its life; "" if it may not be read."""
    try:
        found = await client.get(Namespace, SYSTEM)
    except ApiError as error:
        if error.status.code in (403, 404):
            return ""
        raise
    return (found.metadata and found.metadata.uid) or ""


async def _document(documents: HttpClient, path: str) -> Any:
    answer = await documents.get(path)
    answer.raise_for_status()
    return answer.json()


def _version(document: Any) -> tuple[int, int]:
    """Some distributions call their minor version `20+`."""
    return int(document["major"]), int("".join(filter(str.isdigit, document["minor"])))


def _groups(document: Any) -> frozenset[str]:
    return frozenset(one["groupVersion"] for group in document["groups"] for one in group["versions"])


async def _items(listed: AsyncIterable[Any]) -> list[Any]:
    """None of what may not be read, and none of what this version does not serve."""
    try:
        return [item async for item in listed]
    except ApiError as error:
        if error.status.code in (403, 404):
            return []
        raise


async def _gateways(client: AsyncClient, groups: frozenset[str]) -> tuple[str, ...]:
    if f"{GATEWAYS}/v1" not in groups:
        return ()
    return tuple(map("/".join, open_gateways(await _items(client.list(Gateway, namespace="*")))))


async def _addressing(client: AsyncClient, groups: frozenset[str]) -> Addressing:
    if (source := source_of(groups)) is None:
        return NOTHING
    try:
        return source.read([item async for item in client.list(source.kind)])
    except ApiError as error:
        if error.status.code == 403:
            return source.unread
        raise


async def _snapshot_classes(client: AsyncClient, groups: frozenset[str]) -> tuple[SnapshotClass, ...]:
    if snapshots.API not in groups:
        return ()
    return tuple(map(snapshots.read, await _items(client.list(VolumeSnapshotClass))))


async def _denied(client: AsyncClient) -> tuple[str, ...]:
    """Rights in the namespaces of tenants may be had everywhere, or given by a role that may be bound."""
    everywhere = await _missing(client, (*SEEN, *MADE))
    if await _missing(client, (BIND,)):
        return everywhere + await _missing(client, OWNED)
    return everywhere


async def _missing(client: AsyncClient, rules: Iterable[Rule]) -> tuple[str, ...]:
    room = asyncio.Semaphore(_AT_ONCE)
    asked = [(rule, resource, verb) for rule in rules for resource, verb in rule.each()]

    async def allowed(rule: Rule, resource: str, verb: str) -> bool:
        async with room:
            review = await client.create(_review(rule, resource, verb))
        return bool(review.status and review.status.allowed)

    answers = await asyncio.gather(*(allowed(*one) for one in asked))
    return tuple(
        f"{verb} {resource}" for (_, resource, verb), answer in zip(asked, answers, strict=True) if not answer
    )


def _review(rule: Rule, resource: str, verb: str) -> SelfSubjectAccessReview:
    name, _, sub = resource.partition("/")
    wanted = ResourceAttributes(
        group=rule.group, resource=name, subresource=sub or None, verb=verb, name="".join(rule.names) or None
    )
    return SelfSubjectAccessReview(spec=SelfSubjectAccessReviewSpec(resourceAttributes=wanted))


def _refused(error: HTTPError, server: str) -> Unavailable | InvalidInput:
    if not isinstance(error, HTTPStatusError):
        return Unavailable(f"No cluster answers at {server}: {str(error) or type(error).__name__}.")
    answer = f"{error.response.status_code} {error.response.reason_phrase}"
    if error.response.status_code in (401, 403):
        return InvalidInput(
            f"{server} does not let in who the kubeconfig says ({answer}): see 'skep cluster rights' for an "
            "account and its token."
        )
    return Unavailable(f"What answers at {server} says {answer}.")


def _server(documents: HttpClient) -> str:
    return str(documents.base_url).rstrip("/")


def is_ready(node: Node) -> bool:
    conditions = (node.status and node.status.conditions) or ()
    return any(one.type == "Ready" and one.status == "True" for one in conditions)


def _disk_class(found: StorageClass) -> DiskClass:
    marks = (found.metadata and found.metadata.annotations) or {}
    return DiskClass(
        name=_name(found),
        driver=found.provisioner,
        grows=bool(found.allowVolumeExpansion),
        default=marks.get(_DEFAULT_CLASS) == "true",
    )


def _names(items: Collection[Any]) -> list[str]:
    return [_name(item) for item in items]


def _name(item: Any) -> str:
    name: str = item.metadata.name
    return name
