"""The disks of a host elsewhere.  Satisfies `DiskPool` of control."""

from collections.abc import AsyncIterator
from pathlib import Path

from skep.model.host import DiskSpec, DiskUsage, PoolUsage
from skep.model.ids import Bytes, DiskId, SnapshotId
from skep.providers.remote.line import Line
from skep.providers.remote.streams import HostStreams


class RemoteDisks:
    def __init__(self, line: Line, streams: HostStreams) -> None:
        self._line = line
        self._streams = streams

    async def create(self, disk: DiskSpec) -> None:
        await self._line.tell("create", disk=disk)

    async def resize(self, disk: DiskId, size: Bytes) -> None:
        await self._line.tell("resize", disk=disk, size=size)

    async def path(self, disk: DiskId) -> Path:
        """A path of that host."""
        return await self._line.ask("path", Path, disk=disk)

    async def delete(self, disk: DiskId) -> None:
        await self._line.tell("delete", disk=disk)

    async def list(self) -> dict[DiskId, DiskUsage]:
        return await self._line.ask("list", dict[DiskId, DiskUsage])

    async def usage(self) -> PoolUsage:
        return await self._line.ask("usage", PoolUsage)

    async def snapshot(self, disk: DiskId, snapshot: SnapshotId) -> None:
        await self._line.tell("snapshot", disk=disk, snapshot=snapshot)

    async def restore(self, disk: DiskId, snapshot: SnapshotId) -> None:
        await self._line.tell("restore", disk=disk, snapshot=snapshot)

    async def delete_snapshot(self, snapshot: SnapshotId) -> None:
        await self._line.tell("delete_snapshot", snapshot=snapshot)

    async def snapshots(self) -> dict[SnapshotId, DiskId]:
        return await self._line.ask("snapshots", dict[SnapshotId, DiskId])

    def export(self, disk: DiskId, since: str = "") -> AsyncIterator[bytes]:
        return self._streams.export_disk(disk, since)

    async def receive(self, disk: DiskId, stream: AsyncIterator[bytes], onto: str = "") -> None:
        await self._streams.receive_disk(disk, stream, onto)

    async def fingerprint(self, disk: DiskId) -> str:
        return await self._line.ask("fingerprint", str, disk=disk)
