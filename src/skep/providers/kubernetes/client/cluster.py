"""An open connection to a cluster: everything that skep reads there and writes there goes through it.

What is asked for may be asked again: apply and delete say how it is to be.  A cluster that is busy, or whose
API server starts anew, is asked again for some seconds before anybody hears of it.
"""

import asyncio
import builtins
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx2
import structlog
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.resource import GlobalResource, api_info
from lightkube.types import CascadeType, PatchType

from skep.model.errors import Forbidden, NotFound
from skep.model.ids import TenantId
from skep.providers.kubernetes.client import access, refusals
from skep.providers.kubernetes.client.feeds import Feed
from skep.providers.kubernetes.client.patience import patiently
from skep.providers.kubernetes.client.refusals import translated
from skep.providers.kubernetes.client.watching import Watched

T = TypeVar("T")
log = structlog.get_logger(__name__)

MANAGED_BY, MANAGER = "app.kubernetes.io/managed-by", access.MANAGER
INSTALLATION = "skep.dev/installation"
_PATIENCE, _OF_ORDERS = 15.0, 120.0
"""Seconds: an order is not given up while an API server is replaced by another, as in upgrades."""
_AT_ONCE = 16
"""Requests under way at one time, watches apart: clusters limit their clients."""


def mark(name: str) -> str:
    """The key of one of skep's labels or annotations: `skep.dev/container`."""
    return f"skep.dev/{name}"


class Cluster:
    """Entered, it is open.  `installation` tells skep's own objects from those of another skep.

    `patience`, `of_orders`: seconds for which questions, and orders, are repeated; once it is `led`, objects
    are read for orders.
    """

    def __init__(
        self,
        config: SingleConfig,
        installation: str,
        *,
        patience: float = _PATIENCE,
        of_orders: float = _OF_ORDERS,
    ) -> None:
        self.installation = installation
        self.server: str = config.cluster.server
        self._config = config
        self._patience, self._of_orders = patience, of_orders
        self._of_objects = patience
        self._room = asyncio.Semaphore(_AT_ONCE)
        self._watched: dict[tuple[Any, str | None], Watched[Any]] = {}
        self._unseen: set[tuple[Any, str | None]] = set()
        self._groups: frozenset[str] | None = None
        self._asking = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        client, documents = access.connect(self._config)
        # Its types have an overload for each sort of kind; here one code serves all sorts.
        self._client: Any = await self._stack.enter_async_context(client)
        self.http: httpx2.AsyncClient = await self._stack.enter_async_context(documents)
        """For what is no object: logs, commands in containers; with skep's identity."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def led(self) -> None:
        """All is known that must be: from now on who reads an object does it for an order."""
        self._of_objects = self._of_orders

    # -- names ------------------------------------------------------------------------------------

    @staticmethod
    def namespace(tenant: TenantId) -> str:
        return f"skep-{tenant}"

    @property
    def selector(self) -> dict[str, str]:
        """The labels of everything that is this installation's."""
        return {MANAGED_BY: MANAGER, INSTALLATION: self.installation}

    def labels(self, **more: str) -> dict[str, str]:
        """Those, and `skep.dev/tenant` for `tenant=…` and so on."""
        return self.selector | {mark(name): value for name, value in more.items()}

    # -- objects ----------------------------------------------------------------------------------

    async def apply(self, *objects: T, force: bool = False) -> list[T]:
        """Server-side apply, one after the other: what is left out is no longer skep's.

        With `force` fields that others manage become skep's, too.
        Raises:
            Conflict: another manager has some of the fields; `details["managers"]` tells which has which.
            NotFound: the namespace is not there.
        """
        return [await self._apply(one, force) for one in objects]

    async def create(self, one: T) -> T:
        """For what is asked of a cluster, and for what must not be changed if it is there.

        Raises:
            Conflict: it is there.
            NotFound: the namespace is not.
        """
        meta: Any = one.metadata  # type: ignore[attr-defined] # every kind has it
        what = f"create {_called(type(one), (meta and meta.name) or '', meta and meta.namespace)}"
        found: T = await self._order(lambda: self._client.create(one), what)
        return found

    async def get(self, kind: type[T], name: str, namespace: str | None = None) -> T:
        """Asked of the cluster itself; what is watched is known without.  Raises NotFound."""
        what = f"get {_called(kind, name, namespace)}"
        found: T = await self._ask(
            lambda: self._client.get(kind, name, **_room(namespace)), what, self._of_objects
        )
        return found

    async def list(
        self,
        kind: type[T],
        namespace: str | None = None,
        labels: Mapping[str, str | None] | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> list[T]:
        """Asked of the cluster itself; all of skep's with these `labels`; one of None has any value."""
        feed = Feed(self._client, self.http, kind, self.selector if labels is None else labels, namespace)
        _, items = await self._ask(lambda: feed.list(fields), f"list {feed.name}", self._of_objects)
        return items

    async def seen(
        self, kind: type[T], namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> builtins.list[T] | None:
        """As `list`; None where skep may not, which is said once until it may."""
        name, where = api_info(kind).plural, (kind, namespace)  # type: ignore[arg-type] # lightkube's kinds have it
        try:
            found = await self.list(kind, namespace, labels)
        except Forbidden as error:
            if where not in self._unseen:
                log.warning("cluster.right-missing", kind=name, error=error.message)
            self._unseen.add(where)
            return None
        if where in self._unseen:
            log.info("cluster.right-given", kind=name)
        self._unseen.discard(where)
        return found

    async def delete(
        self,
        kind: type[Any],
        name: str,
        namespace: str | None = None,
        *,
        grace: int | None = None,
    ) -> None:
        """Absent is success.  What it owns goes with it, later."""
        what = f"delete {_called(kind, name, namespace)}"
        with contextlib.suppress(NotFound):
            await self._order(
                lambda: self._client.delete(
                    kind, name, grace_period=grace, cascade=CascadeType.BACKGROUND, **_room(namespace)
                ),
                what,
            )

    async def patch(
        self, kind: type[T], name: str, change: Mapping[str, Any], namespace: str | None = None
    ) -> T:
        """A JSON merge patch.  Raises NotFound."""
        what = f"patch {_called(kind, name, namespace)}"
        found: T = await self._order(
            lambda: self._client.patch(
                kind, name, dict(change), patch_type=PatchType.MERGE, **_room(namespace)
            ),
            what,
        )
        return found

    async def replace(self, kind: type[T], name: str, field: str, value: object, namespace: str) -> T:
        """One field as a whole, whoever manages what in it.  Raises NotFound."""
        change = [{"op": "add", "path": f"/{field}", "value": value}]  # of what is there it is a replacement
        found: T = await self._order(
            lambda: self._client.patch(kind, name, change, patch_type=PatchType.JSON, namespace=namespace),
            f"patch {_called(kind, name, namespace)}",
        )
        return found

    async def document(self, path: str) -> Any:
        """What the server answers there, from JSON."""
        return await self._ask(lambda: self._document(path), f"get {path}")

    async def answers(self) -> None:
        """A sign of life, which does not wait behind orders.  Raises Unavailable: there is none."""
        await self._asked(lambda: self._document("/version"), "get /version", self._patience)

    async def serves(self, group: str) -> bool:
        """`policy/v1`, or `metrics.k8s.io` in whatever version; asked once."""
        async with self._asking:
            if self._groups is None:
                answer = await self.document("/apis")
                self._groups = frozenset(
                    one["groupVersion"] for found in answer["groups"] for one in found["versions"]
                )
        return any(one == group or one.startswith(f"{group}/") for one in self._groups)

    async def watched(
        self, kind: type[T], *, namespace: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Watched[T]:
        """All of skep's of the kind, followed from now on: one watch, whoever asks; ends with the cluster.

        Await `synced` before reading.  With `labels` it is a watch of its own.
        """
        if labels is not None:
            return await self._follow(kind, labels, namespace)
        if (kind, namespace) not in self._watched:
            self._watched[kind, namespace] = await self._follow(kind, self.selector, namespace)
        return self._watched[kind, namespace]

    # -- asking -----------------------------------------------------------------------------------

    async def _follow(self, kind: type[T], labels: Mapping[str, str], namespace: str | None) -> Watched[T]:
        watched = Watched(Feed(self._client, self.http, kind, labels, namespace))
        return await self._stack.enter_async_context(watched)

    async def _apply(self, one: T, force: bool) -> T:
        meta: Any = one.metadata  # type: ignore[attr-defined] # every kind has it
        what = f"apply {_called(type(one), meta.name, meta.namespace)}"
        found: T = await self._order(lambda: self._client.apply(one, force=force), what)
        return found

    async def _document(self, path: str) -> Any:
        answer = await self.http.get(path)
        answer.raise_for_status()
        return answer.json()

    async def _order(self, ask: Callable[[], Awaitable[T]], what: str) -> T:
        return await self._ask(ask, what, self._of_orders)

    async def _ask(self, ask: Callable[[], Awaitable[T]], what: str, patience: float | None = None) -> T:
        async def in_turn() -> T:
            async with self._room:
                return await ask()

        return await self._asked(in_turn, what, self._patience if patience is None else patience)

    async def _asked(self, ask: Callable[[], Awaitable[T]], what: str, patience: float) -> T:
        async def read() -> T:
            try:
                return await ask()
            except (KeyError, ValueError) as error:
                raise refusals.unread(error) from error

        try:
            return await patiently(read, patience)
        except httpx2.HTTPError as error:
            raise translated(error, what) from error


def _room(namespace: str | None) -> dict[str, str]:
    return {} if namespace is None else {"namespace": namespace}


def _called(kind: type[Any], name: str, namespace: str | None) -> str:
    """As people say it."""
    where = "" if namespace is None or issubclass(kind, GlobalResource) else f" in {namespace}"
    return f"{api_info(kind).resource.kind} {name}{where}"
