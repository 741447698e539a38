"""What hosts log in to the bus with."""

from typing import Protocol

import msgspec

from skep.model.ids import HostName, ZoneName


class Login(msgspec.Struct, frozen=True):
    """The URL of the bus, with user and password; empty: as before.  `own`: it is of one host alone, which
    may do with it what a host must, and no more."""

    bus: str
    own: bool = False


class BusAccounts(Protocol):
    """Accounts of hosts on the bus.  Every call may be repeated.

    `user`: what the host logs in with so far; empty: with nothing.  None: it has a release of skep that works
    with the account of the whole installation only.
    """

    async def check(self, user: str | None = "") -> None:
        """Whether a host could get an account.

        Raises:
            Unavailable: the installation is not set up for it.
            Conflict: the host's release is too old.
        """

    async def open(self, host: HostName, zone: ZoneName) -> Login:
        """What a host that joins logs in with from now on.

        Called once the name is the host's, and again if the answer was lost: what an earlier call answered
        need not be good any more.
        """

    async def current(self, host: HostName, zone: ZoneName, user: str | None) -> Login:
        """What the host should log in with by now."""

    async def close(self, host: HostName) -> None:
        """The host cannot log in any more; one that never could is success."""


class SharedBusAccount:
    """Every host has the account of the installation: brokers need no management, and hosts are trusted."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def check(self, user: str | None = "") -> None:
        """Nothing is needed."""

    async def open(self, host: HostName, zone: ZoneName) -> Login:
        return Login(self._url)

    async def current(self, host: HostName, zone: ZoneName, user: str | None) -> Login:
        return Login(self._url)

    async def close(self, host: HostName) -> None:
        """Nothing: who had the account keeps it until the operator changes its password."""
