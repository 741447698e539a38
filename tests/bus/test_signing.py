"""A bus whose messages are signed: what it lets through, what not, and what it says of that."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import structlog
from tests.bus.inbox import Inbox
from tests.trust.conftest import Joined
from tests.trust.conftest import authority as authority
from tests.trust.conftest import joined as joined

from skep.bus.bus import Bus, Message, Sender
from skep.bus.inprocess import InProcessBus
from skep.bus.replays import Replays
from skep.bus.signing import LONGEST, SKEW, SignedBus, asked_by, asking, may_answer, may_send
from skep.trust.peers import Peer, Role
from skep.trust.signatures import Signatures

HELLO = Message(id="m-1", body=b"hello", reply_to="reply.me")
HOST = Peer(installation="inst1", role=Role.AGENT, name="host-1")
WORKER = Peer(installation="inst1", role=Role.WORKER, name="host-1")
NOW = 1_800_000_000.0


class Known:
    """A signer for whom content is its own proof: what is tried is the bus, not cryptography."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def sign(self, content: bytes, to: bytes = b"") -> bytes:
        return content

    def signer(self, content: bytes, signature: bytes) -> Sender:
        assert content == signature
        return self._sender

    def announced(self, signature: bytes) -> bytes:
        return b""


async def heard(bus: Bus, key: str, send: Callable[[], object]) -> Inbox:
    """What comes to the key of what is sent there, by the time a last message could have come."""
    inbox = Inbox()
    async with bus.serve(key, inbox.take):
        await send()  # type: ignore[misc]
        await asyncio.sleep(0.05)
    return inbox


async def test_a_message_arrives_with_its_sender(joined: Joined) -> None:
    wire = InProcessBus()
    agent, worker = joined(Role.AGENT, "host-1"), joined(Role.WORKER, "worker-1")
    near, far = SignedBus(wire, Signatures(worker)), SignedBus(wire, Signatures(agent))

    inbox = await heard(far, "agent.host-1", lambda: near.send("agent.host-1", HELLO))

    (found,) = inbox.messages
    assert (found.id, found.body, found.reply_to, found.sender) == ("m-1", b"hello", "reply.me", worker.peer)


@pytest.mark.parametrize("required", [True, False])
async def test_what_is_not_signed_is_taken_only_where_that_is_said(joined: Joined, required: bool) -> None:
    wire = InProcessBus()
    bus = SignedBus(wire, Signatures(joined(Role.AGENT, "host-1")), required=required)

    inbox = await heard(bus, "agent.host-1", lambda: wire.send("agent.host-1", HELLO))

    assert inbox.messages == ([] if required else [HELLO])


async def test_what_is_signed_wrongly_is_refused_also_where_signatures_are_optional(joined: Joined) -> None:
    wire = InProcessBus()
    bus = SignedBus(wire, Signatures(joined(Role.AGENT, "host-1")), required=False)
    own = Message(id="m-1", body=b"hello", signature=b"nonsense")

    assert not (await heard(bus, "agent.host-1", lambda: wire.send("agent.host-1", own))).messages


@pytest.mark.parametrize(
    ("key", "sender", "age", "believed"),
    [
        ("agent.host-1", WORKER, LONGEST, True),
        ("agent.host-1", WORKER, LONGEST + 1, False),
        ("agent.host-1", WORKER, -SKEW, True),
        ("agent.host-1", WORKER, -SKEW - 1, False),
        ("worker.zone-1", HOST, SKEW, True),
        ("worker.zone-1", HOST, SKEW + 1, False),
        ("reply.worker-1", HOST, 10 * LONGEST, True),
    ],
)
async def test_a_message_is_believed_for_a_while(
    key: str, sender: Sender, age: float, believed: bool
) -> None:
    wire = InProcessBus()
    then = SignedBus(wire, Known(sender), now=lambda: NOW)
    later = SignedBus(wire, Known(sender), now=lambda: NOW + age)

    inbox = await heard(later, key, lambda: then.send(key, HELLO))

    assert bool(inbox.messages) is believed


async def test_what_is_refused_for_one_reason_is_said_once() -> None:
    wire = InProcessBus()
    bus = SignedBus(wire, Known(HOST))

    async def thrice() -> None:
        for _ in range(3):
            await bus.send("agent.host-1", HELLO)
        await wire.send("agent.host-1", HELLO)

    with structlog.testing.capture_logs() as logs:
        await heard(bus, "agent.host-1", thrice)

    assert [entry["reason"].partition(".")[0] for entry in logs if entry["event"] == "message.refused"] == [
        "Host 'host-1' has nothing to say here",
        "It is not signed",
    ]


def test_hosts_are_told_by_control_and_answer_for_themselves_alone() -> None:
    other = Peer(installation="inst1", role=Role.AGENT, name="host-2")

    assert [may_send("agent.host-1", who) for who in (WORKER, HOST, other)] == [True, False, False]
    assert [may_send("agent.host-1.now", who) for who in (WORKER, HOST, other)] == [True, False, False]
    assert [may_send("worker.zone-1", who) for who in (WORKER, HOST, other)] == [False, True, True]
    assert [may_answer("agent.host-1", who) for who in (WORKER, HOST, other)] == [False, True, False]
    assert [may_answer("worker.zone-1", who) for who in (WORKER, HOST, other)] == [True, False, False]


async def test_tasks_know_for_whom_they_are() -> None:
    async def whose() -> Sender | None:
        await asyncio.sleep(0)
        return asking()

    with asked_by(HOST):
        task = asyncio.create_task(whose())

    assert (await task, asking()) == (HOST, None)


async def test_everything_else_is_the_bus_beneath(tmp_path: Path) -> None:
    wire = InProcessBus()
    bus = SignedBus(wire, Known(HOST))

    await bus.declare("worker.zone-1")
    async with bus.subscribe("event.shop") as events:
        bus.publish("event.shop.run", b"ended")
        event = await anext(events)
    depths = await bus.depths(["worker.zone-1"])
    await bus.drop("worker.zone-1")

    assert (event.body, depths["worker.zone-1"].servers) == (b"ended", 0)
    assert (await bus.depths(["worker.zone-1"]), await bus.dead()) == ({}, [])


class Wire:
    """Two signed buses on one wire, and what travelled on it."""

    def __init__(self, joined: Joined) -> None:
        self.bus = InProcessBus()
        self.worker = SignedBus(self.bus, Signatures(joined(Role.WORKER, "worker-1")))
        self.agent = SignedBus(self.bus, Signatures(joined(Role.AGENT, "host-1")))

    async def signed(self, sender: Bus, key: str, message: Message) -> bool:
        """Whether it travels with a signature of its own, and not with a proof for one process alone."""
        inbox = await heard(self.bus, key, lambda: sender.send(key, message))
        _, proof = msgspec.msgpack.decode(inbox.messages[-1].signature)
        return bool(msgspec.msgpack.decode(proof)[1])


async def test_what_one_process_asks_another_is_signed_until_they_have_heard_of_each_other(
    joined: Joined,
) -> None:
    wire, asked = Wire(joined), Message(id="q-1", body=b"?", reply_to="reply.worker-1", durable=False)
    answered = Message(id="q-1", body=b"!", durable=False)

    assert await wire.signed(wire.worker, "agent.host-1.now", asked)
    await heard(wire.agent, "agent.host-1.now", lambda: wire.worker.send("agent.host-1.now", asked))
    assert not await wire.signed(wire.agent, "reply.worker-1", answered)
    await heard(wire.worker, "reply.worker-1", lambda: wire.agent.send("reply.worker-1", answered))
    second = msgspec.structs.replace(asked, id="q-2")

    assert not await wire.signed(wire.worker, "agent.host-1.now", second)
    assert await wire.signed(wire.worker, "agent.host-1.now", second), (
        "the host may be another process by now"
    )
    assert await wire.signed(wire.worker, "agent.host-1", HELLO), "the next agent must be able to read it"
    assert await wire.signed(wire.agent, "worker.zone-1", HELLO), "any worker of the zone must be able to"


async def test_answers_go_to_whoever_a_host_may_speak_for(joined: Joined) -> None:
    """A host names the queue of another for its answers: it does not spoil what is said there."""
    wire = Wire(joined)
    foul = Message(id="q-1", body=b"?", reply_to="reply.agent.host-2.x")

    await heard(wire.worker, "worker.zone-1", lambda: wire.agent.send("worker.zone-1", foul))

    assert await wire.signed(wire.worker, "reply.agent.host-2.x", HELLO)


async def test_what_was_heard_is_not_heard_again_unless_its_handler_failed(joined: Joined) -> None:
    wire, inbox = Wire(joined), Inbox(refuse=1)
    read = (await heard(wire.bus, "worker.z", lambda: wire.agent.send("worker.z", HELLO))).messages[0]
    other = Message(id="m-2", body=b"other")

    async with wire.worker.serve("worker.z", inbox.take):
        await wire.bus.send("worker.z", read)
        await inbox.has(2)
        await asyncio.sleep(0)
        await wire.bus.send("worker.z", read)
        await wire.agent.send("worker.z", other)
        await inbox.has(3)

    assert inbox.ids == ["m-1", "m-1", "m-2"]


def test_what_was_heard_is_remembered_within_bounds() -> None:
    replays = Replays(remembered=2)

    for at in (1.0, 3.0, 2.0, 4.0):
        replays.note("worker.z", HOST, at, "m", since=0.0)

    assert [replays.knows("worker.z", HOST, at, "m") for at in (1.0, 2.0, 3.0, 4.0, 5.0)] == [
        *[True] * 4,
        False,
    ], "what may be forgotten is refused"
    assert not replays.knows("worker.z", HOST, 3.0, "another")
    assert not replays.knows("worker.z", WORKER, 3.0, "m")
    replays.note("worker.z", HOST, 9.0, "m", since=8.0)
    assert replays.knows("worker.z", HOST, 4.0, "another"), "it is too old by now"
