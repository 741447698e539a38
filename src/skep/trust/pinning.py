"""Meeting an installation for the first time: its authority, known by nothing but its fingerprint.

It is asked for without believing the answer: a certificate counts only if its fingerprint is the one that was
given, and nothing secret is sent before.
"""

import re
import ssl

import httpx

from skep.model.errors import Forbidden, InvalidInput, Unavailable
from skep.trust.authority import fingerprint

_PIN = re.compile(r"sha256:[0-9a-f]{64}")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


def pinned_authority(url: str, pin: str) -> str:
    """The certificate (PEM) with this fingerprint, as the server at the URL shows it.

    Raises:
        InvalidInput: the pin is none.
        Unavailable: the server does not answer, or is none of skep.
        Forbidden: its authority is another one.
    """
    if not _PIN.fullmatch(pin):
        raise InvalidInput(f"{pin[:80]!r} is no fingerprint: it is 'sha256:' and 64 hexadecimal digits.")
    shown = _ask(url)
    for certificate in _CERTIFICATE.findall(shown):
        if fingerprint(certificate) == pin:
            return str(certificate)
    raise Forbidden(
        f"What answers at {url} is not the installation that was meant: its authority has not "
        f"the fingerprint {pin}. Somebody may be in between, or the fingerprint is of another one: ask "
        "its operator."
    )


def _ask(url: str) -> str:
    blind = ssl.create_default_context()
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    try:
        with httpx.Client(verify=blind, timeout=10, trust_env=False) as client:
            answer = client.get(f"{url.rstrip('/')}/v1/authority")
            answer.raise_for_status()
            return str(answer.json()["certificates"])
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise Unavailable(
            f"No installation of skep answers at {url}: {error or type(error).__name__}"
        ) from error
