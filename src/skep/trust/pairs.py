"""Keys that two processes share, so that what they tell each other needs no signature each time.

A process has an X25519 key for a day, in memory alone, and announces its public half under the signature of
its certificate's key (`trust/signatures.py`).  Of two announcements both sides compute the same keys, one for
each direction, bound to both certificates (HKDF with SHA-256).  Who has stolen the key of a certificate can
announce a key of its own, and no more: it cannot speak to the process in the name of others.
"""

import hashlib
import hmac
from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from skep.model.errors import Unauthenticated
from skep.trust.identity import Identity

LIFETIME = 86_400.0
"""Seconds until a process takes a new key; what is proved by the one before is believed for as long again."""
ANNOUNCING = b"skep pair 1 announce "
"""What is signed with it is an announcement, and nothing else."""
_AGREEING = b"skep pair 1 agree "
_NAME = 8


class Own(msgspec.Struct, frozen=True, eq=False):
    """A key of this process, and what it is announced with."""

    key: X25519PrivateKey
    public: bytes
    certificate: bytes
    signature: bytes
    until: float


class Partner(msgspec.Struct, frozen=True, eq=False):
    """Another process, as it announced itself; `keys`: what is shared with it, by the own public key."""

    certificate: bytes
    public: bytes
    keys: dict[bytes, tuple[bytes, bytes]]


def name_of(public: bytes) -> bytes:
    """Enough to tell a key from the few others of its process."""
    return public[:_NAME]


class PairKeys:
    """The keys of the process with this identity."""

    def __init__(self, identity: Identity, now: Callable[[], float]) -> None:
        self._identity = identity
        self._now = now
        self._own: list[Own] = []
        """The present one, and the one before."""

    def present(self) -> Own:
        """Made anew after a day, and with each certificate."""
        own = self._own[0] if self._own else None
        if own is None or own.certificate != self._identity.der or self._now() >= own.until:
            own = self._make()
            self._own = [own, *self._own[:1]]
        return own

    def called(self, name: bytes) -> Own | None:
        return next((own for own in self._own if name_of(own.public) == name), None)

    def prove(self, content: bytes, own: Own, partner: Partner) -> bytes:
        """What nobody but the partner can make, or check."""
        return hmac.digest(self._keys(own, partner)[0], content, "sha256")

    def is_proved(self, content: bytes, proof: bytes, own: Own, partner: Partner) -> bool:
        """Whether it is the partner's proof of the content, for this process."""
        return hmac.compare_digest(hmac.digest(self._keys(own, partner)[1], content, "sha256"), proof)

    def _make(self) -> Own:
        key = X25519PrivateKey.generate()
        public = key.public_key().public_bytes_raw()
        signature = self._identity.sign(ANNOUNCING + public)
        return Own(key, public, self._identity.der, signature, self._now() + LIFETIME)

    def _keys(self, own: Own, partner: Partner) -> tuple[bytes, bytes]:
        """To prove with, and to check with; agreed on once."""
        found = partner.keys.get(own.public)
        if found is None:
            try:
                secret = own.key.exchange(X25519PublicKey.from_public_bytes(partner.public))
            except ValueError as error:
                raise Unauthenticated("Its signature announces a key that is none.") from error
            ours, theirs = own.certificate + own.public, partner.certificate + partner.public
            found = _derived(secret, ours, theirs), _derived(secret, theirs, ours)
            partner.keys.clear()  # of two keys of this process, the one that is in use
            partner.keys[own.public] = found
        return found


def _derived(secret: bytes, sender: bytes, receiver: bytes) -> bytes:
    info = _AGREEING + hashlib.sha256(sender).digest() + hashlib.sha256(receiver).digest()
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(secret)
