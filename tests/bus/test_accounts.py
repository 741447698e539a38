"""Accounts of hosts on a real broker: who gets which, and what is said where none can be had."""

import re
import secrets

import pytest
from tests.bus.broker import Broker
from yarl import URL

from skep.bus.inprocess import InProcessBus
from skep.bus.management import Management
from skep.control.hosts.own_bus_accounts import OwnBusAccounts, rights_of
from skep.model.errors import Conflict, Unavailable
from skep.model.ids import HostName, ZoneName

ZONE = ZoneName("zone-1")


@pytest.fixture
def host() -> HostName:
    return HostName(f"host-{secrets.token_hex(4)}")


@pytest.fixture
def accounts(broker: Broker) -> OwnBusAccounts:
    return OwnBusAccounts(broker.url, Management(broker.url, broker.management), InProcessBus())


async def test_a_host_keeps_its_account_and_one_without_gets_it(
    accounts: OwnBusAccounts, broker: Broker, host: HostName
) -> None:
    first = await accounts.current(host, ZONE, str(URL(broker.url).user))
    user = str(URL(first.bus).user)
    kept = await accounts.current(host, ZONE, user)
    of_an_older_release = await accounts.current(host, ZONE, None)
    await accounts.close(host)

    assert (first.own, user) == (True, f"skep.{host}")
    assert (kept.bus, of_an_older_release.bus) == ("", "")


async def test_a_release_that_cannot_work_with_it_does_not_get_the_account_of_all(
    accounts: OwnBusAccounts,
) -> None:
    await accounts.check("")
    with pytest.raises(Conflict, match="Upgrade skep there"):
        await accounts.check(None)


async def test_where_the_api_of_the_broker_is_missing_it_is_said_how_to_get_it(broker: Broker) -> None:
    accounts = OwnBusAccounts(broker.url, Management(broker.url, "http://127.0.0.1:1"), InProcessBus())

    with pytest.raises(Unavailable, match="rabbitmq-plugins enable rabbitmq_management") as caught:
        await accounts.check()

    assert "bus_management" in str(caught.value)
    assert str(URL(broker.url).password) not in str(caught.value)
    assert (await accounts.current(HostName("host-1"), ZONE, "")).bus == ""


async def test_a_user_that_may_not_make_accounts_is_told_so(broker: Broker, host: HostName) -> None:
    name = f"weak-{host}"
    broker.control("add_user", name, "secret")
    weak = URL(broker.url).with_user(name).with_password("secret")

    with pytest.raises(Unavailable, match=f"rabbitmqctl set_user_tags {name} administrator"):
        await Management(str(weak), broker.management).check()

    broker.control("delete_user", name)


@pytest.mark.parametrize(
    ("bus", "url"),
    [
        ("amqp://u:p@10.0.0.1:5672/skep", "http://10.0.0.1:15672"),
        ("amqps://u:p@[fd00::1]/skep", "https://[fd00::1]:15671"),
    ],
)
def test_the_api_is_at_its_usual_port(bus: str, url: str) -> None:
    assert Management(bus)._url == url
    assert Management(bus, "https://elsewhere.example/").vhost == "skep"


def test_the_rights_of_a_host_are_those_of_no_other() -> None:
    rights = rights_of(HostName("host-1"), ZONE)

    assert re.search(rights.read, "agent.host-1")
    assert re.search(rights.read, "reply.agent.host-1.x")
    for other in ("agent.host-10", "agent.host-1.x", "agent.xhost-1", "reply.agent.host-10.x", "skep.dead"):
        assert not re.search(rights.read, other), other
    assert re.search(rights.keys, "worker.zone-1")
    assert re.search(rights.keys, "reply.worker-two-abc")
    for other in ("worker.zone-10", "reply.agent.host-1.x", "agent.host-1", "event.shop.run"):
        assert not re.search(rights.keys, other), other
    assert not re.search(rights.configure, "agent.host-1")
