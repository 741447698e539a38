"""Builds by real buildah and runc."""

import asyncio
import sys
import tempfile
import time
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from tests.providers.images.conftest import store_at

from skep.model.errors import InvalidInput
from skep.model.ids import Seconds
from skep.model.images import BuildSpec, ImageInfo
from skep.providers.local.commands import run
from skep.providers.local.images.build_network import BuildNetwork, parse_servers
from skep.providers.local.images.builds import BuildLimits
from skep.providers.local.images.store import OciImages, teardown

pytestmark = pytest.mark.root


def on(base: ImageInfo, *lines: str, **more: object) -> BuildSpec:
    text = "\n".join(["FROM base", *lines, ""])
    return BuildSpec(dockerfile_inline=text, bases={"base": base.digest}, **more)  # type: ignore[arg-type]


async def test_an_unchanged_build_gives_the_same_digest(
    images: OciImages, busybox: ImageInfo, context: Path
) -> None:
    spec = on(busybox, "RUN date > /date", "ENV A=b", 'CMD ["echo", "hi"]', "EXPOSE 80", "USER nobody")

    first = await images.build(context, spec)
    second = await images.build(context, spec)

    assert first == second
    assert first.config.cmd == ("echo", "hi")
    assert "A=b" in first.config.env
    assert first.config.exposed_ports == ("80/tcp",)
    assert first.config.user == "nobody"


@pytest.mark.parametrize("parent", ["/var/tmp", "/tmp", "/dev/shm"])
async def test_the_store_may_lie_anywhere(
    base_layout: Path, context: Path, instance: str, parent: str
) -> None:
    with tempfile.TemporaryDirectory(dir=parent, prefix="a: path + [more], 'quoted'=") as folder:
        root = Path(folder) / "store"
        try:
            async with store_at(root, instance) as images:
                base = (await images.load(base_layout))[""]
                image = await images.build(context, on(base, "RUN echo here > /where"))
                *_, layer = await images.unpack(image.digest)
                assert (layer / "where").read_text() == "here\n"
        finally:
            await teardown(root, instance, purge=True)


async def test_a_health_check_is_kept_and_inherited(
    images: OciImages, busybox: ImageInfo, context: Path
) -> None:
    spec = on(busybox, "STOPSIGNAL SIGINT", "HEALTHCHECK --interval=5s --retries=2 CMD test -e /ok")

    first = await images.build(context, spec)
    again = await images.build(context, spec)
    heir = await images.build(context, on(first, "ENV A=b", "RUN touch /ok"))
    none = await images.build(context, on(first, "HEALTHCHECK NONE"))

    assert first == again
    assert first.layers == busybox.layers
    assert first.config.stop_signal == "SIGINT"
    assert first.config.healthcheck_test == heir.config.healthcheck_test == ("CMD-SHELL", "test -e /ok")
    assert (heir.config.healthcheck_interval, heir.config.healthcheck_retries) == (5.0, 2)
    assert none.config.healthcheck_test == ("NONE",)


async def test_several_stages_arguments_labels_and_targets(
    images: OciImages, busybox: ImageInfo, context: Path
) -> None:
    (context / "Dockerfile").write_text(
        "ARG BASE=wrong\nFROM ${BASE} AS one\nARG WORD\nRUN echo $WORD > /word\n"
        "FROM scratch AS two\nCOPY --from=one /word /copied\nFROM scratch\nCOPY --from=two /copied /last\n"
    )
    spec = BuildSpec(
        args={"BASE": "base", "WORD": "hello"},
        labels={"a": "b"},
        target="two",
        bases={"base": busybox.digest},
    )

    image = await images.build(context, spec)

    (layer,) = await images.unpack(image.digest)
    assert (layer / "copied").read_text() == "hello\n"
    assert not (layer / "last").exists()
    assert image.config.labels["a"] == "b"


async def test_a_failing_command_is_told_with_its_last_output(
    images: OciImages, busybox: ImageInfo, context: Path
) -> None:
    with pytest.raises(InvalidInput, match=r"(?s)no cheese today.*exit status 3"):
        await images.build(context, on(busybox, "RUN echo no cheese today; exit 3"))


@pytest.mark.parametrize("text", ["FROM base\nNONSENSE x\n", "FROM base\nCOPY missing /x\n", "no from\n"])
async def test_a_wrong_dockerfile_is_refused(
    images: OciImages, busybox: ImageInfo, context: Path, text: str
) -> None:
    with pytest.raises(InvalidInput):
        await images.build(context, BuildSpec(dockerfile_inline=text, bases={"base": busybox.digest}))


async def test_a_base_that_was_not_given_is_never_fetched(
    images: OciImages, busybox: ImageInfo, context: Path
) -> None:
    for text in ("FROM debian:12\n", "FROM base\nCOPY --from=debian:12 /x /x\n"):
        spec = BuildSpec(dockerfile_inline=text, bases={"base": busybox.digest})
        with pytest.raises(InvalidInput, match="no image 'debian:12': import or pull it first"):
            await images.build(context, spec)


async def test_a_scope_does_not_see_the_images_of_another(
    images: OciImages, busybox: ImageInfo, context: Path
) -> None:
    await images.build(context, on(busybox, "RUN true", scope="tenant-a"))
    private = f"localhost/skep-base:{busybox.digest[7:]}"

    with pytest.raises(InvalidInput):
        await images.build(context, BuildSpec(dockerfile_inline=f"FROM {private}\n", scope="tenant-b"))
    with pytest.raises(InvalidInput):
        await images.build(context, BuildSpec(dockerfile_inline="FROM x\n", scope="../tenant-a"))


async def test_links_out_of_the_context_show_nothing_of_the_host(
    images: OciImages, context: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("the host's secret")
    (context / "absolute").symlink_to(tmp_path / "secret")
    (context / "relative").symlink_to("../secret")
    (context / "folder").symlink_to(tmp_path)

    for source in ("absolute", "relative", "folder/secret", "../secret"):
        with pytest.raises(InvalidInput) as refused:
            await images.build(context, BuildSpec(dockerfile_inline=f"FROM scratch\nCOPY {source} /x\n"))
        assert "host's secret" not in refused.value.message
    everything = await images.build(context, BuildSpec(dockerfile_inline="FROM scratch\nCOPY . /all/\n"))
    (layer,) = await images.unpack(everything.digest)
    assert (layer / "all/absolute").is_symlink()


async def test_a_dockerfile_that_is_a_link_to_the_host_is_refused(
    images: OciImages, context: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("SECRET of the host")
    (context / "Dockerfile").symlink_to(tmp_path / "secret")
    (context / ".dockerignore").symlink_to(tmp_path / "secret")

    with pytest.raises(InvalidInput, match="has no 'Dockerfile'"):
        await images.build(context, BuildSpec())


async def test_dockerignore_is_honoured(images: OciImages, context: Path) -> None:
    (context / "keep").write_text("")
    (context / "skip.log").write_text("")
    (context / ".dockerignore").write_text("*.log\nbusybox\n")

    image = await images.build(context, BuildSpec(dockerfile_inline="FROM scratch\nCOPY . /\n"))

    (layer,) = await images.unpack(image.digest)
    assert (layer / "keep").exists()
    assert not (layer / "skip.log").exists()


async def test_a_build_sees_no_processes_devices_cgroups_or_network_of_the_host(
    images: OciImages, busybox: ImageInfo, context: Path
) -> None:
    lines: list[str] = []
    probe = (
        "RUN ps; echo devices $(ls /dev); echo cgroups $(ls /sys/fs/cgroup); echo links $(ls /sys/class/net)"
    )

    await images.build(context, on(busybox, probe, no_cache=True), lines.append)

    told = "\n".join(lines)
    assert "links lo\n" in told + "\n"
    assert "\ncgroups\n" in told
    assert "vda" not in told
    assert "pytest" not in told


async def test_a_build_that_takes_too_long_is_killed_with_everything_it_started(
    tmp_path: Path, context: Path, instance: str
) -> None:
    root = tmp_path / "store"
    store = OciImages(
        root=root, scratch=tmp_path / "scratch", build_network=None, runtime="runc", instance=instance,
        build_limits=BuildLimits(timeout=Seconds(3.0)),
    )  # fmt: skip
    text = 'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "sleep", "98765"]\n'
    try:
        async with store:
            began = time.monotonic()
            with pytest.raises(InvalidInput, match="took longer than 3 s"):
                await store.build(context, BuildSpec(dockerfile_inline=text))

        assert time.monotonic() - began < 10
        await asyncio.sleep(0.2)
        assert "98765" not in await run("ps", "-eo", "args")
        assert str(root) not in Path("/proc/mounts").read_text()
    finally:
        await teardown(root, instance, purge=True)
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{instance}-build"))


async def test_a_killed_skep_takes_its_builds_along(tmp_path: Path, context: Path, instance: str) -> None:
    root = tmp_path / "store"
    (context / "Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/busybox\nRUN ["/bin/busybox", "sleep", "98764"]\n'
    )
    code = (
        "import asyncio,sys\nfrom pathlib import Path\nfrom skep.model.images import BuildSpec\n"
        "from tests.providers.images.conftest import store_at\nasync def main():\n"
        " async with store_at(Path(sys.argv[1]), sys.argv[2]) as s:\n"
        "  await s.build(Path(sys.argv[3]), BuildSpec())\nasyncio.run(main())"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, root, instance, context)
    try:
        while "busybox sleep 98764" not in await run("ps", "-eo", "args"):
            await asyncio.sleep(0.1)
            assert process.returncode is None
    finally:
        process.kill()
        await process.wait()

    try:
        await asyncio.sleep(0.5)
        assert "busybox sleep 98764" not in await run("ps", "-eo", "args")
        async with store_at(root, instance):
            assert not list((root / "build").glob("job-*"))
    finally:
        await teardown(root, instance, purge=True)


async def test_the_network_of_builds_leads_out_but_not_to_the_host(
    tmp_path: Path, context: Path, instance: str
) -> None:
    network = BuildNetwork(
        instance=instance, subnet=IPv4Network("100.127.250.252/30"), refused=(IPv4Network("10.99.0.0/16"),)
    )
    store = OciImages(
        root=tmp_path / "store",
        scratch=tmp_path / "scratch",
        build_network=network,
        runtime="runc",
        instance=instance,
    )
    server = await asyncio.start_server(lambda _, writer: writer.close(), "0.0.0.0", 0)
    port = server.sockets[0].getsockname()[1]
    text = (
        "FROM scratch\nCOPY busybox /bin/busybox\n"
        f'RUN ["/bin/busybox", "sh", "-c", "busybox nc -w 2 100.127.250.253 {port} && echo reached the host; '
        'busybox route -n; busybox cat /etc/resolv.conf"]\n'
    )
    lines: list[str] = []
    try:
        async with store:
            await store.build(context, BuildSpec(dockerfile_inline=text), lines.append)
            await network.ensure()
            rules = await run("nft", "list", "table", "inet", f"{instance}_build")
    finally:
        server.close()
        await server.wait_closed()
        await teardown(tmp_path / "store", instance, purge=True)

    told = "\n".join(line for line in lines if not line.startswith("STEP"))
    assert "reached the host" not in told
    assert "100.127.250.253" in told
    assert "10.99.0.0/16" in rules
    assert "masquerade" in rules
    left = await run("nft", "list", "tables") + await run("ip", "link") + await run("ip", "netns")
    assert instance not in left


def test_name_servers_on_loopback_cannot_be_used_by_builds() -> None:
    text = "nameserver 127.0.0.53\nnameserver 10.0.0.2\n# nameserver 10.0.0.3\nnameserver fd00::1\nsearch x\n"

    assert [str(server) for server in parse_servers(text)] == ["10.0.0.2"]
