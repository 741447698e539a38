"""What hosts log in to the bus with."""

from typing import Protocol

from skep.model.ids import HostName


class BusAccounts(Protocol):
    """Accounts of hosts on the bus.  Every call may be repeated."""

    async def open(self, host: HostName) -> str:
        """The URL of the bus with what a host that joins logs in with from now on.

        Called once the name is the host's, and again if the answer was lost: what an earlier call answered
        need not be good any more.
        """

    async def current(self, host: HostName) -> str:
        """What the host should log in with by now; empty: as before."""

    async def close(self, host: HostName) -> None:
        """The host cannot log in any more; one that never could is success."""


class SharedBusAccount:
    """Every host has the account of the installation: brokers need no management, and hosts are trusted."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def open(self, host: HostName) -> str:
        return self._url

    async def current(self, host: HostName) -> str:
        return self._url

    async def close(self, host: HostName) -> None:
        """Nothing: who had the account keeps it until the operator changes its password."""
