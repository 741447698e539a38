"""Steps that return, raise, say or do what no step should: the step fails by name and nobody else notices."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any, cast

import msgspec
import pytest
from structlog.testing import capture_logs
from tests.flow import workshop
from tests.flow.workshop import Workshop

from skep.flow import Context, Database, FlowEngine, Retry, RunRecord, RunState, step

pytestmark = pytest.mark.sqlite

BAD = """
flow: bad
steps:
  first: {use: w.make, with: {name: first}}
  bad: {use: bad, after: [first]}
"""
GOOD = """
flow: good
steps:
  kept: {use: w.enlist, with: {name: kept}}
  done: {use: w.make, with: {name: done}, after: [kept]}
"""
Code = Callable[[Context[Workshop]], Awaitable[Any]]


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise Unspeakable


class Deceitful(Exception):
    @property
    def message(self) -> str:
        raise ValueError("no message")


@pytest.fixture(autouse=True)
async def quiet() -> AsyncIterator[None]:
    with capture_logs():
        yield


async def carry_out(database: Database, kind: str, code: Code) -> tuple[RunRecord, Workshop]:
    """What becomes of a run with this step in it, once another has proved that the engine still works."""
    shop, registry = Workshop(), workshop.registry()
    code.__annotations__ = {"cx": Context[Workshop], "return": int}
    registry.add_step(step(kind=cast("Any", kind))(code), "bad")
    await shop.attach(database)
    async with FlowEngine(
        database, registry, shop.environment, retry_delay=lambda _tries: 0.001, grace=0
    ) as engine:
        run = await engine.start(engine.parse(BAD), {})
        record = await engine.wait(run, 5)
        other = await engine.start(engine.parse(GOOD), {})
        assert (await engine.wait(other, 5)).state is RunState.SUCCEEDED
        assert "first" not in shop.made or record.state is RunState.SUCCEEDED
    return record, shop


def raising(error: Callable[[], BaseException]) -> Code:
    async def code(cx: Context[Workshop]) -> Any:
        await asyncio.sleep(0)
        raise error()

    return code


def returning(value: Callable[[], object]) -> Code:
    async def code(cx: Context[Workshop]) -> Any:
        return value()

    return code


def a_list_of_itself() -> object:
    found: list[object] = []
    found.append(found)
    return found


BOTH = pytest.mark.parametrize("kind", ["idempotent", "transactional"])


@BOTH
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (lambda: SystemExit(3), "3"),
        (KeyboardInterrupt, "KeyboardInterrupt"),
        (GeneratorExit, "GeneratorExit"),
        (lambda: BaseException("the base of all"), "the base of all"),
        (lambda: BaseExceptionGroup("two", [KeyboardInterrupt(), SystemExit()]), "two"),
        (StopIteration, "coroutine raised StopIteration"),
        (asyncio.CancelledError, "CancelledError"),
        (lambda: MemoryError("no room"), "no room"),
        (Unspeakable, "Unspeakable"),
        (Deceitful, "Deceitful"),
        (lambda: ValueError("nul \0, half \ud800"), "nul"),
        (lambda: ValueError("x" * 10_000_000), "xxx"),
        (lambda: Retry("later", after=cast("Any", "soon")), "Retry(after='soon'): give seconds, 0 or more"),
        (lambda: Retry(after=cast("Any", timedelta(seconds=1))), "give seconds, 0 or more"),
        (lambda: Retry(after=float("nan")), "Retry(after=nan): give seconds, 0 or more"),
        (lambda: Retry(after=float("inf")), "Retry(after=inf): give seconds, 0 or more"),
        (lambda: Retry(after=-1), "Retry(after=-1): give seconds, 0 or more"),
    ],
)
async def test_whatever_a_step_raises_it_fails_and_the_engine_goes_on(
    database: Database, kind: str, error: Callable[[], BaseException], said: str
) -> None:
    record, _ = await carry_out(database, kind, raising(error))

    assert record.state is RunState.FAILED
    assert record.error.startswith("step bad: ")
    assert said in record.error


@BOTH
@pytest.mark.parametrize(
    "value",
    [
        lambda: 10**5000,
        lambda: float("nan"),
        lambda: None,
        lambda: "7",
        lambda: b"\xff\x00",
        object,
        a_list_of_itself,
        lambda: (number for number in range(3)),
        lambda: range(3),
        lambda: {(1, 2): 3},
        lambda: "\ud800",
        lambda: "x" * (17 * 2**20),
        lambda: ValueError,
        lambda: ValueError("returned, not raised"),
        lambda: 1.5,
    ],
)
async def test_a_result_of_another_type_fails_the_step(
    database: Database, kind: str, value: Callable[[], object]
) -> None:
    record, _ = await carry_out(database, kind, returning(value))

    assert record.state is RunState.FAILED
    assert record.error.startswith("step bad: returned ")
    assert len(record.error) < 500


@BOTH
async def test_a_number_beyond_64_bits_is_handed_on_whole(database: Database, kind: str) -> None:
    record, _ = await carry_out(database, kind, returning(lambda: 10**30))

    assert record.state is RunState.SUCCEEDED


@BOTH
@pytest.mark.parametrize("message", [5, None, b"bytes", ["list"], "nul \0, half \ud800", "x" * 10_000_000])
async def test_progress_that_is_no_text_is_told_as_well_as_it_can_be(
    database: Database, kind: str, message: object
) -> None:
    async def code(cx: Context[Workshop]) -> Any:
        cx.progress(cast("Any", message))
        await asyncio.sleep(0.01)
        return 1

    record, _ = await carry_out(database, kind, code)

    assert record.state is RunState.SUCCEEDED


@BOTH
async def test_a_step_that_cancels_itself_has_failed(database: Database, kind: str) -> None:
    async def code(cx: Context[Workshop]) -> Any:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    record, _ = await carry_out(database, kind, code)

    assert record.state is RunState.FAILED
    assert record.error == "step bad: cancelled"


@BOTH
async def test_a_step_that_swallows_its_interruption_is_over_when_it_returns(
    database: Database, kind: str
) -> None:
    async def code(cx: Context[Workshop]) -> Any:
        for _ in range(3):
            try:
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(10)
            except (TimeoutError, asyncio.CancelledError):
                cx.env.log.append("swallowed")
        return 1

    record, shop = await carry_out(database, kind, code)

    assert record.state is RunState.SUCCEEDED
    assert shop.log.count("swallowed") == 3


async def test_a_step_that_ignores_its_cancellation_delays_the_end_of_its_own_run_alone(
    engine: FlowEngine, registry: Any, shop: Workshop
) -> None:
    gate = asyncio.Event()

    async def stubborn(cx: Context[Workshop]) -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                cx.env.calls["cancelled"] += 1

    registry.add_step(step(stubborn), "stubborn")
    text = BAD.replace("use: bad", "use: stubborn, timeout: 20ms")
    run = await engine.start(engine.parse(text), {})
    while not shop.calls["cancelled"]:
        await asyncio.sleep(0.005)
    await engine.cancel(run)
    other = await engine.start(engine.parse(GOOD), {})

    assert (await engine.wait(other, 5)).state is RunState.SUCCEEDED
    assert (await engine.get(run)).state is RunState.UNDOING
    gate.set()
    assert (await engine.wait(run, 5)).state is RunState.CANCELLED
    assert shop.calls["cancelled"] == 2
    assert shop.made == {"done"}


@BOTH
async def test_tasks_that_a_step_leaves_behind_concern_nobody(database: Database, kind: str) -> None:
    left: list[asyncio.Task[None]] = []

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("nobody waits for me")

    async def code(cx: Context[Workshop]) -> Any:
        left.append(asyncio.create_task(asyncio.sleep(0.001)))
        left.append(asyncio.create_task(fails()))
        return 1

    record, _ = await carry_out(database, kind, code)

    assert record.state is RunState.SUCCEEDED
    assert [type(result) for result in await asyncio.gather(*left, return_exceptions=True)] == [
        type(None),
        ValueError,
    ]


@BOTH
async def test_a_step_cannot_wait_for_a_change_that_would_have_to_wait_for_it(
    database: Database, kind: str
) -> None:
    async def nothing(_connection: object) -> None: ...

    async def code(cx: Context[Workshop]) -> Any:
        await asyncio.create_task(cx.env.database.write(nothing))
        return 1

    record, _ = await carry_out(database, kind, code)

    if kind == "idempotent":
        assert record.state is RunState.SUCCEEDED
    else:
        assert record.error == "step bad: a change must use the connection it was given, not write() again"


class Shelf(msgspec.Struct):
    books: list[str]


class Label(msgspec.Struct, frozen=True):
    words: list[str]


@pytest.mark.parametrize(
    ("hint", "value", "change"),
    [
        (Shelf, Shelf(["a"]), lambda shelf: shelf.books.append("b")),
        (Label, Label(["a"]), lambda label: label.words.append("b")),
        (list[Shelf], [Shelf(["a"])], lambda shelves: shelves[0].books.append("b")),
        (list[object], [["a"]], lambda words: words[0].append("b")),
        (dict[str, object], {"x": ["a"]}, lambda words: words["x"].append("b")),
        (list[str], ["a"], lambda words: words.append("b")),
        (object, ["a"], lambda words: words.append("b")),
    ],
)
async def test_a_step_that_changes_its_arguments_changes_them_for_itself_alone(
    engine: FlowEngine, registry: Any, hint: Any, value: Any, change: Callable[[Any], object]
) -> None:
    before, seen = msgspec.json.encode(value), []

    async def give(cx: Context[Workshop]) -> Any:
        return value

    async def take(cx: Context[Workshop], thing: Any) -> None:
        seen.append(msgspec.json.encode(thing))
        change(thing)

    give.__annotations__["return"] = take.__annotations__["thing"] = hint
    registry.add_step(step(give), "give")
    registry.add_step(step(take), "take")
    text = """
flow: f
steps:
  a: {use: give}
  b: {use: take, with: {thing: $a}}
  c: {use: take, with: {thing: $a}, after: [b]}
output: {a: $a}
"""
    run = await engine.start(engine.parse(text), {})
    record = await engine.wait(run, 5)

    assert record.state is RunState.SUCCEEDED
    assert seen == [before, before]
    assert msgspec.json.encode(record.output) == b'{"a":' + before + b"}"
