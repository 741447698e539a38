"""Taking an instance's networks off the machine, whether or not skep runs or its data is still there."""

import re
import shutil
import socket
from pathlib import Path

from skep.providers.local.network import egress, links, nft
from skep.providers.local.network.fabric import HOST
from skep.providers.local.network.namespaces import Namespaces
from skep.providers.local.network.naming import NETNS, Names
from skep.providers.local.network.state import HostRecord, State


async def teardown(instance: str, data: Path, *, purge: bool = False, host: Path = HOST) -> None:
    """Remove every namespace, interface and nft table of the instance.

    Its records stay, so that the next start can make all anew; `purge` removes them too and puts
    ip_forward back to what it was.  No LocalFabric of the instance may be open.
    """
    names = Names(instance)
    async with Namespaces(host) as namespaces:
        await namespaces.on_host(lambda: links.delete(*_uplinks(names)))
        for namespace in _namespaces(names):
            await namespaces.remove(namespace)
        await namespaces.on_host(lambda: _delete_table(names.table))
        state = State(data, namespaces)
        if state.directory.exists():
            await state.load()
            await namespaces.on_host(lambda: egress.hold((), state.host.egress if state.host else ()))
            if purge:
                await _purge(state, namespaces)


async def _purge(state: State, namespaces: Namespaces) -> None:
    if state.host is not None:
        before = state.host
        await namespaces.on_host(lambda: links.sysctl(_switches(before)))
    shutil.rmtree(state.directory)


def _switches(before: HostRecord) -> list[tuple[str, str]]:
    """As they were.  An interface may be gone by now: then there is nothing to put back."""
    found = [("ipv4/ip_forward", before.ip_forward)]
    if before.ipv6_forward:
        found.append(("ipv6/conf/all/forwarding", before.ipv6_forward))
        found += [(f"ipv6/conf/{name}/accept_ra", "1") for name in before.accept_ra]
    return found


def _uplinks(names: Names) -> list[str]:
    ours = re.compile(re.escape(names.uplinks) + "[0-9a-z]{1,10}")
    return [name for _, name in socket.if_nameindex() if ours.fullmatch(name)]


def _namespaces(names: Names) -> list[Path]:
    ours = re.compile(f"({re.escape(names.routers)}|{re.escape(names.sandboxes)})[0-9a-z]{{1,10}}")
    return [path for path in sorted(NETNS.glob("*")) if ours.fullmatch(path.name)]


def _delete_table(name: str) -> None:
    if ("inet", name) in nft.tables():
        nft.commit(f"delete table inet {name}")
