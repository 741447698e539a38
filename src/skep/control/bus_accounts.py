"""What hosts log in to the bus with."""

from typing import Protocol

from skep.model.ids import HostName


class BusAccounts(Protocol):
    """Accounts of hosts on the bus.  Every call may be repeated."""

    async def url(self, host: HostName) -> str:
        """The URL of the bus with what the host logs in with; made if need be."""

    async def remove(self, host: HostName) -> None:
        """The host cannot log in any more; one that never could is success."""


class SharedBusAccount:
    """Every host has the account of the installation: brokers need no management, and hosts are trusted."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def url(self, host: HostName) -> str:
        return self._url

    async def remove(self, host: HostName) -> None:
        """Nothing: who had the account keeps it until the operator changes its password."""
