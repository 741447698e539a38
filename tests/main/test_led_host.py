"""A cluster in the directory of hosts, while it is led and while it is not."""

import asyncio
import io
import tarfile
from pathlib import Path

import pytest

from skep.main.led_host import LedHost
from skep.model.errors import Unavailable
from skep.model.ids import HostName
from skep.providers.simulated import SimulatedHost
from skep.providers.simulated.host import FACTS


def led(patience: float = 30.0) -> LedHost:
    return LedHost(HostName("k8s"), FACTS, patience)


async def test_who_asks_before_it_is_led_waits() -> None:
    host = led()

    asked = asyncio.create_task(host.engine.list())
    await asyncio.sleep(0)
    before = asked.done()
    host.lead(SimulatedHost.make())

    assert not before
    assert await asked == []


async def test_who_waits_in_vain_hears_why() -> None:
    host = led(patience=0.0)
    host.leave("The token has expired.")

    with pytest.raises(Unavailable, match=r"'k8s', a cluster, is not led. The token has expired."):
        await host.disks.usage()


async def test_it_may_be_led_by_another_later(tmp_path: Path) -> None:
    host, first, second = led(), SimulatedHost.make(), SimulatedHost.make()
    root = tmp_path / "root.tar"
    with tarfile.open(root, "w") as tar:
        tar.addfile(tarfile.TarInfo("file"), io.BytesIO())

    host.lead(first)
    (image,) = (await host.images.load(root)).values()
    host.leave()
    host.lead(second)
    await second.images.load(root)

    assert await host.images.info(image.digest) == image
    assert [block async for block in host.images.export(image.digest)]
    async with host.images.context(root) as context:
        assert context.exists()
