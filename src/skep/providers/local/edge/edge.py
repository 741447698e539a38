"""The edge of one host, as control's `Edge` wants it.

Entering adopts the HAProxy that runs; leaving takes nothing away.  It is started with the first endpoint.
Truth is what control said last (`records.py`); what HAProxy has is read from it after every start and again
and again, and what differs is changed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import structlog

from skep.model.edge import AccessLine, AppEndpoints, EdgeEndpoint, EdgeServer, EndpointTraffic
from skep.model.errors import Conflict, HostFailure, SkepError, Unavailable, Unsupported
from skep.model.host import PeersInForce
from skep.model.ids import AppId, EndpointId, NetworkId
from skep.providers.local.edge import changes, proofs, text
from skep.providers.local.edge.access_log import AccessLog
from skep.providers.local.edge.certificates import Certificates
from skep.providers.local.edge.layout import (
    Layout,
    NoSlot,
    Server,
    Wanted,
    arrange,
    fresh,
    left_behind,
    server_name,
)
from skep.providers.local.edge.place import Place
from skep.providers.local.edge.process import Process
from skep.providers.local.edge.records import Records
from skep.providers.local.edge.runtime import Runtime, runtime
from skep.providers.local.edge.text import Entrance
from skep.providers.local.edge.traffic import Tally, held

log = structlog.get_logger("skep.edge")

_LOOK = 10.0
"""Seconds between two looks whether all is as it should be."""
_SOON = 1.0
"""Seconds until the next look when something is to be cleared away, or could not be done."""
_RETURN = 30.0
"""Seconds within which networks are back after the machine was started."""
_LINGER = 2.0
"""Seconds for which a backend that nothing leads to any more still takes what was on its way."""

Target = tuple[NetworkId, IPv4Address, int]
Certify = Callable[[str], Awaitable[bytes]]
"""A certificate with its key as PEM, by digest."""


class Ways(Protocol):
    """How the host reaches replicas."""

    async def lead(
        self, targets: Iterable[Target], *, heal: bool = False
    ) -> Mapping[Target, tuple[IPv4Address, int]]:
        """Where each is reached from the host; without those whose network is not here.

        Others that were led to before are reached as they were.
        """

    async def keep(self, beginnings: Collection[tuple[IPv4Address, int]]) -> None:
        """Nobody takes any other way any more."""

    def published(self) -> set[int]:
        """TCP ports of the host that lead to services."""


class HaproxyEdge:
    """One per instance and host; needs root.  `enter`: the command that HAProxy is started by, if any."""

    def __init__(
        self,
        *,
        instance: str,
        data: Path,
        ways: Ways,
        entrance: Entrance,
        certify: Certify,
        enter: tuple[str, ...] = (),
    ) -> None:
        self._place = Place.of(instance)
        self._records = Records(data / "edge")
        self._ways = ways
        self._entrance = entrance
        self._certificates = Certificates(self._place, certify)
        self._log = AccessLog(self._place, data / "edge" / "log")
        self._process = Process(self._place, enter, self._wake)
        self._tally = Tally()
        self._lock = asyncio.Lock()
        self._woken = asyncio.Event()
        self._have: Layout | None = None
        self._left: dict[str, float] = {}
        # What follows from the records is worked out for an app when it changes, not for all each time.
        self._targets: dict[AppId, tuple[AppEndpoints, frozenset[Target]]] = {}
        self._reached: dict[AppId, tuple[AppEndpoints, list[Wanted]]] = {}
        self._known_ways: dict[Target, tuple[IPv4Address, int]] = {}
        self._led: frozenset[Target] = frozenset()
        self._unsettled = False
        self._outdated = False
        """What runs was started by another release, with rules that are not ours."""

        self._waits = False
        """Networks are not back yet: other hosts answer better."""
        self._returned = 0.0

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self._records.load()
            self._returned = time.monotonic() + _RETURN if self._records.apps else 0.0
            if self._is_on:
                self._place.make()
                self._outdated = self._process.adopt() and not self._rules_are_ours()
                stack.callback(self._process.release)
                for work in (self._watch(), self._log.run()):
                    stack.push_async_callback(_end, asyncio.create_task(work))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def set_endpoints(self, told: AppEndpoints) -> None:
        if not self._is_on:
            raise Unsupported("This host has no edge: 'edge_http' and 'edge_https' are 0.")
        async with self._lock:
            self._records.must_be_news(told)
            await self._records.save(told)
            try:
                await _whole(self._settle())
            except SkepError:
                self._unsettled = True
                self._wake()
                raise

    async def endpoints(self) -> dict[AppId, PeersInForce]:
        return self._records.in_force()

    async def traffic(self) -> list[EndpointTraffic]:
        if not self._process.runs:
            return []
        async with runtime(self._place.admin) as api:
            counted = self._tally.count(await api.run("show stat"))
            return counted + held(await api.run("show held")) if self._is_held() else counted

    async def access(self, endpoint: EndpointId, tail: int = 100) -> list[AccessLine]:
        return await asyncio.to_thread(self._log.read, endpoint, tail)

    @property
    def _is_on(self) -> bool:
        return bool(self._entrance.http or self._entrance.https)

    def _wake(self) -> None:
        self._have = None
        self._woken.set()

    async def _watch(self) -> None:
        """Until cancelled.  What fails is logged and tried again."""
        while True:
            try:
                async with self._lock:
                    self._have = None
                    await _whole(self._settle())
                    self._unsettled = await self._clear() or self._waits
                    await self._end_ways()
                    await asyncio.to_thread(self._log.forget, self._ids())
            except (SkepError, OSError) as error:
                self._unsettled = True
                log.warning("edge.unsettled", error=str(error))
            except Exception:
                self._unsettled = True
                log.exception("edge.failed")
            await self._pause()

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_SOON if self._unsettled else _LOOK):
                await self._woken.wait()
        self._woken.clear()
        await asyncio.sleep(0.02)  # one that cannot live does not get all of the machine

    async def _settle(self) -> None:
        """Make HAProxy as control wants it; the caller holds the lock."""
        wanted = await self._wanted()
        if not self._process.runs:
            self._waits = _lacks(wanted) and time.monotonic() < self._returned
            if wanted and not self._waits:
                await self._start(fresh(wanted))
            return
        if self._outdated:
            log.info("edge.outdated")
            self._outdated = False  # tried once: the one that runs is better than none
            await self._start(fresh(wanted))
            return
        try:
            await self._change(wanted)
        except NoSlot:
            await self._start(fresh(wanted, 2 * len(self._have.slots if self._have else ())))
        except (HostFailure, Unavailable) as error:
            log.info("edge.read-again", error=error.message)
            self._have = None
            await self._again(wanted)

    def _rules_are_ours(self) -> bool:
        place = self._place
        with suppress(OSError):
            code, rules = place.hold.read_text(), place.config.read_text()
            return code == text.hold(place) and rules.startswith(text.frame(place, self._entrance))
        return False

    async def _again(self, wanted: list[Wanted]) -> None:
        try:
            await self._change(wanted)
        except (HostFailure, Unavailable, NoSlot) as error:
            log.warning("edge.replaced", error=str(error))
            await self._start(fresh(wanted))

    async def _change(self, wanted: list[Wanted]) -> None:
        async with runtime(self._place.admin) as api:
            have = self._have or await api.read(self._place.routes)
            self._have = have
            then = arrange(have, wanted)
            self._have = None
            await self._certificates.show(api, _shown(wanted))
            await proofs.show(api, self._place.proofs, _proofs(wanted))
            for command in changes.before(have, then):
                await api.do(command.text, says=command.says)
            await api.change_routes(self._place.routes, have.routes, then.routes)
            for command in changes.after(have, then):
                await api.do(command.text, says=command.says)
            self._have = then

    async def _start(self, layout: Layout) -> None:
        self._have = None
        if taken := self._ways.published() & {self._entrance.http, self._entrance.https}:
            raise Conflict(
                f"The edge of this host cannot listen: a service publishes port {min(taken)}. Publish "
                "another one, or set 'edge_http' and 'edge_https' to other ports, or to 0."
            )
        wanted = await self._wanted()
        shown, place = _shown(wanted), self._place
        await self._certificates.prepare(shown)
        place.write(place.proofs, text.proofs(_proofs(wanted)))
        place.write(place.hold, text.hold(place))
        place.write(place.routes, text.routes(layout))
        place.write(place.certificates, text.certificates(place, self._certificates.known(shown)))
        place.write(place.config, text.configuration(place, self._entrance, layout))
        await self._process.start()
        self._outdated = False
        self._have, self._left = layout, {}
        log.info("edge.started", endpoints=len(layout.routes), slots=len(layout.slots))

    async def _wanted(self) -> list[Wanted]:
        """All endpoints, with those of their servers that this host can reach.

        A name and path is one app's at a time: where two were told to have it, it is that one's whose rows
        were read later (decisions/0031).
        """
        apps = self._records.apps
        self._targets = {app: self._targets_of(app, one) for app, one in apps.items()}
        targets = frozenset(target for _, found in self._targets.values() for target in found)
        if self._have is None or targets != self._led:
            ways = dict(await self._ways.lead(targets, heal=self._have is None))
            if ways != self._known_ways:
                self._known_ways, self._reached = ways, {}
            self._led = targets
        self._reached = {app: self._reached_of(app, one) for app, one in apps.items()}
        by_age = sorted(self._reached.values(), key=lambda known: known[0].generation)
        return list({one.key: one for _, found in by_age for one in found}.values())

    def _targets_of(self, app: AppId, told: AppEndpoints) -> tuple[AppEndpoints, frozenset[Target]]:
        known = self._targets.get(app)
        if known is not None and known[0] is told:
            return known
        return told, frozenset(_target(server) for one in told.endpoints for server in one.servers)

    def _reached_of(self, app: AppId, told: AppEndpoints) -> tuple[AppEndpoints, list[Wanted]]:
        known = self._reached.get(app)
        if known is not None and known[0] is told:
            return known
        return told, [Wanted(one, self._servers(one), told.tenant) for one in told.endpoints]

    def _servers(self, one: EdgeEndpoint) -> tuple[Server, ...]:
        found = [(server, self._known_ways.get(_target(server))) for server in one.servers]
        return tuple(
            Server(server_name(one.id, server), str(way[0]), way[1], server.weight, True, one.max_connections)
            for server, way in found
            if way is not None
        )

    async def _clear(self) -> bool:
        """Take out servers that have ended what they began; whether something is left to clear."""
        if not self._process.runs or (have := self._have) is None:
            return False
        now = time.monotonic()
        left = left_behind(have)
        self._left = {slot: self._left.get(slot, now) for slot in left}
        async with runtime(self._place.admin) as api:
            for slot, servers in have.slots.items():
                ripe = slot not in self._left or now - self._left[slot] > _LINGER
                for one in tuple(servers.values()) if ripe else ():
                    if await _cleared(api, slot, one, leave=slot in self._left):
                        del servers[one.name]
                    elif slot in self._left:
                        servers[one.name] = Server(one.name, one.address, one.port, one.weight, up=False)
        return any(not one.up for held in have.slots.values() for one in held.values()) or bool(self._left)

    async def _end_ways(self) -> None:
        """A way stays for as long as HAProxy, or one that it replaced, may lead somebody there."""
        if self._have is None or not await asyncio.to_thread(self._process.is_alone):
            return
        servers = (one for held in self._have.slots.values() for one in held.values())
        await self._ways.keep({(IPv4Address(one.address), one.port) for one in servers})

    def _is_held(self) -> bool:
        return any(one.hold for app in self._records.apps.values() for one in app.endpoints)

    def _ids(self) -> set[EndpointId]:
        return {one.id for app in self._records.apps.values() for one in app.endpoints}


async def _cleared(api: Runtime, slot: str, one: Server, *, leave: bool) -> bool:
    """Whether the server is gone; one with connections stays until they end."""
    if one.up and not leave:
        return False
    if one.up:
        await api.run(f"set server {slot}/{one.name} state maint")
    return "deleted" in await api.run(f"del server {slot}/{one.name}")


def _lacks(wanted: Iterable[Wanted]) -> bool:
    """Whether an endpoint is served, and by nobody who is reached from here."""
    return any(one.endpoint.servers and not one.servers for one in wanted)


def _target(server: EdgeServer) -> Target:
    return server.network, server.address, server.port


def _shown(wanted: list[Wanted]) -> dict[str, str]:
    return {one.endpoint.host: one.endpoint.certificate for one in wanted if one.endpoint.certificate}


def _proofs(wanted: list[Wanted]) -> dict[str, str]:
    return proofs.proofs(one.endpoint for one in wanted)


async def _whole(work: Coroutine[None, None, None]) -> None:
    """Who is cancelled waits for it, and keeps the lock till then: half a change is none."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
