"""A broker that stops, dies, or is cut off, with messages on their way."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import structlog
from tests.bus.broker import Broker
from tests.bus.inbox import Inbox, letter
from tests.bus.proxy import Proxy
from yarl import URL

from skep.bus.rabbitmq import RabbitMqBus
from skep.model.errors import NotFound, Unavailable

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

FOREVER = 180.0
"""That it comes is tried here, and not how soon: what hangs is ended by the limit of the test itself."""

Ending = Callable[[Broker], None]


@pytest.fixture(params=[Broker.stop, Broker.kill], ids=["stopped", "killed"])
def end(request: pytest.FixtureRequest) -> Ending:
    ending: Ending = request.param
    return ending


@asynccontextmanager
async def bus_at(url: str, patience: float = 2.0) -> AsyncIterator[RabbitMqBus]:
    async with RabbitMqBus(url, patience=patience) as bus:
        yield bus


class Sender:
    """Sends one message after the other, as often as it takes: what is `kept` the broker promised to keep."""

    def __init__(self, bus: RabbitMqBus, key: str) -> None:
        self.kept: list[str] = []
        self._bus = bus
        self._key = key

    async def run(self) -> None:
        for number in range(1_000_000):
            with suppress(Unavailable):
                await self._bus.send(self._key, letter(f"m-{number}"))
                self.kept.append(f"m-{number}")


async def until_sent(bus: RabbitMqBus, key: str, name: str) -> None:
    while True:
        try:
            return await bus.send(key, letter(name))
        except (Unavailable, NotFound):
            await asyncio.sleep(0.1)


async def until_there(inbox: Inbox, *names: str) -> None:
    while set(names) - set(inbox.ids):
        await asyncio.sleep(0.05)


async def test_nothing_the_broker_promised_to_keep_is_lost_when_it_restarts_under_load(
    own_broker: Broker, key: str, end: Ending
) -> None:
    inbox = Inbox()
    async with (
        bus_at(own_broker.url) as bus,
        bus_at(own_broker.url) as server,
        server.serve(key, inbox.take, at_once=8),
    ):
        sender = Sender(bus, key)
        sending = asyncio.create_task(sender.run())
        await inbox.has(50)

        await asyncio.to_thread(end, own_broker)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_broker.start)
        before = len(sender.kept)
        while len(sender.kept) < before + 50:
            await asyncio.sleep(0.05)
        sending.cancel()

        await until_there(inbox, *sender.kept)
        assert await bus.dead() == []


async def test_what_waits_in_a_queue_is_there_after_the_restart(
    own_broker: Broker, key: str, end: Ending
) -> None:
    inbox = Inbox()
    async with bus_at(own_broker.url) as bus:
        await bus.declare(key)
        for number in range(20):
            await bus.send(key, letter(f"m-{number}"))

        await asyncio.to_thread(end, own_broker)
        with pytest.raises(Unavailable):
            await bus.send(key, letter("lost"))
        await asyncio.to_thread(own_broker.start)

        async with bus.serve(key, inbox.take):
            await until_there(inbox, *(f"m-{number}" for number in range(20)))


async def test_what_is_with_a_handler_while_the_broker_restarts_comes_again(
    own_broker: Broker, key: str, end: Ending
) -> None:
    inbox = Inbox()
    held, go_on = asyncio.Event(), asyncio.Event()

    async def hold(message: object) -> None:
        if not held.is_set():
            held.set()
            await go_on.wait()
        await inbox.take(message)  # type: ignore[arg-type]

    async with bus_at(own_broker.url) as bus, bus.serve(key, hold):
        await bus.send(key, letter())
        await held.wait()
        await asyncio.to_thread(end, own_broker)
        await asyncio.to_thread(own_broker.start)

        first, *_ = await inbox.has(1, within=FOREVER)
        go_on.set()
        await inbox.has(2, within=FOREVER)

    assert first.id == "m-1"
    assert inbox.ids == ["m-1", "m-1"]


async def test_listeners_and_passing_queues_are_there_again_after_a_restart(
    own_broker: Broker, key: str, end: Ending
) -> None:
    inbox = Inbox()
    async with (
        bus_at(own_broker.url) as bus,
        bus.serve(f"reply.{key}", inbox.take, durable=False),
        bus.subscribe(key) as events,
    ):
        await asyncio.to_thread(end, own_broker)
        await asyncio.to_thread(own_broker.start)

        await until_sent(bus, f"reply.{key}", "again")
        await inbox.has(1)
        heard = asyncio.ensure_future(anext(events))
        while not heard.done():
            bus.publish(key, b"news")
            await asyncio.sleep(0.1)

    assert heard.result().body == b"news"


async def test_a_process_that_starts_while_the_broker_is_away_begins_once_it_is_there(
    own_broker: Broker, key: str
) -> None:
    inbox = Inbox()
    await asyncio.to_thread(own_broker.stop)
    try:
        async with bus_at(own_broker.url, patience=0.5) as bus, bus.serve(key, inbox.take):
            with pytest.raises(Unavailable, match="does not answer"):
                await bus.send(key, letter())
            with pytest.raises(Unavailable):
                await bus.depths([key])
            await asyncio.to_thread(own_broker.start)

            await until_sent(bus, key, "at-last")
            assert (await inbox.has(1))[0].id == "at-last"
    finally:
        await asyncio.to_thread(own_broker.start)


async def test_a_connection_that_is_cut_is_made_again(own_broker: Broker, key: str) -> None:
    inbox = Inbox()
    async with Proxy(own_broker.url) as proxy, bus_at(proxy.url) as bus, bus.serve(key, inbox.take):
        await bus.send(key, letter("before"))
        await inbox.has(1)

        proxy.cut()

        await until_sent(bus, key, "after")
        await until_there(inbox, "after")


async def test_a_connection_that_falls_silent_is_given_up_and_made_again(
    own_broker: Broker, key: str
) -> None:
    inbox = Inbox()
    async with Proxy(own_broker.url) as proxy, bus_at(proxy.url) as bus, bus.serve(key, inbox.take):
        await bus.send(key, letter("before"))
        proxy.silence()

        with pytest.raises(Unavailable, match="no answer within 2 s"):
            await bus.send(key, letter("during"))

        await until_sent(bus, key, "after")
        await until_there(inbox, "after")


@pytest.mark.parametrize(
    "alarm",
    [
        (("set_vm_memory_high_watermark", "0.0000001"), ("set_vm_memory_high_watermark", "0.4")),
        (("set_disk_free_limit", "900000GB"), ("set_disk_free_limit", "50MB")),
    ],
    ids=["memory", "disk"],
)
async def test_a_broker_short_of_room_is_unavailable_to_senders_and_goes_on_for_servers(
    own_broker: Broker, key: str, alarm: tuple[tuple[str, ...], tuple[str, ...]]
) -> None:
    inbox = Inbox()
    async with bus_at(own_broker.url) as bus:
        await bus.declare(key)
        for number in range(5):
            await bus.send(key, letter(f"m-{number}"))
        await asyncio.to_thread(own_broker.control, *alarm[0])
        try:
            for _ in range(3):
                with pytest.raises(Unavailable, match="no answer within 2 s"):
                    await bus.send(key, letter("blocked"))
            bus.publish(key, b"never waits")
            async with bus.serve(key, inbox.take):
                await inbox.has(5, within=FOREVER)

                async def settled() -> bool:
                    return (await bus.depths([key]))[key].waiting == 0

                assert await settled()
        finally:
            await asyncio.to_thread(own_broker.control, *alarm[1])

        await until_sent(bus, key, "after")


async def test_wrong_credentials_are_told_at_once_and_not_shown(
    own_broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = str(URL(own_broker.url).with_password("sesame"))
    caplog.set_level(logging.DEBUG)

    with structlog.testing.capture_logs() as logs, pytest.raises(Unavailable, match="refuses") as caught:
        async with bus_at(wrong):
            pass

    assert "sesame" not in f"{caught.value} {logs} {caplog.text}"


async def test_a_virtual_host_that_does_not_exist_is_told_at_once(own_broker: Broker) -> None:
    with pytest.raises(Unavailable, match="no such virtual host"):
        async with bus_at(str(URL(own_broker.url).with_path("/nowhere"))):
            pass


async def test_the_password_is_in_no_log_and_no_error(
    own_broker: Broker, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    password = URL(own_broker.url).password
    caplog.set_level(logging.DEBUG)

    with structlog.testing.capture_logs() as logs:
        async with (
            Proxy(own_broker.url) as proxy,
            bus_at(proxy.url, patience=0.5) as bus,
            bus.serve(key, Inbox(refuse=1).take),
        ):
            await bus.send(key, letter())
            proxy.refuse()
            with pytest.raises(Unavailable) as caught:
                await bus.send(key, letter())

    assert password is not None
    assert caplog.text
    assert password not in f"{caught.value} {logs} {caplog.text} {bus} {bus!r}"


async def test_tries_that_fail_leave_nothing_behind() -> None:
    async def never_talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read()
        writer.close()

    silent = await asyncio.start_server(never_talk, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    async with bus_at(f"amqp://u:p@127.0.0.1:{port}/", patience=0.2), bus_at("amqp://u:p@127.0.0.1:1/", 0.2):
        await asyncio.sleep(2)
    silent.close()
    await asyncio.sleep(0.1)

    gc.collect()
    left = [task for task in asyncio.all_tasks() if "aiormq" in repr(task) or "aio_pika" in repr(task)]

    assert left == []
