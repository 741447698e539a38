"""Sealing what lies in the database: who has the database alone, or a backup of it, cannot open it.

AES-256-GCM with a key from a file of 32 random bytes, written as base64, which only its owner may read.  Each
sealed value begins with its nonce and is bound to what it is, so that one cannot be put in another's place.
"""

import base64
import os
import secrets
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from skep.model.errors import Forbidden, InvalidInput
from skep.trust.identity import write_private

_NONCE = 12
_LENGTH = 32


class WrongSeal(Forbidden):
    """This was sealed with another key."""


class Seal:
    """A key to seal and to open with."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def read(cls, path: Path) -> "Seal":
        """Raises InvalidInput: the file holds no key, or others may read it."""
        if is_open(path.stat(), os.geteuid()):
            raise InvalidInput(f"{path} may be read by others than its owner: chmod 600 {path}")
        try:
            key = base64.b64decode(path.read_text().strip(), validate=True)
        except ValueError as error:
            raise InvalidInput(f"{path} holds no key: it is not base64.") from error
        if len(key) != _LENGTH:
            raise InvalidInput(f"{path} holds no key: it must be {_LENGTH} bytes as base64.")
        return cls(key)

    @classmethod
    def make(cls, path: Path) -> "Seal":
        """A new key in the file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_private(path, base64.b64encode(secrets.token_bytes(_LENGTH)).decode() + "\n")
        return cls.read(path)

    def close(self, content: bytes, what: str) -> bytes:
        nonce = os.urandom(_NONCE)
        return nonce + self._cipher.encrypt(nonce, content, what.encode())

    def open(self, sealed: bytes, what: str) -> bytes:
        """Raises WrongSeal: it was sealed with another key, is something else, or was changed."""
        try:
            return self._cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], what.encode())
        except (InvalidTag, ValueError) as error:
            raise WrongSeal from error


def is_open(file: os.stat_result, user: int) -> bool:
    """Whether too many may read it.

    Root's file for somebody else is read by group, as of Secrets in Kubernetes; that is PostgreSQL's rule for
    keys, too (https://www.postgresql.org/docs/15/ssl-tcp.html#SSL-SETUP).
    """
    lent = user != 0 and file.st_uid == 0
    forbidden = stat.S_IRWXO | (stat.S_IWGRP if lent else stat.S_IRWXG)
    return bool(stat.S_IMODE(file.st_mode) & forbidden)
