"""Which replicas a service has when it is to have more or fewer.  Pure: rows in, ordinals out.

What is scaled away is what is missed least: a replica that does not serve, then one where most of the others
are, then the newest.  Where each replica has data of its own it is always the highest ordinal, so that the
next one finds the disks of the last; they stay.  Other services may so have holes among their ordinals,
which are filled first when they grow.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from skep.model.host import ContainerState, Health
from skep.model.ids import HostName, ZoneName
from skep.model.spec import ServiceSpec
from skep.store.replicas import ReplicaRow


def ordinals(
    wanted: ServiceSpec,
    present: Sequence[ReplicaRow],
    zones: Mapping[HostName, ZoneName] = {},
    silent: Collection[HostName] = (),
) -> list[int]:
    """The ordinals that the service will have, ascending; `silent`: hosts that do not answer."""
    if len(present) > wanted.replicas:
        gone = victims(wanted, present, len(present) - wanted.replicas, zones, silent)
        return sorted({row.ordinal for row in present} - {row.ordinal for row in gone})
    taken = {row.ordinal for row in present}
    free = (ordinal for ordinal in itertools.count() if ordinal not in taken)
    return sorted([*taken, *itertools.islice(free, wanted.replicas - len(taken))])


def victims(
    wanted: ServiceSpec,
    present: Sequence[ReplicaRow],
    count: int,
    zones: Mapping[HostName, ZoneName] = {},
    silent: Collection[HostName] = (),
) -> list[ReplicaRow]:
    """The `count` replicas that go."""
    if has_own_data(wanted):
        return sorted(present, key=lambda row: row.ordinal)[-count:]
    in_zone = Counter(zones.get(row.host, "") for row in present)
    on_host = Counter(row.host for row in present)
    alike: dict[tuple[bool, HostName], list[ReplicaRow]] = {}
    for row in sorted(present, key=_age):
        alike.setdefault((not serves(row, silent), row.host), []).append(row)

    def how_little_missed(kind: tuple[bool, HostName]) -> tuple[bool, int, int, tuple[float, int]]:
        idle, host = kind
        return idle, in_zone[zones.get(host, "")], on_host[host], _age(alike[kind][-1])

    chosen = []
    for _ in range(count):
        kind = max(alike, key=how_little_missed)
        chosen.append(alike[kind].pop())
        in_zone[zones.get(kind[1], "")] -= 1
        on_host[kind[1]] -= 1
        if not alike[kind]:
            del alike[kind]
    return chosen


def _age(row: ReplicaRow) -> tuple[float, int]:
    """The newest is the greatest."""
    return row.created, row.ordinal


def has_own_data(service: ServiceSpec) -> bool:
    """Each replica has disks that no other has."""
    volumes = [mount for mount in service.mounts if mount.type == "volume"]
    return any(service.x_skep.stateful or not mount.source for mount in volumes)


def serves(row: ReplicaRow, silent: Collection[HostName] = ()) -> bool:
    """It is wanted, runs, and is not known to be unwell."""
    if row.desired != "running" or row.host in silent or row.status is None:
        return False
    return row.status.state is ContainerState.RUNNING and row.status.health in (Health.NONE, Health.HEALTHY)
