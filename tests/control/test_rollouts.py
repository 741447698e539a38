"""A release on its way: what is told of it, and how it is steered."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.control.installation import Installation, installation
from tests.control.simulation import app, service
from tests.control.test_scaling import replica

from skep.control.apps.phases import phase, services
from skep.flow import Priority, RunId, RunRecord, StepRecord
from skep.flow.runs import RunState, StepState
from skep.model.errors import Conflict
from skep.model.spec import HealthCheck, UpdateConfig

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SICK = HealthCheck(test=("CMD", "false"), interval=0.01, retries=1)
WATCHED = UpdateConfig(monitor=600.0)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


def run(state: RunState = RunState.RUNNING) -> RunRecord:
    return RunRecord(
        id=RunId("run"),
        flow="app.apply",
        title="apply shop",
        tenant="t",
        labels={},
        state=state,
        done=1,
        total=5,
        input={},
        output={},
        error="",
        priority=Priority.NORMAL,
        worker="",
        deadline=None,
        parent="",
        created=NOW,
        started=NOW,
        finished=None,
    )


def step(name: str, use: str, state: StepState = StepState.RUNNING) -> StepRecord:
    return StepRecord(
        name=name,
        use=use,
        state=state,
        after=(),
        attempts=1,
        started=NOW,
        finished=None,
        message="",
    )


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([step("web-0-ready", "engine.ready")], "waiting for web-0 to be ready"),
        (
            [step("web-0.place", "replica.place"), step("web-1.place", "replica.place")],
            "starting web-0, web-1",
        ),
        (
            [step("web-shift", "traffic.shift"), step("done", "engine.start", StepState.SUCCEEDED)],
            "switching",
        ),
        (
            [step("web-0-drain", "rollout.drain"), step("web-1-drain", "rollout.drain")],
            "draining web-0, web-1",
        ),
        ([step("web-1-approval", "", StepState.WAITING)], "asks whether to go on"),
        ([], "going on"),
    ],
)
def test_what_is_done_now_is_told_in_words(steps: list[StepRecord], words: str) -> None:
    assert phase(run(), steps).startswith(words)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (RunState.PAUSED, "paused"),
        (RunState.FAILED, "failed, and was taken back"),
        (RunState.SUCCEEDED, "in force"),
    ],
)
def test_what_is_held_or_over_says_so(state: RunState, words: str) -> None:
    assert phase(run(state), [step("web-0", "engine.start")]) == words


def test_replicas_of_no_known_release_are_old() -> None:
    [web] = services([replica(0), replica(1)], {}, None)

    assert (web.old, web.new, web.old_weight, web.new_weight) == (2, 0, 200, 0)


async def test_a_release_that_came_into_force_is_told_of(house: Installation) -> None:
    await house.finish(await house.control.apps.apply(house.admin, app(web=service(replicas=2))))

    found = await house.control.rollouts.show(house.admin, "shop")

    assert (found.state, found.phase, found.revision) == ("succeeded", "in force", 1)
    assert [(one.old, one.new, one.ready) for one in found.services] == [(0, 2, 2)]
    with pytest.raises(Conflict, match="the last one ended"):
        await house.control.rollouts.pause(house.admin, "shop")


async def test_a_release_that_failed_says_why(house: Installation) -> None:
    control, admin = house.control, house.admin
    await house.finish(await control.apps.apply(admin, app(web=service())))
    failing = await control.apps.apply(admin, app(web=service(healthcheck=SICK)))
    assert failing.run is not None
    await house.flows.wait(RunId(failing.run), 30)

    found = await control.rollouts.show(admin, "shop")

    assert (found.state, found.phase, found.revision) == ("failed", "failed, and was taken back", 2)
    assert "web-0" in found.error


async def test_a_release_is_paused_resumed_and_aborted(house: Installation) -> None:
    control, admin = house.control, house.admin
    await house.finish(await control.apps.apply(admin, app(web=service())))
    accepted = await control.apps.apply(admin, app(web=service(environment={"MODE": "two"}, update=WATCHED)))
    assert accepted.run is not None

    await control.rollouts.pause(admin, "shop")
    paused = await control.rollouts.show(admin, "shop")
    await control.rollouts.resume(admin, "shop")
    await control.rollouts.abort(admin, "shop")
    await house.flows.wait(RunId(accepted.run), 30)

    over = await control.rollouts.show(admin, "shop")
    assert (paused.phase, over.phase) == ("paused", "aborted, and was taken back")
    assert (await control.apps.show(admin, "shop")).app.revision == 1
