"""The wires between the hosts of a data centre in a box."""

import subprocess
from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from skep.model.ids import HostName, new_id
from skep.providers.box.underlay import Underlay

pytestmark = pytest.mark.root
ONE, TWO = HostName("host-1"), HostName("host-2")


@pytest.fixture
async def underlay() -> AsyncIterator[Underlay]:
    instance = f"t{new_id()[-8:]}"
    async with Underlay(instance, IPv4Network("198.18.9.0/24")) as made:
        await made.make([(1, ONE), (2, TWO)])
        yield made
        await made.remove()
        await made.remove()
    assert [path.name for path in Path("/run/netns").glob(f"{instance}-*")] == []
    assert "198.18.9." not in subprocess.check_output(["ip", "address"], text=True)
    assert instance not in subprocess.check_output(["nft", "list", "tables"], text=True)


def pings(underlay: Underlay, host: HostName, address: object) -> bool:
    inside = ["nsenter", f"--net={underlay.namespace(host)}"]
    done = subprocess.run(
        [*inside, "busybox", "ping", "-c2", "-W1", str(address)], capture_output=True, check=False
    )
    return done.returncode == 0


async def test_hosts_reach_each_other_and_control(underlay: Underlay) -> None:
    await underlay.make([(1, ONE), (2, TWO)])

    assert pings(underlay, ONE, underlay.address(2))
    assert pings(underlay, TWO, underlay.gateway)


async def test_a_cable_can_be_pulled_and_put_back(underlay: Underlay) -> None:
    await underlay.cut(2)
    cut = pings(underlay, ONE, underlay.address(2))
    await underlay.mend(2)

    assert not cut
    assert pings(underlay, ONE, underlay.address(2))
