"""Which names and paths endpoints may have."""

import re

import msgspec

from skep.model.errors import InvalidInput
from skep.model.spec import EndpointSpec

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(\*\.)?({_LABEL}\.)*{_LABEL}")
_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,200}")
FREE = "localhost"
"""Names below it are anybody's: they lead to the machine that one sits at (RFC 6761, 6.3)."""
ACME = "acme"
"""In place of a certificate's name: one is ordered."""


def split(text: str) -> tuple[str, str]:
    """`shop.localhost/api` as host and path; a scheme before it does no harm."""
    host, slash, path = re.sub(r"^https?://", "", text.strip()).partition("/")
    return host.lower(), f"{slash}{path}" or "/"


def check_endpoint(spec: EndpointSpec) -> EndpointSpec:
    """With its path as all are written.  Raises InvalidInput."""
    if not _HOST.fullmatch(spec.host) or len(spec.host) > 253:
        raise InvalidInput(
            f"{spec.host[:80]!r} is no host name: write shop.example.com, or *.example.com for all below it"
        )
    if spec.host in ("*." + FREE, FREE) or spec.host.count(".") < 1:
        raise InvalidInput(f"{spec.host!r} cannot be had by one app: take a name below it")
    if not _PATH.fullmatch(spec.path) or "//" in spec.path:
        raise InvalidInput(f"{spec.path[:80]!r} is no path: it begins with / and has no spaces")
    return msgspec.structs.replace(spec, path=spec.path.rstrip("/") or "/")


def certificate_name(spec: EndpointSpec) -> str | None:
    """What the certificate is called that the endpoint shows: one by ACME as its host is, which has a dot.

    Those that tenants give have none.
    """
    return spec.host if spec.tls == ACME else spec.tls


def wider(host: str) -> str:
    """The name with `*` that covers this one too."""
    return f"*.{host.partition('.')[2]}"


def meet(one: str, other: str) -> bool:
    """Whether a request may be for both names."""
    return one == other or one == wider(other) or other == wider(one)
