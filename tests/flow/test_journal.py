"""The journal: batches of rows, each whole or not at all, none lost while the database fails."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from tests.flow.rows import a_run, a_step, prepare, stored

from skep.flow import CommitFailed, Database
from skep.flow.errors import Fenced
from skep.flow.runs import Claim, RunState, StepState
from skep.flow.steps import RunId
from skep.flow.storage import blobs, records, tables, unfinished
from skep.flow.storage.journal import Journal
from skep.flow.testing import CrashingDatabase

A, B, C = RunId("a"), RunId("b"), RunId("c")


@pytest.fixture
async def database(url: str) -> AsyncIterator[CrashingDatabase]:
    database = await CrashingDatabase.open(url, durable=False)
    database.arm(None)
    await prepare(database)
    yield database
    await database.close()


@pytest.fixture
def poisoned() -> list[tuple[RunId, str]]:
    return []


@pytest.fixture
def journal(database: Database, poisoned: list[tuple[RunId, str]]) -> Journal:
    return Journal(database, poisoned=lambda run, reason: poisoned.append((run, reason)))


async def test_what_is_named_at_one_time_is_one_commit_and_reads_back_equal(
    database: CrashingDatabase, journal: Journal
) -> None:
    run = a_run(
        "a",
        labels={"app": "x"},
        locks=(Claim("k", 2),),
        deadline=7.5,
        priority=1,
        paused=True,
        worker="w",
        input=b'{"n": 1}',
    )
    step = a_step(state=StepState.RETRYING, attempts=3, undo_attempts=1, started=1.5, error="e", message="m")
    before = database.points

    journal.create_run(run)
    journal.save_step(A, "s", step)
    journal.add_event(A, 1, "s", "started", 2.0, "go")
    await journal.flushed()

    assert database.points - before == 2  # one commit
    async with database.read() as connection:
        (found,) = await unfinished.load(connection, [A])
        history = await records.history(connection, A, 0)
    assert (found.row, found.steps, found.sequence) == (run, {"s": step}, 1)
    assert [(event.kind, event.message) for event in history] == [("started", "go")]
    assert await stored(database, "labels", "run", "key", "value") == [("a", "app", "x")]


async def test_rows_are_replaced_by_their_last_state(database: Database, journal: Journal) -> None:
    run, step = a_run("a"), a_step(state=StepState.RUNNING, result=None)
    journal.create_run(run)
    journal.save_step(A, "s", step)
    await journal.flushed()

    run.state, run.total, run.worker, run.deadline = RunState.SUCCEEDED, 3, "w", 9.0
    step.state, step.result = StepState.SUCCEEDED, b"2"
    journal.save_run(run)
    journal.save_step(A, "s", step)
    await journal.flushed()

    columns = ("state", "total", "worker", "deadline")
    assert await stored(database, "runs", *columns) == [("succeeded", 3, "w", 9.0)]
    assert await stored(database, "steps", "state", "result") == [("succeeded", b"2")]


@pytest.mark.parametrize("size", [1, 3, 700, 2500])
async def test_batches_of_any_size_are_written_whole(database: Database, journal: Journal, size: int) -> None:
    runs = [a_run(f"r{number:05}") for number in range(size)]
    for run in runs:
        journal.create_run(run)
        journal.save_run(run)
        journal.save_step(run.id, "s", a_step(result=run.id.encode()))
        journal.add_event(run.id, 1, "", "run-created", 1.0, "")

    await journal.flushed()

    names = [run.id for run in runs]
    assert await stored(database, "runs", "id") == [(name,) for name in names]
    assert await stored(database, "steps", "run", "result") == [(name, name.encode()) for name in names]
    assert await stored(database, "events", "run") == [(name,) for name in names]


@pytest.mark.parametrize("size", [1, 700])
async def test_steps_that_are_there_are_replaced_whatever_the_size_of_the_batch(
    database: Database, journal: Journal, size: int
) -> None:
    journal.create_run(a_run("a"))
    for state in (StepState.RUNNING, StepState.SUCCEEDED):
        for number in range(size):
            journal.save_step(A, f"s{number}", a_step(state=state))
        await journal.flushed()

    assert await stored(database, "steps", "state") == [("succeeded",)] * size


async def test_actions_are_called_in_order_after_the_commit_and_one_that_fails_stops_no_other(
    database: CrashingDatabase, journal: Journal
) -> None:
    seen: list[tuple[str, int]] = []
    before = database.points

    journal.create_run(a_run("a"))
    journal.afterwards(lambda: seen.append(("first", database.points - before)))
    journal.afterwards(lambda: seen[99])  # type: ignore[arg-type]
    journal.afterwards(lambda: seen.append(("second", database.points - before)))
    await journal.flushed()

    assert seen == [("first", 2), ("second", 2)]


async def test_nothing_is_lost_when_a_transaction_fails_for_a_while(
    database: Database, journal: Journal
) -> None:
    async def broken(_connection: AsyncConnection) -> None:
        raise OSError("the disk is away")

    journal.create_run(a_run("a"))
    database.submit(broken, isolated=False, answered=lambda _error: None)
    journal.afterwards(lambda: None)
    with pytest.raises(CommitFailed, match="not written yet"):
        await until_refused(journal)
    journal.add_event(A, 1, "", "run-created", 1.0, "")
    await journal.flushed()

    journal.require_order()
    assert await stored(database, "runs", "id") == [("a",)]
    assert await stored(database, "events", "run", "sequence") == [("a", 1)]


async def until_refused(journal: Journal) -> None:
    while True:
        journal.require_order()
        await asyncio.sleep(0)


async def test_a_commit_that_happened_though_the_answer_was_lost_is_no_conflict(
    database: CrashingDatabase, journal: Journal
) -> None:
    """As when a connection breaks just after the server committed."""
    before, lost = database.points, [True]

    def lose_the_answer(point: int) -> None:
        if point == before + 1 and lost.pop():
            raise OSError("the connection broke")

    database.at_point = lose_the_answer
    journal.create_run(a_run("a"))
    journal.save_step(A, "s", a_step())
    journal.add_event(A, 1, "", "run-created", 1.0, "")
    await journal.flushed()

    assert not lost
    assert await stored(database, "runs", "id") == [("a",)]
    assert await stored(database, "events", "run", "sequence") == [("a", 1)]


# runs that no database takes


async def test_a_run_whose_rows_are_refused_for_ever_is_left_out_and_told_once(
    database: Database, journal: Journal, poisoned: list[tuple[RunId, str]]
) -> None:
    order: list[str] = []
    for name in ("a", "b", "c", "d", "e"):
        bad = {"definition": "absent"} if name == "c" else {}
        journal.create_run(a_run(name, **bad))
        journal.save_step(RunId(name), "s", a_step())
        journal.add_event(RunId(name), 1, "", "run-created", 1.0, "")
    journal.afterwards(lambda: order.append(f"{len(poisoned)} told"))
    await journal.flushed()
    journal.save_step(C, "t", a_step())
    await journal.flushed()

    healthy = [(name,) for name in "abde"]
    assert await stored(database, "runs", "id") == healthy
    assert await stored(database, "steps", "run") == healthy
    assert await stored(database, "events", "run") == healthy
    assert [run for run, _ in poisoned] == [C]
    assert "foreign key" in poisoned[0][1].lower()
    assert order == ["1 told"]


async def test_values_that_no_database_takes_poison_their_run_only(
    database: Database, journal: Journal, poisoned: list[tuple[RunId, str]]
) -> None:
    journal.create_run(a_run("a"))
    journal.create_run(a_run("b", labels={"x": "\ud800"}))
    journal.create_run(a_run("c", total=2**70))
    await journal.flushed()

    assert await stored(database, "runs", "id") == [("a",)]
    assert [run for run, _ in poisoned] == [B, C]


async def test_texts_are_stored_without_what_databases_refuse(database: Database, journal: Journal) -> None:
    dirty, clean = "a\0b\ud800c" + "é" * 5000, "a\N{REPLACEMENT CHARACTER}b?c"
    run, step = a_run("a", title=dirty, error=dirty), a_step(error=dirty, message=dirty)

    journal.create_run(run)
    journal.save_step(A, "s", step)
    journal.add_event(A, 1, "s", "failed", 1.0, dirty)
    await journal.flushed()

    ((title, error),) = await stored(database, "runs", "title", "error")
    ((fault, message),) = await stored(database, "steps", "error", "message")
    ((event,),) = await stored(database, "events", "message")
    for found in (title, error, fault, message, event):
        assert found.startswith(clean)
        assert len(found) == 4000


async def test_what_is_done_after_a_commit_is_done_though_an_earlier_one_failed_while_the_next_was_waiting(
    url: str,
) -> None:
    class Gated(CrashingDatabase):
        fail = True

        async def _commit(self, commit: Callable[[], Awaitable[None]]) -> None:
            await passes.wait()
            if self.fail:
                self.fail = False
                raise OSError("no")
            await commit()

    async def slow(_connection: AsyncConnection) -> None:
        await asyncio.sleep(0.6)  # longer than the journal waits after its first failure

    passes, done = asyncio.Event(), list[str]()
    database = await Gated.open(url, durable=False)
    try:
        database.fail = False
        passes.set()
        await prepare(database)
        journal = Journal(database)
        passes.clear()
        database.fail = True
        journal.create_run(a_run("a"))
        await asyncio.sleep(0.05)
        journal.create_run(a_run("b"))  # waits for its turn
        passes.set()
        await journal.flushed()

        change = asyncio.create_task(database.write(slow))
        await asyncio.sleep(0.05)
        journal.create_run(a_run("c"))
        journal.afterwards(lambda: done.append("c"))
        await change
        await journal.flushed()
    finally:
        await database.close()

    assert done == ["c"]


# fencing


async def test_a_fenced_worker_writes_nothing_and_is_told_once(
    database: Database, poisoned: list[tuple[RunId, str]]
) -> None:
    lives, refused = [True], []

    async def check(_connection: AsyncConnection) -> None:
        if not lives[0]:
            raise Fenced("held for dead")

    journal = Journal(database, check, lambda: refused.append(1))
    journal.create_run(a_run("a"))
    await journal.flushed()
    lives[0] = False

    journal.create_run(a_run("b"))
    with pytest.raises(CommitFailed, match="writes no more"):
        await journal.flushed()
    with pytest.raises(Fenced):
        await database.write(lambda connection: journal.write_run(connection, a_run("c")))
    with pytest.raises(Fenced):
        await database.write(lambda connection: journal.write_step(connection, A, "s", a_step()))
    with pytest.raises(CommitFailed):
        await journal.flushed()

    assert refused == [1]
    assert await stored(database, "runs", "id") == [("a",)]
    assert await stored(database, "steps", "run") == []


async def test_those_who_wait_are_told_when_the_journal_stops(database: Database, journal: Journal) -> None:
    waiting = asyncio.create_task(journal.flushed())
    await asyncio.sleep(0)
    journal.stop()

    with pytest.raises(CommitFailed, match="writes no more"):
        await waiting


# in somebody's transaction


async def test_a_run_and_a_step_are_written_in_somebodys_transaction_or_not_at_all(
    database: Database, journal: Journal
) -> None:
    async def both(connection: AsyncConnection) -> None:
        await journal.write_run(connection, a_run("a", key="k", labels={"x": "y"}))
        await journal.write_step(connection, A, "s", a_step())

    async def fails(connection: AsyncConnection) -> None:
        await journal.write_run(connection, a_run("b"))
        raise KeyError("no")

    await database.write(both)
    with pytest.raises(KeyError):
        await database.write(fails)
    with pytest.raises(IntegrityError):
        await database.write(lambda connection: journal.write_run(connection, a_run("c", key="k")))

    assert await stored(database, "runs", "id") == [("a",)]
    assert await stored(database, "steps", "run") == [("a",)]
    assert await stored(database, "labels", "value") == [("y",)]


async def test_answers_and_taken_signals_are_part_of_the_commit(database: Database, journal: Journal) -> None:
    journal.create_run(a_run("a"))
    await journal.flushed()
    await database.write(insert_question_and_signal)

    journal.answer("q", b'"done"')
    journal.take_signal(A, "n", "s")
    await journal.flushed()

    assert await stored(database, "inbox", "id", "reply") == [("q", b'"done"')]
    assert await stored(database, "signals", "id", "step") == [("n", "s")]


async def insert_question_and_signal(connection: AsyncConnection) -> None:
    question = {"id": "q", "run": "a", "kind": "pause", "body": b"{}", "by": "kim", "at": 1.0}
    signal = {"run": "a", "id": "n", "name": "paid", "body": b"1", "by": "kim", "at": 1.0}
    await connection.execute(insert(tables.inbox).values(question))
    await connection.execute(insert(tables.signals).values(signal))


# large results


async def test_a_large_result_is_stored_once_beside_its_steps(database: Database, journal: Journal) -> None:
    large = b'"' + b"x" * 10_000_000 + b'"'
    journal.create_run(a_run("a"))
    for name in ("s", "t"):
        result, blob = journal.keep(large)
        journal.save_step(A, name, a_step(result=result, blob=blob))
    await journal.flushed()
    await database.write(lambda tx: journal.write_step(tx, A, "u", a_step(result=large)))

    assert journal.keep(b"1") == (b"1", None)
    assert await stored(database, "steps", "step", "result") == [("s", None), ("t", None), ("u", None)]
    async with database.read() as connection:
        assert await records.result_of(connection, A, "s") == large
        assert await records.result_of(connection, A, "u") == large
        (found,) = await unfinished.load(connection, [A])
    assert found.steps["t"].result == large
    journal.save_step(A, "t", found.steps["t"])
    await journal.flushed()
    assert await stored(database, "steps", "result") == [(None,)] * 3
    assert len(await stored(database, "blobs", "hash")) == 1


async def test_blobs_that_no_step_refers_to_are_swept_unless_they_are_new(
    database: Database, journal: Journal
) -> None:
    journal.create_run(a_run("a"))
    journal.save_step(A, "s", a_step(result=None, blob="used"))
    for name in ("used", "unused"):
        journal.save_blob(name, b"1")
    await journal.flushed()

    assert await database.write(lambda connection: blobs.sweep(connection, 1.0)) == 0
    assert await database.write(lambda connection: blobs.sweep(connection, 1e12)) == 1
    assert await stored(database, "blobs", "hash") == [("used",)]
