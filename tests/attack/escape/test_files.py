"""Links, `..` and device nodes in images and volumes, against what the host does with files of tenants."""

import contextlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from tests.attack.prison import Prison
from tests.providers.images.conftest import entry

from skep.model.errors import InvalidInput, SkepError
from skep.model.host import ContainerMount
from skep.model.ids import DiskId, new_id
from skep.providers.local.accounts import Accounts
from skep.providers.local.images.layers import UnpackLimits, unpack_archive

pytestmark = pytest.mark.root
SECRET = "root of the host"
Entries = list[tarfile.TarInfo | tuple[tarfile.TarInfo, bytes]]


class Place(msgspec.Struct, frozen=True):
    """A folder to unpack into, and beside it one that is none of the archive's business."""

    folder: Path

    @property
    def target(self) -> Path:
        return self.folder / "layer"

    @property
    def outside(self) -> Path:
        return self.folder / "outside"

    def stolen(self) -> bool:
        """Whether a file in the layer is a file outside."""
        return any(
            path.samefile(self.outside / "shadow") for path in self.target.rglob("*") if path.is_file()
        )

    def overwritten(self) -> bool:
        return (self.outside / "shadow").read_bytes() != SECRET.encode() or (self.outside / "new").exists()

    def has_disk(self) -> bool:
        return any(stat.S_ISBLK(path.lstat().st_mode) for path in self.target.rglob("*"))

    def has_memory(self) -> bool:
        found = [path.lstat() for path in self.target.rglob("*") if stat.S_ISCHR(path.lstat().st_mode)]
        return any(facts.st_rdev == os.makedev(1, 1) for facts in found)


def node(name: str, kind: bytes, major: int, minor: int) -> tarfile.TarInfo:
    made = entry(name, kind)
    made.devmajor, made.devminor = major, minor
    return made


class Hostile(msgspec.Struct, frozen=True):
    entries: Callable[[Place], Entries]
    wins: Callable[[Place], bool]


ARCHIVES = {
    "dots": Hostile(lambda at: [(entry("../outside/shadow"), b"mine")], Place.overwritten),
    "absolute-name": Hostile(lambda at: [(entry(f"{at.outside}/new"), b"mine")], Place.overwritten),
    "link-then-file-through-it": Hostile(
        lambda at: [entry("etc", tarfile.SYMTYPE, link=str(at.outside)), (entry("etc/new"), b"mine")],
        Place.overwritten,
    ),
    "link-with-dots": Hostile(
        lambda at: [entry("etc", tarfile.SYMTYPE, link="../outside"), (entry("etc/shadow"), b"mine")],
        Place.overwritten,
    ),
    "hard-link-out": Hostile(
        lambda at: [entry("mine", tarfile.LNKTYPE, link="../outside/shadow")], Place.stolen
    ),
    "hard-link-through-a-link": Hostile(
        lambda at: [
            entry("way", tarfile.SYMTYPE, link="../outside"),
            entry("mine", tarfile.LNKTYPE, link="way/shadow"),
        ],
        Place.stolen,
    ),
    "node-of-a-disk": Hostile(lambda at: [node("disk", tarfile.BLKTYPE, 254, 0)], Place.has_disk),
    "node-of-memory": Hostile(lambda at: [node("mem", tarfile.CHRTYPE, 1, 1)], Place.has_memory),
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = Place(tmp_path)
    made.target.mkdir()
    made.outside.mkdir()
    (made.outside / "shadow").write_text(SECRET)
    return made


def archive(place: Place, hostile: Hostile) -> Path:
    path = place.folder / "layer.tar"
    with tarfile.open(path, "w") as tar:
        for one in hostile.entries(place):
            info, content = one if isinstance(one, tuple) else (one, b"")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ARCHIVES)
async def test_a_layer_touches_nothing_but_itself(place: Place, name: str) -> None:
    hostile = ARCHIVES[name]

    try:
        await unpack_archive(archive(place, hostile), place.target, "layer", UnpackLimits())
    except InvalidInput:
        assert "link" in name

    assert not hostile.wins(place)


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_layer_touches_more_where_it_is_unpacked_as_it_says(place: Place, name: str) -> None:
    """By a process that keeps the host's root and believes names, links and nodes."""
    hostile = ARCHIVES[name]

    with tarfile.open(archive(place, hostile)) as tar:
        tar.extractall(place.target, filter="fully_trusted")

    assert hostile.wins(place)


@pytest.fixture
def outside(prison: Prison) -> Path:
    folder = prison.base / "of-the-host"
    folder.mkdir(exist_ok=True)
    (folder / "secret").write_text(SECRET)
    (folder / "passwd").write_text("hosty:x:4242:4242::/:/bin/sh\n")
    return folder


def linked(prison: Prison, outside: Path) -> tuple[Path, ContainerMount]:
    """An image whose /data is a link to a folder of the host, and an empty volume to mount there."""
    layer = prison.hive.layer()
    (layer / "data").symlink_to(outside)
    return layer, ContainerMount(target="/data", disk=DiskId(new_id()), copy_up=True)


def test_a_volume_receives_nothing_of_the_host(prison: Prison, outside: Path) -> None:
    layer, mount = linked(prison, outside)
    prisoner = prison.admit(image=prison.hive.images.add(prison.hive.busybox, layer), mounts=(mount,))

    seen = prisoner.shell("cat /data/secret; echo mine > /data/left")
    prison.dismiss(prisoner)

    assert SECRET not in seen.text
    assert not (outside / "left").exists()


def test_a_volume_receives_files_of_the_host_where_the_link_is_followed(
    prison: Prison, outside: Path
) -> None:
    layer, mount = linked(prison, outside)
    disk = prison.wait(prison.hive.disks.path(mount.disk or DiskId("")))

    subprocess.run(["cp", "-a", f"{layer}/data/.", f"{disk}/"], check=True)

    assert (disk / "secret").read_text() == SECRET


def test_accounts_are_those_of_the_image(prison: Prison, outside: Path) -> None:
    layer = prison.hive.layer(etc__keep="")
    (layer / "etc/passwd").symlink_to(outside / "passwd")

    with pytest.raises(InvalidInput):
        Accounts.of(layer).identify("hosty")


def test_accounts_are_those_of_the_host_where_the_link_is_followed(prison: Prison, outside: Path) -> None:
    layer = prison.hive.layer(etc__keep="")
    (layer / "etc/passwd").symlink_to(outside / "passwd")

    assert Accounts((layer / "etc/passwd").read_text(), "").identify("hosty").uid == 4242


SWAPPED = "rm -f /tmp/etc; ln -s {outside} /tmp/etc; rm -rf /root; ln -s {outside} /root; ls /root/ /tmp/etc/"


def test_links_made_later_lead_nowhere(prison: Prison, outside: Path) -> None:
    prisoner = prison.admit()

    seen = prisoner.shell(SWAPPED.format(outside=outside))
    again = prisoner.attack("/bin/ls", "/root/", working_dir="/")
    prison.dismiss(prisoner)

    assert "secret" not in seen.text + again.text


def test_links_made_later_lead_out_for_a_program_with_the_hosts_root(prison: Prison, outside: Path) -> None:
    prisoner = prison.admit()
    prisoner.shell(SWAPPED.format(outside=outside))

    found = [path.name for path in (prisoner.rootfs / "root").iterdir()]
    prison.dismiss(prisoner)

    assert "secret" in found


FILES = 3_000


class Race:
    """A running container has an empty volume, and waits for what the host copies to it for another one."""

    def __init__(self, prison: Prison, outside: Path) -> None:
        self.prison, self.outside = prison, outside
        self.disk = DiskId(new_id())
        layer = prison.hive.layer(**{f"data__many__file-{number}": "" for number in range(FILES)})
        self.source = layer / "data"
        self.image = prison.hive.images.add(prison.hive.busybox, layer)
        self.racer = prison.admit(
            args=("/attack/runtime", "swap", "/data/many", str(outside), "8"), mounts=(self.mount(False),)
        )
        prison.wait(self._ready())

    def mount(self, copy_up: bool) -> ContainerMount:
        return ContainerMount(target="/data", disk=self.disk, copy_up=copy_up)

    def outcome(self) -> int:
        """How many files lie outside now."""
        self.prison.dismiss(self.racer)
        found = list(self.outside.glob("file-*"))
        for file in found:
            file.unlink()
        return len(found)

    async def _ready(self) -> None:
        await anext(line async for line in self.prison.engine.logs(self.racer.id, follow=True))


def test_a_link_that_appears_while_a_volume_is_filled_leads_nowhere(prison: Prison, outside: Path) -> None:
    race = Race(prison, outside)

    with contextlib.suppress(SkepError):
        prison.dismiss(prison.admit(image=race.image, mounts=(race.mount(True),)))

    assert race.outcome() == 0


def test_a_link_that_appears_while_a_volume_is_filled_leads_out_of_a_copy_on_the_host(
    prison: Prison, outside: Path
) -> None:
    race = Race(prison, outside)
    disk = prison.wait(prison.hive.disks.path(race.disk))

    subprocess.run(["cp", "-a", f"{race.source}/.", f"{disk}/"], check=False, capture_output=True)

    assert race.outcome() > 0
