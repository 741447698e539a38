"""What of an app is not as its current release says, and what becomes of it.  Pure."""

from collections.abc import Collection, Iterator, Mapping, Sequence

import msgspec

from skep.control.naming import fingerprint
from skep.model.host import ContainerState, ContainerStatus, Health
from skep.model.ids import ContainerId, HostName
from skep.model.names import ServiceName
from skep.model.spec import RestartPolicy
from skep.model.views.rollouts import DriftView
from skep.store.releases import ReleaseRow
from skep.store.replicas import ContainerRow, ReplicaRow


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What is there: `runs` change the app now, `silent` hosts do not answer."""

    release: ReleaseRow
    replicas: Sequence[ReplicaRow]
    containers: Mapping[ContainerId, ContainerRow]
    silent: Mapping[HostName, str]
    runs: Collection[str]


def drift(found: Standing) -> Iterator[DriftView]:
    """In the order of names; nothing if all is as it should be."""
    changing = _changing(found.runs)
    yield from _numbers(found, changing)
    for row in found.replicas:
        if row.desired == "running":
            yield from _replica(row, found, changing)
        else:
            yield DriftView(
                what=row.name,
                is_="stopped",
                wanted="running",
                doing=changing or "asked for: see `skep start`",
            )


def _numbers(found: Standing, changing: str) -> Iterator[DriftView]:
    for name, service in found.release.spec.services.items():
        rows = [row for row in found.replicas if row.service == name]
        beside = sum(row.stand_in for row in rows)
        if len(rows) - beside != service.replicas:
            yield DriftView(
                what=name,
                is_=f"{len(rows) - beside} replicas",
                wanted=f"{service.replicas} replicas",
                doing=changing or "the next apply or scale settles it",
            )
        if beside:
            yield DriftView(
                what=name,
                is_=f"{beside} stand-ins",
                wanted="none",
                doing=changing or "the next apply removes them",
            )


def _replica(row: ReplicaRow, found: Standing, changing: str) -> Iterator[DriftView]:
    name = ServiceName(row.service)
    service = found.release.spec.services.get(name)
    if service is None:
        yield DriftView(what=row.name, is_="there", wanted="not there", doing=changing or "the next apply")
        return
    if row.host in found.silent:
        yield DriftView(
            what=row.name,
            is_=f"unknown: host {row.host} {found.silent[row.host]}",
            wanted="running",
            doing="connections go to others; the host is waited for",
        )
        return
    yield from _condition(row, service.restart, changing)
    made, image = found.containers.get(row.container_id), found.release.images.get(name)
    if made is not None and image is not None:
        wanted = fingerprint(found.release.spec, name, image.digest)
        if made.fingerprint != wanted:
            yield DriftView(
                what=row.name,
                is_="made for another release",
                wanted=f"as of revision {found.release.revision}",
                doing=changing or "the next apply makes it anew",
            )
    if row.weight == 0 and row.status is not None and row.status.state is ContainerState.RUNNING:
        yield DriftView(
            what=row.name, is_="without connections", wanted="its share", doing=changing or "the next apply"
        )


def _condition(row: ReplicaRow, policy: RestartPolicy, changing: str) -> Iterator[DriftView]:
    status = row.status if row.status is not None and row.status.id == row.container_id else None
    if status is None or status.state is ContainerState.CREATED:
        yield DriftView(
            what=row.name, is_="not there", wanted="running", doing=changing or "it is made again"
        )
    elif status.state is not ContainerState.RUNNING:
        if status.state is ContainerState.EXITED and status.exit_code == 0:
            return  # its one job is done
        yield DriftView(
            what=row.name,
            is_=f"{status.state.value}{_why(status)}",
            wanted="running",
            doing=changing or _revival(status, policy),
        )
    elif status.health is Health.UNHEALTHY:
        yield DriftView(
            what=row.name,
            is_="unhealthy",
            wanted="healthy",
            doing=changing or "connections go to others as long as one is well",
        )


def _why(status: ContainerStatus) -> str:
    said = [str(status.exit_code)] if status.exit_code is not None else []
    said += ["out of memory"] if status.oom_killed else []
    said += [status.error] if status.error else []
    return f" ({', '.join(said)})" if said else ""


def _revival(status: ContainerStatus, policy: RestartPolicy) -> str:
    if status.exit_code is None:
        return "it is made again"
    if policy.condition == "no" or (policy.max_attempts and status.restarts >= policy.max_attempts):
        return "nothing: its restart policy leaves it as it is"
    return f"it is started again, after a pause that grows ({status.restarts} times so far)"


def _changing(runs: Collection[str]) -> str:
    return f"run {', '.join(sorted(runs))} is changing the app" if runs else ""
