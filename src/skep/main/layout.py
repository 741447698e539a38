"""How many hosts a data centre in a box has; DATA/box.json remembers it."""

import re
from collections.abc import Iterator
from ipaddress import IPv4Network
from pathlib import Path

import msgspec

from skep.configuration import Configuration
from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.ids import HostName, ZoneName
from skep.providers.box.underlay import FIRST_HOST

MOST_HOSTS = 200
_HOST = re.compile(r"host-([1-9][0-9]{0,2})")


class Member(msgspec.Struct, frozen=True):
    """A host of a box; numbers are from 1."""

    number: int
    host: HostName
    zone: ZoneName


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How many hosts in how many zones."""

    hosts: int
    zones: int = 1

    def members(self) -> Iterator[Member]:
        """Dealt out to the zones in turn."""
        for number in range(1, self.hosts + 1):
            yield Member(number, HostName(f"host-{number}"), self.zone(1 + (number - 1) % self.zones))

    def member(self, host: str) -> Member:
        """Raises NotFound: the box has no such host."""
        for one in self.members():
            if one.host == host:
                return one
        raise NotFound(f"The box has no host {host!r}: it has host-1 to host-{self.hosts}.")

    @staticmethod
    def zone(number: int) -> ZoneName:
        return ZoneName(f"zone-{number}")


def layout(settings: Configuration) -> Layout | None:
    """What is asked for, else what there is; None: this installation is no box.

    Raises:
        InvalidInput: the number of hosts or zones makes no sense, or there are more hosts already.
        Conflict: the installation is there, and is no box.
    """
    known = _remembered(settings)
    if not settings.box_hosts:
        if settings.box_zones and (known is None or settings.box_zones != known.zones):
            raise InvalidInput("Zones of a box come with its hosts: skep up --hosts N --zones N.")
        return known
    wanted = Layout(hosts=settings.box_hosts, zones=settings.box_zones or (known.zones if known else 1))
    _must_be_possible(wanted, settings.box_underlay)
    if known is None and (settings.data / "skep.db").exists():
        raise Conflict(
            f"The installation in {settings.data} has this machine as its host, and does not become a box: "
            "skep up without --hosts, or --data for another directory."
        )
    if known is not None and (wanted.hosts < known.hosts or wanted.zones != known.zones):
        raise InvalidInput(
            f"The box has {known.hosts} hosts in {known.zones} zones: it can get more hosts, but not fewer "
            "(skep host drain, skep host rm), nor other zones."
        )
    return wanted


def stored_layout(settings: Configuration) -> Layout | None:
    """What there is to take away, also where nothing remembers it any more."""
    try:
        known = _remembered(settings)
    except InvalidInput:
        known = None
    numbers = [int(found[1]) for path in _homes(settings) if (found := _HOST.fullmatch(path.name))]
    if not numbers:
        return known
    return Layout(hosts=max(*numbers, known.hosts if known else 0), zones=known.zones if known else 1)


def remember(settings: Configuration, wanted: Layout) -> None:
    """From now on it is what there is."""
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = settings.data / "box.json.new"
    draft.write_bytes(msgspec.json.encode(wanted))
    draft.replace(settings.data / "box.json")


def _homes(settings: Configuration) -> list[Path]:
    directory = settings.data / "hosts"
    return list(directory.iterdir()) if directory.is_dir() else []


def _must_be_possible(wanted: Layout, underlay: IPv4Network) -> None:
    if not 0 < wanted.zones <= wanted.hosts <= MOST_HOSTS:
        raise InvalidInput(
            f"{wanted.hosts} hosts in {wanted.zones} zones: a box has 1 to {MOST_HOSTS} hosts, and no more "
            "zones than hosts."
        )
    room = underlay.num_addresses - FIRST_HOST - 2
    if wanted.hosts > room:
        raise InvalidInput(
            f"The underlay {underlay} has addresses for {max(room, 0)} hosts, not for {wanted.hosts}: set "
            "'box_underlay' to a larger network."
        )


def _remembered(settings: Configuration) -> Layout | None:
    path = settings.data / "box.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Layout)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise InvalidInput(
            f'{path} cannot be read: {error}. Write it anew, such as {{"hosts": 3, "zones": 1}}, or '
            "skep purge."
        ) from error
