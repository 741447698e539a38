"""Certificates of endpoints: those that tenants give, and those that are ordered for them by ACME.

The key is sealed in the database (`trust/sealing.py`) and goes to hosts when they ask for it; nobody is shown
it again.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import msgspec
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller
from skep.control.clock import Now, rfc3339
from skep.control.endpoints import acme
from skep.control.endpoints.edges import Edges
from skep.control.sealed_keys import seal_key
from skep.flow import Database
from skep.model.endpoints import ACME, certificate_name
from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.ids import AppId, CertificateId
from skep.model.names import check_name
from skep.model.views.endpoints import CertificateView
from skep.store import acme as acme_orders
from skep.store import endpoints
from skep.store.acme import OrderRow
from skep.store.endpoints import TlsCertificateRow

MOST_CERTIFICATES = 200
LARGEST = 64 * 1024

log = structlog.get_logger("skep.certificates")


class TlsCertificates:
    """`seal`: the file with the key that seals keys."""

    def __init__(
        self,
        database: Database,
        seal: Path | None,
        edges: Edges | None,
        now: Now,
        new_id: Callable[[], str],
    ) -> None:
        self._database = database
        self._seal = seal
        self._edges = edges
        self._now = now
        self._new_id = new_id

    async def list(self, caller: Caller) -> list[CertificateView]:
        async with self._database.read() as connection:
            rows = await endpoints.certificates(connection, caller.tenant)
            used = await _used(connection, caller)
            orders = {row.host: row for row in await acme_orders.orders(connection, caller.tenant)}
        now, held = self._now(), {row.name for row in rows}
        views = [_view(row, used.get(row.name, 0), orders.get(row.name), now) for row in rows]
        coming = [order for host, order in orders.items() if host not in held and host in used]
        return views + [_coming(order, used[order.host], now) for order in coming]

    async def put(self, caller: Caller, name: str, certificate: str, key: str) -> CertificateView:
        """Add the certificate with its chain (PEM), or give this one in place of what has the name.

        Endpoints that name it show it at once.
        Raises:
            InvalidInput: one of them is none, they do not belong together, or its time is over.
        """
        caller.must_change()
        check_name(name, "The certificate")
        if name == ACME:
            raise InvalidInput("'acme' stands for certificates that are ordered: take another name.")
        chain, private, leaf = check_pair(certificate, key, self._now())
        row = TlsCertificateRow(
            id=CertificateId(self._new_id()),
            tenant_id=caller.tenant,
            name=name,
            chain=chain,
            sealed_key=b"",
            created=self._now(),
            expires=leaf.not_valid_after_utc.timestamp(),
        )
        sealed = seal_key(self._seal, row, private)

        async def save(connection: AsyncConnection) -> None:
            known = await endpoints.certificates(connection, caller.tenant)
            before = [one for one in known if one.name == name]
            if sum("." not in one.name for one in known) >= MOST_CERTIFICATES and not before:
                raise InvalidInput(f"A tenant has at most {MOST_CERTIFICATES} certificates.")
            for one in before:
                await endpoints.delete_certificate(connection, one.id)
            await endpoints.insert_certificate(connection, sealed)

        await self._database.write(save)
        log.info("certificate.added", tenant=caller.tenant, certificate=name, by=caller.user_name)
        await self._tell(caller, name)
        async with self._database.read() as connection:
            return _view(row, (await _used(connection, caller)).get(name, 0), None, self._now())

    async def remove(self, caller: Caller, name: str) -> None:
        """Raises Conflict: endpoints name it."""
        caller.must_change()

        async def remove(connection: AsyncConnection) -> None:
            if count := (await _used(connection, caller)).get(name, 0):
                raise Conflict(
                    f"{count} endpoints name certificate {name!r}: apply their apps without it first."
                )
            rows = await endpoints.certificates(connection, caller.tenant)
            found = next((row for row in rows if row.name == name), None)
            if found is None:
                raise NotFound(f"There is no certificate {name[:80]!r}; see 'skep cert ls'.")
            await endpoints.delete_certificate(connection, found.id)
            orders = await acme_orders.orders(connection, caller.tenant)
            await acme_orders.delete(connection, [order.id for order in orders if order.host == name])

        await self._database.write(remove)
        log.info("certificate.removed", tenant=caller.tenant, certificate=name, by=caller.user_name)

    async def renew(self, caller: Caller, name: str) -> None:
        """Order another certificate for the name at once: after what kept it from coming was put right, or
        when its key has become known.

        Raises:
            NotFound: no endpoint has one by ACME.
            Conflict: one was ordered just now.
        """
        caller.must_change()
        now = self._now()

        async def save(connection: AsyncConnection) -> None:
            wanted = acme.wanted(await endpoints.every(connection, tenant=caller.tenant))
            orders = await acme_orders.orders(connection, caller.tenant)
            found = next((row for row in orders if row.host == name), None)
            if found is None or (caller.tenant, name) not in wanted:
                raise NotFound(f"No certificate is ordered for {name[:80]!r}; see 'skep cert ls'.")
            if found.url:
                return
            if found.ordered > now - acme.RETRY:
                again = rfc3339(found.ordered + acme.RETRY)
                raise Conflict(
                    f"One was ordered for {name} a short while ago: authorities count. Again at {again}."
                )
            await acme_orders.save(connection, msgspec.structs.replace(found, due=now), found)

        await self._database.write(save)
        log.info("certificate.renewed", tenant=caller.tenant, certificate=name, by=caller.user_name)

    async def _tell(self, caller: Caller, name: str) -> None:
        if self._edges is None:
            return
        async with self._database.read() as connection:
            rows = await endpoints.every(connection, tenant=caller.tenant)
        concerned: set[AppId] = {row.app_id for row in rows if row.spec.tls == name}
        if concerned:
            await self._edges.announce(concerned)


async def _used(connection: AsyncConnection, caller: Caller) -> dict[str, int]:
    counted: dict[str, int] = {}
    for row in await endpoints.every(connection, tenant=caller.tenant):
        if name := certificate_name(row.spec):
            counted[name] = counted.get(name, 0) + 1
    return counted


def check_pair(certificate: str, key: str, now: float) -> tuple[str, str, x509.Certificate]:
    """Both as we write them, and the first certificate.  Raises InvalidInput, without a word of the key."""
    if max(len(certificate), len(key)) > LARGEST:
        raise InvalidInput(f"A certificate with its chain has at most {LARGEST} bytes.")
    try:
        chain = x509.load_pem_x509_certificates(certificate.encode())
    except ValueError as error:
        raise InvalidInput("This is no certificate in PEM, or one of its chain is none.") from error
    try:
        private = load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError):
        raise InvalidInput("This is no private key in PEM, or it is locked with a password.") from None
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if chain[0].public_key().public_bytes(*spki) != private.public_key().public_bytes(*spki):
        raise InvalidInput("The key is not that of the first certificate: the chain begins with its own.")
    for lower, upper in pairwise(chain):
        _must_be_issued_by(lower, upper)
    if chain[0].not_valid_after_utc.timestamp() < now:
        raise InvalidInput(
            f"The certificate was good until {rfc3339(chain[0].not_valid_after_utc.timestamp())}."
        )
    text = "".join(one.public_bytes(Encoding.PEM).decode() for one in chain)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return text, pem, chain[0]


def _must_be_issued_by(lower: x509.Certificate, upper: x509.Certificate) -> None:
    try:
        lower.verify_directly_issued_by(upper)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise InvalidInput(
            "The chain is not in order: each certificate is followed by who issued it."
        ) from error


def _leaf(chain: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates(chain.encode())[0]


def _names(chain: str) -> tuple[str, ...]:
    try:
        found = _leaf(chain).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(found.value.get_values_for_type(x509.DNSName))


def _view(row: TlsCertificateRow, endpoint_count: int, order: OrderRow | None, now: float) -> CertificateView:
    return CertificateView(
        id=row.id,
        name=row.name,
        names=_names(row.chain),
        issuer=_leaf(row.chain).issuer.rfc4514_string(),
        endpoints=endpoint_count,
        created=rfc3339(row.created),
        expires=rfc3339(row.expires),
        state=acme.state(order, row.expires, now),
    )


def _coming(order: OrderRow, endpoint_count: int, now: float) -> CertificateView:
    """One that was not there yet."""
    return CertificateView(
        id=order.id,
        name=order.host,
        names=(order.host,),
        issuer="",
        endpoints=endpoint_count,
        created=rfc3339(order.created),
        expires="",
        state=acme.state(order, None, now),
    )
