"""What a container may use of what all networks of the machine share."""

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import ModuleType

import pytest
from tests.attack import frames as f
from tests.attack.prison import HOST, LINKS, WORLD, Prison, Prisoner
from tests.attack.tenants import PUBLISHED, Tenants

from skep.model.host import NetworkConfig
from skep.providers.local.network import links
from skep.providers.local.network.naming import link_addresses
from skep.providers.local.network.rules import host as of_host
from skep.providers.local.network.rules import router as of_router

pytestmark = pytest.mark.root
NETWORK = "/attack/network"
TRIED = 3_000

_numbers = itertools.count(10)

DATAGRAMS = (NETWORK, "flows", WORLD, str(TRIED))
CLOSED = (NETWORK, "half-open", HOST, str(PUBLISHED), str(TRIED))
"""Connections to a published port of another tenant, which end as they begin."""


def newcomer(prison: Prison, subnet: str = "10.9.0.0/24") -> tuple[NetworkConfig, Prisoner]:
    """A tenant of its own: flows outlive whoever opened them."""
    network = prison.network(next(_numbers), subnet)
    return network, prison.admit_to(prison.plug(network, 5))


def tracked(prison: Prison, network: NetworkConfig) -> int:
    """Connections of the network in the host's table."""
    source = f"src={link_addresses(LINKS, network.index)[1]} "
    path = Path("/proc/thread-self/net/nf_conntrack")
    return prison.inside(prison.host, lambda: path.read_text().count(source))


def opened(prison: Prison, newcomer: tuple[NetworkConfig, Prisoner], attack: tuple[str, ...]) -> int:
    """How many flows one container gets into the host's table."""
    network, prisoner = newcomer
    try:
        seen = prisoner.attack(*attack)
        assert seen.won, seen
        return tracked(prison, network)
    finally:
        prison.dismiss(prisoner)


@contextmanager
def rules_with(prison: Prison, rules: ModuleType, **changes: object) -> Iterator[None]:
    """The rules with smaller numbers, so that a test need not go to the real ones."""
    before = {name: getattr(rules, name) for name in changes}
    try:
        for name, value in changes.items():
            setattr(rules, name, value)
        prison.restore()
        yield
    finally:
        for name, value in before.items():
            setattr(rules, name, value)
        prison.restore()


def without(prison: Prison, rule: str) -> AbstractContextManager[None]:
    return prison.without_rule(prison.host, f"inet {prison.hive.instance}", "forward", rule)


def test_a_network_does_not_fill_the_hosts_table_with_open_connections(
    prison: Prison, tenants: Tenants
) -> None:
    new = newcomer(prison)

    with rules_with(prison, of_host, MOST_FLOWS=1_000):
        assert 900 < opened(prison, new, DATAGRAMS) <= 1_000


def test_a_network_fills_it_with_open_connections_where_nobody_counts(
    prison: Prison, tenants: Tenants
) -> None:
    new = newcomer(prison)

    with rules_with(prison, of_host, MOST_FLOWS=1_000), without(prison, "ct count"):
        assert opened(prison, new, DATAGRAMS) > 2_500


def test_a_network_does_not_fill_the_hosts_table_with_closed_connections(
    prison: Prison, tenants: Tenants
) -> None:
    """They are not counted as open, and stay for a while."""
    new = newcomer(prison)

    with rules_with(prison, of_host, PACE="50/second burst 500 packets"):
        assert 400 < opened(prison, new, CLOSED) < 1_500


def test_a_network_fills_it_with_closed_connections_where_it_may_hurry(
    prison: Prison, tenants: Tenants
) -> None:
    new = newcomer(prison)

    with without(prison, "limit rate"):
        assert opened(prison, new, CLOSED) > 2_500


ASKED = 1_000


def answered(prisoner: Prisoner, network: NetworkConfig) -> int:
    question = f.question("nobody").hex()
    seen = prisoner.attack(NETWORK, "questions", str(network.gateway), question, str(ASKED))
    return int(seen.text.split("answered: ")[1].split()[0])


@pytest.mark.parametrize("limited", [True, False], ids=["refused", "real"])
def test_a_container_does_not_occupy_the_resolver(prison: Prison, tenants: Tenants, limited: bool) -> None:
    network, prisoner = newcomer(prison)
    rule = prison.without_rule(prison.router(network), "inet skep", "input", "@askers")
    with (
        rules_with(prison, of_router, QUESTIONS="20/second burst 100 packets"),
        nullcontext() if limited else rule,
    ):
        count = answered(prisoner, network)
    prison.dismiss(prisoner)

    assert 90 < count < 300 if limited else count > 300


LOOKED_FOR = 3_000
KERNELS_OWN_LIMIT = 1_024
"""Of neighbours, for all namespaces together; a network has 4,093 addresses unless its tenant wants more."""


def taken_neighbours(prison: Prison, prisoner: Prisoner) -> int:
    """Entries of the machine's table that the container takes by looking for everybody in its network."""
    prisoner.attack("/attack/exhaust", "neighbours", "10.20.1.0", str(LOOKED_FOR))
    return len(prison.run_inside(prison.fabric.sandbox(prisoner.spec.replica), "ip", "neigh").splitlines())


def test_a_container_does_not_take_all_neighbours_from_others(prison: Prison, tenants: Tenants) -> None:
    links.raise_neighbour_limits()
    _, greedy = newcomer(prison, "10.20.0.0/20")

    taken_neighbours(prison, greedy)
    seen = tenants.prisoner.shell("ping -c1 -W1 10.1.0.7; ip neigh")
    prison.dismiss(greedy)

    assert "10.1.0.7 dev eth0 lladdr" in seen.text


def test_a_container_takes_more_neighbours_than_the_kernel_has_by_itself(
    prison: Prison, tenants: Tenants
) -> None:
    """With the kernel's own limit nobody else would find a neighbour; so it is counted, not done."""
    links.raise_neighbour_limits()
    _, greedy = newcomer(prison, "10.20.0.0/20")

    taken = taken_neighbours(prison, greedy)
    prison.dismiss(greedy)

    assert taken > KERNELS_OWN_LIMIT
