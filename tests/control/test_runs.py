"""What control makes of runs: who learns what, and those that are archived."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.control.installation import REGISTRY, Installation, installation

from skep.control.callers import Caller, Role
from skep.control.runs import run_views
from skep.control.runs.run_selection import Selection, fitting, where
from skep.flow import Reason, Registry, RunFilter, RunId, RunState, StepRecord, StepState, StepWait
from skep.flow.storage.retention import Archivist
from skep.flow.storage.retention_policy import RetentionPolicy
from skep.model.errors import Conflict, InvalidInput, NotFound

HOLD = """
flow: hold
input: {shelf: str}
lock: [shelf/$input.shelf]
steps:
  go: {wait: signal, with: {name: go}}
"""


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    registry = Registry(REGISTRY)
    registry.add_flow(HOLD, "hold.yaml")
    async with installation(tmp_path, registry) as made:
        yield made


async def start(house: Installation, caller: Caller, shelf: str) -> str:
    run = await house.flows.start("hold", {"shelf": shelf}, tenant=caller.tenant)
    async for event in house.flows.follow(run):
        if event.kind in ("waiting", "run-created"):
            break
    return run


async def until(house: Installation, run: str, kind: str) -> None:
    async for event in house.flows.follow(RunId(run)):
        if event.kind == kind:
            return


async def ended(house: Installation, caller: Caller, shelf: str) -> str:
    run = await start(house, caller, shelf)
    await house.control.runs.signal(caller, run, "go")
    await house.flows.wait(RunId(run), 10)
    return run


async def test_why_tells_nobody_of_runs_of_other_tenants(house: Installation) -> None:
    await house.control.tenants.create(house.admin, "other")
    stranger = await house.person("kim", Role.MEMBER, "other")
    theirs = await start(house, house.admin, "one")
    await until(house, theirs, "waiting")
    mine = await start(house, stranger, "one")

    (seen,) = await house.control.runs.why(stranger, mine)
    (whole,) = await house.control.runs.why(house.admin, mine)

    assert seen.reasons[0].kind == whole.reasons[0].kind == "lock"
    assert theirs not in str(seen)
    assert "somebody else" in seen.reasons[0].message
    assert theirs in whole.reasons[0].message
    assert whole.reasons[0].holders == (theirs,)


def test_tenants_are_called_by_their_names_in_reasons() -> None:
    tenant, hidden = "01jdabcdefghjkmnpqrs", "01jdabcdefghjkmnpqrt"
    found = StepWait(
        step="a",
        state="pending",
        reasons=(
            Reason(
                kind="fairness",
                subject=f"tenant/{tenant}/builds",
                message=f"2 tenants that had less go before it: {tenant}, {hidden}.",
                holders=(tenant, hidden),
            ),
        ),
    )

    (view,) = run_views.waits([found], {tenant: "acme", hidden: None}.__getitem__)

    assert run_views.ids_in([found]) == {tenant, hidden}
    assert view.reasons[0].subject == "tenant/acme/builds"
    assert view.reasons[0].message == "2 tenants that had less go before it: acme, somebody else."
    assert view.reasons[0].holders == ("acme",)


def test_a_holder_is_named_with_its_step() -> None:
    run = "01a20a8a338c0000d686ea46"
    reason = Reason(
        kind="limit",
        subject="builds",
        message=f"builds is in use by 1 of 1: {run}/roll[3].create.",
        holders=(f"{run}/roll[3].create",),
    )

    shown = run_views.reason(reason, lambda found: found)
    hidden = run_views.reason(reason, lambda _found: None)

    assert shown.message == reason.message
    assert shown.holders == reason.holders
    assert hidden.message == "builds is in use by 1 of 1: somebody else."
    assert hidden.holders == ()


async def test_archived_runs_are_shown_listed_and_left_alone(house: Installation) -> None:
    member = await house.person("kim", Role.MEMBER)
    run = await ended(house, member, "two")
    before = await house.control.runs.show(member, run)
    history = [event async for event in house.control.runs.follow(member, run)]

    moved = await Archivist(house.database, RetentionPolicy(keep=-1.0)).look()

    assert moved == 1
    after = await house.control.runs.show(member, run)
    assert after.run.archived
    assert not before.run.archived
    assert after.steps == before.steps
    assert [event async for event in house.control.runs.follow(member, run)] == history
    assert [one.id for one in await house.control.runs.list(member, archived=True)] == [run]
    assert await house.control.runs.list(member, Selection(flow="hold")) == []
    assert (await house.control.runs.critical(member, run)).steps[0].step == "go"
    assert await house.control.runs.why(member, run) == []
    with pytest.raises(Conflict, match="archived"):
        await house.control.runs.rerun(house.admin, run)
    with pytest.raises(InvalidInput):
        await house.control.runs.list(member, Selection(schedule="x"), archived=True)


async def test_archived_runs_of_other_tenants_are_not_found(house: Installation) -> None:
    await house.control.tenants.create(house.admin, "other")
    stranger = await house.person("kim", Role.MEMBER, "other")
    run = await ended(house, house.admin, "three")
    await Archivist(house.database, RetentionPolicy(keep=-1.0)).look()

    with pytest.raises(NotFound):
        await house.control.runs.show(stranger, run)
    assert await house.control.runs.list(stranger, archived=True) == []


async def test_an_approval_cannot_be_given_by_a_signal(house: Installation) -> None:
    run = await start(house, house.admin, "four")

    with pytest.raises(InvalidInput):
        await house.control.runs.signal(house.admin, run, "approval/ok", {"approved": True})


async def test_a_selection_means_the_callers_tenant_alone(house: Installation) -> None:
    await house.control.tenants.create(house.admin, "other")
    stranger = await house.person("kim", Role.MEMBER, "other")
    mine = await start(house, stranger, "five")
    theirs = await start(house, house.admin, "six")
    control = house.control

    acted = await control.runs.act(stranger, "cancel", selection=Selection(flow="hold"))
    refused = await control.runs.act(stranger, "cancel", runs=[theirs])
    everywhere = await control.runs.act(
        house.admin, "cancel", selection=Selection(flow="hold", tenants=True), dry=True
    )

    assert [(one.run, one.error) for one in acted] == [(mine, "")]
    assert "There is no run" in refused[0].error
    assert theirs in {one.run for one in everywhere}


@pytest.mark.parametrize(
    "selection", [Selection(states=("sleepy",)), Selection(created_after=datetime(2026, 1, 2))]
)
def test_conditions_that_make_no_sense_are_refused(selection: Selection) -> None:
    with pytest.raises(InvalidInput):
        where(selection, None, {})


def test_without_a_state_those_are_meant_with_which_it_can_be_done() -> None:
    anything = RunFilter()

    assert fitting(anything, "cancel").active is True
    assert fitting(anything, "resume").states == (RunState.PAUSED,)
    assert fitting(anything, "retry").states == (RunState.FAILED, RunState.CANCELLED)
    assert fitting(anything, "rerun").active is False
    assert fitting(RunFilter(active=True), "retry") == RunFilter(active=True)


def test_an_item_is_in_the_most_telling_state_of_its_steps() -> None:
    states = {
        "roll": "running",
        "roll[0].a": "succeeded",
        "roll[0].b": "succeeded",
        "roll[1].a": "succeeded",
        "roll[1].b": "running",
        "roll[2].a": "failed",
        "roll[3].c[0]": "waiting",
        "roll[3].c[1]": "succeeded",
    }
    steps = [
        StepRecord(
            name=name,
            use="x",
            state=StepState(state),
            after=(),
            attempts=1,
            started=datetime.now(UTC),
            finished=None,
            message="",
        )
        for name, state in states.items()
    ]

    counted = {"succeeded": 1, "running": 1, "failed": 1, "waiting": 1}
    assert run_views.items_of(steps) == {"roll": counted}
