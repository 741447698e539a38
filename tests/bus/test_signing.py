"""A bus whose messages are signed: what it lets through, what not, and what it says of that."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from tests.bus.inbox import Inbox
from tests.trust.conftest import Joined
from tests.trust.conftest import authority as authority
from tests.trust.conftest import joined as joined

from skep.bus.bus import Bus, Message, Sender
from skep.bus.inprocess import InProcessBus
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

    def sign(self, content: bytes) -> bytes:
        return content

    def signer(self, content: bytes, signature: bytes) -> Sender:
        assert content == signature
        return self._sender


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
