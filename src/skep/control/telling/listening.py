"""At which ports a service is known to listen.  Pure.

Skep's own hosts lead every port of a virtual IP; clusters must be told which.
"""

from collections.abc import Iterable, Iterator
from typing import Literal

from skep.model.images import ImageConfig
from skep.model.spec import ServiceSpec

Listening = tuple[tuple[int, Literal["tcp", "udp"]], ...]
_MOST = 100
"""More are too many to be named one by one; then none is."""
_LAST = 65_535


def listening(service: ServiceSpec, image: ImageConfig) -> Listening:
    """What it exposes or publishes, what its endpoints lead to, and what its image exposes, in order."""
    found = set(_written([*service.expose, *image.exposed_ports]))
    found |= {(one.target, one.protocol) for one in service.ports}
    found |= {(one.port, "tcp") for one in service.x_skep.endpoints if one.port is not None}
    return tuple(sorted(found)) if len(found) <= _MOST else ()


def together(known: Iterable[Listening]) -> Listening:
    """Of several releases of a service at the same time."""
    return tuple(sorted({port for ports in known for port in ports}))


def _written(texts: Iterable[str]) -> Iterator[tuple[int, Literal["tcp", "udp"]]]:
    """Of `8080`, `53/udp`, `8000-8010`; what is none of these is left out."""
    for text in texts:
        numbers, _, protocol = text.partition("/")
        first, _, last = numbers.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()):
            continue
        end = min(int(last or first), int(first) + _MOST, _LAST)
        for port in range(max(int(first), 1), end + 1):
            if protocol in ("", "tcp"):
                yield port, "tcp"
            elif protocol == "udp":
                yield port, "udp"
