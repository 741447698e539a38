"""Whose a published port is, when a host is told of services in another order than the rows were read.  Pure.

In the rows of control a port is one service's at a time.  So of two services that were told to publish the
same one it is that one's whose rows were read later: the other had given it up by then.
"""

from collections.abc import Collection, Iterable

import msgspec

from skep.model.errors import Conflict, Stale
from skep.model.host import Publication, ServicePublications

ANY_ADDRESS = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to


def give_way(told: ServicePublications, known: Iterable[ServicePublications]) -> list[ServicePublications]:
    """What others publish from now on, of those that lose ports to what is told.

    Raises:
        Stale: something younger is known, of the service or of another that has one of its ports.
        Conflict: another service has one of its ports, and which was read later is not said: control is of
            a release that does not say it.
    """
    changed = []
    for other in known:
        if other.service == told.service:
            _must_be_younger(told, other, "is known of it")
        elif lost := [one for one in other.publications if _wanted(one, told.publications)]:
            if not told.generation:
                raise Conflict(
                    f"Port {lost[0].published}/{lost[0].protocol} is already published by service "
                    f"{other.service}.",
                    port=lost[0].published,
                )
            _must_be_younger(told, other, f"gives port {lost[0].published} to service {other.service}")
            left = tuple(one for one in other.publications if one not in lost)
            changed.append(msgspec.structs.replace(other, publications=left))
    return changed


def _must_be_younger(told: ServicePublications, other: ServicePublications, what: str) -> None:
    if told.generation and told.generation < other.generation:
        raise Stale(f"What service {told.service} is to publish is outdated: something younger {what}.")


def _wanted(one: Publication, others: Collection[Publication]) -> bool:
    return any(_overlap(one, other) for other in others)


def _overlap(one: Publication, other: Publication) -> bool:
    same_port = (one.protocol, one.published) == (other.protocol, other.published)
    anywhere = one.host_ip in ANY_ADDRESS and other.host_ip in ANY_ADDRESS
    return same_port and (anywhere or one.host_ip == other.host_ip)
