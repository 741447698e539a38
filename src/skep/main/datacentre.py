"""`skep up --hosts N`: control in this process, and the hosts of a data centre in a box around it."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial

import msgspec
import structlog

from skep.bus.opening import open_bus
from skep.configuration import Configuration
from skep.control.control import Control
from skep.flow import Database
from skep.main.box import Box, broker_directory
from skep.main.cluster_hosts import lead_clusters
from skep.main.layout import Layout, remember
from skep.main.neighbours import answer_hosts, know_hosts
from skep.main.plane import Foundation, control_plane, foundation, prepare
from skep.main.process import alone, collect_garbage_seldom, listener_on, stopped
from skep.main.serving import serve_api
from skep.providers.box.broker import management_of, start_broker
from skep.providers.box.front import start_front
from skep.providers.box.underlay import Underlay
from skep.providers.local.programs import require_programs
from skep.store import hosts
from skep.store.hosts import ZoneRow
from skep.trust.peers import Role

log = structlog.get_logger("skep.box")


async def run(settings: Configuration, layout: Layout) -> None:
    """Serve until SIGTERM or SIGINT.  Hosts go on meanwhile, as machines elsewhere would."""
    collect_garbage_seldom()
    stop = stopped()
    require_programs()
    with alone(settings), listener_on(settings) as listener:
        async with AsyncExitStack() as stack:
            underlay = await stack.enter_async_context(Underlay(settings.instance, settings.box_underlay))
            await underlay.make((one.number, one.host) for one in layout.members())
            remember(settings, layout)
            inner = await _on_underlay(settings, underlay)
            outer = stack.enter_context(listener_on(inner))
            await start_front(
                settings.instance,
                (settings.edge_http, settings.edge_https),
                [underlay.address(one.number) for one in layout.members()],
            )
            control, base = await _control(stack, inner, layout)
            serving = [
                asyncio.create_task(serve_api(control, inner, outer, stop)),
                asyncio.create_task(_raise(Box(settings, layout, underlay), base, control)),
            ]
            await serve_api(control, settings, listener, stop)
            await asyncio.gather(*serving)
    log.info("skep.ended")


async def _on_underlay(settings: Configuration, underlay: Underlay) -> Configuration:
    """As the hosts see this installation."""
    address = f"{underlay.gateway}:{settings.address[1]}"
    settings = msgspec.structs.replace(settings, listen=address, api_url=f"https://{address}")
    if settings.bus:
        return settings
    bus = await start_broker(broker_directory(settings), underlay.gateway)
    management = await management_of(broker_directory(settings))
    return msgspec.structs.replace(settings, bus=bus, bus_management=management)


async def _control(
    stack: AsyncExitStack, settings: Configuration, layout: Layout
) -> tuple[Control, Foundation]:
    bus = await stack.enter_async_context(open_bus(settings.bus))
    base = await foundation(stack, settings, bus)
    await prepare(base, layout.zone(1))
    await _make_zones(base.database, settings, layout)
    await answer_hosts(stack, base, await know_hosts(stack, base, Role.WORKER))
    await lead_clusters(stack, base)
    return await control_plane(stack, base), base


async def _make_zones(database: Database, settings: Configuration, layout: Layout) -> None:
    for number in range(1, layout.zones + 1):
        row = ZoneRow(name=layout.zone(number), region=settings.region)
        await database.write(partial(hosts.ensure_zone, zone=row))


async def _raise(box: Box, base: Foundation, control: Control) -> None:
    """Have every host join that has not, and start its agent.

    That of one which was removed meanwhile hears so, takes down what it ran, and ends; it does not come back.
    """
    operator = await control.auth.authenticate((base.settings.etc / "admin.token").read_text().strip())
    for one in box.layout.members():
        if box.was_removed(one.host):
            continue
        if not box.has_joined(one.host):
            await box.join(one, await control.join_tokens.create(operator, one.zone, host=one.host))
        box.start(one)
        log.info("host.started", host=one.host, zone=one.zone)
