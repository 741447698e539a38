"""Connections to SQLite and PostgreSQL, set up as the engine wants them."""

import socket
from functools import partial
from typing import Any, cast

from sqlalchemy import Connection, event, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from skep.flow.storage.sqlite import COMPILED, connect

BUSY_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT = 10.0
"""Seconds."""
STALLED_MS = 30_000
"""After which a transaction that does nothing is ended: whoever hangs in the middle of one keeps its rows
locked for others.  As long as a transactional step may take.  PostgreSQL does it, but in the middle of a
statement, where the other processes do (`stalls`)."""
_NOTICED = {
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "25000",
}
"""The server notices as soon that a client vanished: by itself after two hours."""
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 25_000))
"""A server that vanished without a word is noticed after 25 s, however long a query may take."""


def open_engine(url: str, *, durable: bool = True) -> AsyncEngine:
    """An engine for the URL, which names `sqlite+aiosqlite` or `postgresql+asyncpg`.

    Raises:
        ValueError: another kind of database.
    """
    if url.startswith("sqlite"):
        return _sqlite(url, durable)
    if url.startswith("postgresql"):
        return _postgresql(url, durable)
    raise ValueError(
        f"the database is to be sqlite+aiosqlite:// or postgresql+asyncpg://, not {url.split(':')[0]}://"
    )


async def detached(connection: AsyncConnection) -> Any:
    """The driver's connection; the pool counts it no more."""
    raw = await connection.get_raw_connection()
    driver = raw.driver_connection
    raw.detach()
    return driver


def _postgresql(url: str, durable: bool) -> AsyncEngine:
    settings = {"application_name": "skep", "idle_in_transaction_session_timeout": str(STALLED_MS)}
    settings |= _NOTICED
    settings |= {} if durable else {"synchronous_commit": "off"}
    engine = create_async_engine(
        url,
        pool_pre_ping=True,
        connect_args={"timeout": CONNECT_TIMEOUT, "server_settings": settings},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        transport = getattr(connection.driver_connection, "_transport", None)
        stream = transport and transport.get_extra_info("socket")
        if stream is not None and stream.family in (socket.AF_INET, socket.AF_INET6):
            _keep_alive(stream)

    return engine


def _keep_alive(stream: socket.socket) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            stream.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _sqlite(url: str, durable: bool) -> AsyncEngine:
    """Write-ahead log, real foreign keys, and transactions begun by us.

    The driver's own transaction handling would commit behind the back of savepoints; the recipe is from
    SQLAlchemy's documentation of the dialect, "Serializable isolation / Savepoints / Transactional DDL".
    The writer begins IMMEDIATE, for a transaction that reads first cannot be upgraded while another writes.
    """
    pragmas = (
        f"busy_timeout={BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        f"synchronous={'FULL' if durable else 'OFF'}",
        "foreign_keys=ON",
    )
    file = make_url(url).database or ""
    engine = create_async_engine(
        make_url(url).set(drivername="sqlite+skep"),
        async_creator=partial(connect, file, pragmas),
        execution_options={"compiled_cache": COMPILED},
    )

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        writer = cast("bool", connection.get_execution_options().get("skep_writer", False))
        statement = "BEGIN IMMEDIATE" if writer else "BEGIN"
        connection.connection.run_async(lambda driver: driver.execute(statement))

    return engine
