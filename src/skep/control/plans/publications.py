"""Which ports of hosts a release publishes: numbers that stay, numbers that are new, numbers it gives up.

A number is one in the whole installation: every host that runs a replica of the service publishes it, and
leads to its own replicas first.

Pure.  `flows/release.py` writes the rows.  What a release gives up stays its app's until the release is
finished: the way back must not find that somebody else has the number by now.
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

import msgspec

from skep.control.plans.plans import Plan
from skep.model.errors import Conflict, Exhausted
from skep.model.ids import HostName, ServiceId, TenantId, new_id
from skep.model.names import ServiceName
from skep.model.needs import NODE_PORTS
from skep.model.spec import AppSpec, PublishedPort
from skep.store.networks import PublishedRow

ANYWHERE = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - every address of the host
DYNAMIC = range(49_152, 65_536)
"""RFC 6335."""


class HasPlace(Protocol):
    @property
    def protocol(self) -> str: ...
    @property
    def host_ip(self) -> str: ...


class Publications(msgspec.Struct, frozen=True, kw_only=True):
    """`superseded` rows must go before `new` ones are made: they hold the same numbers."""

    new: tuple[PublishedRow, ...]
    superseded: tuple[PublishedRow, ...]


def clash(one: HasPlace, number: int | None, other: HasPlace, other_number: int | None) -> bool:
    """Whether both want one port of one address; every address includes each."""
    if number is None or (one.protocol, number) != (other.protocol, other_number):
        return False
    return one.host_ip == other.host_ip or one.host_ip in ANYWHERE or other.host_ip in ANYWHERE


def choose(plan: Plan, spec: AppSpec, tenant: TenantId, others: Iterable[PublishedRow]) -> Publications:
    """Rows for what is published anew.  `others` are the rows of everybody else.

    Raises:
        Conflict: a port is taken.  Exhausted: no port is left to choose.
    """
    stays = list(kept(plan, spec).values())
    before = [row for row in plan.published_before if row not in stays]
    used = {row.published for row in (*others, *plan.published_before)} | _asked_for(spec)
    new: list[PublishedRow] = []
    for name, port in _missing(plan, spec):
        number = port.published or _free(used, NODE_PORTS if plan.in_cluster else DYNAMIC)
        used.add(number)
        if any(clash(port, number, row, row.published) for row in (*others, *stays, *new)):
            raise Conflict(f"Port {number}/{port.protocol} is already published by another service.")
        new.append(
            PublishedRow(
                id=new_id(),
                tenant_id=tenant,
                service_id=plan.services[name],
                host_ip=port.host_ip,
                protocol=port.protocol,
                published=number,
                target=port.target,
            )
        )
    superseded = [
        row for row in before if any(clash(row, row.published, other, other.published) for other in new)
    ]
    return Publications(new=tuple(new), superseded=tuple(superseded))


def kept(plan: Plan, spec: AppSpec) -> Mapping[tuple[ServiceName, int], PublishedRow]:
    """The rows of before that go on, by service and place among its ports; a chosen number stays chosen."""
    left = list(plan.published_before)
    result = {}
    for name in plan.republish:
        ports = list(enumerate(spec.services[name].ports))
        for index, port in sorted(ports, key=lambda item: item[1].published is None):
            offered = (row for row in left if not plan.in_cluster or row.published in NODE_PORTS)
            row = next((row for row in offered if _same(row, plan, name, port)), None)
            if row is not None:
                left.remove(row)
                result[name, index] = row
    return result


def losers(plan: Plan, spec: AppSpec) -> dict[ServiceId, tuple[HostName, ...]]:
    """Services (and their hosts until now) some of whose ports go to another service of the app."""
    return {
        row.service_id: plan.published_on.get(row.service_id, ())
        for row in plan.published_before
        for name in plan.republish
        for port in spec.services[name].ports
        if plan.services[name] != row.service_id and clash(row, row.published, port, port.published)
    }


def _missing(plan: Plan, spec: AppSpec) -> list[tuple[ServiceName, PublishedPort]]:
    stays = kept(plan, spec)
    present = {change.service for change in plan.replicas}
    return [
        (name, port)
        for name in sorted(present & set(plan.republish))
        for index, port in enumerate(spec.services[name].ports)
        if (name, index) not in stays
    ]


def _same(row: PublishedRow, plan: Plan, name: ServiceName, port: PublishedPort) -> bool:
    return (row.service_id, row.target, row.protocol, row.host_ip) == (
        plan.services[name],
        port.target,
        port.protocol,
        port.host_ip,
    ) and port.published in (None, row.published)


def _asked_for(spec: AppSpec) -> set[int]:
    return {port.published for service in spec.services.values() for port in service.ports if port.published}


def _free(used: set[int], among: range) -> int:
    number = next((number for number in among if number not in used), None)
    if number is None:
        raise Exhausted(f"All ports from {among.start} to {among.stop - 1} are published already.")
    return number
