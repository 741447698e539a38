"""Signatures of processes: what one says can be passed on by others, and is still known to be its own.

Made with the key of the process's certificate (ECDSA P-256), which travels along: who was away when somebody
came, or has been started since, needs nobody to tell it who that is.  A certificate is verified once and
then known; a signature costs its maker some 30 µs and its reader 75 µs (Ed25519: 40 and 140).
"""

import time
from collections.abc import Callable

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from skep.model.errors import Forbidden, Unauthenticated
from skep.trust.identity import Identity
from skep.trust.peers import Peer, peer_of

KNOWN = 4096
"""Certificates that are remembered, the oldest forgotten first."""

_ALGORITHM = ec.ECDSA(hashes.SHA256())


class _Signed(msgspec.Struct, frozen=True, array_like=True):
    certificate: bytes
    signature: bytes


class _Known(msgspec.Struct, frozen=True):
    peer: Peer
    key: ec.EllipticCurvePublicKey
    begins: float
    ends: float


_decoder = msgspec.msgpack.Decoder(_Signed)


class Signatures:
    """Of the process with this identity, and as it judges those of others; renewals of it are followed."""

    def __init__(self, identity: Identity, now: Callable[[], float] = time.time) -> None:
        self._identity = identity
        self._now = now
        self._authorities = identity.authorities
        self._known: dict[bytes, _Known] = {}

    def sign(self, content: bytes) -> bytes:
        return msgspec.msgpack.encode(_Signed(self._identity.der, self._identity.sign(content)))

    def signer(self, content: bytes, signature: bytes) -> Peer:
        """Who signed the content.

        Raises:
            Unauthenticated: nobody of this installation, or something else was signed.
        """
        try:
            signed = _decoder.decode(signature)
        except msgspec.MsgspecError as error:
            raise Unauthenticated("Its signature cannot be read.") from error
        known = self._owner(signed.certificate)
        if not known.begins <= self._now() < known.ends:
            raise Unauthenticated(f"The time of the certificate of {known.peer.uri} is over, or to come.")
        try:
            known.key.verify(signed.signature, content, _ALGORITHM)
        except InvalidSignature as error:
            raise Unauthenticated(
                f"{known.peer.uri} has not signed it: it was made up, altered, or meant for somebody else."
            ) from error
        return known.peer

    def _owner(self, certificate: bytes) -> _Known:
        """Verified once; all anew when there is another authority."""
        if self._authorities is not self._identity.authorities:
            self._authorities = self._identity.authorities
            self._known.clear()
        found = self._known.get(certificate)
        if found is None:
            found = self._verified(certificate)
            if len(self._known) >= KNOWN:
                del self._known[next(iter(self._known))]
            self._known[certificate] = found
        return found

    def _verified(self, der: bytes) -> _Known:
        try:
            found = x509.load_der_x509_certificate(der)
            key, peer = found.public_key(), peer_of(found)
        except (ValueError, Forbidden) as error:
            raise Unauthenticated("Its signature is of no process of skep.") from error
        if peer.installation != self._identity.peer.installation or not self._issued(found):
            raise Unauthenticated("Its signature is of another installation.")
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise Unauthenticated("Its signature is of a key of the wrong kind.")
        return _Known(
            peer, key, found.not_valid_before_utc.timestamp(), found.not_valid_after_utc.timestamp()
        )

    def _issued(self, certificate: x509.Certificate) -> bool:
        return any(_has_issued(authority, certificate) for authority in self._authorities)


def _has_issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
