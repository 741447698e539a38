"""Who gets through to whom, over real sockets."""

import asyncio
import logging
import socket
import ssl
import threading
import time
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import uvicorn
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID
from tests.trust.conftest import Joined, ask, greeting

from skep.model.ids import Seconds
from skep.trust.authority import Authority
from skep.trust.contexts import Expectation
from skep.trust.identity import Identity, new_key, signing_request
from skep.trust.peers import Role

WORKERS, SERVERS = Expectation(Role.WORKER), Expectation(Role.SERVE)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # it tells of each refused handshake


async def refused(server: Identity, client: Identity, *expected: Expectation) -> str:
    """Why a client that is no worker and no control does not get through to the agent."""
    async with greeting(server.server_context(WORKERS, SERVERS)) as port:
        try:
            said = await ask(port, client.client_context(*(expected or (Expectation(Role.AGENT),))))
        except (ssl.SSLError, ConnectionError) as error:
            return str(error)
        assert said == ""
        return "closed"


async def test_control_and_an_agent_know_each_other(joined: Joined) -> None:
    agent, worker = joined(Role.AGENT, "host-1"), joined(Role.WORKER, "worker-1")

    async with greeting(agent.server_context(WORKERS, SERVERS)) as port:
        said = await ask(port, worker.client_context(Expectation(Role.AGENT, "host-1")))

    assert said == "skep://inst1/worker/worker-1"


async def test_the_certificate_of_a_host_is_worth_nothing_as_a_workers(joined: Joined) -> None:
    assert await refused(joined(Role.AGENT, "host-1"), joined(Role.AGENT, "host-2"))


async def test_a_host_that_answers_in_anothers_place_is_found_out(joined: Joined) -> None:
    agent, worker = joined(Role.AGENT, "host-2"), joined(Role.WORKER, "worker-1")

    assert "not agent host-1" in await refused(agent, worker, Expectation(Role.AGENT, "host-1"))


async def test_a_worker_that_answers_in_the_place_of_an_agent_is_found_out(joined: Joined) -> None:
    other, worker = joined(Role.WORKER, "host-1"), joined(Role.WORKER, "worker-1")

    assert "not agent host-1" in await refused(other, worker, Expectation(Role.AGENT, "host-1"))


async def test_another_authority_means_nothing_even_with_the_same_name(joined: Joined) -> None:
    twin = Authority.make("inst1", time.time())
    agent, stranger = joined(Role.AGENT, "host-1"), joined(Role.WORKER, "worker-1", of=twin)

    assert await refused(agent, stranger)
    assert "certificate verify failed" in await refused(stranger, agent, WORKERS)


async def test_a_certificate_is_worth_nothing_after_its_time_and_before_it(joined: Joined) -> None:
    agent, now = joined(Role.AGENT, "host-1"), time.time()
    old = joined(Role.WORKER, "old", now=now - 100, lifetime=Seconds(50))
    early = joined(Role.WORKER, "early", now=now + 3600)

    for worker in (old, early):
        assert await refused(agent, worker)
    assert "expired" in await refused(old, agent, WORKERS)
    assert "not yet valid" in await refused(early, agent, WORKERS)


async def test_nobody_gets_in_without_a_certificate(joined: Joined) -> None:
    plain = ssl.create_default_context()
    plain.check_hostname, plain.verify_mode = False, ssl.CERT_NONE

    async with greeting(joined(Role.AGENT, "host-1").server_context(WORKERS)) as port:
        try:
            said = await ask(port, plain)
        except (ssl.SSLError, ConnectionError):
            said = ""

    assert said == ""


async def test_older_tls_is_refused(joined: Joined) -> None:
    worker = joined(Role.WORKER, "worker-1").client_context(Expectation(Role.AGENT))
    worker.minimum_version = ssl.TLSVersion.TLSv1_2
    worker.maximum_version = ssl.TLSVersion.TLSv1_2

    async with greeting(joined(Role.AGENT, "host-1").server_context(WORKERS)) as port:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await ask(port, worker)


async def test_a_context_that_expects_nobody_lets_nobody_in(joined: Joined) -> None:
    agent, worker = joined(Role.AGENT, "host-1"), joined(Role.WORKER, "worker-1")

    async with greeting(agent.server_context()) as port:
        assert await ask(port, worker.client_context(Expectation(Role.AGENT))) == ""


async def test_an_operators_intermediate_authority_is_believed_without_its_root(joined: Joined) -> None:
    """And what else the root has signed is not."""
    root = company("root")
    ours = company("skep", signed_by=root)
    other = company("payroll", signed_by=root)
    agent, worker = joined(Role.AGENT, "host-1", of=ours), joined(Role.WORKER, "worker-1", of=ours)
    stranger = joined(Role.WORKER, "worker-1", of=other)

    async with greeting(agent.server_context(WORKERS)) as port:
        said = await ask(port, worker.client_context(Expectation(Role.AGENT, "host-1")))

    assert said == f"skep://{ours.installation}/worker/worker-1"
    assert await refused(agent, stranger, Expectation(Role.AGENT, "host-1"))


async def test_an_identity_is_renewed_while_it_serves(joined: Joined, authority: Authority) -> None:
    agent = joined(Role.AGENT, "host-1", now=time.time() - 3600, lifetime=Seconds(3602))
    context = joined(Role.WORKER, "worker-1").client_context(Expectation(Role.AGENT, "host-1"))
    async with greeting(agent.server_context(WORKERS)) as port:
        assert await ask(port, context)

        key = new_key()
        issued = authority.issue(signing_request(key), role=Role.AGENT, name="host-1", now=time.time())
        agent.renew(key, issued.certificate, authority.certificate)
        await asyncio.sleep(2.5)  # the old one is over

        assert await ask(port, context) == "skep://inst1/worker/worker-1"
    assert agent.peer.serial == issued.peer.serial
    assert agent.expires == pytest.approx(issued.expires, abs=1)


async def test_what_another_process_renewed_is_taken_up(joined: Joined, authority: Authority) -> None:
    agent = joined(Role.AGENT, "host-1")
    key = new_key()
    issued = authority.issue(signing_request(key), role=Role.AGENT, name="host-1", now=time.time())
    Identity.store(agent.directory, key, issued.certificate, authority.certificate)

    agent.refresh()

    assert agent.peer.serial == issued.peer.serial


def company(name: str, *, signed_by: Authority | None = None) -> Authority:
    """An authority as others make them: with no word of skep in it."""
    key, now = new_key(), datetime.now(UTC)
    issuer = signed_by._certificate.subject if signed_by else None
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer or subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(signed_by._key if signed_by else key, hashes.SHA256())
    )
    return Authority(certificate, key)


async def app(scope: object, receive: object, send: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b"hello"})  # type: ignore[operator]


def test_roles_hold_with_uvicorn_uvloop_and_httpx_in_both_ways(joined: Joined) -> None:
    """What the agents' streams are made of."""
    agent, worker, other = (
        joined(Role.AGENT, "host-1"),
        joined(Role.WORKER, "worker-1"),
        joined(Role.AGENT, "host-2"),
    )
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        config = uvicorn.Config(app, lifespan="off", log_config=None)
        config.load()
        config.ssl = agent.server_context(WORKERS)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: uvloop.run(server._serve(sockets=[listener])))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
            expected = Expectation(Role.AGENT, "host-1")
            assert httpx.get(url, verify=worker.client_context(expected)).text == "hello"
            assert asyncio.run(fetch(url, worker.client_context(expected))) == "hello"
            for wrong in (other.client_context(expected), worker.client_context(WORKERS)):
                with pytest.raises(httpx.TransportError):
                    httpx.get(url, verify=wrong)
                with pytest.raises(httpx.TransportError):
                    asyncio.run(fetch(url, wrong))
        finally:
            server.should_exit = True
            thread.join(10)


async def fetch(url: str, context: ssl.SSLContext) -> str:
    async with httpx.AsyncClient(verify=context) as client:
        return (await client.get(url)).text
