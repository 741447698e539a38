"""Signatures of processes: what one says can be passed on by others, and is still known to be its own.

Made with the key of the process's certificate (ECDSA P-256), which travels along: who was away when somebody
came, or has been started since, needs nobody to tell it who that is.  A certificate is verified once and
then known; a signature costs its maker some 30 µs and its reader 75 µs (Ed25519: 40 and 140).

What is for one process that has announced a key (`trust/pairs.py`) is proved by the key that both share
instead, for some 5 µs.  Announcements travel with every signature, too.
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
from skep.trust.pairs import ANNOUNCING, PairKeys, Partner, name_of
from skep.trust.peers import Peer, peer_of

KNOWN = 4096
"""Certificates that are remembered, the oldest forgotten first."""

_FORGED = "{} has not signed it: it was made up, altered, or meant for somebody else."
_ALGORITHM = ec.ECDSA(hashes.SHA256())


class _Signed(msgspec.Struct, frozen=True, array_like=True):
    """Whose it is, and the `signature` of the content; or, `to` the key of this name, a `proof` of it.

    `public` is the announced key, and `announcement` its signature.  The release before reads the first two
    fields, and sends no more.
    """

    certificate: bytes
    signature: bytes
    public: bytes = b""
    announcement: bytes = b""
    to: bytes = b""
    proof: bytes = b""


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
        self._pairs = PairKeys(identity, now)
        self._partners: dict[bytes, Partner] = {}

    def sign(self, content: bytes, to: bytes = b"") -> bytes:
        """For whoever has an announcement called `to`, as `announced` said; empty or forgotten: for all."""
        own = self._pairs.present()
        partner = self._partners.get(to)
        if partner is None:
            signature, proved = self._identity.sign(content), (b"", b"")
        else:
            signature = b""
            proved = name_of(partner.public), self._pairs.prove(content, own, partner)
        return msgspec.msgpack.encode(_Signed(own.certificate, signature, own.public, own.signature, *proved))

    def signer(self, content: bytes, signature: bytes) -> Peer:
        """Who signed the content.

        Raises:
            Unauthenticated: nobody of this installation, or something else was signed, or for somebody else.
        """
        signed = _read(signature)
        known = self._owner(signed.certificate)
        if not known.begins <= self._now() < known.ends:
            raise Unauthenticated(f"The time of the certificate of {known.peer.uri} is over, or to come.")
        if signed.proof:
            self._check_proof(known, signed, content)
        else:
            _verify(known, signed.signature, content)
        return known.peer

    def announced(self, signature: bytes) -> bytes:
        """What `sign` calls the key that came with a signature which is in order; empty: none did."""
        signed = _read(signature)
        if not signed.public:
            return b""
        self._partner(self._owner(signed.certificate), signed)
        return signed.certificate + signed.public

    def _check_proof(self, known: _Known, signed: _Signed, content: bytes) -> None:
        own = self._pairs.called(signed.to)
        if own is None:
            raise Unauthenticated(f"{known.peer.uri} has proved it to a process that was here before.")
        if not self._pairs.is_proved(content, signed.proof, own, self._partner(known, signed)):
            raise Unauthenticated(_FORGED.format(known.peer.uri))

    def _partner(self, known: _Known, signed: _Signed) -> Partner:
        """Its announcement is verified once."""
        name = signed.certificate + signed.public
        found = self._partners.get(name)
        if found is None:
            _verify(known, signed.announcement, ANNOUNCING + signed.public)
            if len(self._partners) >= KNOWN:
                del self._partners[next(iter(self._partners))]
            found = self._partners[name] = Partner(signed.certificate, signed.public, {})
        return found

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


def _read(signature: bytes) -> _Signed:
    try:
        return _decoder.decode(signature)
    except msgspec.MsgspecError as error:
        raise Unauthenticated("Its signature cannot be read.") from error


def _verify(known: _Known, signature: bytes, content: bytes) -> None:
    try:
        known.key.verify(signature, content, _ALGORITHM)
    except InvalidSignature as error:
        raise Unauthenticated(_FORGED.format(known.peer.uri)) from error


def _has_issued(authority: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True
