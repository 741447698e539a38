"""Tenants, their users and tokens."""

from skep.model.ids import Bytes
from skep.model.views.base import View


class Quota(View, frozen=True, kw_only=True):
    """Upper bounds of one tenant."""

    apps: int = 100
    replicas: int = 500
    cpus: float = 256.0
    memory: Bytes = Bytes(256 * 1024**3)
    disk: Bytes = Bytes(1024**4)
    published_ports: int = 200


class TenantView(View, frozen=True, kw_only=True):
    id: str
    name: str
    created: str
    quota: Quota


class UserView(View, frozen=True, kw_only=True):
    id: str
    name: str
    tenant: str
    role: str
    created: str


class TokenView(View, frozen=True, kw_only=True):
    id: str
    name: str
    user: str
    created: str
    expires: str | None
    last_used: str | None


class TokenCreated(View, frozen=True, kw_only=True):
    """The only time the secret is shown."""

    token: TokenView
    secret: str


class WhoAmI(View, frozen=True, kw_only=True):
    user: str
    role: str
    tenant: str
