"""Steps by which what runs is replaced: proving what is new, letting go what is old, judging."""

import asyncio
import contextlib

import msgspec

from skep.control import canary
from skep.control.canary import Sides
from skep.control.flows.environment import Cloud, OnHost
from skep.control.flows.waiting import telling
from skep.flow import step
from skep.model.errors import NotFound, SkepError, Unavailable
from skep.model.host import ContainerState, ContainerStatus, Health
from skep.model.ids import ContainerId, ReplicaId, ServiceId
from skep.model.spec import ReleasePolicy
from skep.store import replicas as rows

LOOK = 0.25
"""Seconds between two looks at a container."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """`problems` of all batches until now; `over`: they are more than the service allows."""

    problems: list[str]
    over: bool
    words: str


@step(kind="transactional")
async def withdraw(
    cx: Cloud,
    weights: dict[ReplicaId, int],
    before: dict[ReplicaId, int],
    containers: dict[ReplicaId, ContainerId],
    previous: dict[ReplicaId, ContainerId],
) -> None:
    """No new connections to replicas that get another container, which is theirs from now on."""
    await rows.set_weights(cx.tx, weights)
    for replica, container in containers.items():
        await rows.set_container(cx.tx, replica, container)


@withdraw.undo
async def _point_back(
    cx: Cloud,
    weights: dict[ReplicaId, int],
    before: dict[ReplicaId, int],
    containers: dict[ReplicaId, ContainerId],
    previous: dict[ReplicaId, ContainerId],
) -> None:
    await rows.set_weights(cx.tx, before)
    for replica, container in previous.items():
        await rows.set_container(cx.tx, replica, container)


@step
async def drain(cx: OnHost, container: ContainerId, seconds: float) -> None:
    """Connections to the container have ended, or had so many seconds to."""
    await _drain(cx, container, seconds)


@step
async def prove(cx: OnHost, container: ContainerId, seconds: float, grace: float) -> None:
    """A container that is ready stays well for so many seconds; undone, its connections end before it does.

    Raises:
        Unavailable: it became unhealthy, ended, or was started again.
    """
    await _watch(cx, container, seconds)


@prove.undo
async def _let_go(cx: OnHost, container: ContainerId, seconds: float, grace: float) -> None:
    await _drain(cx, container, grace)
    with contextlib.suppress(NotFound):
        await cx.env.host.engine.stop(container)


@step
async def attempt(cx: OnHost, container: ContainerId, patience: float, seconds: float, grace: float) -> str:
    """As ready and prove, but answers what is wrong, or ""; a verdict over all of them follows."""
    said: list[str] = []
    try:
        async with telling(cx, container) as said, asyncio.timeout(patience):
            await cx.env.host.engine.wait_ready(container)
        await _watch(cx, container, seconds)
    except TimeoutError:
        return ": ".join([f"it was not ready within {patience:g} s", *said])
    except Unavailable as error:
        return error.message
    return ""


@attempt.undo
async def _let_go_attempted(
    cx: OnHost, container: ContainerId, patience: float, seconds: float, grace: float
) -> None:
    await _let_go(cx, container, seconds, grace)


@step
async def judge(
    cx: Cloud, outcomes: list[str], earlier: list[str], replicas: int, ratio: float, action: str
) -> Verdict:
    """Whether too many replicas of a service have failed.

    Raises:
        Unavailable: they have, and then the release is to be taken back.
    """
    problems = earlier + [outcome for outcome in outcomes if outcome]
    over = len(problems) > ratio * replicas
    words = f"{len(problems)} of {replicas} replicas failed: {problems[-1]}" if problems else ""
    if over and action == "rollback":
        raise Unavailable(words)
    return Verdict(problems=problems, over=over and action == "pause", words=words)


@step
async def count(cx: Cloud, services: list[ServiceId], revision: int) -> dict[ServiceId, Sides]:
    """What endpoints have counted until now of the services, of the revision and of others."""
    if cx.env.counting is None:
        return {}
    return dict(await cx.env.counting.counts(services, revision))


@step
async def compare(
    cx: Cloud,
    service: ServiceId,
    revision: int,
    before: dict[ServiceId, Sides],
    max_error_rate: float,
    max_latency: float,
) -> str:
    """What was compared, in words.

    Raises:
        Unavailable: the revision answers worse than what it is to replace, by more than is allowed.
    """
    counted = {} if cx.env.counting is None else await cx.env.counting.counts([service], revision)
    if service not in counted:
        return "Nobody counts its requests: readiness, restarts and health were looked at."
    then, now = before.get(service, Sides()), counted[service]
    new, old = canary.since(then.new, now.new), canary.since(then.old, now.old)
    policy = ReleasePolicy(max_error_rate=max_error_rate, max_latency=max_latency)
    if wrong := canary.fault(new, old, policy):
        raise Unavailable(f"The new revision answers worse: {wrong}.")
    return f"{new.requests} requests of the new revision, {old.requests} of the old one: as good."


@step
async def restarts(cx: OnHost, container: ContainerId) -> int:
    """How often the container was started again until now."""
    return (await cx.env.host.engine.inspect(container)).restarts


@step
async def still_well(cx: OnHost, container: ContainerId, restarts: int) -> None:
    """Raises Unavailable: it is unhealthy, has ended, or was started again since they were counted."""
    _must_be_well(await cx.env.host.engine.inspect(container), restarts)


async def _watch(cx: OnHost, container: ContainerId, seconds: float) -> None:
    status = await cx.env.host.engine.inspect(container)
    begun = status.restarts
    _must_be_well(status, begun)
    until = asyncio.get_running_loop().time() + seconds
    while (left := until - asyncio.get_running_loop().time()) > 0:
        await asyncio.sleep(min(LOOK, left))
        _must_be_well(await cx.env.host.engine.inspect(container), begun)


def _must_be_well(status: ContainerStatus, restarts: int) -> None:
    if status.state is ContainerState.EXITED and status.exit_code != 0:
        raise Unavailable(f"The container ended with exit code {status.exit_code}.")
    if status.restarts > restarts or status.state is ContainerState.RESTARTING:
        raise Unavailable("The container ended and was started again.")
    if status.health is Health.UNHEALTHY:
        raise Unavailable(f"The container became unhealthy. {status.health_output}".rstrip())


async def _drain(cx: OnHost, container: ContainerId, seconds: float) -> None:
    """A host that cannot tell counts as one without connections."""
    until = asyncio.get_running_loop().time() + seconds
    with contextlib.suppress(SkepError):
        while await cx.env.host.engine.connections(container):
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                return
            await asyncio.sleep(min(LOOK, left))
