"""What a host that was taken over can do to others with the account that it had on the bus.

Each attack is tried where messages are signed, and where they are not and nothing else differs.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from tests.agent.conftest import until
from tests.attack.bus.processes import Installation, command, open_jar

from skep.bus.bus import Message
from skep.bus.calls import Answer, Call, decode, encode
from skep.model.errors import Unavailable
from skep.trust.authority import Authority
from skep.trust.peers import Role

LATER = 2 * 3600.0
POISON = "poison"
VICTIM = "agent.host-2"

Attack = Callable[[Installation, Message], Awaitable[None]]
"""On host-2, with a command of control to host-1 that was read there."""


async def unsigned(made: Installation, read: Message) -> None:
    await made.wire.send(VICTIM, command(POISON))


async def by_a_host(made: Installation, read: Message) -> None:
    await made.as_process(Role.AGENT, "host-1").send(VICTIM, command(POISON))


async def of_another_installation(made: Installation, read: Message) -> None:
    other = Authority.make("inst1", time.time())
    await made.as_process(Role.WORKER, "worker-1", of=other).send(VICTIM, command(POISON))


async def altered(made: Installation, read: Message) -> None:
    call = decode(read.body, Call)
    other = msgspec.structs.replace(call, id="another", arguments=msgspec.Raw(encode({"jar": POISON})))
    await made.wire.send(VICTIM, msgspec.structs.replace(read, body=encode(other)))


async def copied(made: Installation, read: Message) -> None:
    await made.wire.send(VICTIM, read)


ATTACKS = {
    "unsigned": unsigned,
    "signed-by-a-host": by_a_host,
    "of-another-installation": of_another_installation,
    "altered": altered,
    "copied-from-the-queue-of-another-host": copied,
}


@pytest.fixture
def each(request: pytest.FixtureRequest) -> Attack:
    return ATTACKS[request.param]


all_attacks = pytest.mark.parametrize("each", ATTACKS, indirect=True, ids=ATTACKS)


async def done_by_the_victim(made: Installation, attack: Attack) -> list[str]:
    """What host-2 did of the attack, by the time it has done what control tells it afterwards."""
    read: list[Message] = []

    async def keep(message: Message) -> None:
        read.append(message)

    async with (
        made.wire.serve("agent.host-1.now", keep),
        made.host("host-2") as jars,
        made.control() as control,
    ):
        with pytest.raises(Unavailable):
            await open_jar(control, "host-1", POISON)
        await attack(made, read[0])
        await open_jar(control, "host-2", "honey")
        return [jar for jar in jars.opened if jar != "honey"]


@all_attacks
async def test_a_host_does_not_obey(tmp_path: Path, each: Attack) -> None:
    assert await done_by_the_victim(Installation(tmp_path, signed=True), each) == []


@all_attacks
async def test_a_host_obeys_where_nothing_is_signed(tmp_path: Path, each: Attack) -> None:
    assert await done_by_the_victim(Installation(tmp_path, signed=False), each) == [POISON]


async def repeated_later(made: Installation) -> list[str]:
    """What a host does when a command of long ago comes again."""
    read: list[Message] = []
    clock = [time.time()]
    process = made.as_process(Role.WORKER, "worker-1")

    async def keep(message: Message) -> None:
        read.append(message)

    async with made.wire.serve("agent.host-1", keep):
        await process.send("agent.host-1", command("once"))
        await until(lambda: bool(read))
    async with made.host("host-1", lambda: clock[0]) as jars, made.control() as control:
        await made.wire.send("agent.host-1", read[0])
        await until(lambda: jars.opened == ["once"])
        clock[0] += LATER
        await made.wire.send("agent.host-1", read[0])
        await asyncio.sleep(0.1)
        clock[0] -= LATER
        await open_jar(control, "host-1", "last")
        return jars.opened


async def test_a_command_of_long_ago_is_not_done_again(tmp_path: Path) -> None:
    assert await repeated_later(Installation(tmp_path, signed=True)) == ["once", "last"]


async def test_a_command_of_long_ago_is_done_again_where_nothing_is_signed(tmp_path: Path) -> None:
    assert await repeated_later(Installation(tmp_path, signed=False)) == ["once", "once", "last"]


async def repeated_soon(made: Installation) -> list[str]:
    """What a host does when a command that was just carried out is put on its queue again."""
    read: list[Message] = []
    process = made.as_process(Role.WORKER, "worker-1")

    async def keep(message: Message) -> None:
        read.append(message)

    async with made.wire.serve("agent.host-1", keep):
        await process.send("agent.host-1", command("once"))
        await until(lambda: bool(read))
    async with made.host("host-1") as jars, made.control() as control:
        await made.wire.send("agent.host-1", read[0])
        await until(lambda: jars.opened == ["once"])
        await open_jar(control, "host-1", "between")
        await made.wire.send("agent.host-1", read[0])
        await process.send("agent.host-1", command("last"))
        await until(lambda: "last" in jars.opened)
        return jars.opened


async def test_a_command_is_not_done_again_for_whoever_has_read_it(tmp_path: Path) -> None:
    assert await repeated_soon(Installation(tmp_path, signed=True)) == ["once", "between", "last"]


async def test_a_command_is_done_again_where_nothing_is_signed(tmp_path: Path) -> None:
    done = await repeated_soon(Installation(tmp_path, signed=False))

    assert sorted(done) == ["between", "last", "once", "once"]


async def answered_by_another(made: Installation) -> str:
    """What control believes host-2 to have said, when host-1 answers in its place."""
    process = made.as_process(Role.AGENT, "host-1")

    async def answer(message: Message) -> None:
        said = Answer(id=message.id, version="1", result=msgspec.Raw(encode("all is well")))
        await process.send(message.reply_to, Message(id=message.id, body=encode(said), durable=False))

    async with made.wire.serve("agent.host-2.now", answer, durable=False), made.control() as control:
        return await open_jar(control, "host-2")


async def test_a_host_does_not_answer_for_another(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="host-2"):
        await answered_by_another(Installation(tmp_path, signed=True))


async def test_a_host_answers_for_another_where_nothing_is_signed(tmp_path: Path) -> None:
    assert await answered_by_another(Installation(tmp_path, signed=False)) == "all is well"
