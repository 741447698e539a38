"""How many replicas of a service a drain may take away at a time: PodDisruptionBudgets.

One per service of several replicas, over all its revisions: a pod may have one budget only.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from lightkube.generic_resource import create_namespaced_resource

from skep.model.errors import NotFound, SkepError
from skep.providers.kubernetes.applied import stands
from skep.providers.kubernetes.applying import put
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.watching import Change, Watched
from skep.providers.kubernetes.pods.ledger import Ledger
from skep.providers.kubernetes.pods.manifests import DOMAIN, MEMBER, Manifest
from skep.providers.kubernetes.pods.naming import CarrierKind, plain

_AT_A_TIME = "10%"
"""Rounded up: one of a service of up to ten."""
_GROUP = "policy"
_KINDS: dict[str, Any] = {
    version: create_namespaced_resource(_GROUP, version, "PodDisruptionBudget", "poddisruptionbudgets")
    for version in ("v1", "v1beta1")
}
_AGAIN = 30.0
Place = tuple[str, str]
"""Namespace and name."""
_log = structlog.get_logger(__name__)


def budgets(ledgers: Iterable[Ledger], base: dict[str, str], version: str) -> dict[Place, Manifest]:
    """Those that there are to be.  A service of one replica has none: whoever drains wants it to go."""
    known = [one for one in ledgers if one.kind is not CarrierKind.POD]
    counted = Counter[tuple[str, str, str, str]]()
    for one in known:
        counted[one.namespace, one.tenant, one.app, one.service] += len(one.wanted)
    made = (_budget(*key, base, version) for key, count in counted.items() if count > 1)
    return {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in made}


class Budgets:
    """Kept as they are to be; what an earlier process left behind goes with the first round."""

    def __init__(self, cluster: Cluster, ledgers: Callable[[], Iterable[Ledger]]) -> None:
        self._cluster = cluster
        self._ledgers = ledgers
        self._news = asyncio.Event()
        self._there: dict[Place, Manifest] = {}
        self._follows = False

    def changed(self) -> None:
        """Other containers are wanted, or others are there."""
        self._news.set()

    async def forever(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self._work()
            except SkepError as error:
                _log.warning("cluster.budgets-failed", error=str(error))
                asyncio.get_running_loop().call_later(_AGAIN, self.changed)

    async def _work(self) -> None:
        version = await self._version()
        if not version:
            return
        kind = _KINDS[version]
        if not self._follows:
            watched = await self._cluster.watched(kind)
            self._there = await self._left(kind, watched)
            watched.subscribe(self._heard)
            self._follows = True
        wanted = budgets(self._ledgers(), self._cluster.selector, version)
        new = [place for place, one in wanted.items() if not _stands(one, self._there.get(place))]
        await asyncio.gather(*(self._apply(place, wanted[place]) for place in new))
        for namespace, name in self._there.keys() - wanted.keys():
            await self._cluster.delete(kind, name, namespace)
            self._there.pop((namespace, name), None)

    async def _apply(self, place: Place, manifest: Manifest) -> None:
        """Noted before it is there, so that who deletes it right then is heard of, too."""
        self._there[place] = manifest
        try:
            await put(self._cluster, manifest)
        except SkepError as error:
            self._there.pop(place, None)
            if not isinstance(error, NotFound):  # the namespace is on its way out
                raise

    def _heard(self, change: Change[Any]) -> None:
        """One that somebody deleted is made again."""
        meta = change.object.metadata
        if change.gone and self._there.pop((meta.namespace, meta.name), None) is not None:
            self.changed()

    async def _version(self) -> str:
        """The oldest are the only ones that lack `v1`; a cluster may have neither."""
        for version in ("v1", "v1beta1"):
            if await self._cluster.serves(f"{_GROUP}/{version}"):
                return version
        return ""

    async def _left(self, kind: Any, watched: Watched[Any]) -> dict[Place, Manifest]:
        """What an earlier process left; an older role lets skep see it in the namespaces of tenants only."""
        spaces = {one.namespace for one in self._ledgers()} if not await watched.allowed() else set()
        found = await asyncio.gather(*(self._cluster.list(kind, space) for space in spaces))
        left = [one.to_dict() for every in (watched.all(), *found) for one in every]
        return {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in left}


def _stands(manifest: Manifest, there: Manifest | None) -> bool:
    """It was applied by this process, or by one before it and is as it was."""
    return there is not None and (there == manifest or stands(manifest, there))


def _budget(
    namespace: str, tenant: str, app: str, service: str, base: dict[str, str], version: str
) -> Manifest:
    labels = {f"{DOMAIN}tenant": tenant, f"{DOMAIN}app": app, f"{DOMAIN}service": service}
    counted = [{"key": MEMBER, "operator": "Exists"}]
    spec = {
        "maxUnavailable": _AT_A_TIME,
        "selector": {"matchLabels": labels, "matchExpressions": counted},
    }
    # With a dot, which neither has: app `a-b` with service `c` is not app `a` with service `b-c`.
    metadata = {"name": f"{plain(app)}.{plain(service)}", "namespace": namespace, "labels": base | labels}
    return {
        "apiVersion": f"{_GROUP}/{version}",
        "kind": "PodDisruptionBudget",
        "metadata": metadata,
        "spec": spec,
    }
