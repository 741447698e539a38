"""A cluster in the directory of hosts, while it is led and while it is not."""

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from skep.main.led_host import LedHost
from skep.model.errors import Unavailable
from skep.model.host import DiskSpec
from skep.model.ids import Bytes, ContainerId, DiskId, HostName
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


async def test_what_was_asked_of_one_that_is_left_is_asked_of_the_next() -> None:
    host, first, second = led(), SimulatedHost.make(), SimulatedHost.make()
    asked = [_asked_of(one.engine, "wait_exit") for one in (first, second)]
    host.lead(first)
    waiting = asyncio.create_task(host.engine.wait_exit(ContainerId("c1")))
    await asyncio.wait_for(asked[0].begun.wait(), 30)

    host.leave()
    host.lead(second)
    await asyncio.wait_for(asked[1].begun.wait(), 30)
    asked[1].answer.set_result(7)

    assert await waiting == 7
    assert asked[0].answer.cancelled()


async def test_what_was_streamed_to_one_that_is_left_is_to_be_sent_again() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"some"
        await asyncio.Event().wait()

    host, first = led(), SimulatedHost.make()
    spec = DiskSpec(id=DiskId("d1"), size=Bytes(2**20), kind="data")
    await first.disks.create(spec)
    host.lead(first)
    sending = asyncio.create_task(host.disks.receive(spec.id, endless()))
    await asyncio.sleep(0.01)

    host.leave()

    with pytest.raises(Unavailable, match="send it again"):
        await sending


async def test_who_is_cancelled_asks_no_more() -> None:
    host, first = led(), SimulatedHost.make()
    asked = _asked_of(first.engine, "wait_exit")
    host.lead(first)
    waiting = asyncio.create_task(host.engine.wait_exit(ContainerId("c1")))
    await asyncio.wait_for(asked.begun.wait(), 30)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert asked.answer.cancelled()


class _Asked:
    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()


def _asked_of(engine: object, verb: str) -> _Asked:
    """The engine's verb takes as long as it is told to."""
    asked = _Asked()

    async def answer(container: ContainerId) -> int:
        asked.begun.set()
        return await asked.answer

    setattr(engine, verb, answer)
    return asked
