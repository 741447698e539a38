"""Endpoints: what they carry, who asked, by which certificates."""

from skep.model.views.base import View


class EndpointTrafficView(View, frozen=True, kw_only=True):
    """What all hosts counted of one revision; `response_time` in milliseconds, on average of late."""

    revision: int
    requests: int
    client_errors: int
    server_errors: int
    connection_errors: int
    sessions: int
    response_time: float


class EndpointView(View, frozen=True, kw_only=True):
    """`replicas` are those that answer now; `trouble` says which hosts do not serve it, and why.

    `certificate` says how it is with the one by ACME: ordering, until when it is valid, what has failed.
    """

    id: str
    app: str
    service: str
    url: str
    host: str
    path: str
    port: int
    tls: str
    sticky: bool
    rate: int | None
    max_connections: int | None
    replicas: tuple[str, ...]
    traffic: tuple[EndpointTrafficView, ...]
    trouble: str
    certificate: str = ""
    created: str


class AccessView(View, frozen=True, kw_only=True):
    """A request for an endpoint that was answered; `replica` empty: by the edge itself."""

    time: str
    endpoint: str
    client: str
    method: str
    url: str
    status: int
    milliseconds: int
    size: int
    replica: str
    revision: int


class CertificateView(View, frozen=True, kw_only=True):
    """A certificate for endpoints; `names` are those it is good for, `endpoints` how many name it.

    One that is still to come has no issuer, and expires never.  `state` is for people.
    """

    id: str
    name: str
    names: tuple[str, ...]
    issuer: str
    endpoints: int
    created: str
    expires: str
    state: str = ""
