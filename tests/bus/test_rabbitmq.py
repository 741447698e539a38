"""What only a broker between processes can show."""

import asyncio
import sys
from pathlib import Path

import pytest
from tests.bus.broker import Broker
from tests.bus.inbox import Inbox, letter

from skep.bus.bus import Redelivery
from skep.bus.rabbitmq import RabbitMqBus

ROOT = Path(__file__).parents[2]

SERVER = """
import asyncio, sys
from skep.bus.rabbitmq import RabbitMqBus

async def hang(message):
    print(message.id, flush=True)
    await asyncio.Event().wait()

async def main():
    url, key = sys.argv[1:]
    async with RabbitMqBus(url) as bus, bus.serve(key, hang):
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_what_a_killed_process_had_goes_to_another(broker: Broker, key: str) -> None:
    inbox = Inbox()
    async with RabbitMqBus(broker.url) as bus:
        await bus.declare(key)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", SERVER, broker.url, key), cwd=ROOT, stdout=asyncio.subprocess.PIPE
        )
        try:
            await bus.send(key, letter())
            assert process.stdout is not None
            async with asyncio.timeout(30):
                while b"m-1" not in await process.stdout.readline():
                    pass
        finally:
            process.kill()
            await process.wait()

        async with bus.serve(key, inbox.take):
            (message,) = await inbox.has(1)

    assert (message.id, message.attempt) == ("m-1", 2)


async def test_a_queue_with_other_limits_is_used_as_it_is(broker: Broker, key: str) -> None:
    inbox = Inbox(refuse=None)
    async with RabbitMqBus(broker.url, redelivery=Redelivery(attempts=2, rest=0.01)) as older:
        await older.declare(key)

    async with RabbitMqBus(broker.url, redelivery=Redelivery(attempts=9, rest=0.01)) as bus:
        await bus.declare(key)
        async with bus.serve(key, inbox.take):
            await bus.send(key, letter())
            await inbox.has(2)
            await asyncio.sleep(0.3)

    assert len(inbox.messages) == 2


async def test_a_passing_queue_is_its_servers_until_that_ends(broker: Broker, key: str) -> None:
    one, two = Inbox(), Inbox()
    async with RabbitMqBus(broker.url, patience=1) as first, RabbitMqBus(broker.url, patience=1) as second:
        async with first.serve(key, one.take, durable=False):
            waiting = second.serve(key, two.take, durable=False)
            await waiting.__aenter__()
            await second.send(key, letter("a"))
            await one.has(1)

        async with asyncio.timeout(10):
            while not (await second.depths([key])).get(key):
                await asyncio.sleep(0.05)
        await first.send(key, letter("b"))
        await two.has(1)
        await waiting.__aexit__(None, None, None)

    assert (one.ids, two.ids) == (["a"], ["b"])


async def test_what_a_passing_servers_handler_refuses_twice_is_a_dead_letter(
    broker: Broker, key: str
) -> None:
    inbox = Inbox(refuse=None)
    async with RabbitMqBus(broker.url, redelivery=Redelivery(rest=0.01)) as bus:
        async with bus.serve(key, inbox.take, durable=False):
            await bus.send(key, letter())
            await inbox.has(2)
            await asyncio.sleep(0.3)

        assert [found.key for found in await bus.dead() if found.key == key] == [key]

    assert [message.attempt for message in inbox.messages] == [1, 2]


@pytest.mark.parametrize("size", [0, 1_000_000])
async def test_a_body_may_be_empty_or_large(broker: Broker, key: str, size: int) -> None:
    inbox = Inbox()
    async with RabbitMqBus(broker.url) as bus, bus.serve(key, inbox.take):
        await bus.send(key, letter(body=bytes(size)))

        assert len((await inbox.has(1))[0].body) == size
