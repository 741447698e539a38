"""A Kubernetes cluster as control knows it: how it is reached, and what was found there."""

import msgspec

from skep.model.host import HostFacts
from skep.model.ids import ClusterId
from skep.model.images import RegistryCredentials
from skep.model.needs import Need
from skep.model.views.clusters import ClusterCheck


class ClusterAccess(msgspec.Struct, frozen=True, kw_only=True):
    """`id`: what everything of ours there is labelled with.  `registry`: HOST[:PORT]/PREFIX of images."""

    id: ClusterId
    kubeconfig: str
    context: str | None
    registry: str
    credentials: RegistryCredentials | None = None

    def __repr__(self) -> str:
        return f"ClusterAccess(id={self.id!r}, registry={self.registry!r}, …)"


class ClusterLook(msgspec.Struct, frozen=True, kw_only=True):
    """`facts`: of the cluster as if it were one machine; `lacks`: what apps cannot have there.

    `ranges`: of the addresses that they may ask for, as CIDRs or `FIRST-LAST`.
    """

    check: ClusterCheck
    facts: HostFacts
    lacks: frozenset[Need] = frozenset()
    ranges: tuple[str, ...] = ()


class ClusterOffers(msgspec.Struct, frozen=True, kw_only=True):
    """The same of one that is led, as it is now."""

    lacks: frozenset[str] = frozenset()
    ranges: tuple[str, ...] = ()
