"""Whom commands believe to be the server: the authority of a login, of SKEP_CA, or those of the system."""

import ssl

from skep.cli.failures import Exit, Failure
from skep.cli.settings import Context

UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


def tls(context: Context) -> ssl.SSLContext | None:
    """For connections to the server of the context; None where it is spoken to without TLS.

    Raises:
        Failure: what should be certificates are none.
    """
    if not context.url.startswith("https:"):
        return None
    if not context.ca:
        return ssl.create_default_context()
    try:
        found = ssl.create_default_context(cadata=context.ca)
    except (ssl.SSLError, ValueError) as error:
        raise Failure(f"The certificates of the authority cannot be used: {error}", Exit.INVALID) from error
    found.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return found


def untrusted(url: str, reason: str) -> Failure:
    """The failure for a server whose certificate nobody vouches for."""
    return Failure(
        f"The certificate of {url} is not to be believed: {reason}",
        Exit.UNREACHABLE,
        f"If it is of the installation's own authority: skep login {url} --ca sha256:FINGERPRINT (its "
        "operator has it from `skep host authority`), or SKEP_CA=FILE.",
    )


def learn(url: str, given: str) -> str:
    """The certificates (PEM) that `--ca` means: those in a file, or the one with the fingerprint.

    Raises:
        Failure: there is no such file, or the server's authority is another one.
    """
    from pathlib import Path

    if not given.startswith("sha256:"):
        try:
            return Path(given).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"{given} cannot be read: {error}", Exit.INVALID) from error
    from skep.model.errors import SkepError, Unavailable
    from skep.trust.pinning import pinned_authority

    try:
        return pinned_authority(url, given)
    except SkepError as error:
        raise Failure(
            error.message, Exit.UNREACHABLE if isinstance(error, Unavailable) else Exit.AUTH
        ) from error
