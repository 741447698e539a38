"""The authority of the installation, where every control process finds it: in the database, sealed.

The key that opens it is a file on each machine of the control plane (docs/decisions/0011).  The first process
that needs an authority makes both.  Without that file nothing new can be certified; what runs goes on.
"""

from collections.abc import Sequence
from pathlib import Path

import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.clock import Now
from skep.flow import Database
from skep.model.errors import InvalidInput, NotFound, Unauthenticated, Unavailable
from skep.model.ids import HostName, Seconds, new_id
from skep.model.topology import Liveness
from skep.model.views.joining import AuthorityView
from skep.store import certificates, hosts
from skep.store.certificates import AuthorityRow, CertificateRow
from skep.trust.authority import LIFETIME, Address, Authority, Issued
from skep.trust.identity import Identity, new_key, signing_request
from skep.trust.peers import Peer, Role
from skep.trust.sealing import Seal, WrongSeal

log = structlog.get_logger(__name__)

_KEPT = 7 * 86_400.0
"""Seconds for which a certificate whose time is over stays in the list."""


class Authorities:
    """`seal` is the file with the key that opens the authority; `given` an operator's own, to begin with."""

    def __init__(
        self, database: Database, seal: Path | None, now: Now, given: tuple[Path, Path] | None = None
    ) -> None:
        self._database = database
        self._seal = seal
        self._given = given
        self._now = now
        self._signing: Authority | None = None

    async def show(self, *, make: bool = True) -> AuthorityView:
        """The authority, for those who pin it.  It is no secret.  With `make` there is one from now on.

        Raises:
            NotFound: there is none yet.
            Unavailable: none can be made.
        """
        rows = await self._rows()
        if not rows and not make:
            raise NotFound("This installation has no authority yet: it gets one with its first host or TLS.")
        if not rows:
            await self.signing()
            rows = await self._rows()
        return AuthorityView(
            fingerprint=rows[-1].fingerprint, certificates="".join(row.certificate for row in reversed(rows))
        )

    async def signing(self) -> Authority:
        """The one that signs; the very first is made now.

        Raises:
            Unavailable: this machine has not the key that opens it.
        """
        if self._signing is None:
            rows = await self._rows()
            self._signing = self._opened(rows[-1]) if rows else await self._begin()
        return self._signing

    async def issue(
        self,
        request: str,
        role: Role,
        name: str,
        *,
        addresses: Sequence[Address] = (),
        dns: Sequence[str] = (),
        lifetime: Seconds = LIFETIME,
    ) -> Issued:
        """A certificate that is worth nothing before it is `record`ed."""
        authority = await self.signing()
        return authority.issue(
            request, role=role, name=name, now=self._now(), addresses=addresses, dns=dns, lifetime=lifetime
        )

    async def record(self, connection: AsyncConnection, issued: Issued) -> None:
        """Let it count, in the caller's transaction."""
        await certificates.forget(connection, self._now() - _KEPT)
        row = CertificateRow(
            serial=issued.peer.serial,
            role=issued.peer.role.value,
            name=issued.peer.name,
            created=issued.issued,
            expires=issued.expires,
        )
        await certificates.insert(connection, row)

    async def recognise(self, certificate: str) -> Peer:
        """Whose certificate it is.

        Raises:
            Unauthenticated: it is of another authority, its time is over, or it was revoked.
        """
        now = self._now()
        peer = _signed_by(await self._rows(), certificate, now)
        async with self._database.read() as connection:
            if await _counts(connection, peer.role, peer.name, peer.serial, now):
                return peer
        raise Unauthenticated(
            f"The certificate of {peer.role} {peer.name!r} was revoked. If it is to belong to the "
            "installation again, ask the operator for a join token: skep host add"
        )

    async def owner(self, certificate: str) -> Peer:
        """Whose certificate it is, revoked or not.

        Raises:
            Unauthenticated: it is of another authority, or its time is over.
        """
        return _signed_by(await self._rows(), certificate, self._now())

    async def is_known(self, host: HostName, serial: str) -> bool:
        """Whether the host's certificate counts: not once the host was removed."""
        async with self._database.read() as connection:
            return await _counts(connection, Role.AGENT, host, serial, self._now())

    async def identity(
        self,
        directory: Path,
        role: Role,
        name: str,
        *,
        addresses: Sequence[Address] = (),
        dns: Sequence[str] = (),
    ) -> Identity:
        """The identity of a control process in the directory: what is there while it is good, else a new one.

        Call it again from time to time (`Identity.renewal`): the same object that was made before takes up
        what is new by `refresh`.
        """
        if Identity.exists(directory):
            found = Identity(directory)
            if found.covers(dns, addresses) and await self._is_good(found, role, name):
                return found
        key = new_key()
        issued = await self.issue(signing_request(key), role, name, addresses=addresses, dns=dns)
        await self._database.write(lambda connection: self.record(connection, issued))
        log.info("certificate.issued", role=role.value, name=name, serial=issued.peer.serial)
        return Identity.store(directory, key, issued.certificate, (await self.show()).certificates)

    async def _is_good(self, identity: Identity, role: Role, name: str) -> bool:
        if self._now() >= identity.renewal or (identity.peer.role, identity.peer.name) != (role, name):
            return False
        try:
            await self.recognise(identity.certificate)
        except Unauthenticated:
            return False
        return True

    async def _rows(self) -> list[AuthorityRow]:
        async with self._database.read() as connection:
            return await certificates.every_authority(connection)

    async def _begin(self) -> Authority:
        """Make the first authority; whoever was faster has made it for all."""
        seal = self._own_seal()
        made = self._load_given() or Authority.make(new_id(), self._now())
        row = AuthorityRow(
            fingerprint=made.fingerprint,
            place=1,
            certificate=made.certificate,
            sealed_key=seal.close(made.key.encode(), made.fingerprint),
            created=self._now(),
        )
        try:
            await self._database.write(lambda connection: certificates.insert_authority(connection, row))
        except IntegrityError:
            return self._opened((await self._rows())[-1])
        log.info("authority.made", fingerprint=made.fingerprint)
        return made

    def _load_given(self) -> Authority | None:
        if self._given is None:
            return None
        certificate, key = self._given
        try:
            return Authority.load(certificate.read_text(), key.read_text())
        except OSError as error:
            raise Unavailable(f"The authority that the settings name cannot be read: {error}") from error

    def _own_seal(self) -> Seal:
        if self._seal is None:
            raise Unavailable("This process has no file with the key for an authority.")
        return Seal.read(self._seal) if self._seal.exists() else Seal.make(self._seal)

    def _opened(self, row: AuthorityRow) -> Authority:
        try:
            if self._seal is None or not self._seal.exists():
                raise WrongSeal
            key = Seal.read(self._seal).open(row.sealed_key, row.fingerprint).decode()
            return Authority.load(row.certificate, key)
        except (WrongSeal, InvalidInput, OSError) as error:
            raise Unavailable(
                f"The authority of this installation cannot be opened with {self._seal}: copy that file "
                "from a machine of the control plane which has it (it is for root only). Containers go on; "
                f"until then no host can join and no certificate be renewed. {error}"
            ) from error


async def _counts(connection: AsyncConnection, role: Role, name: str, serial: str, now: float) -> bool:
    """A host's only as long as the host is one of ours."""
    if not await certificates.is_known(connection, role.value, name, serial, now):
        return False
    if role is not Role.AGENT:
        return True
    host = await hosts.get(connection, HostName(name))
    return host is not None and host.state != Liveness.GONE


def _signed_by(authorities: list[AuthorityRow], certificate: str, now: float) -> Peer:
    """Raises Unauthenticated: none of them has signed it, or its time is over."""
    refused = Unauthenticated("This installation has no authority yet.")
    for row in authorities:
        try:
            return Authority.verify(row.certificate, certificate, now)
        except Unauthenticated as error:
            refused = error
    raise refused
