"""Certificates by ACME: every name that endpoints want one for has one, and a newer one in time.

What is to be done follows from the rows and from what the authority says of an order, so it goes on from
wherever it was.  A step is one question to the authority or two.  Who does it puts the row's `due` off first,
and writes what came of it only if nobody did so meanwhile: of several processes one orders at a time.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import structlog
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.clock import Now
from skep.control.endpoints import acme
from skep.control.endpoints.edges import Edges
from skep.control.endpoints.tls_certificates import check_pair
from skep.control.host_directory import HostDirectory
from skep.control.ports import Issuer
from skep.control.sealed_keys import open_text, seal_key, seal_text
from skep.flow import Database
from skep.model.acme import AcmeAccount, AcmeOrder, AcmeProblem, AcmeRefusal
from skep.model.errors import InvalidInput, SkepError, Stale
from skep.model.ids import AcmeOrderId, AppId, CertificateId
from skep.store import acme as stored
from skep.store import endpoints
from skep.store.acme import AccountRow, OrderRow
from skep.store.endpoints import TlsCertificateRow

INTERVAL = 5.0
SOON = 1.0
"""Seconds between two looks; while something is under way."""
TAKEN = 90.0
"""Seconds for which nobody else goes on with what one has taken: longer than a step takes."""
AT_ONCE = 8

log = structlog.get_logger("skep.acme")


class Ordering:
    """`chance` answers numbers from 0 to 1."""

    def __init__(
        self,
        *,
        database: Database,
        issuer: Issuer,
        edges: Edges,
        directory: HostDirectory,
        seal: Path | None,
        now: Now,
        new_id: Callable[[], str],
        chance: Callable[[], float],
    ) -> None:
        self._database = database
        self._issuer = issuer
        self._edges = edges
        self._directory = directory
        self._seal = seal
        self._now = now
        self._new_id = new_id
        self._chance = chance
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._registering = asyncio.Lock()

    async def run(self) -> None:
        """Look after look, until cancelled.  One that fails is logged and tried again."""
        while True:
            busy = False
            try:
                busy = await self.look()
            except Exception:
                log.exception("acme.failed")
            await asyncio.sleep(SOON if busy else INTERVAL)

    async def look(self) -> bool:
        """Go on with everything that is due; whether something is under way."""
        now = self._now()
        async with self._database.read() as connection:
            names = acme.wanted(await endpoints.every(connection))
            orders = await stored.orders(connection)
        await self._keep_rows(names, orders, now)
        chosen = acme.choose(orders, names, now)
        await asyncio.gather(*(self._go_on(row) for row in chosen))
        known = {(row.tenant_id, row.host): row for row in orders}
        return any(name not in known or known[name].url for name in names) or bool(chosen)

    async def _keep_rows(self, names: set[acme.Name], orders: list[OrderRow], now: float) -> None:
        """A row for every name that is wanted, and for those that were not so long ago."""
        gone = acme.forgotten(orders, names, now)
        new = [
            OrderRow(id=AcmeOrderId(self._new_id()), tenant_id=tenant, host=host, due=now, created=now)
            for tenant, host in sorted(names - {(row.tenant_id, row.host) for row in orders})
        ]

        async def save(connection: AsyncConnection) -> None:
            await stored.insert(connection, new)
            await stored.delete(connection, [row.id for row in gone])
            for row in gone:
                await endpoints.delete_certificate_of(connection, row.tenant_id, row.host)

        if gone or new:
            await self._database.write(save)

    async def _go_on(self, row: OrderRow) -> None:
        async with self._gate:
            taken = await self._database.write(partial(stored.take, row=row, until=self._now() + TAKEN))
            if taken is None:
                return
            try:
                after = await self._step(taken)
            except Stale:
                return
            except AcmeRefusal as error:
                after = await self._refused(taken, error)
            except SkepError as error:
                after = acme.unanswered(taken, error.message, 0.0, self._now(), self._chance())
            await self._database.write(partial(stored.save, row=after, taken=taken))
        if after.problem not in ("", row.problem):
            log.warning("acme.problem", host=row.host, tenant=row.tenant_id, problem=after.problem)

    async def _refused(self, row: OrderRow, error: AcmeRefusal) -> OrderRow:
        """An authority that has forgotten our account is asked for one again; that it fails is no refusal."""
        problem, now, chance = error.problem, self._now(), self._chance()
        if problem.kind == "accountDoesNotExist":
            forget = partial(stored.save_account, directory=self._issuer.directory, url="")
            await self._database.write(forget)
            row = msgspec.structs.replace(row, url="", sealed_key=b"", proof="")
        if problem.kind in ("accountDoesNotExist", "serverInternal", "badNonce"):
            return acme.unanswered(row, problem.detail, error.wait, now, chance)
        return acme.failed(row, problem, error.wait, now, chance)

    async def _step(self, row: OrderRow) -> OrderRow:
        """What the row is to be after it.  Raises Stale: somebody else goes on with it."""
        account = await self._account()
        if not row.url:
            return await self._order(account, row)
        order = await self._issuer.look(account, row.url)
        match order.state:
            case "pending":
                return await self._prove(account, row, order)
            case "ready":
                await self._issuer.finalize(account, order.url, row.host, self._key(row))
            case "valid":
                return await self._keep(row, await self._issuer.chain(account, order.url))
            case "invalid":
                problem = order.problem or AcmeProblem(kind="", detail="It gives no reason.")
                return acme.failed(row, problem, order.wait, self._now(), self._chance())
        return self._soon(row, order.wait)

    async def _order(self, account: AcmeAccount, row: OrderRow) -> OrderRow:
        """That it is ordered is written first: who dies now does not order again and again."""
        row = msgspec.structs.replace(row, ordered=self._now())
        await self._save(row)
        order = await self._issuer.order(account, row.host)
        log.info("acme.ordered", host=row.host, tenant=row.tenant_id, order=order.url)
        sealed = seal_text(self._seal, _new_key(), _what(row))
        return self._soon(msgspec.structs.replace(row, url=order.url, sealed_key=sealed), 0.0)

    async def _prove(self, account: AcmeAccount, row: OrderRow, order: AcmeOrder) -> OrderRow:
        """The authority is told to look only when every host that is there shows the proof."""
        if row.proof != order.proof:
            row = msgspec.structs.replace(row, proof=order.proof)
            await self._save(row)
        if not order.asked:
            unheard = await self._edges.announce(await self._apps(row))
            if any(not self._directory.why_silent(name) for name in unheard):
                return self._soon(row, 2.0)
            await self._issuer.prove(account, order.url)
        return self._soon(row, order.wait)

    async def _keep(self, row: OrderRow, chain: str) -> OrderRow:
        """The certificate is there: endpoints show it, and it is renewed in time."""
        now = self._now()
        try:
            pem, key, leaf = check_pair(chain, self._key(row), now)
        except InvalidInput as error:
            return acme.failed(row, AcmeProblem(kind="", detail=error.message), 0.0, now, self._chance())
        begin, end = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        certificate = seal_key(
            self._seal,
            TlsCertificateRow(
                id=CertificateId(self._new_id()),
                tenant_id=row.tenant_id,
                name=row.host,
                chain=pem,
                sealed_key=b"",
                created=now,
                expires=end,
            ),
            key,
        )
        done = msgspec.structs.replace(
            row,
            url="",
            sealed_key=b"",
            proof="",
            failures=0,
            problem="",
            due=acme.renewal(begin, end, self._chance()),
        )

        async def save(connection: AsyncConnection) -> None:
            if not await stored.save(connection, done, row):
                raise Stale
            await endpoints.delete_certificate_of(connection, row.tenant_id, row.host)
            await endpoints.insert_certificate(connection, certificate)

        await self._database.write(save)
        log.info("acme.issued", host=row.host, tenant=row.tenant_id, expires=end)
        await self._edges.announce(await self._apps(row))
        return done

    def _soon(self, row: OrderRow, wait: float) -> OrderRow:
        """As it goes on well."""
        return msgspec.structs.replace(row, due=self._now() + min(max(SOON, wait), acme.LONGEST_WAIT))

    def _key(self, row: OrderRow) -> str:
        return open_text(self._seal, row.sealed_key, _what(row))

    async def _save(self, row: OrderRow) -> None:
        if not await self._database.write(partial(stored.save, row=row, taken=row)):
            raise Stale

    async def _apps(self, row: OrderRow) -> set[AppId]:
        async with self._database.read() as connection:
            rows = await endpoints.every(connection, tenant=row.tenant_id)
        return {one.app_id for one in rows if one.host == row.host}

    async def _account(self) -> AcmeAccount:
        """Its key is written before the authority sees it: there is one account, whoever dies."""
        async with self._registering:
            row = await self._account_row()
            key = open_text(self._seal, row.sealed_key, _what_account(row.directory))
            if row.url:
                return AcmeAccount(key=key, url=row.url)
            url = await self._issuer.register(key)
            await self._database.write(partial(stored.save_account, directory=row.directory, url=url))
            log.info("acme.registered", directory=row.directory, account=url)
            return AcmeAccount(key=key, url=url)

    async def _account_row(self) -> AccountRow:
        directory = self._issuer.directory
        sealed = seal_text(self._seal, _new_key(), _what_account(directory))
        new = AccountRow(directory=directory, url="", sealed_key=sealed, created=self._now())

        async def get(connection: AsyncConnection) -> AccountRow:
            if (known := await stored.account(connection, directory)) is not None:
                return known
            await stored.insert_account(connection, new)
            return new

        return await self._database.write(get)


def _new_key() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _what(row: OrderRow) -> str:
    return f"acme order {row.id} {row.host}"


def _what_account(directory: str) -> str:
    return f"acme account {directory}"
