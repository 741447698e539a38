"""Two processes prove what they tell each other by a key that nobody else has."""

import time
from pathlib import Path

import msgspec
import pytest
from tests.trust.conftest import Joined, enrol

from skep.model.errors import Unauthenticated
from skep.trust.authority import Authority
from skep.trust.identity import Identity
from skep.trust.pairs import LIFETIME
from skep.trust.peers import Peer, Role
from skep.trust.signatures import Signatures


def told(sender: Signatures, receiver: Signatures, content: bytes = b"start") -> bytes:
    """The proof of the content, for a receiver whose key the sender has heard of."""
    before = receiver.sign(b"here I am")
    sender.signer(b"here I am", before)
    return sender.sign(content, sender.announced(before))


def fields(proof: bytes) -> list[bytes]:
    """Certificate, signature, announced key, its signature, for which key, proof by the shared one."""
    found: list[bytes] = msgspec.msgpack.decode(proof)
    return found


@pytest.fixture
def worker(joined: Joined) -> Signatures:
    return Signatures(joined(Role.WORKER, "worker-1"))


@pytest.fixture
def agent(joined: Joined) -> Signatures:
    return Signatures(joined(Role.AGENT, "host-1"))


def test_what_is_for_one_process_is_not_signed_and_names_its_sender(
    worker: Signatures, agent: Signatures
) -> None:
    proof = told(worker, agent)

    assert fields(proof)[1] == b""
    assert agent.signer(b"start", proof) == Peer(
        installation="inst1", role=Role.WORKER, name="worker-1", serial=agent.signer(b"start", proof).serial
    )
    assert agent.announced(proof) == agent.announced(worker.sign(b"start"))


def test_it_is_for_one_content_and_one_receiver(
    worker: Signatures, agent: Signatures, joined: Joined
) -> None:
    other, proof = Signatures(joined(Role.AGENT, "host-2")), told(worker, agent)
    other.sign(b"has a key, too")

    with pytest.raises(Unauthenticated, match="altered"):
        agent.signer(b"stop", proof)
    with pytest.raises(Unauthenticated, match="a process that was here before"):
        other.signer(b"start", proof)
    with pytest.raises(Unauthenticated):
        worker.signer(b"start", proof)


def test_a_host_speaks_for_itself_alone(worker: Signatures, agent: Signatures, joined: Joined) -> None:
    """It has a key with control, and puts another's certificate and announcement in the place of its own."""
    other = Signatures(joined(Role.AGENT, "host-2"))
    own, others = fields(told(agent, worker)), fields(told(other, worker))

    forged = msgspec.msgpack.encode([*others[:4], *own[4:]])

    assert worker.signer(b"start", msgspec.msgpack.encode(others)).host == "host-2"
    with pytest.raises(Unauthenticated, match="altered"):
        worker.signer(b"start", forged)


def test_a_key_that_its_process_did_not_announce_is_none(worker: Signatures, agent: Signatures) -> None:
    certificate, _, _, _, to, _ = fields(told(worker, agent))
    _, _, public, announcement, _, _ = fields(told(agent, worker))

    forged = msgspec.msgpack.encode([certificate, b"", public, announcement, to, bytes(32)])

    with pytest.raises(Unauthenticated, match="made up"):
        agent.signer(b"start", forged)


def test_who_has_stolen_a_hosts_identity_cannot_command_it(
    worker: Signatures, agent: Signatures, joined: Joined, tmp_path: Path
) -> None:
    """The keys that are shared are of processes, and are not in files."""
    thief = Signatures(Identity(joined(Role.AGENT, "host-3").directory))
    victim = Signatures(Identity(tmp_path / next(tmp_path.glob("*host-3"))))
    parts = fields(told(worker, victim))
    mine = fields(told(worker, thief))

    forged = msgspec.msgpack.encode([*parts[:5], mine[5]])

    with pytest.raises(Unauthenticated):
        victim.signer(b"start", forged)


def test_a_key_is_for_a_day_and_believed_for_another(joined: Joined) -> None:
    clock = [time.time()]
    worker = Signatures(joined(Role.WORKER, "worker-1"))
    agent = Signatures(joined(Role.AGENT, "host-1"), lambda: clock[0])
    proof = told(worker, agent)
    first = agent.announced(agent.sign(b"up"))

    clock[0] += LIFETIME
    second = agent.announced(agent.sign(b"up"))
    signer = agent.signer(b"start", proof)
    clock[0] += LIFETIME
    agent.sign(b"up")

    assert (first != second, signer.name) == (True, "worker-1")
    with pytest.raises(Unauthenticated, match="before"):
        agent.signer(b"start", proof)


def test_a_renewed_certificate_comes_with_another_key(authority: Authority, tmp_path: Path) -> None:
    identity = enrol(authority, tmp_path / "agent", Role.AGENT, "host-1")
    agent = Signatures(identity)
    worker = Signatures(enrol(authority, tmp_path / "worker", Role.WORKER, "worker-1"))
    under_way = told(worker, agent)

    enrol(authority, tmp_path / "agent", Role.AGENT, "host-1")
    identity.refresh()
    proof = told(agent, worker, b"renewed")

    assert worker.signer(b"renewed", proof) == identity.peer
    assert agent.signer(b"start", under_way).name == "worker-1"


def test_the_release_before_sends_no_key_and_reads_signatures(worker: Signatures, agent: Signatures) -> None:
    from_before = msgspec.msgpack.encode(fields(worker.sign(b"start"))[:2])

    assert (agent.signer(b"start", from_before).name, agent.announced(from_before)) == ("worker-1", b"")
    assert fields(agent.sign(b"up", agent.announced(from_before)))[1] != b""
