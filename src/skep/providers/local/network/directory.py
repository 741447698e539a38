"""The names on one network: who is called what, and who asks.  Pure."""

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address

from skep.model.host import PortConfig, VirtualIp
from skep.model.ids import ReplicaId

TASKS = "tasks."
"""Before the name of a service: its replicas, and not its virtual IP."""


class Directory:
    """Names of ports, scoped by app.

    A name alone means the asker's own app first, then the only other app of its tenant that has it.
    `name.app` means that app's of its tenant, and else of the network's owner; the apps of other tenants are
    called `app.tenant`, and so are their names.  The name of a service leads to its virtual IP, where it has
    one, and `tasks.` before it to the replicas.  `is_up` says whose names resolve; a name of a replica that
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
        self._sixth: dict[IPv6Address, IPv4Address] = {}
        self._owners: dict[str, dict[str, dict[IPv4Address, None]]] = {}
        self._virtual: dict[IPv4Address, VirtualIp] = {}
        self._led: dict[str, dict[str, list[VirtualIp]]] = {}

    def add(self, port: PortConfig) -> None:
        """Know the port; another one known by its address is forgotten."""
        self.remove(port.address)
        self._ports[port.address] = port
        if port.address6:
            self._sixth[port.address6] = port.address
        for name in port.names:
            apps = self._owners.setdefault(name.lower(), {})
            apps.setdefault(port.app, {})[port.address] = None

    def remove(self, address: IPv4Address) -> None:
        port = self._ports.pop(address, None)
        if port and port.address6 and self._sixth.get(port.address6) == address:
            del self._sixth[port.address6]
        for name in port.names if port else ():
            apps = self._owners[name.lower()]
            addresses = apps.get(port.app, {}) if port else {}
            addresses.pop(address, None)
            if port and not addresses:
                apps.pop(port.app, None)
            if not apps:
                del self._owners[name.lower()]

    def lead(self, virtual_ips: Iterable[VirtualIp]) -> None:
        """Know these virtual IPs, and none but these: their names lead to them, and not to replicas."""
        self._virtual = {one.address: one for one in virtual_ips}
        self._led = {}
        for one in self._virtual.values():
            for name in one.names:
                self._led.setdefault(name.lower(), {}).setdefault(one.app, []).append(one)

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
                    return tuple(one for one in found if directory._resolves(one))
        return None

    def beside(self, asker: IPv4Address, addresses: Iterable[IPv4Address]) -> tuple[IPv6Address, ...]:
        """The IPv6 addresses of those who have these, of which the asker was told; a virtual IP has none."""
        port = self._ports.get(asker)
        places = [self, *(directory for directory, _ in (self._elsewhere(port) if port else ()))]
        known = (place._ports[one] for one in addresses for place in places if one in place._ports)
        return tuple(dict.fromkeys(one.address6 for one in known if one.address6))

    def reverse6(self, address: IPv6Address) -> str | None:
        """The name of the replica that has the address and is up, with its app; None: nobody's."""
        port = self._sixth.get(address)
        return self.reverse(port) if port is not None else None

    def reverse(self, address: IPv4Address) -> str | None:
        """The name of the service, or of the replica that is up, with its app; None: nobody's."""
        if (led := self._virtual.get(address)) is not None and led.names:
            return f"{led.names[0]}.{led.app}"
        port = self._ports.get(address)
        if port is None or not port.names or not self._is_up(port.replica):
            return None
        return f"{port.names[min(1, len(port.names) - 1)]}.{port.app}"

    def _own(self, asker: IPv4Address, name: str) -> dict[IPv4Address, None] | None:
        port = self._ports.get(asker)
        return self._of(name, port.app) if port else None

    def _others(self, asker: IPv4Address, name: str) -> dict[IPv4Address, None] | None:
        """Other tenants' names are whole only: what they call theirs changes nothing for the rest."""
        port = self._ports.get(asker)
        tenant = _tenant(port.app) if port else ""
        apps = [app for app in self._apps(name) if _tenant(app) == tenant]
        if len(apps) == 1:
            return self._of(name, apps[0])
        return self._whole(f"{name}{tenant}") or self._whole(name)

    def _whole(self, name: str) -> dict[IPv4Address, None] | None:
        """`name.app` or `name.app.tenant`; a name may have dots of its own."""
        labels = name.split(".")
        for split in range(len(labels) - 1, 0, -1):
            found = self._of(".".join(labels[:split]), ".".join(labels[split:]))
            if found is not None:
                return found
        return None

    def _apps(self, name: str) -> set[str]:
        """Who has the name."""
        replicas = self._owners.get(name.removeprefix(TASKS), {}) if name.startswith(TASKS) else {}
        return self._owners.get(name, {}).keys() | self._led.get(name, {}).keys() | replicas.keys()

    def _of(self, name: str, app: str) -> dict[IPv4Address, None] | None:
        """What the name means in the app: virtual IPs, and the replicas of services that have none."""
        found, led = self._owners.get(name, {}).get(app), self._led.get(name, {}).get(app)
        if led is not None:
            services = {one.names[0] for one in led}
            others = [one for one in found or () if _service(self._ports[one]) not in services]
            return dict.fromkeys([*(one.address for one in led), *others])
        if found is None and name.startswith(TASKS):
            return self._owners.get(name.removeprefix(TASKS), {}).get(app)
        return found

    def _resolves(self, address: IPv4Address) -> bool:
        """A virtual IP does, also while nobody is behind it: whoever connects then is refused at once."""
        return address in self._virtual or self._is_up(self._ports[address].replica)


def _service(port: PortConfig) -> str:
    """A port is named after its replica first, then after its service."""
    return port.names[min(1, len(port.names) - 1)]


def _tenant(app: str) -> str:
    """`.acme` of `shop.acme`; nothing for the apps of the network's owner."""
    return app[app.index(".") :] if "." in app else ""
