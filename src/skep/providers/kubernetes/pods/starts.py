"""What a container's start needs: its specification in the words of Kubernetes, and what its pods read."""

import base64
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from skep.model.host import ContainerSpec
from skep.model.ids import Bytes, Digest, DiskId, ReplicaId, TenantId
from skep.model.images import ImageInfo
from skep.model.placement import Priority
from skep.providers.kubernetes.joining.addressing import Plugin
from skep.providers.kubernetes.network.pod_dns import pod_dns
from skep.providers.kubernetes.pods import addresses, naming, probes, templates
from skep.providers.kubernetes.pods.ledger import Entry, Ledger
from skep.providers.kubernetes.pods.naming import Position
from skep.providers.kubernetes.pods.objects import Supply
from skep.providers.kubernetes.pods.volumes import file_key


class Images(Protocol):
    """Where the cluster's nodes pull from."""

    def reference(self, digest: Digest) -> str:
        """As kubelet pulls it."""

    async def info(self, digest: Digest) -> ImageInfo:
        """Raises NotFound."""


class Supplies(Protocol):
    async def file(self, digest: str) -> bytes: ...


@dataclass(frozen=True)
class Starts:
    """`claim` names the PersistentVolumeClaim of a disk, `size` tells how large a system disk is.

    `nameserver` is the cluster's (see `pod_dns`), `addressing` what gives pods fixed addresses there;
    `node_labels` and `priorities` are as in `Given`.
    """

    images: Images
    supplies: Supplies
    namespace: Callable[[TenantId], str]
    claim: Callable[[DiskId], str]
    size: Callable[[DiskId], Awaitable[Bytes | None]]
    nameserver: str = ""
    addressing: Plugin | None = None
    node_labels: Callable[[], Collection[str]] = frozenset
    priorities: Mapping[Priority, str] = field(default_factory=dict)

    def place(self, spec: ContainerSpec) -> tuple[str, str]:
        """Of its carrier: namespace and name."""
        return self.namespace(spec.tenant), naming.carrier_name(spec)

    async def ledger(self, spec: ContainerSpec) -> Ledger:
        """That of its carrier, if there is none yet.  Raises NotFound: its image is not there."""
        info = await self.images.info(spec.image)
        where, (namespace, name) = Position.of(spec.name), self.place(spec)
        given = templates.Given(
            image=self.images.reference(spec.image),
            image_user=info.config.user,
            secret=name,
            dns=pod_dns(where.app, namespace, self.nameserver),
            system_size=await self.size(spec.system_disk),
            claim=self.claim,
            annotations=addresses.asked(spec, self.addressing),
            node_labels=self.node_labels(),
            priorities=self.priorities,
        )
        return Ledger(
            kind=naming.kind_of(spec),
            name=name,
            namespace=namespace,
            tenant=spec.tenant,
            app=naming.label_value(where.app),
            service=naming.label_value(where.service),
            template=templates.template(spec, given),
            shape=naming.shape_digest(spec),
        )

    async def supply(self, spec: ContainerSpec) -> Supply:
        files = {file_key(file): _base64(await self.supplies.file(file.digest)) for file in spec.files}
        variables = {name: _base64(value.encode()) for name, value in templates.environment(spec).items()}
        return {"env": variables, "files": files}


def entry(spec: ContainerSpec) -> Entry:
    return Entry(
        id=spec.id,
        replica=ReplicaId(spec.replica),
        name=spec.name,
        spec=naming.spec_digest(spec),
        ports=bool(spec.ports),
        grace=spec.stop_grace_period,
        checked=probes.given_up_after(spec.healthcheck),
        restart=spec.restart,
        memory_limit=spec.memory,
    )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
