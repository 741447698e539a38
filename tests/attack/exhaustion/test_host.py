"""What a container may use of its host."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.attack import weaker
from tests.attack.prison import Change, Config, Prison, Prisoner

from skep.model.host import ContainerMount, DiskSpec
from skep.model.ids import Bytes, DiskId, new_id
from skep.model.spec import Ulimit
from skep.providers.local import btrfs, runtime
from skep.providers.local.disks import BtrfsPool, teardown

pytestmark = pytest.mark.root
MIB = 1024 * 1024
EXHAUST = "/attack/exhaust"


@pytest.fixture
def poor(prison: Prison) -> Iterator[Prisoner]:
    """A container that may have little of everything."""
    made = prison.admit(
        pids=40,
        memory=Bytes(24 * MIB),
        shm_size=Bytes(64 * MIB),
        ulimits={"nofile": Ulimit(soft=100, hard=300)},
    )
    yield made
    prison.dismiss(made)


def memory(config: Config) -> None:
    weaker.resource("memory", value={"limit": 160 * MIB, "swap": 160 * MIB})(config)


def more_files(config: Config) -> None:
    config["process"]["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 2000, "hard": 2000}]


RESOURCES: dict[str, tuple[tuple[str, ...], str, Change]] = {
    "processes": ((EXHAUST, "forks", "200"), "unavailable", weaker.resource("pids", "limit", value=400)),
    "memory": ((EXHAUST, "memory", "60"), "", memory),
    "memory-as-files": ((EXHAUST, "fill", "/dev/shm/large", "48"), "", memory),
    "descriptors": ((EXHAUST, "descriptors", "1000"), "Too many open files", more_files),
}


@pytest.mark.parametrize("name", RESOURCES)
def test_a_container_gets_no_more_than_it_may_have(poor: Prisoner, name: str) -> None:
    command, refusal, _ = RESOURCES[name]

    seen = poor.attack(*command)

    assert not seen.won
    assert refusal in seen.lost
    assert seen.code == (1 if refusal else 137)


@pytest.mark.parametrize("name", RESOURCES)
def test_a_container_gets_it_where_the_limit_is_higher(poor: Prisoner, name: str) -> None:
    command, _, off = RESOURCES[name]

    assert poor.attack_without(off, *command).won


class Disks:
    """A pool of the prison with the prisoner's two disks."""

    def __init__(self, prison: Prison, folder: Path) -> None:
        self.prison, self.folder = prison, folder
        self.pool = BtrfsPool(
            root=folder / "root",
            mount=folder / "mount",
            device=None,
            size=Bytes(400 * MIB),
            reserve=Bytes(8 * MIB),
        )
        prison.wait(self.pool.__aenter__())
        self.system, self.data = self._make("system"), self._make("data")
        self.prisoner = prison.admit(
            system_disk=self.system, mounts=(ContainerMount(target="/data", disk=self.data),)
        )

    def close(self) -> None:
        self.prison.dismiss(self.prisoner)
        self.prison.wait(teardown(self.folder / "root", self.folder / "mount", purge=True))

    def unlimited(self) -> Any:
        """The disks without their quotas."""
        return _Lifted(self)

    def _make(self, kind: Any) -> DiskId:
        disk = DiskId(new_id())
        self.prison.wait(self.pool.create(DiskSpec(id=disk, size=Bytes(16 * MIB), kind=kind)))
        self.prison.hive.disks.folder.mkdir(exist_ok=True)
        (self.prison.hive.disks.folder / disk).symlink_to(self.prison.wait(self.pool.path(disk)))
        return disk


class _Lifted:
    def __init__(self, disks: Disks) -> None:
        self.disks = disks

    def __enter__(self) -> None:
        self._limit(None)

    def __exit__(self, *_: object) -> None:
        self._limit(Bytes(16 * MIB))

    def _limit(self, size: Bytes | None) -> None:
        pool = self.disks.pool
        for disk in (self.disks.system, self.disks.data):
            with btrfs.directory(self.disks.prison.wait(pool.path(disk))) as fd:
                btrfs.limit_group(fd, btrfs.group_of(btrfs.subvolume_id(fd)), size)


@pytest.fixture(scope="module")
def disks(prison: Prison, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    made = Disks(prison, tmp_path_factory.mktemp("pool"))
    yield made
    made.close()


FILLED = {
    "system-disk": ("fill", "/large", "40"),
    "data-disk": ("fill", "/data/large", "40"),
    "many-small-files": ("files", "/data/small", "9000"),
    "subvolume-in-a-volume": ("subvolume", "/data", "40"),
    "files-that-skep-writes": ("fill", "/etc/hosts", "40"),
}


@pytest.mark.parametrize("name", FILLED)
def test_a_disk_holds_no_more_than_its_size(disks: Disks, name: str) -> None:
    seen = disks.prisoner.attack(EXHAUST, *FILLED[name])
    disks.prisoner.shell("rm -rf /data/small /data/inner/large; sync")

    assert seen.lost == "Disk quota exceeded", seen


@pytest.mark.parametrize("name", FILLED)
def test_a_disk_without_a_quota_takes_it_all(disks: Disks, name: str) -> None:
    with disks.unlimited():
        seen = disks.prisoner.attack(EXHAUST, *FILLED[name])
        disks.prisoner.shell("rm -rf /data/small /data/inner/large; sync")

    assert seen.won, seen


FLOODS = {"lines": ("60",), "one-line-without-end": ("60", "without newlines")}


def flood(prison: Prison, *how: str) -> int:
    """Bytes of log that are there when a container has said 60 MiB."""
    spec = prison.hive.spec(args=(EXHAUST, "shout", *how))
    prison.wait(prison.engine.start(spec))
    prison.wait(prison.engine.wait_exit(spec.id))
    folder = prison.hive.data / "containers" / spec.id
    size = sum(path.stat().st_size for path in folder.glob("log*"))
    prison.wait(prison.engine.remove(spec.id))
    return size


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_lines_does_not_fill_the_hosts_disk(
    prison: Prison, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an eighth of the usual bound: it holds for each of the three files of a log."""
    monkeypatch.setattr(runtime, "_LOG_EMERGENCY", 8 * MIB)

    assert flood(prison, *FLOODS[name]) < 26 * MIB


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_lines_fills_it_where_logs_have_no_bound(
    prison: Prison, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "_LOG_EMERGENCY", 10_000 * MIB)

    assert flood(prison, *FLOODS[name]) > 58 * MIB


KERNELS_OWN_LIMIT = 128
"""Of inotify instances, for each user of the machine; here it is one that nothing of the host runs as."""
TAKEN = ("/attack/exhaust", "watches", "400")


async def _said(prison: Prison, prisoner: Prisoner) -> str:
    """The first line in its log."""
    return await anext(line.text async for line in prison.engine.logs(prisoner.id, follow=True))


def test_a_container_does_not_take_all_watches_from_others(prison: Prison, prisoner: Prisoner) -> None:
    greedy = prison.admit(args=(*TAKEN, "and hold"), user="worker")
    prison.wait(_said(prison, greedy))

    seen = prisoner.attack("/attack/exhaust", "watches", "1", user="worker")
    prison.dismiss(greedy)

    assert seen.won


def test_a_container_takes_more_watches_than_the_kernel_has_by_itself(prisoner: Prisoner) -> None:
    """With the kernel's own limit no other container could watch; so it is counted, not done."""
    assert f"made: {TAKEN[-1]}" in prisoner.attack(*TAKEN, user="worker").text
    assert int(TAKEN[-1]) > KERNELS_OWN_LIMIT
