"""TLS between processes: 1.3 only, both sides prove themselves, and each says whom it expects.

The standard library checks chains and names, not URIs.  So a context looks at the peer itself, at the end of
the handshake: a connection that the caller gets is to somebody expected.  That holds for everything that
connects with a context: asyncio, uvloop, uvicorn, httpx.
"""

import ssl
from pathlib import Path
from typing import Any, cast

import msgspec
from cryptography import x509

from skep.model.errors import SkepError
from skep.trust.peers import Peer, Role, peer_of


class Expectation(msgspec.Struct, frozen=True):
    """Whom to talk to: somebody of the role; of exactly this name, if one is given."""

    role: Role
    name: str = ""
    installation: str = ""

    def of(self, installation: str) -> "Expectation":
        return Expectation(self.role, self.name, self.installation or installation)

    def met_by(self, peer: Peer) -> bool:
        return (
            peer.role is self.role and peer.installation == self.installation and self.name in ("", peer.name)
        )

    def __str__(self) -> str:
        return f"{self.role} {self.name}".strip()


class _CheckedObject(ssl.SSLObject):
    def do_handshake(self) -> None:
        super().do_handshake()
        _check(cast("PeerContext", self.context), self.getpeercert(binary_form=True))


class _CheckedSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        super().do_handshake(block)
        _check(cast("PeerContext", self.context), self.getpeercert(binary_form=True))


class PeerContext(ssl.SSLContext):
    """A context with whom it expects."""

    sslobject_class = _CheckedObject
    sslsocket_class = _CheckedSocket
    expected: tuple[Expectation, ...] = ()


def server_context(authority: Path, expected: tuple[Expectation, ...]) -> PeerContext:
    """Without sessions to resume: each connection proves anew who it is."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, authority, expected)
    context.num_tickets = 0
    return context


def client_context(authority: Path, expected: tuple[Expectation, ...]) -> PeerContext:
    """Who answers is known by its URI, so the name that was dialled does not count."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, authority, expected)


def peer(connection: Any) -> Peer:
    """Who is at the other end: of an `ssl_object` from `get_extra_info`, or of an `SSLSocket`."""
    return peer_of(x509.load_der_x509_certificate(connection.getpeercert(binary_form=True)))


def _context(protocol: int, authority: Path, expected: tuple[Expectation, ...]) -> PeerContext:
    context = PeerContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    # An operator's authority may itself be signed by another one, which says nothing about processes of skep.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(authority)
    context.expected = expected
    return context


def _check(context: PeerContext, certificate: bytes | None) -> None:
    """Raises ssl.SSLCertVerificationError: the peer is somebody else than expected."""
    try:
        found = peer_of(x509.load_der_x509_certificate(certificate or b""))
    except (SkepError, ValueError) as error:
        raise ssl.SSLCertVerificationError(1, str(error)) from error
    if not any(one.met_by(found) for one in context.expected):
        wanted = " or ".join(map(str, context.expected)) or "nobody"
        who = f"{found.role} {found.name!r} of installation {found.installation}"
        raise ssl.SSLCertVerificationError(1, f"the other end is {who}, not {wanted}")
