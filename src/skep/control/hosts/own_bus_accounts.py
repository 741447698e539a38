"""An account on the bus for each host, at a broker that skep manages."""

import re
import secrets

import structlog
from yarl import URL

from skep.bus.bus import Bus
from skep.bus.management import Management, Rights
from skep.bus.queues import CALLS
from skep.control.hosts.bus_accounts import Login
from skep.model.errors import Conflict, Unavailable
from skep.model.ids import HostName, ZoneName

log = structlog.get_logger(__name__)


class OwnBusAccounts:
    """Each host has one at the broker: it takes from its own queues, and sends to its zone and to control.

    The password is known to the broker (as a hash) and the host; who loses it gets another one.
    """

    def __init__(self, url: str, management: Management, bus: Bus) -> None:
        self._url = URL(url)
        self._management = management
        self._bus = bus

    async def check(self, user: str | None = "") -> None:
        if user is None:
            raise Conflict(
                "The machine has a release of skep that shares the account of the installation on the bus. "
                "Upgrade skep there, and join then."
            )
        await self._management.check()

    async def open(self, host: HostName, zone: ZoneName) -> Login:
        """Made anew, so that nobody stays connected who knew the former password."""
        password, name = secrets.token_urlsafe(24), self._name(host)
        await self._bus.declare(f"agent.{host}")
        await self._management.delete_user(name)
        await self._management.put_user(name, password, rights_of(host, zone))
        log.info("bus-account.opened", host=host, user=name)
        return Login(str(self._url.with_user(name).with_password(password)), own=True)

    async def current(self, host: HostName, zone: ZoneName, user: str | None) -> Login:
        """A host that has its own keeps it.  One that cannot get it now gets it the next time it asks."""
        if user in (None, self._name(host)):
            return Login("")
        try:
            return await self.open(host, zone)
        except Unavailable as error:
            log.warning("bus-account.not-opened", host=host, reason=error.message)
            return Login("")

    async def close(self, host: HostName) -> None:
        await self._management.delete_user(self._name(host))
        log.info("bus-account.closed", host=host, user=self._name(host))

    def _name(self, host: HostName) -> str:
        """Users are of the whole broker, and hosts of a virtual host."""
        return ".".join(filter(None, (self._management.user, self._management.vhost.strip("/"), host)))


def rights_of(host: HostName, zone: ZoneName) -> Rights:
    """Of a host: nothing that is another's can be made, read or sent to."""
    name, place = re.escape(host), re.escape(zone)
    calls = re.escape(CALLS)
    passing = rf"agent\.{name}\.now|reply\.agent\.{name}\..*"
    return Rights(
        configure=rf"^({passing})$",
        write=rf"^{calls}$",
        read=rf"^(agent\.{name}|{passing})$",
        keys=rf"^(worker\.{place}|reply\.(serve|worker|up)-.*)$",
    )
