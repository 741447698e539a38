"""The authority in the database: one for all control processes, sealed with a file."""

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.control.installation import Clock
from tests.schema import put_schema

from skep.control.hosts.authorities import Authorities
from skep.flow import Database
from skep.model.errors import InvalidInput, Unavailable
from skep.store import tables
from skep.trust.authority import Authority
from skep.trust.identity import Identity, new_key, signing_request
from skep.trust.peers import Role
from skep.trust.sealing import Seal, WrongSeal


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(await put_schema(tmp_path / "skep.db"), durable=False)
    yield opened
    await opened.close()


async def test_two_machines_with_the_same_file_issue_alike(database: Database, tmp_path: Path) -> None:
    seal, clock = tmp_path / "a" / "installation.key", Clock()
    first = Authorities(database, seal, clock)
    shown = await first.show()
    copy = tmp_path / "b.key"
    copy.write_bytes(seal.read_bytes())
    copy.chmod(0o600)

    second = Authorities(database, copy, clock)

    issued = await second.issue(signing_request(new_key()), Role.WORKER, "worker-2")
    assert Authority.verify(shown.certificates, issued.certificate, clock()) == issued.peer
    assert stat.S_IMODE(seal.stat().st_mode) == 0o600


async def test_a_machine_without_the_file_says_what_to_copy(database: Database, tmp_path: Path) -> None:
    shown = await Authorities(database, tmp_path / "installation.key", Clock()).show()
    elsewhere = tmp_path / "other" / "installation.key"
    other = Authorities(database, elsewhere, Clock())

    with pytest.raises(Unavailable, match=f"{elsewhere}.*copy that file"):
        await other.signing()

    assert await other.show() == shown, "what is public needs no key"
    assert not elsewhere.exists(), "a wrong one must not be made"


async def test_a_wrong_file_opens_nothing(database: Database, tmp_path: Path) -> None:
    await Authorities(database, tmp_path / "installation.key", Clock()).show()
    Seal.make(tmp_path / "wrong.key")

    with pytest.raises(Unavailable, match="sealed with another key"):
        await Authorities(database, tmp_path / "wrong.key", Clock()).signing()


async def test_the_key_is_not_in_the_database(database: Database, tmp_path: Path) -> None:
    authorities = Authorities(database, tmp_path / "installation.key", Clock())
    key = (await authorities.signing()).key

    async with database.read() as connection:
        (row,) = (await connection.execute(sa.select(tables.authorities))).all()
    assert key.splitlines()[1] not in str(row)
    assert b"PRIVATE KEY" not in row.sealed_key


async def test_an_operators_own_authority_is_taken_at_the_first_start(
    database: Database, tmp_path: Path
) -> None:
    clock = Clock()
    own = Authority.make("own", clock())
    certificate, key = tmp_path / "ca.pem", tmp_path / "ca.key"
    certificate.write_text(own.certificate)
    key.write_text(own.key)

    authorities = Authorities(database, tmp_path / "installation.key", clock, (certificate, key))

    assert (await authorities.show()).fingerprint == own.fingerprint
    assert (await Authorities(database, tmp_path / "installation.key", clock).signing()).key == own.key


async def test_an_identity_is_kept_until_half_of_its_life_is_over(database: Database, tmp_path: Path) -> None:
    clock = Clock()
    authorities = Authorities(database, tmp_path / "installation.key", clock)

    async def identity(role: Role = Role.WORKER) -> Identity:
        return await authorities.identity(tmp_path / "identity", role, "worker-1")

    first = await identity()
    again = await identity()
    clock.time += 15 * 86_400
    renewed = await identity()
    other = await identity(Role.SERVE)

    assert first.peer == again.peer
    assert renewed.peer.serial != first.peer.serial
    assert other.peer.uri.endswith("/serve/worker-1")
    first.refresh()
    assert first.peer == other.peer


async def test_an_identity_of_another_installation_is_replaced(database: Database, tmp_path: Path) -> None:
    clock, key = Clock(), new_key()
    stranger = Authority.make("other", clock())
    issued = stranger.issue(signing_request(key), role=Role.SERVE, name="serve-1", now=clock())
    Identity.store(tmp_path / "identity", key, issued.certificate, stranger.certificate)
    authorities = Authorities(database, tmp_path / "installation.key", clock)

    identity = await authorities.identity(tmp_path / "identity", Role.SERVE, "serve-1")

    assert identity.authority_fingerprint == (await authorities.show()).fingerprint
    await authorities.recognise(identity.certificate)


def test_a_seal_that_others_may_read_is_refused(tmp_path: Path) -> None:
    Seal.make(tmp_path / "key")
    (tmp_path / "key").chmod(0o640)

    with pytest.raises(InvalidInput, match="chmod 600"):
        Seal.read(tmp_path / "key")


@pytest.mark.parametrize("text", ["", "short", "ü", "QUJD\n"])
def test_a_file_without_a_key_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    (tmp_path / "key").chmod(0o600)

    with pytest.raises(InvalidInput, match="holds no key"):
        Seal.read(tmp_path / "key")


def test_what_is_sealed_opens_as_what_it_is_only(tmp_path: Path) -> None:
    seal = Seal.make(tmp_path / "key")
    sealed = seal.close(b"secret", "a")

    assert seal.open(sealed, "a") == b"secret"
    for content, what in ((sealed, "b"), (sealed[:-1] + b"x", "a"), (b"", "a")):
        with pytest.raises(WrongSeal):
            seal.open(content, what)
