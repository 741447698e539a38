"""The names on one network: who is called what, and who asks.  Pure."""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address

from skep.model.host import PortConfig
from skep.model.ids import ReplicaId


class Directory:
    """Names of ports, scoped by app.

    A name alone means the asker's own app first, then the only other app of its tenant that has it.
    `name.app` means that app's of its tenant, and else of the network's owner; the apps of other tenants are
    called `app.tenant`, and so are their names.  `is_up` says whose names resolve; a name of a replica that
    is down is still a name of ours.
    A replica on several networks asks the resolver of one and means all: `elsewhere` answers the other
    directories it is in, with its address there.
    """

    def __init__(
        self,
        is_up: Callable[[ReplicaId], bool],
        elsewhere: "Callable[[PortConfig], Iterable[tuple[Directory, IPv4Address]]]" = lambda port: (),
    ) -> None:
        self._is_up = is_up
        self._elsewhere = elsewhere
        self._ports: dict[IPv4Address, PortConfig] = {}
        self._owners: dict[str, dict[str, dict[IPv4Address, None]]] = {}

    def add(self, port: PortConfig) -> None:
        """Know the port; another one known by its address is forgotten."""
        self.remove(port.address)
        self._ports[port.address] = port
        for name in port.names:
            apps = self._owners.setdefault(name.lower(), {})
            apps.setdefault(port.app, {})[port.address] = None

    def remove(self, address: IPv4Address) -> None:
        port = self._ports.pop(address, None)
        for name in port.names if port else ():
            apps = self._owners[name.lower()]
            addresses = apps.get(port.app, {}) if port else {}
            addresses.pop(address, None)
            if port and not addresses:
                apps.pop(port.app, None)
            if not apps:
                del self._owners[name.lower()]

    def at(self, address: IPv4Address) -> PortConfig | None:
        """The port that has the address."""
        return self._ports.get(address)

    def resolve(self, asker: IPv4Address, name: str) -> tuple[IPv4Address, ...] | None:
        """The addresses behind the name (none: all down), or None: not a name that the asker can mean."""
        port = self._ports.get(asker)
        places = [(self, asker), *(self._elsewhere(port) if port else ())]
        for find in (Directory._own, Directory._others):
            for directory, address in places:
                found = find(directory, address, name.lower())
                if found is not None:
                    return tuple(one for one in found if directory._is_up(directory._ports[one].replica))
        return None

    def reverse(self, address: IPv4Address) -> str | None:
        """The replica's own name with its app, if one is known and up."""
        port = self._ports.get(address)
        if port is None or not port.names or not self._is_up(port.replica):
            return None
        return f"{port.names[min(1, len(port.names) - 1)]}.{port.app}"

    def _own(self, asker: IPv4Address, name: str) -> dict[IPv4Address, None] | None:
        port = self._ports.get(asker)
        return self._owners.get(name, {}).get(port.app) if port else None

    def _others(self, asker: IPv4Address, name: str) -> dict[IPv4Address, None] | None:
        """Other tenants' names are whole only: what they call theirs changes nothing for the rest."""
        port = self._ports.get(asker)
        tenant = _tenant(port.app) if port else ""
        apps = [found for app, found in self._owners.get(name, {}).items() if _tenant(app) == tenant]
        if len(apps) == 1:
            return apps[0]
        return self._whole(f"{name}{tenant}") or self._whole(name)

    def _whole(self, name: str) -> dict[IPv4Address, None] | None:
        """`name.app` or `name.app.tenant`; a name may have dots of its own."""
        labels = name.split(".")
        for split in range(len(labels) - 1, 0, -1):
            found = self._owners.get(".".join(labels[:split]), {}).get(".".join(labels[split:]))
            if found is not None:
                return found
        return None


def _tenant(app: str) -> str:
    """`.acme` of `shop.acme`; nothing for the apps of the network's owner."""
    return app[app.index(".") :] if "." in app else ""
