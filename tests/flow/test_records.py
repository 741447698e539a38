"""Reading runs and their steps back: by every condition, with the steps of fan-outs, however large."""

import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from tests.flow.rows import a_run, a_step, prepare

from skep.flow import Database
from skep.flow.definition.expressions import Fields, Reference
from skep.flow.definition.plan import Each, Plan, PlannedStep
from skep.flow.runs import RunFilter, RunState, StepState
from skep.flow.steps import RunId
from skep.flow.storage import listing, records
from skep.flow.storage.journal import Journal

ITEMS = Reference("input", ("hosts",))
PLAN = Plan(
    "fleet",
    {"hosts": "list[str]"},
    (
        PlannedStep("check", "fleet.check"),
        PlannedStep(
            "roll", after=(0,), each=Each(ITEMS, (PlannedStep("roll", "fleet.roll"),), Reference("roll"))
        ),
        PlannedStep(
            "make",
            after=(0, 1),
            each=Each(
                ITEMS,
                (
                    PlannedStep("make.disk", "disk.create"),
                    PlannedStep(
                        "make.pull",
                        after=(0,),
                        each=Each(ITEMS, (PlannedStep("make.pull", "image.pull"),), Reference("make.pull")),
                    ),
                    PlannedStep("make.start", "engine.start", after=(0, 1)),
                ),
                Fields({"id": Reference("make.disk", ("id",))}),
            ),
        ),
        PlannedStep("note", "fleet.note", after=(2,)),
    ),
)


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = await Database.open(url, durable=False)
    await prepare(database)
    yield database
    await database.close()


@pytest.fixture
def journal(database: Database) -> Journal:
    return Journal(database)


def test_steps_of_items_are_listed_after_their_fan_out_by_number_then_as_in_the_plan() -> None:
    names = [
        *("roll[10]", "roll[2]", "make[0].start", "make[0].disk", "make[0].pull", "make[0].pull[1]"),
        *("make[0].pull[0]", "make[1].disk", "check", "roll[0].unknown"),
    ]

    listed = listing.entries(PLAN, names)

    assert [(entry.name, entry.use, entry.after) for entry in listed] == [
        ("check", "fleet.check", ()),
        ("roll", "fleet.roll", ("check",)),
        ("roll[0].unknown", "", ()),
        ("roll[2]", "fleet.roll", ()),
        ("roll[10]", "fleet.roll", ()),
        ("make", "", ("check", "roll")),
        ("make[0].disk", "disk.create", ()),
        ("make[0].pull", "image.pull", ("make[0].disk",)),
        ("make[0].start", "engine.start", ("make[0].disk", "make[0].pull")),
        ("make[0].pull[0]", "image.pull", ()),
        ("make[0].pull[1]", "image.pull", ()),
        ("make[1].disk", "disk.create", ()),
        ("note", "fleet.note", ("make",)),
    ]


async def test_steps_are_read_by_pages_and_without_results(database: Database, journal: Journal) -> None:
    content = msgspec.json.encode(PLAN)
    await database.write(lambda tx: journal.write_definition(tx, ("p" * 64, "fleet", content, 1.0)))
    journal.create_run(a_run("a", definition="p" * 64))
    journal.save_step(RunId("a"), "check", a_step(state=StepState.UNDONE, error="no", message="no"))
    for number in range(30):
        journal.save_step(RunId("a"), f"roll[{number}]", a_step(started=1.0))
    await journal.flushed()

    async with database.read() as connection:
        every = await records.steps(connection, RunId("a"))
        page = await records.steps(connection, RunId("a"), limit=2, offset=4)
        absent = await records.steps(connection, RunId("b"))

    assert every is not None
    assert page == every[4:6]
    assert (page[0].name, page[0].state) == ("roll[2]", StepState.SUCCEEDED)
    assert (len(every), every[0].state, every[-1].state) == (34, StepState.FAILED, StepState.PENDING)
    assert absent is None


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({}, "dcba"),
        ({"tenant": "t"}, "b"),
        ({"flow": "g"}, "c"),
        ({"states": (RunState.FAILED, RunState.WAITING)}, "da"),
        ({"active": True}, "dcb"),
        ({"active": False}, "a"),
        ({"labels": {"app": "x"}}, "ba"),
        ({"labels": {"app": "x", "zone": "z"}}, "b"),
        ({"failed_step": "s"}, "a"),
        ({"failed_step": "r_ll"}, "c"),
        ({"created_after": datetime.fromtimestamp(2.0, UTC)}, "dc"),
        ({"created_before": datetime.fromtimestamp(2.0, UTC)}, "a"),
        ({"flow": "f", "active": True, "states": (RunState.RUNNING,)}, "b"),
    ],
)
async def test_runs_are_found_by_every_condition(
    database: Database, journal: Journal, where: dict[str, Any], found: str
) -> None:
    for run in (
        a_run("a", state=RunState.FAILED, finished=3.0, created=1.0, labels={"app": "x"}),
        a_run("b", state=RunState.RUNNING, created=2.0, tenant="t", labels={"app": "x", "zone": "z"}),
        a_run("c", state=RunState.RUNNING, created=3.0, flow="g"),
        a_run("d", state=RunState.WAITING, created=4.0),
    ):
        journal.create_run(run)
    journal.save_step(RunId("a"), "s", a_step(state=StepState.UNDONE, error="no"))
    journal.save_step(RunId("b"), "s", a_step())
    journal.save_step(RunId("c"), "r_ll[3].x", a_step(state=StepState.FAILED, error="no"))
    journal.save_step(RunId("d"), "roll[3]", a_step(state=StepState.FAILED, error="no"))
    await journal.flushed()

    async with database.read() as connection:
        ids = await records.select_ids(connection, RunFilter(**where), 10)
        runs = await records.runs(connection, RunFilter(**where), limit=10)
        older = await records.runs(connection, RunFilter(**where), limit=10, before=RunId("d"))

    assert "".join(ids) == "".join(run.id for run in runs) == found
    assert "".join(run.id for run in older) == found.replace("d", "")


async def test_a_run_of_100_000_steps_is_shown_at_once(database: Database, journal: Journal) -> None:
    size = 100_000
    journal.create_run(a_run("a", state=RunState.RUNNING, total=size))
    journal.create_run(a_run("b", state=RunState.SUCCEEDED, total=size, finished=2.0))
    for number in range(size):
        journal.save_step(RunId("a"), f"roll[{number}]", a_step())
    await journal.flushed()

    begun = time.perf_counter()
    async with database.read() as connection:
        running, ended = [await records.run(connection, RunId(name)) for name in ("a", "b")]
    took = time.perf_counter() - begun

    assert running is not None
    assert ended is not None
    assert (running.done, running.total, ended.done) == (size, size, size)
    assert took < 1.0  # seen: 0.1 s
