"""TLS of the API: callers prove themselves with tokens, the API with a certificate."""

import ssl
from pathlib import Path

from skep.model.errors import InvalidInput


def verifying(certificates: str) -> ssl.SSLContext:
    """Believes servers whose certificate is of this authority, and which have the name that was dialled."""
    context = ssl.create_default_context(cadata=certificates)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def api_context(certificate: Path, key: Path | None = None) -> ssl.SSLContext:
    """For the API: callers prove themselves with tokens.  `key` None: it is in the same file.

    Raises:
        InvalidInput: the files cannot be used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"The certificate {certificate} with key {key or certificate}: {error}") from error
    return context
