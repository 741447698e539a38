"""What a host knows of the installation it belongs to: `host.json` beside its identity, for root only."""

import ssl
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from skep.model.errors import InvalidInput, NotFound
from skep.model.ids import HostName, ZoneName
from skep.trust.api_contexts import verifying
from skep.trust.identity import Identity, write_private

BUS_USER = "X-Skep-Bus-User"
"""The header that says what the host logs in to the bus with so far; empty: with nothing."""

_FILE = "host.json"
_FORMER = "removed.json"


class JoinedHost(msgspec.Struct, frozen=True, kw_only=True):
    """`url`: of the API.  `bus` may have a password.  `system_ca`: the API's certificate is the operator's.

    `address` is the host's own on the network between hosts.  `own_account`: on the bus, the host's alone.
    """

    url: str
    host: HostName
    zone: ZoneName
    pool: str | None
    bus: str
    address: str
    system_ca: bool = False
    own_account: bool = False

    @property
    def bus_user(self) -> str:
        return urlsplit(self.bus).username or ""

    def tls(self, identity: Identity) -> ssl.SSLContext:
        """For connections to the API."""
        return api_tls(identity.authority_file.read_text(), system_ca=self.system_ca)


def api_tls(authority: str, *, system_ca: bool) -> ssl.SSLContext:
    """Believes the API if the installation's authority vouches for it, or one that the system trusts."""
    return ssl.create_default_context() if system_ca else verifying(authority)


def agent_directory(etc: Path) -> Path:
    """Where the identity of this machine's agent is."""
    return etc / "agent"


def is_joined(directory: Path) -> bool:
    return Identity.exists(directory) and (directory / _FILE).exists()


def read_joined(directory: Path) -> JoinedHost:
    """Raises NotFound: the machine has not joined yet."""
    path = directory / _FILE
    if not is_joined(directory):
        if was_removed(directory):
            former = msgspec.json.decode((directory / _FORMER).read_bytes(), type=JoinedHost)
            raise NotFound(
                f"This machine was host {former.host!r} of {former.url} and was removed; its disks are still "
                f"here. To make it a host again: skep host add {former.host} --zone {former.zone}"
            )
        raise NotFound(
            f"This machine belongs to no installation ({path} is not there). On the control plane, "
            "'skep host add' prints the command that makes it a host."
        )
    try:
        return msgspec.json.decode(path.read_bytes(), type=JoinedHost)
    except (msgspec.MsgspecError, OSError) as error:
        raise InvalidInput(
            f"{path} cannot be used: {error}. Join again: skep agent join … --force"
        ) from error


def was_removed(directory: Path) -> bool:
    """It was a host until the installation removed it, and has not joined since."""
    return (directory / _FORMER).exists() and not is_joined(directory)


def forget_joined(directory: Path) -> None:
    """The installation has removed this host: what it proved itself with is worthless, and goes."""
    former = msgspec.structs.replace(read_joined(directory), bus="")
    write_private(directory / _FORMER, msgspec.json.encode(former).decode())
    (directory / _FILE).unlink()
    Identity.remove(directory)


def write_joined(directory: Path, joined: JoinedHost) -> None:
    write_private(
        directory / _FILE, msgspec.json.format(msgspec.json.encode(joined), indent=2).decode() + "\n"
    )
