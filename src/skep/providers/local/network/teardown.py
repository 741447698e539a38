"""Taking an instance's networks off the machine, whether or not skep runs or its data is still there."""

import re
import shutil
import socket
from pathlib import Path

from skep.providers.local.network import egress, links, nft
from skep.providers.local.network.fabric import HOST
from skep.providers.local.network.namespaces import Namespaces
from skep.providers.local.network.naming import NETNS, Names
from skep.providers.local.network.state import State


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
        before = state.host.ip_forward
        await namespaces.on_host(lambda: links.sysctl([("ipv4/ip_forward", before)]))
    shutil.rmtree(state.directory)


def _uplinks(names: Names) -> list[str]:
    ours = re.compile(re.escape(names.uplinks) + "[0-9a-z]{1,10}")
    return [name for _, name in socket.if_nameindex() if ours.fullmatch(name)]


def _namespaces(names: Names) -> list[Path]:
    ours = re.compile(f"({re.escape(names.routers)}|{re.escape(names.sandboxes)})[0-9a-z]{{1,10}}")
    return [path for path in sorted(NETNS.glob("*")) if ours.fullmatch(path.name)]


def _delete_table(name: str) -> None:
    if ("inet", name) in nft.tables():
        nft.commit(f"delete table inet {name}")
