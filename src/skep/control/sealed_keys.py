"""Keys of certificates for endpoints, sealed with the file that opens the installation's authority, too."""

from pathlib import Path

import msgspec

from skep.model.errors import InvalidInput, Unavailable
from skep.store.endpoints import TlsCertificateRow
from skep.trust.sealing import Seal, WrongSeal


def seal_key(seal: Path | None, row: TlsCertificateRow, key: str) -> TlsCertificateRow:
    """The row with the key.  Raises Unavailable: this process has no file to seal with."""
    return msgspec.structs.replace(row, sealed_key=seal_text(seal, key, _what(row)))


def pem(seal: Path | None, row: TlsCertificateRow) -> bytes:
    """The chain and the key.  Raises Unavailable: this process cannot open it."""
    try:
        key = open_text(seal, row.sealed_key, _what(row))
    except Unavailable as error:
        raise Unavailable(f"Certificate {row.name!r} cannot be opened with the file {seal}.") from error
    return row.chain.encode() + key.encode()


def seal_text(seal: Path | None, text: str, what: str) -> bytes:
    """Bound to `what` it is.  Raises Unavailable: this process has no file to seal with."""
    if seal is None:
        raise Unavailable("This process has no file to seal keys with.")
    return (Seal.read(seal) if seal.exists() else Seal.make(seal)).close(text.encode(), what)


def open_text(seal: Path | None, sealed: bytes, what: str) -> str:
    """Raises Unavailable: this process cannot open it."""
    try:
        if seal is None or not seal.exists():
            raise WrongSeal
        return Seal.read(seal).open(sealed, what).decode()
    except (WrongSeal, InvalidInput, OSError) as error:
        raise Unavailable(f"What is sealed as {what!r} cannot be opened with the file {seal}.") from error


def _what(row: TlsCertificateRow) -> str:
    return f"tls {row.tenant_id} {row.digest}"
