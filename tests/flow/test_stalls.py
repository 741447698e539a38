"""Who hangs with locks in its hands keeps others waiting for a while only, wherever it hangs."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import text
from tests.flow.hanging import PLACES, STALLED_MS

from skep.flow import Database
from skep.flow.storage import drivers
from skep.flow.storage.stalls import Suspects


@pytest.fixture
async def database(postgresql: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(drivers, "STALLED_MS", STALLED_MS)
    database = await Database.open(postgresql, durable=False)
    await database.write(lambda c: c.exec_driver_sql("CREATE TABLE t(n INTEGER)"))
    await database.write(lambda c: c.exec_driver_sql("INSERT INTO t VALUES (1)"))
    yield database
    await database.close()


@pytest.mark.parametrize("place", PLACES)
async def test_who_hangs_in_a_transaction_keeps_others_waiting_for_a_while_only(
    database: Database, place: str
) -> None:
    with hanging(database, place):
        await database.write(lambda c: c.exec_driver_sql("UPDATE t SET n = 3"))

    async with database.read() as connection:
        assert (await connection.execute(text("SELECT n FROM t"))).scalars().all() == [3]


def test_a_connection_is_stalled_once_every_look_for_so_long_found_it_at_the_same_place() -> None:
    suspects = Suspects(30)
    one, its_next, other = (1, 0, 0), (1, 0, 7), (2, 0, 0)

    judged = [
        suspects.judge([one, other], 0),
        suspects.judge([one], 10),  # the other one has gone on meanwhile
        suspects.judge([one, other], 29),
        suspects.judge([one, other], 30),
        suspects.judge([its_next, other], 58),
        suspects.judge([its_next, other], 59),
    ]

    assert judged == [[], [], [], [one], [], [other]]


@contextmanager
def hanging(database: Database, place: str) -> Iterator[None]:
    url = database.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.flow.hanging", url, place]
    with subprocess.Popen(command) as process:
        try:
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            yield
        finally:
            process.kill()
