"""Where a replica goes: hosts are filtered, then scored.  Pure: a snapshot in, a choice out."""

import msgspec

from skep.model.errors import Exhausted
from skep.model.ids import Bytes, HostName


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A host as the scheduler sees it.  `promised` is the memory of the replicas it has already."""

    host: HostName
    ready: bool
    memory: Bytes
    promised: Bytes


def place(candidates: list[Candidate], memory: Bytes, overcommit: float = 4.0) -> HostName:
    """The ready host with the largest share of memory left, equal ones by name.

    Limits are upper bounds that few replicas reach, so a host may promise `overcommit` times its memory.

    Raises:
        Exhausted: no host has room; says what stands in the way.
    """
    ready = [candidate for candidate in candidates if candidate.ready]
    if not ready:
        raise Exhausted(f"None of the {len(candidates)} hosts is ready.")
    fitting = [host for host in ready if host.promised + memory <= host.memory * overcommit]
    if not fitting:
        raise Exhausted(
            f"No host has room for {memory} bytes of memory: {len(ready)} ready hosts have promised "
            "all they may. Lower memory limits, remove replicas, or add a host."
        )
    return min(fitting, key=lambda host: (host.promised / host.memory, host.host)).host
