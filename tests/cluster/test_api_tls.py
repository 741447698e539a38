"""What the API proves itself with, and that it takes up what was renewed."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from tests.schema import put_schema

from skep.configuration import Configuration
from skep.control.hosts.authorities import Authorities
from skep.flow import Database
from skep.main import tls
from skep.main.tls import names_of_api, tls_of_api
from skep.model.errors import InvalidInput
from skep.trust.api_contexts import verifying
from skep.trust.authority import Authority
from skep.trust.identity import Identity, new_key, signing_request
from skep.trust.peers import Role


@pytest.fixture
async def authorities(tmp_path: Path) -> AsyncIterator[Authorities]:
    database = await Database.open(await put_schema(tmp_path / "skep.db"), durable=False)
    yield Authorities(database, tmp_path / "etc" / "installation.key", time.time)
    await database.close()


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "INTERVAL", 0.05)


def settings(folder: Path, **changes: object) -> Configuration:
    return Configuration(data=folder / "data", etc=folder / "etc", **changes)  # type: ignore[arg-type]


async def serial(context: ssl.SSLContext, trusted: str) -> int:
    """Of the certificate that a caller sees which dials 127.0.0.1."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=verifying(trusted))
        shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
    return x509.load_der_x509_certificate(shown).serial_number


def operators(folder: Path, authority: Authority) -> None:
    """A certificate as an operator would bring it, from an authority that is not the installation's."""
    key = new_key()
    issued = authority.issue(
        signing_request(key),
        role=Role.SERVE,
        name="api",
        now=time.time(),
        addresses=[ip_address("127.0.0.1")],
    )
    Identity.store(folder / "own", key, issued.certificate, authority.certificate)


async def test_on_loopback_there_is_no_tls(authorities: Authorities, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        assert await tls_of_api(stack, settings(tmp_path), authorities) is None


async def test_the_authority_of_the_installation_vouches_for_the_api(
    authorities: Authorities, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        context = await tls_of_api(stack, settings(tmp_path, tls="on"), authorities)
        assert context is not None

        shown = await authorities.show()
        assert await serial(context, shown.certificates)
        assert (tmp_path / "etc" / "authority.pem").read_text() == shown.certificates


@pytest.mark.usefixtures("eager")
async def test_a_certificate_that_the_operator_renewed_is_taken_up(
    authorities: Authorities, tmp_path: Path
) -> None:
    company = Authority.make("company", time.time())
    operators(tmp_path, company)
    file = tmp_path / "own" / "identity.pem"
    own = settings(tmp_path, tls="on", tls_certificate=file, tls_key=file)
    async with AsyncExitStack() as stack:
        context = await tls_of_api(stack, own, authorities)
        assert context is not None
        first = await serial(context, company.certificate)

        operators(tmp_path, company)

        async with asyncio.timeout(10):
            while await serial(context, company.certificate) == first:
                await asyncio.sleep(0.05)
    assert not (tmp_path / "etc" / "authority.pem").exists()


@pytest.mark.usefixtures("eager")
async def test_half_a_file_does_not_end_the_service(authorities: Authorities, tmp_path: Path) -> None:
    company = Authority.make("company", time.time())
    operators(tmp_path, company)
    file = tmp_path / "own" / "identity.pem"
    own = settings(tmp_path, tls="on", tls_certificate=file, tls_key=file)
    async with AsyncExitStack() as stack:
        context = await tls_of_api(stack, own, authorities)
        assert context is not None
        first = await serial(context, company.certificate)

        file.write_text(file.read_text()[:100])
        await asyncio.sleep(0.2)

        assert await serial(context, company.certificate) == first
        operators(tmp_path, company)
        async with asyncio.timeout(10):
            while await serial(context, company.certificate) == first:
                await asyncio.sleep(0.05)


async def test_files_that_are_none_are_named(authorities: Authorities, tmp_path: Path) -> None:
    missing = settings(tmp_path, tls="on", tls_certificate=tmp_path / "no.pem", tls_key=tmp_path / "no.key")

    async with AsyncExitStack() as stack:
        with pytest.raises(InvalidInput, match=r"no\.pem"):
            await tls_of_api(stack, missing, authorities)


def test_the_certificate_has_every_name_of_the_api() -> None:
    found = Configuration(
        listen="10.0.0.1:443", public_host="skep.example", api_url="https://api.example:8443", tls="on"
    )

    names, addresses = names_of_api(found)

    assert {"skep.example", "api.example", "localhost"} <= set(names)
    assert {ip_address("10.0.0.1"), ip_address("127.0.0.1"), ip_address("::1")} == set(addresses)
    assert ip_address("0.0.0.0") not in names_of_api(Configuration(listen="0.0.0.0:1"))[1]
