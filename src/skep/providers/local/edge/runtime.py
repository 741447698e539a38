"""The runtime API of HAProxy (its management guide, 9.3): commands over a Unix socket."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from skep.model.errors import HostFailure, Unavailable
from skep.providers.local.edge.layout import Layout, Route, Routes, Server, Slots

_PROMPT = b"\n> "
_CHUNK = 150
"""Entries of a map in one command: what is sent at a time must fit into a buffer of 16 KiB."""
PATIENCE = 10.0


class Runtime:
    """An open connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def run(self, command: str, payload: Iterable[str] | None = None) -> str:
        """What HAProxy says to it.  Raises Unavailable: it ended meanwhile."""
        asked = command if payload is None else "\n".join((f"{command} <<", *payload, ""))
        try:
            self._writer.write(f"{asked}\n".encode())
            await self._writer.drain()
            async with asyncio.timeout(PATIENCE):
                said = await self._reader.readuntil(_PROMPT)
        except (OSError, EOFError, TimeoutError) as error:
            raise Unavailable("HAProxy does not answer.") from error
        text = said.removesuffix(_PROMPT).decode(errors="replace")
        return text.lstrip("+ ").strip()  # a plus for every line of a payload

    async def do(self, command: str, payload: Iterable[str] | None = None, says: str = "") -> str:
        """Raises HostFailure: HAProxy said something else than what it says when all is well."""
        said = await self.run(command, payload)
        if says not in said or (not says and said):
            raise HostFailure(f"HAProxy refused {command.split(' ')[0:3]}: {said[:300]}")
        return said

    async def read(self, routes: Path) -> Layout:
        """What is there now."""
        slots = _slots(await self.run("show backend"), await self.run("show servers state"))
        found = _routes(await self.run(f"show map {routes}"))
        for route in found.values():
            slots[route.slot] = {
                name: msgspec.structs.replace(one, most=route.most) for name, one in slots[route.slot].items()
            }
        return Layout(slots, found)

    async def change_routes(self, routes: Path, have: Routes, wanted: Routes) -> None:
        """At one moment, however many change."""
        changed = {key for key in have.keys() | wanted.keys() if have.get(key) != wanted.get(key)}
        if len(changed) > 1:
            return await self._replace_routes(routes, wanted)
        for key in changed:
            if key not in wanted:
                await self.do(f"del map {routes} {key}")
            else:
                verb = "set" if key in have else "add"
                await self.do(f"{verb} map {routes} {key} {wanted[key].text}")
        return None

    async def _replace_routes(self, routes: Path, wanted: Routes) -> None:
        said = await self.do(f"prepare map {routes}", says="New version created:")
        version = said.rpartition(":")[2].strip()
        lines = [f"{key} {route.text}" for key, route in sorted(wanted.items())]
        for start in range(0, len(lines), _CHUNK):
            await self.do(f"add map @{version} {routes}", lines[start : start + _CHUNK])
        await self.do(f"commit map @{version} {routes}")


@asynccontextmanager
async def runtime(admin: Path) -> AsyncIterator[Runtime]:
    """Raises Unavailable: nobody listens there."""
    try:
        reader, writer = await asyncio.open_unix_connection(admin, limit=64 * 1024 * 1024)
    except OSError as error:
        raise Unavailable("HAProxy does not answer.") from error
    try:
        opened = Runtime(reader, writer)
        writer.write(b"prompt\n")
        async with asyncio.timeout(PATIENCE):
            await reader.readuntil(_PROMPT)
        yield opened
    except (TimeoutError, EOFError) as error:
        raise Unavailable("HAProxy does not answer.") from error
    finally:
        writer.close()


_FORCED_MAINTENANCE = 0x01
"""SRV_ADMF_FMAINT."""


def _slots(backends: str, servers: str) -> Slots:
    names = [line for line in backends.splitlines() if line[:1] == "b" and line[1:].isdecimal()]
    slots: Slots = {name: {} for name in names}
    lines = [line.split(" ") for line in servers.splitlines()]
    head = next((words[1:] for words in lines if words[0] == "#"), [])
    for words in lines:
        if len(words) != len(head):
            continue
        row = dict(zip(head, words, strict=True))
        if row["be_name"] in slots:
            up = not int(row["srv_admin_state"]) & _FORCED_MAINTENANCE
            name = row["srv_name"]
            slots[row["be_name"]][name] = Server(
                name, row["srv_addr"], int(row["srv_port"]), int(row["srv_uweight"]), up
            )
    return slots


def _routes(said: str) -> Routes:
    found: Routes = {}
    for line in said.splitlines():
        words = line.split(" ")
        if len(words) == 3 and words[2].count("|") >= 5:
            found[words[1]] = Route.parse(words[2])
    return found
