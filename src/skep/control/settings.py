"""What control is configured with; `main` reads it once."""

from ipaddress import IPv4Network
from pathlib import Path

import msgspec

from skep.control.plans.specifications import Limits
from skep.model.ids import Bytes


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """`networks`: the range tenants' subnets are cut from.  `spool`: where uploads wait.

    `public_host` is the name or address that URLs of published ports show.  `public_metrics`: anybody may
    read them.  `host_timeout`: seconds of silence after which a host is lost.
    """

    spool: Path
    networks: IPv4Network = IPv4Network("10.128.0.0/9")
    default_disk: Bytes = Bytes(10 * 1024**3)
    limits: Limits = Limits()
    public_host: str = "localhost"
    api_url: str = ""
    """Where hosts and people reach the API, as `https://…`; empty: over the network nobody does."""
    operators_tls: bool = False
    """Its certificate is the operator's own, of an authority that systems trust."""
    bus_url: str = ""
    bus_management: str | None = None
    """URL of the broker's management API, or empty for the usual one; None: hosts share one account."""
    seal: Path | None = None
    """File with the key that opens the authority of the installation."""
    authority: tuple[Path, Path] | None = None
    """Files of certificate and key of an operator's own authority, for an installation's first start."""
    public_metrics: bool = False
    edge_http: int = 80
    """Where hosts serve endpoints, as URLs show it."""
    edge_https: int = 443
    acme_agreed: bool = False
    """Certificates may be ordered."""
    acme_private: bool = False
    """Their authority is not one of the Internet."""
    host_timeout: float = 20.0
    keep_releases: int = 10
    """Releases of an app that were in force and can be gone back to."""
    price_cpu_hour: float | None = None
    price_gib_hour: float | None = None
    """What a CPU, and a GiB of memory, costs for an hour; None: nobody has said."""
