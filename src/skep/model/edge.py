"""What a host is told of HTTP(S) endpoints, and what it says of their traffic."""

import hashlib
from ipaddress import IPv4Address
from typing import Literal

import msgspec

from skep.model.host import HostStruct
from skep.model.ids import AppId, EndpointId, NetworkId, TenantId


class EdgeServer(HostStruct, frozen=True, kw_only=True):
    """A replica that answers for an endpoint.  `weight` is its share of new requests, 0 to 256."""

    replica: str
    """As people know it: `web-0`."""
    revision: int
    network: NetworkId
    address: IPv4Address
    port: int
    weight: int = 100


class EdgeEndpoint(HostStruct, frozen=True, kw_only=True):
    """A host name and the beginning of a path, with who answers there.

    `host` is in lower case, exact or `*.` and a name; `path` begins with `/` and ends without one, or is `/`.
    The longest path wins, and an exact name before one with `*`.
    """

    id: EndpointId
    host: str
    path: str = "/"
    servers: tuple[EdgeServer, ...] = ()
    tls: Literal["optional", "required"] = "optional"
    """required: who comes without is sent to https."""
    certificate: str = ""
    """Digest of the one to show for `host`; none: that of the host itself, which nobody vouches for."""
    awaited: bool = False
    """The certificate is still to come: until then who comes by HTTPS is told so, and served by HTTP."""
    hold: bool = False
    """While nobody serves, requests wait for somebody, 60 s at the longest; otherwise they are refused."""
    proof: str = ""
    """What a certificate authority is to find under the host name (RFC 8555, 8.3): the key authorization."""
    sticky: bool = False
    max_connections: int | None = None
    """Requests at a time to one replica; more wait, for 10 s at the longest."""
    rate: int | None = None
    """Requests per second of one client; more are answered with 429."""
    timeout: float | None = None
    """Seconds that an answer may take to begin, and to go on; None: the edge's own."""


class AppEndpoints(HostStruct, frozen=True, kw_only=True):
    """All endpoints of an app as of `generation`; none: it has none any more."""

    app: AppId
    tenant: TenantId
    generation: int
    endpoints: tuple[EdgeEndpoint, ...] = ()

    @property
    def digest(self) -> str:
        """Equal for equal endpoints, whatever the generation."""
        text = msgspec.json.encode(self.endpoints, enc_hook=str)
        return hashlib.blake2b(text, digest_size=16).hexdigest()


class EndpointTraffic(HostStruct, frozen=True, kw_only=True):
    """What one host counted since its agent was started, of one endpoint and revision.

    Counters begin anew when the agent or the edge was: readers take a smaller number for a new beginning.
    """

    endpoint: EndpointId
    revision: int
    requests: int = 0
    client_errors: int = 0
    """Answers 400 to 499."""
    server_errors: int = 0
    """Answers 500 to 599, of the replicas and for want of them."""
    connection_errors: int = 0
    retries: int = 0
    sessions: int = 0
    """Requests in progress."""
    waiting: int = 0
    """Those that wait for somebody to serve are of revision 0."""
    response_time: float = 0.0
    """Milliseconds to the first byte, on average over the last 1,024 answers."""
    queue_time: float = 0.0


class AccessLine(HostStruct, frozen=True, kw_only=True):
    """A request that was answered.  Without the query of its URL, which may hold secrets."""

    time: float
    client: str
    method: str
    path: str
    host: str = ""
    """Empty: that of the endpoint, which is no wildcard."""
    status: int
    milliseconds: int
    size: int
    """Bytes of the answer."""
    replica: str = ""
    """Who answered; empty: the edge itself."""
    revision: int = 0
    version: str = ""
    end: str = ""
    """How it ended, as HAProxy has it (two letters, `--` when well)."""
