"""Trees of files as tars, for disks to take over and hand on."""

import io
import struct
import tarfile
from collections.abc import AsyncIterator
from typing import Any

from skep.control.ports import DiskPool
from skep.model.ids import DiskId
from skep.streams.contents import Contents
from skep.streams.sealing import sealed, unsealed

_ACL = "SCHILY.xattr.system.posix_acl_access"


def tree(**files: bytes) -> bytes:
    """Folders, links, owners, modes, attributes, and these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, ".", type=tarfile.DIRTYPE, mode=0o1777, uid=70, gid=71)
        _add(tar, "./deep", type=tarfile.DIRTYPE, mode=0o2750, uid=1000, gid=2000)
        _add(tar, "./deep/link", type=tarfile.SYMTYPE, linkname="../nowhere", mode=0o777)
        _add(tar, "./deep/pipe", type=tarfile.FIFOTYPE, mode=0o640)
        _add(tar, "./deep/ümlaut -n 'x'", b"odd", mode=0o4711, uid=7, gid=8)
        _add(tar, "./deep/twin", type=tarfile.LNKTYPE, linkname="./deep/ümlaut -n 'x'")
        _add(tar, "./marked", b"m", pax_headers={"SCHILY.xattr.user.mark": "yes"})
        _add(tar, "./shared", b"s", mode=0o664, pax_headers={_ACL: _shared_with(4242)})
        for name, content in files.items():
            _add(tar, f"./{name}", content)
    return buffer.getvalue()


async def shipped(content: bytes) -> AsyncIterator[bytes]:
    """As a pool exports it, in odd blocks."""

    async def blocks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 70_001):
            yield content[start : start + 70_001]

    async for block in sealed(blocks()):
        yield block


async def held(pool: DiskPool, disk: DiskId) -> dict[str, tuple[Any, ...]]:
    """What the disk holds, by name."""
    return members(b"".join([block async for block in unsealed(pool.export(disk))]))


async def digest(pool: DiskPool, disk: DiskId) -> str:
    """Of what the disk holds."""
    reading = Contents(pool.export(disk))
    async for _block in reading.stream():
        pass
    return await reading.digest()


def members(content: bytes) -> dict[str, tuple[Any, ...]]:
    """One of two hard links is a file to whoever reads them; which one, is chance."""
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return {one.name.removeprefix("./"): _facts(tar, one) for one in tar}


def _facts(tar: tarfile.TarFile, one: tarfile.TarInfo) -> tuple[Any, ...]:
    real = tar.getmember(one.linkname) if one.islnk() else one
    data = tar.extractfile(real) if real.isreg() else None
    mark = real.pax_headers.get("SCHILY.xattr.user.mark")
    link = real.linkname if real.issym() else ""
    about = (real.uid, real.gid, int(real.mtime), mark, real.pax_headers.get(_ACL))
    return (real.type, real.mode, link, data and data.read(), *about)


def _shared_with(user: int) -> str:
    """An ACL that lets somebody without a name read and write (linux/posix_acl_xattr.h)."""
    nobody = 0xFFFFFFFF
    entries = [(0x01, 6, nobody), (0x02, 6, user), (0x04, 4, nobody), (0x10, 6, nobody), (0x20, 4, nobody)]
    packed = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    return packed.decode(errors="surrogateescape")


def _add(tar: tarfile.TarFile, name: str, content: bytes = b"", **facts: Any) -> None:
    one = tarfile.TarInfo(name)
    one.size, one.mtime, one.mode = len(content), 1_500_000_000, 0o644
    for key, value in facts.items():
        setattr(one, key, value)
    tar.addfile(one, io.BytesIO(content))
