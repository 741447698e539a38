"""Configuration of an installation: `/etc/skep/skep.yaml`, overridden by SKEP_* in the environment.

`docs/reference/configuration.md` explains every key.  Sizes may be written as `20GiB`.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from zlib import crc32

import msgspec

from skep.documents import DocumentError, load
from skep.flow.storage.retention_policy import RetentionPolicy
from skep.model.errors import InvalidInput
from skep.model.ids import Bytes, HostName, RegionName, ZoneName
from skep.model.names import check_name

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3, "t": 1024**4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_SIZES = ("pool_size", "default_disk", "default_memory")
_LISTS = ("private", "private6", "dns", "insecure_registries", "tls_names")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhd])")
_FOR_EVER = ("forever", "for ever")
_BROKER = re.compile(r"amqps?://[^\s/@]+@[^\s/@]+(/\S*)?")


class Configuration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where everything is, and what a replica gets that asks for nothing.

    `instance` prefixes every name on the machine, so that several installations can live on one.
    `listen` is `address:port`; anything but loopback is served with TLS unless `tls` says otherwise.
    """

    instance: str = "skep"
    data: Path = Path("/var/lib/skep")
    run: Path = Path("/run/skep")
    etc: Path = Path("/etc/skep")
    listen: str = "127.0.0.1:7537"
    database: str = ""
    """SQLAlchemy URL; empty: SQLite in `data`."""
    migrations: Literal["apply", "await"] = "apply"
    """Of the database; await: others apply them (`skep migrate`), and this process waits for that."""
    installation_key: Path | None = None
    """The file that opens the authority; none: `installation.key` in `etc`, made if it is missing."""
    admin_token: Path | None = None
    """The operator's own file with the admin's first token; none: `admin.token` in `etc`, written."""
    health: str = ""
    """`address:port` where a worker says by HTTP how it is; empty: nowhere."""
    bus: str = ""
    """`amqp://` or `amqps://` URL of a RabbitMQ broker; empty: within the process."""
    bus_accounts: Literal["own", "shared"] = "own"
    """On the broker, of hosts; shared: all have that of `bus`, and each can read what others are sent."""
    bus_management: str = ""
    """URL of the broker's management API; empty: at its usual port on the broker of `bus`."""
    signatures: Literal["required", "optional"] = "required"
    """Of messages between control and hosts; optional: those of a release that does not sign are believed."""
    region: RegionName = RegionName("region-1")
    zone: ZoneName = ZoneName("zone-1")
    host: HostName = HostName("host-1")
    underlay: IPv4Address | None = None
    """This machine's own address on the network between hosts; none: there are no other hosts."""
    edge_http: int = 80
    """Where every host serves endpoints by HTTP; 0: not at all."""
    edge_https: int = 443
    acme_directory: str = "https://acme-v02.api.letsencrypt.org/directory"
    """Of the authority that certificates of endpoints are ordered from."""
    acme_terms_agreed: bool = False
    """Its terms are agreed to; without that nothing is ordered."""
    acme_contact: str = ""
    """Mail address that it may write to."""
    acme_ca: Path | None = None
    """Certificates that vouch for a directory that is not one of the Internet."""
    agent_port: int = 7538
    """Where an agent offers logs and commands in containers, on its underlay address."""
    host_timeout: str = "20s"
    """A host that gave no sign of life for so long is lost: nothing new is placed there."""
    box_hosts: int = 0
    """Hosts that are namespaces of this machine (`skep up --hosts`); none: the machine itself is the host."""
    box_zones: int = 0
    box_underlay: IPv4Network = IPv4Network("198.18.0.0/24")
    """Addresses of those hosts and of control among them."""
    public_host: str = "localhost"
    pool_device: Path | None = None
    pool_size: Bytes = Bytes(100 * 1024**3)
    networks: IPv4Network = IPv4Network("10.128.0.0/9")
    links: IPv4Network = IPv4Network("100.100.0.0/16")
    """Where it is not said, installations of other names have another range: see `links_of`."""
    private: tuple[IPv4Network, ...] = ()
    """What containers and builds never reach; link-local addresses are always among it."""
    private6: tuple[IPv6Network, ...] = ()
    """The same of IPv6."""
    dns: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    default_disk: Bytes = Bytes(10 * 1024**3)
    default_memory: Bytes = Bytes(2 * 1024**3)
    default_pids: int = 2048
    keep_releases: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    """Of an app: those that were in force, and so many that failed."""
    price_cpu_hour: Annotated[float, msgspec.Meta(ge=0)] | None = None
    price_gib_hour: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Of a CPU, and of a GiB of memory, in whatever currency; shown by `skep plan`."""
    keep_runs: str = "30d"
    keep_failed_runs: str = "90d"
    keep_archived_runs: str = "365d"
    metrics: Literal["operators", "open"] = "operators"
    tls: Literal["auto", "on", "off"] = "auto"
    """Of the API; auto: on everywhere but on loopback."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    """The operator's own, in place of one of the installation's authority."""
    tls_names: tuple[str, ...] = ()
    """Further names and addresses of the API, for its certificate."""
    api_url: str = ""
    authority_certificate: Path | None = None
    authority_key: Path | None = None
    """The operator's own authority, taken when the installation makes its first one."""
    unconfined_bundles: bool = False

    def __repr__(self) -> str:
        """Without the passwords in `database` and `bus`, wherever it may be shown."""
        return f"Configuration(instance={self.instance!r}, etc={str(self.etc)!r})"

    @property
    def retention(self) -> RetentionPolicy:
        """Raises ValueError: one of `keep_…` is no span of time."""
        return RetentionPolicy(
            keep=_span("keep_runs", self.keep_runs),
            keep_failed=_span("keep_failed_runs", self.keep_failed_runs),
            archived=_span("keep_archived_runs", self.keep_archived_runs),
        )

    @property
    def silence(self) -> float:
        """Seconds of it after which a host is lost.  Raises ValueError: `host_timeout` is no span of time."""
        seconds = _span("host_timeout", self.host_timeout)
        if seconds is None or not 2 <= seconds <= 3_600:
            raise ValueError("host_timeout: must be from 2s to 1h")
        return seconds

    @property
    def address(self) -> tuple[str, int]:
        """Raises ValueError: it is not `address:port`."""
        return _address("listen", self.listen)

    @property
    def health_address(self) -> tuple[str, int] | None:
        """Raises ValueError: it is not `address:port`."""
        return _address("health", self.health) if self.health else None

    @property
    def seal(self) -> Path:
        """The file with the key of the installation."""
        return self.installation_key or self.etc / "installation.key"

    def require_acme(self) -> None:
        """Raises ValueError: what is said of the authority makes no sense."""
        if not re.fullmatch(r"https://[^\s/@]+(/\S*)?", self.acme_directory):
            raise ValueError("acme_directory: must be a URL that begins with https://")
        if self.acme_contact and not re.fullmatch(r"[^\s@:?,]+@[^\s@:?,]+", self.acme_contact):
            raise ValueError("acme_contact: this is no mail address; write something like ann@example.com")

    def require_bus(self) -> None:
        """Raises ValueError, without the password: `bus` is not the URL of a broker."""
        if self.bus and not _BROKER.fullmatch(self.bus):
            raise ValueError(
                "bus: this is no URL of a broker; write something like amqps://user:password@host:5671/vhost"
            )

    @property
    def uses_tls(self) -> bool:
        return self.tls == "on" or (self.tls == "auto" and not _is_loopback(self.address[0]))

    @property
    def url(self) -> str:
        """Where hosts and people reach the API over the network; empty where that is not known."""
        if self.api_url or not self.uses_tls:
            return self.api_url.rstrip("/")
        address, port = self.address
        names = [address, self.public_host]
        found = next((one for one in names if not _is_loopback(one) and one not in ("0.0.0.0", "::")), "")  # noqa: S104
        return f"https://{f'[{found}]' if ':' in found else found}:{port}" if found else ""

    @property
    def own_authority(self) -> tuple[Path, Path] | None:
        """Raises ValueError: only one of the two files is named."""
        return _pair("authority", self.authority_certificate, self.authority_key)

    @property
    def own_tls(self) -> tuple[Path, Path] | None:
        """Raises ValueError: only one of the two files is named."""
        return _pair("tls", self.tls_certificate, self.tls_key)

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite+aiosqlite:///{self.data / 'skep.db'}"


def read(environment: Mapping[str, str]) -> Configuration:
    """Raises InvalidInput naming the key that is wrong, and where it stands."""
    etc = Path(environment.get("SKEP_ETC", "/etc/skep"))
    values = _from_file(etc / "skep.yaml") | {"etc": str(etc)}
    for key in Configuration.__struct_fields__:
        text = environment.get(f"SKEP_{key.upper()}")
        if text:
            values[key] = text.split(",") if key in _LISTS else text
    values.setdefault("links", str(links_of(str(values.get("instance", "skep")))))
    try:
        for key in _SIZES:
            if key in values:
                values[key] = _size(key, values[key])
        configuration = msgspec.convert(values, Configuration, strict=False, dec_hook=_decode_hook)
        _ = (
            configuration.address,
            configuration.health_address,
            configuration.retention,
            configuration.silence,
        )
        _ = configuration.own_tls, configuration.own_authority
        configuration.require_bus()
        configuration.require_acme()
    except (msgspec.ValidationError, ValueError) as error:
        raise InvalidInput(f"Configuration in {etc / 'skep.yaml'} or SKEP_*: {error}") from error
    check_name(configuration.instance, "instance")
    return configuration


def links_of(instance: str) -> IPv4Network:
    """A range of its own for each installation of a machine; two names have the same one by chance only."""
    usual = IPv4Network("100.100.0.0/16")
    if instance == "skep":
        return usual
    others = [one for one in IPv4Network("100.64.0.0/10").subnets(new_prefix=16) if one != usual]
    return others[crc32(instance.encode()) % len(others)]


def _address(key: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{key}: {text!r} is not address:port; write something like 127.0.0.1:7537")
    return host.strip("[]"), int(port)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _pair(what: str, certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise ValueError(f"{what}_certificate and {what}_key: one is nothing without the other")
    return certificate, key


def _from_file(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        data = load(path.read_text(), str(path)).data
    except (DocumentError, OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"Cannot read {path}: {error}") from error
    if data is not None and not isinstance(data, dict):
        raise InvalidInput(f"{path} must be a mapping of keys to values.")
    return data or {}


def _size(key: str, value: object) -> int:
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError(f"{key}: {value!r} is not a size; write something like 20GiB")
    return int(float(match[1]) * _UNITS[match[2].lower()])


def _span(key: str, text: str) -> float | None:
    """Seconds; None for ever.  A number alone is refused: seconds are hardly what is meant."""
    if text.strip() in _FOR_EVER:
        return None
    match = _SPAN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{key}: {text!r} is no span of time; write something like 30d, 12h or forever")
    return float(match[1]) * _SECONDS[match[2]]


def _decode_hook(kind: type, value: object) -> object:
    """Of what msgspec does not know by itself: addresses, paths."""
    return kind(value)
