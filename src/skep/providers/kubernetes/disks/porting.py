"""What disks hold, out of a cluster and into it: by a pod that mounts the claim meanwhile."""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from lightkube import codecs
from lightkube.resources.core_v1 import Event, Pod

from skep.model.errors import Conflict, InvalidInput, SkepError, Unavailable
from skep.model.host import ExecSpec
from skep.model.ids import DiskId
from skep.providers.kubernetes.client.cluster import Cluster, mark
from skep.providers.kubernetes.disks.porters import (
    FINGERPRINT,
    KEEP,
    SEND,
    TAKE,
    UNKNOWN,
    command,
    frame,
    mounts,
    node_of,
    porter,
    porter_name,
)
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace
from skep.providers.kubernetes.pods import troubles
from skep.providers.kubernetes.pods.exec import PodExec
from skep.providers.kubernetes.pods.seen import SeenPod, see
from skep.providers.kubernetes.pods.troubles import Subject
from skep.providers.kubernetes.pods.words import why_not
from skep.providers.local.disk_tars import must_have_ended_well

_RUNS_WITHIN = 180.0
"""Seconds: a volume may have to be made, and an image to be pulled."""
_ENDS_WITHIN = 120.0
_STOPS_WITHIN = 10.0
_LINGERS = 15.0
"""Seconds for which a porter waits for more: a disk is copied, copied again, and looked at."""
_STDOUT = 1
_LAST_WORDS = 2000


class Porting:
    """`image` answers what pods name as the image with the programs that the scripts need."""

    def __init__(self, cluster: Cluster, image: Callable[[], Awaitable[str]]) -> None:
        self._cluster = cluster
        self._image = image
        self._lingering: dict[DiskId, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Nothing of this process stays in the cluster."""
        for disk, lingering in list(self._lingering.items()):
            lingering.cancel()
            await asyncio.gather(lingering, return_exceptions=True)
            self._lingering.pop(disk, None)
        porters = self._cluster.selector | {mark("porter"): None}
        await self._sweep(await self._cluster.list(Pod, labels=porters))

    async def sweep(self) -> None:
        """End every porter of the installation: only one process leads its cluster."""
        await self._sweep((await (await self._cluster.watched(Pod)).synced()).all())

    async def _sweep(self, pods: Iterable[Pod]) -> None:
        for meta in (pod.metadata for pod in pods):
            if meta is not None and mark("porter") in (meta.labels or {}):
                await self._cluster.delete(Pod, meta.name or "", meta.namespace, grace=1)

    async def send(
        self, of: TenantNamespace, disk: DiskId, claim: str, since: str
    ) -> AsyncGenerator[bytes, None]:
        """The tar with its proof.  Raises Conflict, Unavailable, HostFailure."""
        said = command(SEND, claim, since)
        async with self._porter(of, disk, claim) as work, self._script(of, disk, said, work) as session:
            errors = b""
            async for stream, data in session.output():
                if stream == _STDOUT:
                    yield data
                else:
                    errors = (errors + data)[-_LAST_WORDS:]
            _must_have_ended_well(await session.wait(), errors)

    async def take(
        self,
        of: TenantNamespace,
        disk: DiskId,
        claim: str,
        content: AsyncIterator[bytes],
        still: Callable[[], None],
        onto: str,
    ) -> None:
        """What the content is a tar of becomes the disk's, unless `still` raises when all has arrived.

        Raises:
            Conflict: something else than `onto` arrived last.
            Exhausted: it does not fit.  Unavailable, HostFailure.
        """
        async with self._porter(of, disk, claim) as work:
            digest = hashlib.sha256()
            async with self._script(of, disk, command(TAKE, claim, onto), work, fed=True) as session:
                feeding = asyncio.create_task(_feed(session, content, digest.update))
                try:
                    arrived = await _said(session, feeding)
                finally:
                    feeding.cancel()
                    await asyncio.gather(feeding, return_exceptions=True)
            if arrived != digest.hexdigest().encode():
                raise InvalidInput("What arrived in the cluster is not what was sent: send it again.")
            still()
            async with self._script(of, disk, command(KEEP, claim, digest.hexdigest()), work) as session:
                await _said(session)

    async def look(self, of: TenantNamespace, disk: DiskId, claim: str) -> str:
        """As `LOOK` says.  Raises Unavailable, HostFailure."""
        said = command(FINGERPRINT, claim)
        async with self._porter(of, disk, claim) as work, self._script(of, disk, said, work) as session:
            return (await _said(session)).decode()

    @contextlib.asynccontextmanager
    async def placed(
        self, of: TenantNamespace, disk: DiskId, claim: str, near: Sequence[Manifest] = ()
    ) -> AsyncIterator[None]:
        """A pod that mounts the claim is to be placed meanwhile; whether it gets to run is all the same."""
        await self._cleared(of, disk)
        try:
            made = porter(of, disk, claim, await self._image(), near=near)
            await self._cluster.create(codecs.from_dict(made))
            yield
        finally:
            await asyncio.shield(self._end(of, disk))

    async def why(self, of: TenantNamespace, disk: DiskId, claim: str) -> str:
        """What the cluster says of a porter that waits for the claim; "" if nothing."""
        pods = await self._cluster.watched(Pod)
        found = next((see(one) for one in pods.labelled(porter=disk)), None)
        said = [troubles.said(one) for one in await self._cluster.list(Event, of.name, {})]
        subject = Subject(carrier="", claims=frozenset({claim}), pod=found)
        return troubles.trouble(said, subject).why or _why(found)

    @contextlib.asynccontextmanager
    async def _porter(self, of: TenantNamespace, disk: DiskId, claim: str) -> AsyncIterator["_Work"]:
        """It runs; one that may be at work still, whatever became of who asked for it, is ended."""
        work = _Work()
        try:
            await self._ready(of, disk, claim)
            work.running = False
            yield work
        finally:
            if work.running:
                await asyncio.shield(self._end(of, disk))
            else:
                self._lingering[disk] = asyncio.create_task(self._linger(of, disk))

    async def _ready(self, of: TenantNamespace, disk: DiskId, claim: str) -> None:
        """One that lingers, or a new one; any other may write what somebody has sent who is gone."""
        pods, name = await (await self._cluster.watched(Pod)).synced(), porter_name(disk)
        if (lingering := self._lingering.pop(disk, None)) is not None and lingering.cancel():
            await asyncio.gather(lingering, return_exceptions=True)
            if _runs(pods.get(name, of.name), claim):
                return
        await self._cleared(of, disk)
        made = porter(of, disk, claim, await self._image(), node_of(pods.all(), claim))
        await self._cluster.create(codecs.from_dict(made))
        await self._until(lambda: _runs(pods.get(name, of.name), claim), _RUNS_WITHIN, disk)

    async def _cleared(self, of: TenantNamespace, disk: DiskId) -> None:
        """There is no porter of the disk."""
        if (lingering := self._lingering.pop(disk, None)) is not None and lingering.cancel():
            await asyncio.gather(lingering, return_exceptions=True)
        pods, name = await (await self._cluster.watched(Pod)).synced(), porter_name(disk)
        await self._end(of, disk)
        await self._until(lambda: pods.get(name, of.name) is None, _ENDS_WITHIN, disk)

    async def _linger(self, of: TenantNamespace, disk: DiskId) -> None:
        await asyncio.sleep(_LINGERS)
        del self._lingering[disk]  # from now on nobody counts on it
        await self._end(of, disk)

    async def _end(self, of: TenantNamespace, disk: DiskId) -> None:
        await self._cluster.delete(Pod, porter_name(disk), of.name, grace=1)

    async def _until(self, holds: Callable[[], bool], seconds: float, disk: DiskId) -> None:
        pods = await self._cluster.watched(Pod)
        try:
            async with asyncio.timeout(seconds):
                await pods.until(holds)
        except TimeoutError:
            found = next((see(one) for one in pods.labelled(porter=disk)), None)
            raise Unavailable(f"Nothing in the cluster gets at disk {disk}. {_why(found)}".strip()) from None

    @contextlib.asynccontextmanager
    async def _script(
        self, of: TenantNamespace, disk: DiskId, args: tuple[str, ...], work: "_Work", *, fed: bool = False
    ) -> AsyncIterator[PodExec]:
        work.running = True
        spec = ExecSpec(args=args, stdin=fed)
        session = await PodExec.open(self._cluster, of.name, porter_name(disk), spec)
        try:
            yield session
        finally:
            work.running = not await _ends(session, fed)
            await session.close()


@dataclass
class _Work:
    running: bool = True
    """Whether something may be under way in the porter."""


async def _ends(session: PodExec, fed: bool) -> bool:
    """Whether the script has ended for sure; one that waits for more is told that there is none."""
    with contextlib.suppress(SkepError, TimeoutError):
        async with asyncio.timeout(_STOPS_WITHIN if fed else 1.0):
            if fed:
                await session.write(frame(b""))
            await session.wait()
            return True
    return False


async def _feed(session: PodExec, content: AsyncIterator[bytes], note: Callable[[bytes], object]) -> None:
    async for block in content:
        note(block)
        await session.write(frame(block))
    await session.write(frame(b""))


async def _said(session: PodExec, feeding: asyncio.Task[None] | None = None) -> bytes:
    """What the script printed, once it has ended well; who feeds it may fail first."""
    reading = asyncio.create_task(_read(session))
    try:
        waiting = {reading} if feeding is None else {reading, feeding}
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if feeding in done and feeding is not None:
            feeding.result()
        output, errors = await reading
    finally:
        reading.cancel()
    _must_have_ended_well(await session.wait(), errors)
    return output


def _must_have_ended_well(code: int, errors: bytes) -> None:
    """Raises Conflict, Exhausted, HostFailure."""
    if code == UNKNOWN:
        raise Conflict("The disk knows nothing of that copy any more: send all of it.")
    must_have_ended_well(code, errors.decode(errors="replace"))


async def _read(session: PodExec) -> tuple[bytes, bytes]:
    said = {_STDOUT: b"", _STDOUT + 1: b""}
    async for stream, data in session.output():
        said[stream] = (said[stream] + data)[-_LAST_WORDS:]
    return said[_STDOUT], said[_STDOUT + 1]


def _runs(pod: Pod | None, claim: str) -> bool:
    """A disk that went back to a snapshot has another claim than before."""
    return pod is not None and see(pod).running and not see(pod).deleting and mounts(pod, claim)


def _why(pod: SeenPod | None) -> str:
    return "" if pod is None else why_not(pod)
