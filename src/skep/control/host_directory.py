"""The hosts that a process of control can reach, and which of them have been silent for too long."""

from collections.abc import Awaitable, Callable, Iterable

from skep.control.clock import rfc3339
from skep.control.ports import Host
from skep.flow import PlaceGone
from skep.model.errors import Unavailable
from skep.model.ids import HostName
from skep.store.hosts import HostRow


async def _nothing_new() -> None:
    pass


class HostDirectory:
    """With one process that is the host it runs on.  Who keeps it up to date tells it the rows of hosts.

    Other processes hear of hosts, too, so what is known here may be a moment old: before anybody is refused
    for it, `look_again` has whoever keeps it up to date look now.
    """

    def __init__(self) -> None:
        self._hosts: dict[HostName, Host] = {}
        self._silent: dict[HostName, str] = {}
        self._known: set[HostName] = set()
        self._dead: set[HostName] = set()
        self.look_again: Callable[[], Awaitable[None]] = _nothing_new

    def add(self, name: HostName, host: Host) -> None:
        self._hosts[name] = host

    def remove(self, name: HostName) -> None:
        self._hosts.pop(name, None)

    def learn(self, rows: Iterable[HostRow]) -> None:
        """Who answers, and who does not and since when."""
        there = {row.name: row for row in rows}
        self._silent = {name: silence(row) for name, row in there.items() if not row.answers}
        self._known |= there.keys()
        fenced = {name for name, row in there.items() if row.given_up and row.fenced is not None}
        self._dead = fenced | (self._known - there.keys())

    async def place(self, name: HostName) -> Host:
        """For steps that are done there.

        Raises:
            PlaceGone: it was removed, and nothing that it ran goes on.
            Unavailable: nothing leads there.
        """
        if name not in self._hosts or name in self._dead:  # perhaps there is another one of that name now
            await self.look_again()
        if name in self._dead:
            raise PlaceGone(f"Host {name!r} was removed.")
        return self.on(name)

    def on(self, name: HostName) -> Host:
        """What a host is told by steps while it is silent is kept for it.

        Raises:
            Unavailable: nothing leads there.
        """
        if name not in self._hosts:
            raise Unavailable(self.why_silent(name) or f"Host {name!r} does not answer.")
        return self._hosts[name]

    async def answering(self, name: HostName) -> Host:
        """For those who wait for the answer.

        Raises:
            Unavailable: the host is silent; says since when.
        """
        if name not in self._hosts or self.why_silent(name):
            await self.look_again()
        if reason := self.why_silent(name):
            raise Unavailable(reason)
        return self.on(name)

    def why_silent(self, name: HostName) -> str:
        """Since when, in words; "" if it is not known to be."""
        since = self._silent.get(name)
        return f"Host {name!r} {since}: what it runs is unknown." if since else ""

    def names(self) -> list[HostName]:
        return sorted(self._hosts)


def silence(row: HostRow) -> str:
    """What is said of a host that does not answer."""
    if row.seen is None:
        return "has not been heard of yet"
    return f"has been silent since {rfc3339(row.seen)}"
