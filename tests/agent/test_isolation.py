"""What a container may and may not, what it sees, and what its limits are."""

import asyncio
import json
import stat
from pathlib import Path
from typing import Any

import pytest
from tests.agent.conftest import Hive, Said, run_in

from skep.agent.supervisor import Supervisor
from skep.model.errors import InvalidInput, Unsupported
from skep.model.host import ContainerFile, ContainerMount, ContainerState
from skep.model.ids import Bytes, DiskId, new_id
from skep.model.placement import Priority
from skep.model.spec import Ulimit
from skep.providers.local.kernel import is_mounted

pytestmark = pytest.mark.root
MIB = 1024 * 1024


async def answer(engine: Supervisor, hive: Hive, said: Said, script: str, **changes: Any) -> str:
    spec = hive.spec(f"({script}) 2>&1", **changes)
    await engine.start(spec)
    return await said(spec.id)


async def test_memory_beyond_the_limit_is_reported_as_oom(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec("x=$(yes | head -c 200000000)", memory=Bytes(16 * MIB))

    await engine.start(spec)

    assert await engine.wait_exit(spec.id) != 0
    assert (await engine.inspect(spec.id)).oom_killed


async def test_limits_are_those_of_the_specification(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec(memory=Bytes(32 * MIB), cpus=0.5, pids=20)

    await engine.start(spec)

    usage = await engine.usage(spec.id)
    while usage.pids != 1:  # the threads of runc itself, until the program has their place
        await asyncio.sleep(0.05)
        usage = await engine.usage(spec.id)
    assert usage.memory_limit == 32 * MIB
    assert (await run_in(engine, spec.id, "cat", "/sys/fs/cgroup/pids/pids.max"))[1].strip() in ("20", "")
    _, quota = await run_in(
        engine, spec.id, "sh", "-c", "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us /sys/fs/cgroup/cpu.max"
    )
    assert "50000" in quota
    code, _ = await run_in(engine, spec.id, "sh", "-c", "for i in $(seq 30); do sleep 5 & done")
    assert code != 0


async def test_who_gives_way_has_less_of_the_processors_and_ends_first(
    engine: Supervisor, hive: Hive, said: Said
) -> None:
    script = "cat /proc/self/oom_score_adj /sys/fs/cgroup/cpu/cpu.shares /sys/fs/cgroup/cpu.weight"
    low, usual, high = [
        [
            int(line)
            for line in (await answer(engine, hive, said, script, priority=one)).splitlines()
            if line.isdecimal()
        ]
        for one in Priority
    ]

    assert low[0] > usual[0] >= high[0]
    assert low[1] < usual[1] < high[1]


async def test_the_kernel_is_out_of_reach(engine: Supervisor, hive: Hive, said: Said) -> None:
    output = await answer(
        engine, hive, said,
        "mount -t tmpfs x /tmp; unshare -U true; mknod /tmp/disk b 254 0 && head -c1 /tmp/disk; "
        "echo b > /proc/sysrq-trigger; echo 1 > /proc/sys/kernel/panic; head -c1 /proc/kcore | wc -c; "
        "hostname evil; "
        "ls /sys/firmware | wc -l; mkdir /sys/fs/cgroup/pids/x; mkdir /sys/fs/cgroup/x",
    )  # fmt: skip

    lines = output.splitlines()
    assert [line for line in lines if line.isdecimal()] == ["0", "0"]
    assert len(lines) == 10, output


async def test_capabilities_and_filters_are_the_usual_ones(
    engine: Supervisor, hive: Hive, said: Said
) -> None:
    status = await answer(engine, hive, said, "cat /proc/self/status")
    none = await answer(engine, hive, said, "cat /proc/self/status", cap_drop=("ALL",))
    one = await answer(engine, hive, said, "cat /proc/self/status", cap_drop=("ALL",), cap_add=("NET_ADMIN",))

    assert field(status, "CapEff") == field(status, "CapBnd") == "00000000a80425fb"  # as Docker's
    assert (field(status, "NoNewPrivs"), field(status, "Seccomp")) == ("1", "2")
    assert int(field(none, "CapBnd"), 16) == 0
    assert int(field(one, "CapBnd"), 16) == 1 << 12


async def test_keyrings_are_refused_by_the_filter(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec()
    await engine.start(spec)

    config = json.loads((hive.run / "containers" / spec.id / "config.json").read_text())

    refused = {
        name
        for rule in config["linux"]["seccomp"]["syscalls"]
        if "errnoRet" in rule
        for name in rule["names"]
    }
    assert {"keyctl", "mount", "bpf", "io_uring_setup", "setns"} <= refused


async def test_users_come_from_the_image(engine: Supervisor, hive: Hive, said: Said) -> None:
    assert await answer(engine, hive, said, "id -u; id -g; id -G; echo $HOME", user="worker") == (
        "1234\n1234\n1234 50\n/home/worker"
    )
    assert await answer(engine, hive, said, "id -u; id -g", user="77:staff", group_add=("7",)) == "77\n50"
    status = await answer(engine, hive, said, "cat /proc/self/status", user="worker")
    assert int(field(status, "CapEff"), 16) == 0


async def test_a_passwd_that_points_outside_is_not_followed(engine: Supervisor, hive: Hive) -> None:
    secret = hive.base / "host-passwd"
    secret.write_text("hosty:x:4242:4242::/:/bin/sh\n")
    layer = hive.layer(etc__keep="")
    (layer / "etc" / "passwd").symlink_to(f"../../../../../../..{secret}")
    spec = hive.spec(image=hive.images.add(hive.busybox, layer), user="hosty")

    with pytest.raises(InvalidInput, match="has no user 'hosty'"):
        await engine.start(spec)


async def test_a_mount_target_that_points_outside_stays_inside(engine: Supervisor, hive: Hive) -> None:
    outside = hive.base / "outside"
    outside.mkdir()
    (outside / "host-file").write_text("secret of the host")
    layer = hive.layer(etc__keep="")
    (layer / "data").symlink_to(outside)
    mount = ContainerMount(target="/data", disk=DiskId(new_id()), copy_up=True)
    spec = hive.spec(image=hive.images.add(hive.busybox, layer), mounts=(mount,))

    await engine.start(spec)

    _, listed = await run_in(engine, spec.id, "sh", "-c", "echo mine > /data/new; ls /data/")
    assert listed.split() == ["new"]
    assert [path.name for path in outside.iterdir()] == ["host-file"]


async def test_a_new_disk_receives_what_the_image_has_once(
    engine: Supervisor, hive: Hive, said: Said
) -> None:
    layer = hive.layer(var__lib__db__seed="from image")
    (layer / "var/lib/db").chmod(0o750)
    (layer / "var/lib/db/link").symlink_to("/etc/shadow")
    image = hive.images.add(hive.busybox, layer)
    mount = ContainerMount(target="/var/lib/db", disk=DiskId(new_id()), copy_up=True)
    script = "cat /var/lib/db/seed; echo changed > /var/lib/db/seed"

    first = await answer(engine, hive, said, script, image=image, mounts=(mount,))
    second = await answer(engine, hive, said, script, image=image, mounts=(mount,))

    disk = hive.disks.folder / (mount.disk or "")
    assert (first.strip(), second.strip()) == ("from image", "changed")
    assert stat.S_IMODE(disk.stat().st_mode) == 0o750
    assert (disk / "link").is_symlink()


async def test_a_read_only_container_writes_to_its_volumes_only(
    engine: Supervisor, hive: Hive, said: Said
) -> None:
    mounts = (
        ContainerMount(target="/scratch", size=Bytes(MIB), mode=0o700),
        ContainerMount(target="/ro", disk=DiskId(new_id()), read_only=True),
    )
    output = await answer(
        engine, hive, said,
        "touch /x; touch /ro/x; touch /scratch/x && echo ok; stat -c %a /scratch; "
        "dd if=/dev/zero of=/scratch/y bs=1M count=2",
        read_only=True, mounts=mounts,
    )  # fmt: skip

    assert output.count("Read-only file system") == 2
    assert "ok\n700" in output
    assert "No space left" in output


async def test_ulimits_are_cut_to_what_the_host_has(engine: Supervisor, hive: Hive, said: Said) -> None:
    limits = {"nofile": Ulimit(soft=300, hard=10_000_000), "core": Ulimit(soft=0, hard=0)}

    output = await answer(engine, hive, said, "ulimit -n; ulimit -Hn; ulimit -c", ulimits=limits)

    soft, hard, core = output.split()
    assert (soft, core) == ("300", "0")
    assert int(hard) <= 10_000_000
    with pytest.raises(InvalidInput, match="There is no ulimit 'files'"):
        await engine.start(hive.spec(ulimits={"files": Ulimit(soft=1, hard=1)}))


async def test_secrets_are_never_on_a_disk(engine: Supervisor, hive: Hive) -> None:
    files = (
        ContainerFile(
            target="/run/secrets/key", digest=hive.desired.add(b"s3cret"), secret=True, uid=1234, mode=0o400
        ),
        ContainerFile(target="/etc/app.conf", digest=hive.desired.add(b"conf"), secret=False),
    )
    spec = hive.spec(files=files)
    await engine.start(spec)

    _, seen = await run_in(
        engine, spec.id, "sh", "-c", "cat /run/secrets/key /etc/app.conf; stat -c %u:%a /run/secrets/key"
    )

    assert seen.strip() == "s3cretconf1234:400"
    assert is_mounted(hive.run / "secrets")
    hidden = (hive.data, hive.disks.folder, hive.run / "containers" / spec.id / "config.json")
    assert not any(b"s3cret" in path.read_bytes() for top in hidden for path in files_below(top))
    await engine.remove(spec.id)
    assert hive.leftovers() == []


async def test_names_and_networks_are_its_own(engine: Supervisor, hive: Hive, said: Said) -> None:
    alone = await answer(
        engine,
        hive,
        said,
        "ip -o link | wc -l; ping -c1 127.0.0.1 >/dev/null && echo up; cat /etc/resolv.conf",
    )
    spec = hive.spec(
        "cat /etc/hosts; cat /etc/resolv.conf; readlink /proc/self/ns/net", extra_hosts={"db": "10.0.0.9"}
    )
    spec = hive.with_port(spec, nameserver="10.9.8.1")
    await engine.start(spec)
    networked = await said(spec.id)

    assert alone.split() == ["1", "up"]
    for line in ("10.9.8.7\tweb-0", "10.0.0.9\tdb", "nameserver 10.9.8.1", "options ndots:0"):
        assert line in networked


async def test_many_layers_can_be_stacked(engine: Supervisor, hive: Hive, said: Said) -> None:
    layers = [hive.layer(**{f"l{number}": "x"}) for number in range(100)]

    assert (
        await answer(engine, hive, said, "ls / | grep -c ^l", image=hive.images.add(hive.busybox, *layers))
        == "100"
    )


async def test_an_init_is_used_or_its_absence_explained(engine: Supervisor, hive: Hive) -> None:
    spec = hive.spec(init=True)

    if hive.runtime.init is None:
        with pytest.raises(Unsupported, match="apt-get install tini"):
            await engine.start(spec)
    else:
        await engine.start(spec)
        assert (await engine.inspect(spec.id)).state is ContainerState.RUNNING


def field(status: str, name: str) -> str:
    return next(line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:"))


def files_below(top: Path) -> list[Path]:
    return (
        [top]
        if top.is_file()
        else [path for path in top.rglob("*") if path.is_file() and not path.is_symlink()]
    )


@pytest.mark.parametrize("target", ["/dev", "/proc", "/sys", "/sys/fs", "/proc/sys/kernel", "/dev/", "//dev"])
async def test_the_kernels_own_places_are_no_mount_targets(
    engine: Supervisor, hive: Hive, target: str
) -> None:
    mount = ContainerMount(target=target, disk=DiskId(new_id()))

    with pytest.raises(InvalidInput, match="nothing can be mounted"):
        await engine.start(hive.spec(mounts=(mount,)))


async def test_a_volume_that_a_link_leads_to_dev_unmasks_nothing(
    engine: Supervisor, hive: Hive, said: Said
) -> None:
    disk = DiskId(new_id())
    (await hive.disks.path(disk) / "null").symlink_to("/proc/version")
    layer = hive.layer()
    (layer / "data").symlink_to("/dev")
    image = hive.images.add(hive.busybox, layer)
    spec = hive.spec(
        "echo $(head -c 9 /proc/keys) $(stat -c %F /dev/null)",
        image=image,
        mounts=(ContainerMount(target="/data", disk=disk),),
    )

    await engine.start(spec)

    assert await said(spec.id) == "character special file"


async def test_files_that_a_container_may_write_are_on_its_own_disk(
    engine: Supervisor, hive: Hive, said: Said
) -> None:
    spec = hive.spec(
        "for name in hosts hostname resolv.conf; do echo more >> /etc/$name; done; cat /etc/hostname"
    )
    await engine.start(spec)

    assert await said(spec.id) == "web-0\nmore"
    disk = await hive.disks.path(spec.system_disk)
    grown = [path.name for path in sorted((disk / "etc").iterdir()) if path.read_text().endswith("more\n")]
    assert grown == ["hostname", "hosts", "resolv.conf"]

    await engine.start(spec)
    assert (await said(spec.id)).endswith("web-0\nmore")
