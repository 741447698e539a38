"""What an authority signs, and what it believes."""

import stat
import time
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.trust.conftest import Joined

from skep.model.errors import Forbidden, InvalidInput, NotFound, Unauthenticated
from skep.model.ids import Seconds
from skep.trust.authority import Authority, fingerprint, key_hash
from skep.trust.identity import Identity, new_key, signing_request, stored_key
from skep.trust.peers import Peer, Role, peer_of

NOW = 1_800_000_000.0


def test_an_authority_that_was_stored_is_the_same(authority: Authority) -> None:
    again = Authority.load(authority.certificate, authority.key)

    assert (again.installation, again.fingerprint) == ("inst1", authority.fingerprint)


def test_a_key_of_another_authority_is_refused(authority: Authority) -> None:
    other = Authority.make("inst2", NOW)

    with pytest.raises(InvalidInput, match="not the one of its certificate"):
        Authority.load(authority.certificate, other.key)


def test_a_certificate_names_role_host_and_addresses() -> None:
    authority = Authority.make("inst1", NOW)
    addresses = [ip_address("10.0.0.7"), ip_address("fd00::7")]

    issued = authority.issue(
        signing_request(new_key()), role=Role.AGENT, name="host-7", now=NOW, addresses=addresses
    )

    found = x509.load_pem_x509_certificate(issued.certificate.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["skep://inst1/agent/host-7"]
    assert names.get_values_for_type(x509.DNSName) == ["host-7"]
    assert names.get_values_for_type(x509.IPAddress) == addresses
    assert (issued.issued, issued.expires) == (NOW, NOW + 30 * 86_400)
    assert authority.recognise(issued.certificate, NOW) == issued.peer


def test_no_certificate_outlives_its_authority() -> None:
    authority = Authority.make("inst1", NOW)
    late = NOW + 10 * 365 * 86_400 - 60

    issued = authority.issue(signing_request(new_key()), role=Role.AGENT, name="h", now=late)

    assert issued.expires == late + 60


def test_names_in_a_request_mean_nothing() -> None:
    authority, key = Authority.make("inst1", NOW), new_key()
    wish = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("skep://inst1/worker/w")])
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "worker")]))
        .add_extension(wish, critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )

    issued = authority.issue(request, role=Role.AGENT, name="host-1", now=NOW)

    assert authority.recognise(issued.certificate, NOW).uri == "skep://inst1/agent/host-1"


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP256K1()])
def test_other_kinds_of_keys_are_refused(curve: ec.EllipticCurve) -> None:
    request = signing_request(ec.generate_private_key(curve))

    with pytest.raises(InvalidInput, match="P-256"):
        Authority.make("inst1", NOW).issue(request, role=Role.AGENT, name="h", now=NOW)


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n", "ü" * 9])
def test_what_is_no_request_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="signing request"):
        key_hash(text)


def test_a_request_that_somebody_changed_is_refused() -> None:
    request = x509.load_pem_x509_csr(signing_request(new_key()).encode())
    der = bytearray(request.public_bytes(serialization.Encoding.DER))
    der[der.index(b"skep")] = ord("x")
    changed = x509.load_der_x509_csr(bytes(der)).public_bytes(serialization.Encoding.PEM).decode()

    with pytest.raises(InvalidInput, match="signed by its own key"):
        key_hash(changed)


def test_requests_of_one_key_have_one_hash() -> None:
    key = new_key()

    assert key_hash(signing_request(key)) == key_hash(signing_request(key))
    assert key_hash(signing_request(key)) != key_hash(signing_request(new_key()))


def test_certificates_of_others_and_of_other_times_are_not_recognised() -> None:
    ours, twin = Authority.make("inst1", NOW), Authority.make("inst1", NOW)
    request = signing_request(new_key())
    theirs = twin.issue(request, role=Role.AGENT, name="h", now=NOW)
    short = ours.issue(request, role=Role.AGENT, name="h", now=NOW, lifetime=Seconds(60))

    for certificate, now in (
        (theirs.certificate, NOW),
        (short.certificate, NOW + 60),
        (short.certificate, NOW - 3600),
    ):
        with pytest.raises(Unauthenticated):
            ours.recognise(certificate, now)
    with pytest.raises(InvalidInput):
        ours.recognise("nonsense", NOW)


def test_a_certificate_without_a_name_is_nobodys(authority: Authority) -> None:
    with pytest.raises(Forbidden, match="no process of skep"):
        peer_of(x509.load_pem_x509_certificate(authority.certificate.encode()))


def test_an_identity_is_only_its_owners_to_read(joined: Joined, authority: Authority) -> None:
    identity = joined(Role.AGENT, "host-1")

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in identity.directory.iterdir()}
    assert modes == {"identity.pem": 0o600, "authority.pem": 0o600}
    assert stat.S_IMODE(identity.directory.stat().st_mode) == 0o700
    assert identity.authority_fingerprint == authority.fingerprint == fingerprint(authority.certificate)
    assert identity.peer == Peer(
        installation="inst1", role=Role.AGENT, name="host-1", serial=identity.peer.serial
    )


def test_an_identity_is_renewed_at_half_of_its_life(joined: Joined) -> None:
    now = time.time()

    identity = joined(Role.AGENT, "host-1", now=now, lifetime=Seconds(1000))

    assert identity.renewal == pytest.approx(now + 350, abs=2)  # valid from 300 s before
    assert identity.expires == pytest.approx(now + 1000, abs=1)


def test_a_certificate_for_another_key_is_not_stored(authority: Authority, tmp_path: Path) -> None:
    issued = authority.issue(signing_request(new_key()), role=Role.AGENT, name="h", now=time.time())

    with pytest.raises(InvalidInput, match="another key"):
        Identity.store(tmp_path, new_key(), issued.certificate, authority.certificate)
    assert not Identity.exists(tmp_path)


def test_a_directory_without_identity_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="has not joined"):
        Identity(tmp_path)


def test_a_key_that_was_made_stays_until_it_is_used(tmp_path: Path) -> None:
    first = stored_key(tmp_path / "agent" / "joining.key")

    assert stored_key(tmp_path / "agent" / "joining.key").public_key() == first.public_key()
    assert stat.S_IMODE((tmp_path / "agent" / "joining.key").stat().st_mode) == 0o600
