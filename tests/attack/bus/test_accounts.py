"""What the account of a host on the broker opens to somebody who has taken it.

Tried with the account that the host has of its own, and with the one that all hosts share otherwise.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel
from aio_pika.exceptions import AMQPError, ProbableAuthenticationError
from aiormq.exceptions import ChannelAccessRefused
from tests.bus.broker import Broker
from tests.bus.broker import broker as broker
from tests.bus.inbox import Inbox, letter

from skep.bus.bus import Bus
from skep.bus.management import Management
from skep.bus.opening import open_bus
from skep.bus.queues import CALLS, DEAD, EVENTS
from skep.bus.rabbitmq import RabbitMqBus
from skep.control.hosts.bus_accounts import SharedBusAccount
from skep.control.hosts.own_bus_accounts import OwnBusAccounts
from skep.model.ids import HostName, ZoneName


@dataclass
class Site:
    """Two hosts and control at one broker; names are of this test alone."""

    broker: Broker
    control: Bus
    zone: ZoneName
    taken: HostName
    victim: HostName

    def accounts(self) -> OwnBusAccounts:
        management = Management(self.broker.url, self.broker.management)
        return OwnBusAccounts(self.broker.url, management, self.control)

    async def url(self, *, own: bool) -> str:
        """What the host that was taken over logs in with."""
        accounts = self.accounts() if own else SharedBusAccount(self.broker.url)
        return (await accounts.open(self.taken, self.zone)).bus


@pytest.fixture
async def site(broker: Broker) -> AsyncIterator[Site]:
    mark = secrets.token_hex(4)
    names = ZoneName(f"zone-{mark}"), HostName(f"host-1-{mark}"), HostName(f"host-2-{mark}")
    async with RabbitMqBus(broker.url, settling=0) as control:  # nobody kills it
        made = Site(broker, control, *names)
        await control.declare(f"worker.{made.zone}")
        await made.accounts().open(made.victim, made.zone)
        yield made
        await asyncio.gather(*(made.accounts().close(name) for name in (made.taken, made.victim)))


@asynccontextmanager
async def channel(url: str) -> AsyncIterator[AbstractChannel]:
    """As somebody would use the account who does without skep."""
    connection = await aio_pika.connect(url)
    try:
        async with connection.channel() as opened:
            yield opened
    finally:
        await connection.close()


Attack = Callable[[Site, AbstractChannel], Awaitable[object]]


async def read_its_commands(site: Site, channel: AbstractChannel) -> None:
    queue = await channel.get_queue(f"agent.{site.victim}", ensure=False)
    await queue.get(fail=False)


async def remove_its_queue(site: Site, channel: AbstractChannel) -> None:
    await channel.queue_delete(f"agent.{site.victim}")


async def send_to_its_queue(site: Site, channel: AbstractChannel) -> None:
    await channel.default_exchange.publish(aio_pika.Message(b"poison"), f"agent.{site.victim}")


async def send_to_it_by_the_exchange_of_hosts(site: Site, channel: AbstractChannel) -> None:
    exchange = await channel.get_exchange(CALLS, ensure=False)
    await exchange.publish(aio_pika.Message(b"poison"), f"agent.{site.victim}", mandatory=False)


async def answer_questions_of_its_agent(site: Site, channel: AbstractChannel) -> None:
    exchange = await channel.get_exchange(CALLS, ensure=False)
    await exchange.publish(aio_pika.Message(b"lie"), f"reply.agent.{site.victim}.1", mandatory=False)


async def be_a_worker(site: Site, channel: AbstractChannel) -> None:
    queue = await channel.get_queue(f"worker.{site.zone}", ensure=False)
    await queue.get(fail=False)


async def take_its_place(site: Site, channel: AbstractChannel) -> None:
    await channel.declare_queue(f"agent.{site.victim}.now", exclusive=True)


async def read_dead_letters(site: Site, channel: AbstractChannel) -> None:
    await (await channel.get_queue(DEAD, ensure=False)).get(fail=False)


async def hear_what_happens(site: Site, channel: AbstractChannel) -> None:
    """With a queue that it may make."""
    queue = await channel.declare_queue(f"agent.{site.taken}.now", exclusive=True)
    await queue.bind(EVENTS, routing_key="event.#")


async def hear_what_others_say(site: Site, channel: AbstractChannel) -> None:
    queue = await channel.declare_queue(f"agent.{site.taken}.now", exclusive=True)
    await queue.bind(CALLS, routing_key="worker.#")


ATTACKS = {
    "commands-of-another": read_its_commands,
    "removing-its-queue": remove_its_queue,
    "sending-to-another": send_to_its_queue,
    "sending-to-another-by-the-exchange-of-hosts": send_to_it_by_the_exchange_of_hosts,
    "answering-another": answer_questions_of_its_agent,
    "being-a-worker": be_a_worker,
    "taking-its-place": take_its_place,
    "dead-letters": read_dead_letters,
    "events": hear_what_happens,
    "what-others-say": hear_what_others_say,
}


@pytest.fixture
def attack(request: pytest.FixtureRequest) -> Attack:
    return ATTACKS[request.param]


all_attacks = pytest.mark.parametrize("attack", ATTACKS, indirect=True, ids=ATTACKS)


@all_attacks
async def test_the_broker_refuses(site: Site, attack: Attack) -> None:
    async with channel(await site.url(own=True)) as opened:
        with pytest.raises(ChannelAccessRefused):
            await attack(site, opened)


@all_attacks
async def test_the_broker_lets_it_where_hosts_share_an_account(site: Site, attack: Attack) -> None:
    async with channel(await site.url(own=False)) as opened:
        await attack(site, opened)


async def test_a_host_and_control_reach_each_other(site: Site) -> None:
    url = await site.url(own=True)
    of_host, of_zone, answers, replies = Inbox(), Inbox(), Inbox(), Inbox()
    mine, theirs = f"reply.agent.{site.taken}.1", f"reply.worker-{site.zone}"

    async with (
        open_bus(url, of_host=True) as host,
        host.serve(f"agent.{site.taken}", of_host.take),
        host.serve(f"agent.{site.taken}.now", of_host.take, durable=False),
        host.serve(mine, replies.take, durable=False),
        site.control.serve(f"worker.{site.zone}", of_zone.take),
        site.control.serve(theirs, answers.take, durable=False),
    ):
        await site.control.send(f"agent.{site.taken}", letter("command"))
        await site.control.send(f"agent.{site.taken}.now", letter("query"))
        await host.send(f"worker.{site.zone}", letter("news"))
        await host.send(theirs, letter("answer"))
        await site.control.send(mine, letter("reply"))

        await of_host.has(2)
        await asyncio.gather(of_zone.has(1), answers.has(1), replies.has(1))


async def until_cut_off(url: str, end: Callable[[], Awaitable[None]]) -> None:
    connection = await aio_pika.connect(url)
    ended = asyncio.Event()
    connection.close_callbacks.add(lambda *_: ended.set())
    await end()
    async with asyncio.timeout(5):
        await ended.wait()
    with pytest.raises((ProbableAuthenticationError, AMQPError)):
        await aio_pika.connect(url)


async def test_a_host_that_was_removed_is_cut_off(site: Site) -> None:
    await until_cut_off(await site.url(own=True), lambda: site.accounts().close(site.taken))
    await site.accounts().close(site.taken)  # as often as one likes


async def test_a_host_that_was_removed_stays_where_hosts_share_an_account(site: Site) -> None:
    url = await site.url(own=False)

    await SharedBusAccount(site.broker.url).close(site.taken)

    async with channel(url) as opened:
        await read_its_commands(site, opened)


async def test_who_knows_the_former_password_is_cut_off_when_the_host_gets_another(site: Site) -> None:
    async def again() -> None:
        await site.url(own=True)

    await until_cut_off(await site.url(own=True), again)


async def test_a_former_password_is_good_for_ever_where_hosts_share_an_account(site: Site) -> None:
    assert await site.url(own=False) == await site.url(own=False)
