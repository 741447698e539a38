"""How a machine becomes a host: it shows a join token once, and gets a certificate and a place.

Everything a token does happens in one transaction.  If the answer is lost (a death of either side), the host
asks again with the same key as long as the token lives, and gets a new certificate; a token that was stolen
meanwhile opens nothing, for its thief has another key.
"""

from ipaddress import ip_address

import msgspec
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.clock import Now, rfc3339
from skep.control.hosts.authorities import Authorities
from skep.control.hosts.bus_accounts import BusAccounts
from skep.control.hosts.join_tokens import hash_token
from skep.flow import Database
from skep.model.errors import Conflict, InvalidInput, Unauthenticated
from skep.model.host import HostFacts
from skep.model.ids import HostName, ZoneName
from skep.model.names import check_name
from skep.model.topology import Liveness, PoolName
from skep.model.views.joining import CertificateRenewed, HostJoined
from skep.store import certificates, hosts, join_tokens
from skep.store.hosts import HostRow
from skep.store.join_tokens import JoinTokenRow
from skep.trust.authority import Address, Issued, key_hash
from skep.trust.peers import Role

log = structlog.get_logger(__name__)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a host is on the network between hosts, and its agent on it."""

    addresses: tuple[Address, ...]
    port: int

    @property
    def underlay(self) -> str:
        return str(self.addresses[0]) if self.addresses else ""

    @property
    def address(self) -> str:
        if not self.addresses:
            return ""
        bare = self.underlay
        return f"[{bare}]:{self.port}" if ":" in bare else f"{bare}:{self.port}"


class Enrolment:
    def __init__(self, database: Database, authorities: Authorities, accounts: BusAccounts, now: Now) -> None:
        self._database = database
        self._authorities = authorities
        self._accounts = accounts
        self._now = now

    async def admit(self, secret: str) -> JoinTokenRow:
        """The token, while it may be used, or be used again by the host that has.

        Raises:
            Unauthenticated: it is unknown, revoked, or its time is over.
        """
        async with self._database.read() as connection:
            row = await join_tokens.by_hash(connection, hash_token(secret))
        if row is None:
            raise Unauthenticated(
                "The join token is not known here: it was revoked, or is of another installation. "
                "Ask the operator for a new one: skep host add"
            )
        if row.expires <= self._now():
            raise Unauthenticated(
                f"The join token was good until {rfc3339(row.expires)}. "
                "Ask the operator for a new one: skep host add"
            )
        return row

    async def join(
        self,
        secret: str,
        request: str,
        facts: HostFacts,
        *,
        name: str = "",
        hostname: str = "",
        address: str = "",
        port: int = 7538,
        user: str | None = "",
    ) -> HostJoined:
        """Certify the key of the request and make the host's row.

        It is named as its token says, else `name`, else `hostname`.  `address` is its own on the underlay,
        where its agent listens on `port`.  `user`: see `BusAccounts`.

        Raises:
            Unauthenticated: the token is not good (any more).
            Conflict: another machine has used the token, the name is taken, or the machine's release is too
                old.
            InvalidInput: the request, the name or the address is none.
            Unavailable: the bus has no account for it; the token stays good for this machine.
        """
        token = await self.admit(secret)
        key, place = key_hash(request), Place(addresses=_addresses(address), port=port)
        host = _name(token, name, hostname)
        if token.used_by not in (None, key):
            raise _used(token)
        await self._accounts.check(user)
        issued = await self._authorities.issue(request, Role.AGENT, host, addresses=place.addresses)
        await self._database.write(
            lambda connection: self._enter(connection, token, key, host, facts, place, issued)
        )
        login = await self._accounts.open(host, token.zone)  # only now: the name is this machine's
        log.info("host.joined", host=host, zone=token.zone, token=token.id, serial=issued.peer.serial)
        return HostJoined(
            host=host,
            zone=token.zone,
            pool=token.pool,
            certificate=issued.certificate,
            certificates=(await self._authorities.show()).certificates,
            expires=rfc3339(issued.expires),
            bus=login.bus,
            own_account=login.own,
        )

    async def renew(
        self, certificate: str, request: str, signature: bytes, user: str | None = ""
    ) -> CertificateRenewed:
        """A new certificate for a host that signs the request for it with the key of the present one.

        Whoever sends the same again gets a certificate for a key that only the host has.  `user`: see
        `BusAccounts`.

        Raises:
            Unauthenticated: the certificate or the signature is not the host's, or it was removed.
        """
        peer = await self._authorities.recognise(certificate)
        present = x509.load_pem_x509_certificate(certificate.encode())
        if peer.role is not Role.AGENT or not _signed(present, request.encode(), signature):
            raise Unauthenticated("The request is not signed with the key of a host's certificate.")
        host = HostName(peer.name)
        issued = await self._authorities.issue(request, Role.AGENT, host, addresses=_addresses_in(present))
        zone = await self._database.write(lambda connection: self._renewed(connection, peer.serial, issued))
        log.info("certificate.renewed", host=host, serial=issued.peer.serial)
        login = await self._accounts.current(host, zone, user)
        return CertificateRenewed(
            certificate=issued.certificate,
            certificates=(await self._authorities.show()).certificates,
            expires=rfc3339(issued.expires),
            bus=login.bus,
            own_account=login.own,
        )

    async def belongs(self, certificate: str, request: str, signature: bytes) -> bool:
        """Whether the host of the certificate is one of ours still; False: it was removed, and should end.

        Raises:
            Unauthenticated: the certificate is of another authority, its time is over, or the request is not
                signed with its key.
        """
        peer = await self._authorities.owner(certificate)
        present = x509.load_pem_x509_certificate(certificate.encode())
        if peer.role is not Role.AGENT or not _signed(present, request.encode(), signature):
            raise Unauthenticated("The request is not signed with the key of a host's certificate.")
        async with self._database.read() as connection:
            row = await hosts.get(connection, HostName(peer.name))
        return row is not None and not row.given_up

    async def revoke(self, connection: AsyncConnection, host: HostName) -> None:
        """Make the certificates of the host worthless, in the transaction that removes it."""
        await certificates.revoke(connection, Role.AGENT.value, host)

    async def forget(self, host: HostName) -> None:
        """Take the account on the bus from a host that is removed.

        Raises:
            Unavailable: the bus does not do it.
        """
        await self._accounts.close(host)

    async def _enter(
        self,
        connection: AsyncConnection,
        token: JoinTokenRow,
        key: str,
        host: HostName,
        facts: HostFacts,
        place: Place,
        issued: Issued,
    ) -> None:
        if await join_tokens.take(connection, token.id, key, self._now(), host):
            await self._make_host(connection, token, host, facts, place)
        else:
            await self._must_be_the_same(connection, token, key)
        await self._certify(connection, issued)

    async def _make_host(
        self,
        connection: AsyncConnection,
        token: JoinTokenRow,
        host: HostName,
        facts: HostFacts,
        place: Place,
    ) -> None:
        if token.zone not in {row.name for row in await hosts.every_zone(connection)}:
            raise Conflict(f"Zone {token.zone!r} of the join token is gone: ask for a new one: skep host add")
        if not await self._is_free(connection, token, host):
            raise Conflict(
                f"There is a host {host!r} already. Join under another name (--name), or remove that one "
                f"first: skep host rm {host}"
            )
        pool = PoolName(token.pool) if token.pool else await hosts.default_pool(connection, token.zone)
        row = HostRow(
            name=host,
            zone=token.zone,
            pool=pool,
            state=Liveness.JOINING,
            underlay=place.underlay,
            address=place.address,
            cpus=facts.cpus,
            memory=facts.memory,
            kernel=facts.kernel,
            cgroups=facts.cgroups,
            boot_id=facts.boot_id,
        )
        await certificates.revoke(connection, Role.AGENT.value, host)  # those of a former host of the name
        await hosts.save(connection, row)

    async def _is_free(self, connection: AsyncConnection, token: JoinTokenRow, host: HostName) -> bool:
        """A host that is there is meant by a token with its name, unless somebody took the name since."""
        if await hosts.get(connection, host) is None:
            return True
        given = await certificates.of(connection, Role.AGENT.value, host)
        return token.host == host and all(one.created < token.created for one in given)

    async def _must_be_the_same(self, connection: AsyncConnection, token: JoinTokenRow, key: str) -> None:
        """Who repeats gets its answer again, unless the token or the host went meanwhile."""
        current = await join_tokens.by_hash(connection, token.hash)
        if current is None or current.expires <= self._now():
            raise Unauthenticated("The join token is not good any more: ask for a new one: skep host add")
        if current.used_by != key:
            raise _used(current)
        if current.host is None or await hosts.get(connection, current.host) is None:
            raise Conflict(f"Host {current.host!r} was removed: ask for a new token: skep host add")

    async def _certify(self, connection: AsyncConnection, issued: Issued) -> None:
        await self._authorities.record(connection, issued)
        await hosts.set_certificate(connection, HostName(issued.peer.name), issued.peer.serial)

    async def _renewed(self, connection: AsyncConnection, serial: str, issued: Issued) -> ZoneName:
        """The old one stays good until its end: the answer may be lost.  Answers the host's zone."""
        host = issued.peer.name
        row = await hosts.get(connection, HostName(host))
        if row is None or not await certificates.is_known(
            connection, Role.AGENT.value, host, serial, self._now()
        ):
            raise Unauthenticated(f"Host {host!r} was removed from the installation.")
        await self._certify(connection, issued)
        return row.zone


def _name(token: JoinTokenRow, name: str, hostname: str) -> HostName:
    if token.host is None:
        return HostName(check_name(name or hostname.partition(".")[0].lower(), "host"))
    if name not in ("", token.host) and token.used is None:
        raise Conflict(f"The join token is for host {token.host!r}, not for {name!r}.")
    return token.host


def _used(token: JoinTokenRow) -> Conflict:
    return Conflict(
        f"The join token was used by host {token.host!r} already; each joins one host. "
        "Ask the operator for a new one: skep host add"
    )


def _addresses(text: str) -> tuple[Address, ...]:
    try:
        return (ip_address(text),) if text else ()
    except ValueError as error:
        raise InvalidInput(f"{text!r} is no IP address.") from error


def _addresses_in(certificate: x509.Certificate) -> list[Address]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = names.get_values_for_type(x509.IPAddress)
    return [one for one in found if isinstance(one, Address)]


def _signed(certificate: x509.Certificate, content: bytes, signature: bytes) -> bool:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    try:
        key.verify(signature, content, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
