"""Who signed something, and whose signature is worth nothing."""

import time
from pathlib import Path

import pytest
from tests.trust.conftest import Joined, enrol

from skep.model.errors import Unauthenticated
from skep.model.ids import Seconds
from skep.trust.authority import Authority
from skep.trust.identity import Identity
from skep.trust.peers import Role
from skep.trust.signatures import Signatures

DAY = 86_400.0


def test_a_signature_names_its_process(joined: Joined) -> None:
    worker, agent = joined(Role.WORKER, "worker-1"), joined(Role.AGENT, "host-1")

    signer = Signatures(agent).signer(b"start", Signatures(worker).sign(b"start"))

    assert (signer, signer.host) == (worker.peer, None)
    assert Signatures(worker).signer(b"up", Signatures(agent).sign(b"up")).host == "host-1"


def test_a_signature_is_for_one_content(joined: Joined) -> None:
    worker = Signatures(joined(Role.WORKER, "worker-1"))

    with pytest.raises(Unauthenticated, match="altered"):
        worker.signer(b"stop", worker.sign(b"start"))


def test_a_certificate_without_its_key_signs_nothing(joined: Joined) -> None:
    worker, agent = joined(Role.WORKER, "worker-1"), joined(Role.AGENT, "host-1")
    forged = Signatures(agent).sign(b"start").replace(agent.der, worker.der)

    with pytest.raises(Unauthenticated):
        Signatures(agent).signer(b"start", forged)


@pytest.mark.parametrize("nonsense", [b"", b"\x00", b"\x92\xc4\x01a\xc4\x01b"])
def test_nonsense_is_no_signature(joined: Joined, nonsense: bytes) -> None:
    with pytest.raises(Unauthenticated):
        Signatures(joined(Role.WORKER, "worker-1")).signer(b"start", nonsense)


@pytest.mark.parametrize("installation", ["inst1", "inst2"])
def test_another_authority_certifies_nobody_here(joined: Joined, installation: str) -> None:
    stranger = joined(Role.WORKER, "worker-1", Authority.make(installation, time.time()))

    with pytest.raises(Unauthenticated, match="another installation"):
        Signatures(joined(Role.AGENT, "host-1")).signer(b"start", Signatures(stranger).sign(b"start"))


def test_a_certificate_that_was_good_is_not_for_ever(authority: Authority, tmp_path: Path) -> None:
    clock = [time.time()]
    worker = enrol(authority, tmp_path / "worker", Role.WORKER, "worker-1", lifetime=Seconds(DAY))
    agent = Signatures(enrol(authority, tmp_path / "agent", Role.AGENT, "host-1"), lambda: clock[0])
    signature = Signatures(worker).sign(b"start")
    agent.signer(b"start", signature)

    clock[0] += DAY

    with pytest.raises(Unauthenticated, match="time of the certificate"):
        agent.signer(b"start", signature)


def test_a_renewed_identity_signs_with_its_new_key(authority: Authority, tmp_path: Path) -> None:
    worker = enrol(authority, tmp_path / "worker", Role.WORKER, "worker-1")
    signatures, before = Signatures(worker), worker.der

    enrol(authority, tmp_path / "worker", Role.WORKER, "worker-1")
    worker.refresh()

    assert worker.der != before
    assert signatures.signer(b"start", signatures.sign(b"start")) == worker.peer


def test_whom_a_former_authority_certified_is_a_stranger(authority: Authority, tmp_path: Path) -> None:
    """What was verified once is verified again where there is another authority."""
    agent = enrol(authority, tmp_path / "agent", Role.AGENT, "host-1")
    signatures = Signatures(agent)
    signature = Signatures(enrol(authority, tmp_path / "worker", Role.WORKER, "worker-1")).sign(b"start")
    signatures.signer(b"start", signature)

    enrol(Authority.make("inst1", time.time()), tmp_path / "agent", Role.AGENT, "host-1")
    agent.refresh()

    with pytest.raises(Unauthenticated, match="another installation"):
        signatures.signer(b"start", signature)


def test_the_identity_of_a_process_is_what_travels(joined: Joined) -> None:
    worker = joined(Role.WORKER, "worker-1")

    assert Identity(worker.directory).der == worker.der
    assert worker.der in Signatures(worker).sign(b"start")
