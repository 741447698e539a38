"""The commands that make HAProxy's servers what they should be.  Pure."""

import msgspec

from skep.providers.local.edge.layout import Layout, Server
from skep.providers.local.edge.text import server


class Command(msgspec.Struct, frozen=True):
    """`says`: what HAProxy answers when all is well."""

    text: str
    says: str = ""


def before(have: Layout, wanted: Layout) -> list[Command]:
    """What goes before requests are led elsewhere: whoever is to answer is there."""
    return [
        command
        for slot in _changed(have, wanted)
        for one in wanted.slots[slot].values()
        if one.up
        for command in _bring(slot, have.slots[slot].get(one.name), one)
    ]


def after(have: Layout, wanted: Layout) -> list[Command]:
    """What goes after it.  Who only has to end what it began gets nothing new."""
    led_to = {route.slot for route in wanted.routes.values()}
    return [
        Command(f"set server {slot}/{one.name} state maint")
        for slot in _changed(have, wanted)
        for one in wanted.slots[slot].values()
        if slot in led_to and not one.up and have.slots[slot][one.name].up
    ]


def _changed(have: Layout, wanted: Layout) -> list[str]:
    return [slot for slot, servers in wanted.slots.items() if servers is not have.slots[slot]]


def _bring(slot: str, have: Server | None, one: Server) -> list[Command]:
    where = f"{slot}/{one.name}"
    if have is None:
        return [
            Command(f"add server {where} {server(one)}", "New server registered."),
            Command(f"enable server {where}"),
            Command(f"enable health {where}"),
        ]
    commands = []
    if (have.address, have.port) != (one.address, one.port):
        commands.append(Command(f"set server {where} addr {one.address} port {one.port}", "changed"))
    if have.weight != one.weight:
        commands.append(Command(f"set server {where} weight {one.weight}"))
    if have.most != one.most:
        commands.append(Command(f"set maxconn server {where} {one.most or 0}"))
    if not have.up:
        commands.append(Command(f"set server {where} state ready"))
    return commands
