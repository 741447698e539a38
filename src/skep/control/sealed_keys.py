"""Keys of tenants' certificates, sealed with the file that opens the installation's authority, too."""

from pathlib import Path

import msgspec

from skep.model.errors import InvalidInput, Unavailable
from skep.store.endpoints import TlsCertificateRow
from skep.trust.sealing import Seal, WrongSeal


def seal_key(seal: Path | None, row: TlsCertificateRow, key: str) -> TlsCertificateRow:
    """The row with the key.  Raises Unavailable: this process has no file to seal with."""
    if seal is None:
        raise Unavailable("This process has no file to seal keys with.")
    opened = Seal.read(seal) if seal.exists() else Seal.make(seal)
    return msgspec.structs.replace(row, sealed_key=opened.close(key.encode(), _what(row)))


def pem(seal: Path | None, row: TlsCertificateRow) -> bytes:
    """The chain and the key.  Raises Unavailable: this process cannot open it."""
    try:
        if seal is None or not seal.exists():
            raise WrongSeal
        return row.chain.encode() + Seal.read(seal).open(row.sealed_key, _what(row))
    except (WrongSeal, InvalidInput, OSError) as error:
        raise Unavailable(f"Certificate {row.name!r} cannot be opened with the file {seal}.") from error


def _what(row: TlsCertificateRow) -> str:
    return f"tls {row.tenant_id} {row.digest}"
