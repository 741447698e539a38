"""Who a certificate speaks for: one process of one installation, in one role.

The name is a URI in the certificate, `skep://INSTALLATION/ROLE/NAME`, as in SPIFFE (SPIFFE-ID, section 2).
Host names and addresses are in it too, for those who check them; what is decided by is the URI.
"""

from enum import StrEnum

import msgspec
from cryptography import x509

from skep.model.errors import Forbidden

SCHEME = "skep"


class Role(StrEnum):
    """What a process is.  A certificate has exactly one, and is worth nothing as another."""

    AGENT = "agent"
    SERVE = "serve"
    WORKER = "worker"


CONTROL = frozenset({Role.SERVE, Role.WORKER})
"""Those who may tell a host what to do."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """`name` is the host's for agents, the process's own for others; `serial` the certificate's, in hex."""

    installation: str
    role: Role
    name: str
    serial: str = ""

    @property
    def host(self) -> str | None:
        """The host that an agent is of."""
        return self.name if self.role is Role.AGENT else None

    @property
    def uri(self) -> str:
        return f"{SCHEME}://{self.installation}/{self.role}/{self.name}"


def peer_of(certificate: x509.Certificate) -> Peer:
    """Whom the certificate names; it says nothing about whether the certificate is to be believed.

    Raises:
        Forbidden: it names nobody, or several.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(found) != 1:
        raise Forbidden("The certificate is of no process of skep: it must have exactly one URI.")
    return _parse(found[0], serial_of(certificate))


def serial_of(certificate: x509.Certificate) -> str:
    return f"{certificate.serial_number:x}"


def _parse(uri: str, serial: str) -> Peer:
    scheme, _, rest = uri.partition("://")
    parts = rest.split("/")
    if scheme != SCHEME or len(parts) != 3 or not all(parts) or parts[1] not in set(Role):
        raise Forbidden(f"The certificate is of no process of skep: {uri[:200]!r} names none.")
    return Peer(installation=parts[0], role=Role(parts[1]), name=parts[2], serial=serial)
