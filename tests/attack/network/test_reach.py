"""Places that a tenant's container has no business to reach."""

from contextlib import AbstractContextManager

import msgspec
import pytest
from tests.attack import weaker
from tests.attack.prison import HOST, LINKS, METADATA, OTHER_HOST, WORLD, Prison, Seen
from tests.attack.tenants import AGENT, PUBLISHED, SHOWN, Tenants

from skep.providers.local.network.naming import link_addresses

pytestmark = pytest.mark.root


def links(index: int) -> tuple[str, str]:
    """The host's and the router's end of a network's link."""
    host, router = link_addresses(LINKS, index)
    return str(host), str(router)


def ask(address: str, port: int) -> tuple[str, ...]:
    return ("/attack/network", "ask", address, str(port), "250")


class Place(msgspec.Struct, frozen=True):
    """An address, what answers there, and which rule of the host guards it (chain, part of its text)."""

    address: str
    port: int
    answer: str
    guard: tuple[str, str]


INPUT = ("input", "drop")
BETWEEN = ("forward", "oifname")
HIDDEN = ("forward", "169.254")
PLACES = {
    "agent-on-the-hosts-address": Place(HOST, AGENT, "agent", INPUT),
    "agent-on-our-own-link": Place(links(1)[0], AGENT, "agent", INPUT),
    "agent-on-the-link-of-another-tenant": Place(links(2)[0], AGENT, "agent", INPUT),
    "published-port-by-the-link-of-its-tenant": Place(links(2)[1], PUBLISHED, "stranger", BETWEEN),
    "port-published-on-loopback-by-its-link": Place(links(2)[1], SHOWN, "stranger", BETWEEN),
    "metadata-of-the-machine": Place(METADATA, 80, "credentials of the machine", HIDDEN),
    "agent-of-another-host": Place(OTHER_HOST, AGENT, "agent of another host", HIDDEN),
}


def unguarded(prison: Prison, place: Place) -> AbstractContextManager[None]:
    """The prison while the place's guard is away."""
    return prison.without_rule(prison.host, f"inet {prison.hive.instance}", *place.guard)


@pytest.mark.parametrize("name", PLACES)
def test_nobody_answers(tenants: Tenants, name: str) -> None:
    place = PLACES[name]

    assert tenants.prisoner.attack(*ask(place.address, place.port)).lost == "silence"


@pytest.mark.parametrize("name", PLACES)
def test_the_rule_is_what_keeps_it_silent(prison: Prison, tenants: Tenants, name: str) -> None:
    place = PLACES[name]

    with unguarded(prison, place):
        seen = tenants.prisoner.attack(*ask(place.address, place.port))

    assert place.answer in seen.text.splitlines(), seen


OF_THE_HOST = {
    "loopback": ("127.0.0.1", AGENT, "agent"),
    "loopback-by-another-name": ("127.9.9.9", AGENT, "agent"),
    "loopback-as-zero": ("0.0.0.0", AGENT, "agent"),
}


@pytest.mark.parametrize("name", OF_THE_HOST)
def test_the_loopback_of_the_host_is_another(tenants: Tenants, name: str) -> None:
    address, port, _ = OF_THE_HOST[name]

    assert tenants.prisoner.attack(*ask(address, port)).lost == "Connection refused"


@pytest.mark.parametrize("name", OF_THE_HOST)
def test_the_loopback_of_the_host_answers_in_its_network(prison: Prison, tenants: Tenants, name: str) -> None:
    address, port, answer = OF_THE_HOST[name]

    seen = tenants.prisoner.attack_without(weaker.network(prison.host), *ask(address, port))

    assert answer in seen.text.splitlines(), seen


UNREACHABLE = "Network is unreachable"
"""What somebody in the world outside says, to whom all unknown addresses go."""
OTHERS = ("stranger", "double")


def of_others(prison: Prison, tenants: Tenants, who: str, *, in_their_network: bool) -> Seen:
    port = tenants.stranger if who == "stranger" else tenants.double
    if not in_their_network:
        return tenants.prisoner.attack(*ask(str(port.address), 80))
    network = tenants.theirs if who == "stranger" else tenants.same
    neighbour = prison.plug(network, 200)
    try:
        change = weaker.network(prison.sandbox(neighbour))
        return tenants.prisoner.attack_without(change, *ask(str(port.address), 80))
    finally:
        prison.wait(prison.fabric.remove_sandbox(neighbour.replica))


@pytest.mark.parametrize("who", OTHERS)
def test_another_tenant_is_not_there(prison: Prison, tenants: Tenants, who: str) -> None:
    assert of_others(prison, tenants, who, in_their_network=False).lost in (
        "silence",
        "No route to host",
        UNREACHABLE,
    )


@pytest.mark.parametrize("who", OTHERS)
def test_another_tenant_is_there_for_its_own(prison: Prison, tenants: Tenants, who: str) -> None:
    assert who in of_others(prison, tenants, who, in_their_network=True).text.splitlines()


def test_names_of_another_tenant_mean_nothing(tenants: Tenants) -> None:
    seen = [tenants.prisoner.shell(f"ping -c1 -W1 {name}").text for name in ("bank", "bank.bank")]

    assert all("bad address" in text for text in seen), seen
    assert "10.1.0.6" in tenants.prisoner.shell("ping -c1 -W1 db").text


def test_names_of_another_tenant_mean_something_to_its_own(prison: Prison, tenants: Tenants) -> None:
    port = prison.plug(tenants.theirs, 201, "clerk", app="bank")
    clerk = prison.admit_to(port)
    try:
        assert str(tenants.stranger.address) in clerk.shell("ping -c1 -W1 bank").text
    finally:
        prison.dismiss(clerk)


RESOLVERS = {"gateway": "10.2.0.1", "link": links(2)[1]}


@pytest.mark.parametrize("name", RESOLVERS)
def test_the_resolver_of_another_tenant_does_not_answer(tenants: Tenants, name: str) -> None:
    assert tenants.prisoner.attack(*ask(RESOLVERS[name], 53)).lost in ("silence", UNREACHABLE)


def test_the_resolver_of_another_tenant_answers_its_own(prison: Prison, tenants: Tenants) -> None:
    """No answer to silence, but a connection that is taken."""
    change = weaker.network(prison.sandbox(tenants.stranger))

    assert tenants.prisoner.attack_without(change, *ask(RESOLVERS["gateway"], 53)).lost == "no answer"


def test_the_world_is_reached(tenants: Tenants) -> None:
    assert "world" in tenants.prisoner.attack(*ask(WORLD, 80)).text.splitlines()
