"""Steps that do not wait share a task, and do not notice; what a call needs is durable before it begins."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.flow import workshop
from tests.flow.workshop import Workshop

from skep.flow import CommitFailed, Context, Database, FlowEngine, RunState, step
from skep.flow.storage import journal

pytestmark = pytest.mark.sqlite

MANY = """
flow: many
input: {numbers: "list[int]"}
steps:
  all: {use: code, each: $input.numbers, failures: 20, with: {number: $item}}
  again: {use: code, each: $input.numbers, failures: 20, with: {number: $item}, after: [all]}
output: {all: $all, again: $again}
"""
PAIR = """
flow: pair
input: {number: int}
steps:
  first: {use: code, with: {number: $input.number}}
  second: {use: code, with: {number: $first}}
"""
Code = Callable[[Context[Workshop], int], Awaitable[int]]
mark: ContextVar[int] = ContextVar("mark", default=-1)


@pytest.fixture(autouse=True)
async def quiet() -> AsyncIterator[None]:
    with capture_logs():
        yield


@asynccontextmanager
async def opened(database: Database, code: Code) -> AsyncIterator[FlowEngine]:
    registry = workshop.registry()
    code.__annotations__ = {"cx": Context[Workshop], "number": int, "return": int}
    registry.add_step(step(code), "code")
    async with FlowEngine(database, registry, lambda _route: Workshop(), grace=0) as engine:
        yield engine


async def outputs(database: Database, code: Code, numbers: int = 20) -> list[list[int | None]]:
    """What every number came to, the first time and again."""
    async with opened(database, code) as engine:
        run = await engine.start(engine.parse(MANY), {"numbers": list(range(numbers))})
        record = await engine.wait(run, 20)
    assert record.state is RunState.SUCCEEDED, record.error
    return [record.output["all"], record.output["again"]]


def this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def test_steps_that_do_not_wait_share_a_task_that_bears_the_name_of_each(database: Database) -> None:
    tasks: list[asyncio.Task[Any]] = []
    wrong: list[str] = []

    async def code(cx: Context[Workshop], number: int) -> int:
        tasks.append(this_task())
        if this_task().get_name() != f"{cx.run}/{cx.step}":
            wrong.append(this_task().get_name())
        return number

    found = await outputs(database, code)

    assert found == [list(range(20))] * 2
    assert wrong == []
    assert len(set(tasks[20:])) < 5


async def test_what_a_step_puts_into_its_context_is_seen_by_no_other(database: Database) -> None:
    async def code(_cx: Context[Workshop], number: int) -> int:
        seen = mark.get()
        mark.set(number)
        return seen

    assert await outputs(database, code) == [[-1] * 20] * 2


async def test_a_step_that_raises_at_once_fails_alone(database: Database) -> None:
    async def code(_cx: Context[Workshop], number: int) -> int:
        if number % 5 == 3:
            raise ValueError("three")
        return number

    wanted = [None if number % 5 == 3 else number for number in range(20)]
    assert await outputs(database, code) == [wanted] * 2


@pytest.mark.parametrize("take_back", [False, True])
async def test_a_step_that_cancels_itself_at_once_interrupts_no_other(
    database: Database, take_back: bool
) -> None:
    async def code(_cx: Context[Workshop], number: int) -> int:
        if number == 7:
            this_task().cancel()
            if take_back:
                this_task().uncancel()
        elif number == 8:
            await asyncio.sleep(0)  # it would hear of the cancellation of the one before
        return number

    wanted = [None if number == 7 and not take_back else number for number in range(20)]
    assert await outputs(database, code) == [wanted] * 2


async def test_a_step_that_waits_for_once_keeps_no_other_from_being_called(database: Database) -> None:
    gate, calls = asyncio.Event(), Counter[int]()

    async def code(_cx: Context[Workshop], number: int) -> int:
        calls[number] += 1
        if number == 5 and calls[5] == 2:
            await gate.wait()
        return number

    async with opened(database, code) as engine:
        run = await engine.start(engine.parse(MANY), {"numbers": list(range(20))})
        while sum(calls.values()) < 40:
            await asyncio.sleep(0.001)
        gate.set()
        record = await engine.wait(run, 5)

    assert record.state is RunState.SUCCEEDED


async def test_a_step_that_uses_timeouts_and_tasks_before_it_waits_finds_what_they_need(
    database: Database,
) -> None:
    async def nothing() -> None: ...

    async def code(_cx: Context[Workshop], number: int) -> int:
        async with asyncio.timeout(5), asyncio.TaskGroup() as group:
            group.create_task(nothing())
        return number

    assert await outputs(database, code) == [list(range(20))] * 2


async def test_cancelling_a_run_interrupts_its_own_step_though_it_shared_its_task(database: Database) -> None:
    gate, begun, ended = asyncio.Event(), asyncio.Event(), list[int]()

    async def code(_cx: Context[Workshop], number: int) -> int:
        if number < 0:
            begun.set()
            await gate.wait()
        ended.append(number)
        return number

    async with opened(database, code) as engine:
        pair = engine.parse(PAIR)
        await engine.wait(await engine.start(pair, {"number": 0}), 5)
        waits, goes_on = await asyncio.gather(
            engine.start(pair, {"number": -1}), engine.start(pair, {"number": 1})
        )
        await begun.wait()
        await engine.cancel(waits)
        records = [await engine.wait(run, 5) for run in (waits, goes_on)]

    assert [record.state for record in records] == [RunState.CANCELLED, RunState.SUCCEEDED]
    assert ended == [0, 0, 1, 1]


class Slow(Database):
    """Commits only when it may."""

    def __init__(self, engine: Any) -> None:
        super().__init__(engine)
        self.may = asyncio.Event()
        self.may.set()

    async def _commit(self, commit: Callable[[], Awaitable[None]]) -> None:
        await self.may.wait()
        await commit()


@asynccontextmanager
async def slow(url: str, code: Code) -> AsyncIterator[tuple[Slow, FlowEngine]]:
    database = await Slow.open(url, durable=False)
    try:
        async with opened(database, code) as engine:
            yield database, engine
    finally:
        await database.close()


async def test_no_step_is_called_before_what_it_comes_after_is_durable(url: str) -> None:
    calls: list[int] = []

    async def code(_cx: Context[Workshop], number: int) -> int:
        calls.append(number)
        if number % 2 == 0:
            database.may.clear()
        return number + 1

    async with slow(url, code) as (database, engine):
        run = await engine.start(engine.parse(PAIR), {"number": 2})
        while not calls:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        before = list(calls)
        database.may.set()
        record = await engine.wait(run, 5)

    assert record.state is RunState.SUCCEEDED
    assert (before, calls) == ([2], [2, 3])


async def test_steps_of_which_everything_is_durable_go_on_while_others_are_written_but_not_without_end(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MOST_UNWRITTEN", 100)
    calls: list[int] = []

    async def code(_cx: Context[Workshop], number: int) -> int:
        calls.append(number)
        if len(calls) == 1:
            database.may.clear()
        return number

    async with slow(url, code) as (database, engine):
        run = await engine.start(engine.parse(MANY), {"numbers": list(range(1000))})
        while len(calls) < 100:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        meanwhile = len(calls)
        database.may.set()
        record = await engine.wait(run, 20)

    assert record.state is RunState.SUCCEEDED
    assert 100 <= meanwhile <= 100 + 2 * 64
    assert len(calls) == 2000


async def test_a_worker_whose_last_commit_was_long_ago_calls_nothing_before_the_next(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "FRESH", 0.0)
    calls: list[int] = []

    async def code(_cx: Context[Workshop], number: int) -> int:
        calls.append(number)
        database.may.clear()
        return number

    async with slow(url, code) as (database, engine):
        run = await engine.start(engine.parse(MANY), {"numbers": list(range(200))})
        while not calls:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        meanwhile = len(calls)
        while not (await engine.get(run)).state.ended:
            database.may.set()
            await asyncio.sleep(0.001)

    assert meanwhile <= 64
    assert len(calls) == 400


async def test_a_step_that_the_database_failed_is_called_again_and_has_not_used_up_a_try(
    database: Database,
) -> None:
    called: list[int] = []

    async def code(cx: Context[Workshop], number: int) -> int:
        called.append(number)
        if len(called) < 3:
            raise CommitFailed("the database went away")
        return number

    async with opened(database, code) as engine:
        run = await engine.wait(await engine.start(engine.parse(PAIR), {"number": 1}), 20)

    assert run.state is RunState.SUCCEEDED, run.error
    assert called == [1, 1, 1, 1]
