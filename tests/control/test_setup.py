"""The admin's first token, when the operator gives it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.schema import put_schema

from skep.control.setup import SHORTEST_SECRET, prepare_installation
from skep.control.tenants.tokens import hash_secret
from skep.flow import Database
from skep.model.errors import InvalidInput
from skep.model.ids import RegionName, ZoneName, new_id
from skep.store import users


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(await put_schema(tmp_path / "skep.db"), durable=False)
    yield opened
    await opened.close()


async def start(database: Database, file: Path) -> None:
    await prepare_installation(
        database,
        region=RegionName("region"),
        zone=ZoneName("zone"),
        token_file=file,
        given=True,
        now=lambda: 1.0,
        new_id=new_id,
    )


async def is_known(database: Database, secret: str) -> bool:
    async with database.read() as connection:
        return await users.token_by_hash(connection, hash_secret(secret)) is not None


async def test_a_token_that_the_operator_gives_counts_from_the_first_start(
    database: Database, tmp_path: Path
) -> None:
    file, secret = tmp_path / "given", "s" * SHORTEST_SECRET
    file.write_text(f"{secret}\n")
    file.chmod(0o400)

    await start(database, file)
    await start(database, file)

    assert await is_known(database, secret)
    assert file.read_text() == f"{secret}\n"


async def test_who_took_a_token_back_by_the_api_has_it_not_again_after_a_restart(
    database: Database, tmp_path: Path
) -> None:
    file, other = tmp_path / "given", "t" * SHORTEST_SECRET
    file.write_text("s" * SHORTEST_SECRET)
    await start(database, file)
    file.write_text(other)

    await start(database, file)

    assert not await is_known(database, other)
    assert file.read_text() == other


@pytest.mark.parametrize("content", ["", "short", "x" * (SHORTEST_SECRET - 1) + "\n"])
async def test_a_token_that_could_be_guessed_is_refused(
    database: Database, tmp_path: Path, content: str
) -> None:
    file = tmp_path / "given"
    file.write_text(content)

    with pytest.raises(InvalidInput, match="random"):
        await start(database, file)
