"""Where a disk pool lies: a device or a loop file, made once, mounted, grown.

Called by `BtrfsPool` when it is entered and by its teardown.
"""

import os
from pathlib import Path

import msgspec

from skep.model.errors import HostFailure
from skep.model.ids import Bytes
from skep.providers.local import btrfs
from skep.providers.local.commands import run

_OPTIONS = "noatime,nodev"
"""Nothing on the pool is a device for the host; containers get their devices elsewhere."""
_SMALL = 1024 * 1024 * 1024
"""Below this, data and metadata share their chunks, as mkfs.btrfs(8) advises."""


async def attach_pool(root: Path, mount: Path, device: Path | None, size: Bytes) -> None:
    """Make what is missing, mount it, and let the file system fill its device."""
    root.mkdir(parents=True, exist_ok=True)
    if device is None:
        device = await _loop_device(root / "pool.img", size)
    else:
        await _format_once(device)
    if not is_mounted(mount):
        mount.mkdir(parents=True, exist_ok=True)
        await run("mount", "-t", "btrfs", "-o", _OPTIONS, device, mount)
    with btrfs.directory(mount) as fd:
        if not btrfs.is_subvolume(fd):
            raise HostFailure(f"{mount} is mounted, but not as a btrfs file system.")
        if _has_room_to_grow(device, mount):
            btrfs.grow(fd)


async def detach_pool(root: Path, mount: Path) -> None:
    """Unmount and free the loop device.  Absent is success."""
    while is_mounted(mount):
        await run("umount", mount)
    if (root / "pool.img").exists():
        for device in await _loops_of(root / "pool.img"):
            await run("losetup", "--detach", device)


def is_mounted(mount: Path) -> bool:
    return os.path.ismount(mount)


def _has_room_to_grow(device: Path, mount: Path) -> bool:
    """Whether the device is larger than its file system by more than rounding."""
    facts = os.statvfs(mount)
    with device.open("rb") as file:
        return file.seek(0, os.SEEK_END) - facts.f_blocks * facts.f_frsize > 1024 * 1024


async def _loop_device(image: Path, size: Bytes) -> Path:
    """The loop device of the image, which is made and grown as needed; never shrunk."""
    if not image.exists():
        await _make_image(image, size)
    loops = await _loops_of(image)
    if image.stat().st_size < size:
        os.truncate(image, size)
        for loop in loops:
            await run("losetup", "--set-capacity", loop)
    if loops:
        return loops[0]
    return Path((await run("losetup", "--find", "--show", "--direct-io=on", image)).strip())


async def _make_image(image: Path, size: Bytes) -> None:
    """A sparse file with a file system; it gets its name when it is complete."""
    fresh = image.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    os.truncate(fresh, size)
    # One copy of the metadata: both would lie in the same file.
    layout = ("--mixed",) if size < _SMALL else ("--metadata", "single")
    await run("mkfs.btrfs", "--quiet", *layout, fresh)
    with fresh.open("rb") as file:
        os.fsync(file.fileno())
    fresh.rename(image)


async def _format_once(device: Path) -> None:
    """Make a file system on an empty device; mkfs itself refuses one that holds something."""
    if not device.exists():
        raise HostFailure(f"The pool's device {device} does not exist.")
    # blkid ends with 2 when it finds nothing.
    found = (await run("sh", "-c", 'blkid -p -s TYPE -o value "$0" || test $? = 2', device)).strip()
    if not found:
        await run("mkfs.btrfs", "--quiet", device)
    elif found != "btrfs":
        raise HostFailure(
            f"The pool's device {device} holds a file system ({found}); skep does not erase it."
        )


async def _loops_of(image: Path) -> list[Path]:
    answer = await run("losetup", "--json", "--list", "--output", "NAME,BACK-FILE", "--associated", image)
    return [Path(loop.name) for loop in msgspec.json.decode(answer or "{}", type=_Loops).loopdevices]


class _Loop(msgspec.Struct, frozen=True):
    name: str


class _Loops(msgspec.Struct, frozen=True):
    loopdevices: tuple[_Loop, ...] = ()
