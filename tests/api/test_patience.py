"""Requests that the database fails are answered anew, from their beginning, unless they have written."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from litestar import Litestar, Request, post
from litestar.response import Stream
from sqlalchemy import text

from skep.api.errors import answer_problem
from skep.api.patience import LARGEST, Patience
from skep.flow import CommitFailed, Database, Fenced

Handler = Callable[[bytes], Awaitable[str]]


class Desk:
    """Answers once the database is there again; `failures`: how often it is not."""

    def __init__(self, failures: int = 2, error: type[Exception] = CommitFailed) -> None:
        self.failures = failures
        self.error = error
        self.asked = 0

    async def answer(self, body: bytes) -> str:
        self.asked += 1
        if self.asked <= self.failures:
            raise self.error("it is being restarted")
        return f"{len(body)} bytes"


async def ask(handle: Handler, body: bytes = b"hello", patience: float = 5.0) -> httpx.Response:
    @post("/", status_code=200)
    async def handler(request: Request) -> str:  # type: ignore[type-arg]
        return await handle(await request.body())

    return await _of(Litestar([handler], exception_handlers={Exception: answer_problem}), body, patience)


async def _of(app: Litestar, body: bytes, patience: float) -> httpx.Response:
    transport = httpx.ASGITransport(Patience(app, patience))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://skep") as client:
        return await client.post("/", content=body)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = await Database.open(f"sqlite+aiosqlite:///{tmp_path / 'some.db'}", durable=False)
    await database.write(lambda c: c.execute(text("CREATE TABLE t(n INTEGER)")))
    yield database
    await database.close()


@pytest.mark.parametrize("error", [CommitFailed, Fenced])
async def test_a_request_waits_for_the_database(error: type[Exception]) -> None:
    desk = Desk(error=error)

    answer = await ask(desk.answer)

    assert (answer.status_code, answer.text, desk.asked) == (200, "5 bytes", 3)


async def test_a_request_that_has_written_is_not_done_again(database: Database) -> None:
    desk = Desk()

    async def write_first(body: bytes) -> str:
        await database.write(lambda c: c.execute(text("INSERT INTO t VALUES (1)")))
        return await desk.answer(body)

    answer = await ask(write_first)

    assert (answer.status_code, desk.asked) == (503, 1)
    assert answer.json()["detail"].startswith("Look whether it was done")


async def test_a_request_that_could_not_write_is_done_again(database: Database) -> None:
    desk = Desk()

    async def fail_in_between(body: bytes) -> str:
        async def change(_connection: object) -> str:
            return await desk.answer(body)

        return await asyncio.create_task(database.write(change))

    assert (await ask(fail_in_between)).status_code == 200
    assert desk.asked == 3


async def test_patience_has_an_end() -> None:
    desk = Desk(failures=1000)

    answer = await ask(desk.answer, patience=0.3)

    assert answer.status_code == 503
    assert answer.json()["detail"].startswith("Nothing was changed")
    assert 1 < desk.asked < 10


async def test_a_body_that_is_too_large_to_be_kept_is_not_read_again() -> None:
    desk = Desk()

    answer = await ask(desk.answer, body=b"x" * (LARGEST + 1))

    assert (answer.status_code, desk.asked) == (503, 1)


async def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    begun = 0

    @post("/", status_code=200)
    async def handler() -> Stream:
        async def words() -> AsyncIterator[str]:
            nonlocal begun
            begun += 1
            yield "first"
            raise CommitFailed("it is being restarted")

        return Stream(words())

    app = Litestar([handler], exception_handlers={Exception: answer_problem})
    with pytest.raises(Exception, match=r"restarted|response"):
        await _of(app, b"", 5.0)

    assert begun == 1


async def test_a_database_that_has_been_away_for_long_is_not_waited_for() -> None:
    desk = Desk(failures=5)
    desk.error = lambda message: CommitFailed.of(message, away_for=10.1)  # type: ignore[assignment]

    answer = await ask(desk.answer)

    assert (answer.status_code, desk.asked) == (503, 1)
