"""The way from this machine to the edges of a box's hosts: names below `localhost` lead to 127.0.0.1.

One more HAProxy, which passes connections on to whichever host takes them.  Like those of the hosts it is
nobody's child, and ends with `down`.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address

import structlog

from skep.model.errors import Conflict, HostFailure
from skep.providers.local.edge.place import Place
from skep.providers.local.edge.process import Process

log = structlog.get_logger("skep.box")

EDGE = (80, 443)
"""Where the hosts of a box serve endpoints."""


async def start_front(instance: str, ports: tuple[int, int], hosts: Sequence[IPv4Address]) -> None:
    """Have it lead to these hosts; `ports` are those of 127.0.0.1 for HTTP and HTTPS, 0: none.

    A port that another process has is no reason for the box not to start: it is said.
    """
    place = Place.of(instance)
    place.make()
    place.write(place.config, configuration(place, ports, hosts))
    process = Process(place, (), _ended)
    try:
        await process.start()
    except (Conflict, HostFailure) as error:
        log.warning("front.down", error=error.message)
    finally:
        process.release()


def configuration(place: Place, ports: tuple[int, int], hosts: Sequence[IPv4Address]) -> str:
    listens = [_listen(own, edge, hosts) for own, edge in zip(ports, EDGE, strict=True) if own]
    return "\n".join([_GLOBAL.format(admin=place.admin), *listens])


_GLOBAL = """\
global
    stats socket {admin} mode 600 level admin expose-fd listeners
    maxconn 4000
    noreuseport
    hard-stop-after 24h

defaults
    mode tcp
    timeout connect 1s
    timeout client 1d
    timeout server 1d
    retries 5
    option redispatch 1
"""


def _listen(own: int, edge: int, hosts: Sequence[IPv4Address]) -> str:
    servers = [f"    server host-{number} {address}:{edge}" for number, address in enumerate(hosts, 1)]
    return "\n".join([f"listen to_{edge}", f"    bind 127.0.0.1:{own}", *servers, ""])


def _ended() -> None:
    """Nobody watches it."""
