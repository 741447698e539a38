"""How machines become hosts, and prove that they are."""

from skep.model.views.base import View


class AuthorityView(View, frozen=True, kw_only=True):
    """Who certifies the processes of the installation.

    `fingerprint` is what `skep agent join --ca` pins; `certificates` are PEM, the one that signs comes first.
    """

    fingerprint: str
    certificates: str


class JoinTokenView(View, frozen=True, kw_only=True):
    """What a new host shows once.  `host` None: it brings its own name.  `state`: waiting, used, expired."""

    id: str
    host: str | None
    zone: str
    pool: str | None
    state: str
    created: str
    created_by: str
    expires: str
    used: str | None


class JoinTokenCreated(View, frozen=True, kw_only=True):
    """`secret` is shown only now.  `url`: where the host finds the API; `authority`: the fingerprint to pin.

    `system_ca`: the API's own certificate is the operator's, to be checked by the system's authorities.
    """

    token: JoinTokenView
    secret: str
    url: str
    authority: str
    system_ca: bool = False


class HostJoined(View, frozen=True, kw_only=True):
    """What a host needs to be one of the installation's.  `certificates`: the authority's, PEM."""

    host: str
    zone: str
    pool: str | None
    certificate: str
    certificates: str
    expires: str
    bus: str
    own_account: bool = False
    """On the bus: it is of this host alone, and has few rights."""


class Belonging(View, frozen=True, kw_only=True):
    """Whether a host is one of the installation; one that is not should take down what it runs."""

    belongs: bool


class CertificateRenewed(View, frozen=True, kw_only=True):
    """The new certificate of a host, the authority's certificates (PEM), and where the bus is by now."""

    certificate: str
    certificates: str
    expires: str
    bus: str
    own_account: bool = False
