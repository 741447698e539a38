"""Why a host is not taken, in words, and what to say when none is left."""

from collections import Counter
from collections.abc import Iterable

from skep.model.ids import Bytes, HostName
from skep.model.placement import LABEL, Constraint, left_to_nodes
from skep.schedule.candidates import Candidate, Group

UNITS = ((2**40, "TiB"), (2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))


def refusal(candidate: Candidate, group: Group) -> str:
    """Why no replica of the group may go there, whatever room it has; "" if one may."""
    if candidate.refuses:
        return candidate.refuses
    if candidate.cluster != group.cluster:
        return f"not in the cluster of zone {group.cluster}" if group.cluster else "a cluster"
    if not _is_open(candidate, group):
        return "in another tenant's pool"
    if not _is_near(candidate, group):
        return f"not in {_either(group.zones)}"
    for constraint in group.constraints:
        if not _allows(candidate, constraint):
            return f"without {constraint}"
    return ""


def unmet(candidates: Iterable[Candidate], group: Group) -> Constraint | None:
    """One that no host satisfies, whatever room there is, of those that the group may use."""
    fitting = [
        one
        for one in candidates
        if one.cluster == group.cluster and _is_open(one, group) and _is_near(one, group)
    ]
    if not fitting:
        return None
    return next((one for one in group.constraints if not any(_allows(host, one) for host in fitting)), None)


def _is_open(candidate: Candidate, group: Group) -> bool:
    return candidate.tenant in (None, group.tenant)


def _is_near(candidate: Candidate, group: Group) -> bool:
    return not group.zones or candidate.zone in group.zones


def _allows(candidate: Candidate, constraint: Constraint) -> bool:
    """A cluster allows what its nodes decide: it says itself why none of them is taken."""
    if candidate.cluster and left_to_nodes(constraint, candidate.attributes):
        return True
    return constraint.allows(candidate.attributes)


def lack(candidate: Candidate, group: Group, cpus: float, memory: int, here: int) -> str:
    """What is missing for one more replica beside the promised `cpus` and `memory`; "" if nothing is.

    How many of a service are on one node, a cluster sees to itself.
    """
    if group.max_per_host is not None and here >= group.max_per_host and not candidate.cluster:
        return f"with {group.max_per_host} of its replicas already"
    if memory + group.memory > candidate.memory:
        return "out of memory to promise"
    if cpus + group.cpus > candidate.cpus:
        return "out of CPUs to promise"
    return ""


def explanation(
    group: Group, unplaced: int, reasons: dict[HostName, str], constraint: Constraint | None = None
) -> str:
    """For the person who asked: the `constraint` that is unmet, how many hosts stand in the way by what."""
    if not reasons:
        return f"There is no host for {_wanted(group, unplaced)}: add one with 'skep host add'."
    counts = sorted(Counter(reasons.values()).items(), key=lambda item: (-item[1], item[0]))
    words = ", ".join(f"{count} {'is' if count == 1 else 'are'} {reason}" for reason, count in counts)
    of_hosts = f"of {len(reasons)} {_plural('host', len(reasons))} {words}."
    if constraint is not None:
        return (
            f"No host satisfies {constraint}, which {group.what} asks for: {of_hosts} {_remedy(constraint)}"
        )
    return (
        f"No host has room for {_wanted(group, unplaced)}: {of_hosts} Ask for less, remove what is not "
        "needed, or add a host."
    )


def _remedy(constraint: Constraint) -> str:
    instead = "take it out of deploy.placement.constraints"
    if constraint.key.startswith(LABEL) and constraint.operator == "==":
        label = f"{constraint.key.removeprefix(LABEL)}={constraint.value}"
        return f"Say 'skep host label HOST {label}', or {instead}."
    return f"Ask for what 'skep host ls' shows, or {instead}."


def _wanted(group: Group, unplaced: int) -> str:
    needs = readable(group.memory) + " of memory"
    needs += f" and {group.cpus:g} CPUs" if group.cpus else ""
    each = f"{needs} each" if group.replicas > 1 else needs
    some = f"{unplaced} of {group.replicas} replicas of " if group.replicas > 1 else ""
    return f"{some}{group.what} ({each})"


def readable(size: Bytes | int) -> str:
    for unit, name in UNITS:
        if size >= unit:
            return f"{size / unit:.4g} {name}"
    return f"{size} bytes"


def _either(names: tuple[str, ...]) -> str:
    return " or ".join(names) if len(names) < 4 else f"one of {len(names)} zones"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"
