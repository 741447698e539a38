"""The top-level `networks`, `volumes`, `configs` and `secrets`."""

import re
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path

from skep.compose.cursor import Cursor
from skep.compose.environment import read_map
from skep.compose.paths import UnreadableFile, read_file
from skep.model.spec import AppFile, AppNetwork, AppSubnet, AppVolume

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_NETWORK = re.compile(rf"({_NAME.pattern}/)?{_NAME.pattern}")
"""`OWNER/NETWORK` is one that another tenant shares."""


def read_network(cursor: Cursor) -> AppNetwork:
    driver = cursor.get("driver").text() or "bridge"
    if driver not in ("bridge", "overlay", "default"):
        cursor.get("driver").error(f"the driver {driver[:40]!r} is not supported: leave it out")
    external = _external(cursor, _NETWORK)
    if external is not None:
        return AppNetwork(external=external)
    subnets = _subnets(cursor.get("ipam").get("config"))
    first = next((one for one in subnets if ":" not in one.subnet), None)
    return AppNetwork(
        subnet=first.subnet if first else None,
        gateway=first.gateway if first else None,
        subnets=tuple(one for one in subnets if one is not first),
        enable_ipv6=cursor.get("enable_ipv6").boolean(),
        internal=cursor.get("internal").boolean(),
        labels=read_map(cursor.get("labels")),
    )


def _subnets(config: Cursor) -> list[AppSubnet]:
    """The subnets with their gateways, in the order in which they are filled."""
    found: list[AppSubnet] = []
    taken: list[IPv4Network | IPv6Network] = []
    for item in config.items():
        network = item.get("subnet").parsed(_parse_subnet)
        if network is None:
            continue
        largest, smallest = (8, 29) if network.version == 4 else (32, 120)
        if not largest <= network.prefixlen <= smallest:
            item.get("subnet").error(f"{network} must be from /{largest} to /{smallest}")
        if network.version == 6 and any(other.version == 6 for other in taken):
            item.get("subnet").error("a network has one IPv6 subnet")
        if clash := next((other for other in taken if other.overlaps(network)), None):
            item.get("subnet").error(f"{network} overlaps {clash}")
        taken.append(network)
        found.append(AppSubnet(subnet=str(network), gateway=_gateway(item.get("gateway"), network)))
    return found


def _parse_subnet(text: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text[:60]!r} is no subnet: write it like 10.5.0.0/24") from error


def _gateway(cursor: Cursor, network: IPv4Network | IPv6Network) -> str | None:
    text = cursor.text()
    if text is None:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        cursor.error(f"{text[:60]!r} is no address")
        return None
    if address not in network or address in (network.network_address, network.broadcast_address):
        cursor.error(f"{address} is no address of a machine in {network}")
        return None
    return str(address)


def read_volume(cursor: Cursor) -> AppVolume:
    driver = cursor.get("driver").text() or "local"
    if driver not in ("local", "default"):
        cursor.get("driver").error(f"the driver {driver[:40]!r} is not supported: leave it out")
    external = _external(cursor, _NAME)
    if external is not None:
        return AppVolume(external=external)
    return AppVolume(size=_volume_size(cursor), labels=read_map(cursor.get("labels")))


def _volume_size(cursor: Cursor) -> int | None:
    """`x-skep: {size: 10g}`, or the engines' `driver_opts: {size: 10g}`."""
    size = None
    for key, option in cursor.get("driver_opts").entries():
        if key == "size":
            size = option.size(least=1)
        elif key == "device":
            option.error("devices and network file systems are not mounted; a volume is a disk of skep")
        else:
            option.warn("not acted on yet")
    for key, option in cursor.get("x-skep").entries():
        if key == "size":
            size = option.size(least=1)
        else:
            option.error(f"unknown key {key[:40]!r}: a volume knows size")
    return size


def _external(cursor: Cursor, form: re.Pattern[str]) -> str | None:
    """The name of the existing resource that is meant; None for one of the project's own."""
    name = cursor.get("name")
    if not cursor.get("external").boolean():
        if name.exists:
            name.warn("not acted on: it goes by its key and the name of the app")
        return None
    text = name.text() or cursor.path.partition(".")[2]
    if not form.fullmatch(text):
        name.error(f"{text[:70]!r} is no valid name")
    return text


def read_content(cursor: Cursor, environment: Mapping[str, str]) -> AppFile:
    """A config or secret with its content: of `file`, `environment` or `content`, exactly one of them."""
    sources = [key for key in ("file", "environment", "content") if cursor.get(key).exists]
    if len(sources) != 1:
        kinds = "file, environment or content" if cursor.path.startswith("configs") else "file or environment"
        cursor.error(f"must say where its content is from: exactly one of {kinds}")
        return AppFile(content=b"")
    source = cursor.get(sources[0])
    text = source.text() or ""
    if sources[0] == "content":
        return AppFile(content=text.encode())
    if sources[0] == "environment":
        return AppFile(content=_variable(source, text, environment))
    return AppFile(content=_file(source, text))


def _variable(cursor: Cursor, name: str, environment: Mapping[str, str]) -> bytes:
    if name not in environment:
        cursor.error(f"the environment variable {name[:60]} is not set")
    return environment.get(name, "").encode(errors="surrogateescape")


def _file(cursor: Cursor, path: str) -> bytes:
    try:
        return read_file(Path(path))
    except UnreadableFile as error:
        cursor.error(str(error))
        return b""
