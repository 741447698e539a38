"""What operators see of the bus."""

import asyncio
from pathlib import Path

import msgspec
from tests.control.installation import installation

from skep.bus.bus import Message, Redelivery
from skep.bus.calls import Call, encode
from skep.bus.inprocess import InProcessBus
from skep.control.hosts.queues import Queues


def call(method: str) -> bytes:
    arguments = msgspec.Raw(encode({"secret": "hidden"}))
    return encode(Call(id="c", method=method, arguments=arguments, version="1", command=True))


async def refuse(_: Message) -> None:
    raise RuntimeError("no")


async def test_what_waits_for_a_host_is_counted(tmp_path: Path) -> None:
    async with installation(tmp_path) as house:
        await house.bus.declare("agent.host-1")
        await house.bus.send("agent.host-1", Message(id="1", body=call("engine.start")))

        (queue,) = await house.control.queues.list(house.admin)

    assert (queue.key, queue.waiting, queue.servers) == ("agent.host-1", 1, 0)


async def test_what_was_given_up_is_named_without_what_it_says(tmp_path: Path) -> None:
    bus = InProcessBus(redelivery=Redelivery(attempts=1, rest=0.0))
    async with installation(tmp_path) as house, bus.serve("agent.host-1", refuse):
        queues = Queues(house.database, bus)
        await bus.send("agent.host-1", Message(id="1", body=call("engine.start")))
        await bus.send("agent.host-1", Message(id="2", body=b"nonsense"))
        while len(await queues.dead(house.admin)) < 2:
            await asyncio.sleep(0.01)

        dead = await queues.dead(house.admin)

    assert [(one.id, one.key, one.method) for one in dead] == [
        ("1", "agent.host-1", "engine.start"),
        ("2", "agent.host-1", "unreadable"),
    ]
    assert "hidden" not in str(dead)
