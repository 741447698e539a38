"""Connections to SQLite and PostgreSQL, set up as the engine wants them."""

import socket
from typing import Any, cast

from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

BUSY_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT = 10.0
"""Seconds."""
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 25_000))
"""A server that vanished without a word is noticed after 25 s, however long a query may take."""


def open_engine(url: str, *, durable: bool = True) -> AsyncEngine:
    """An engine for the URL, which names `sqlite+aiosqlite` or `postgresql+asyncpg`.

    Raises:
        ValueError: another kind of database.
    """
    if url.startswith("sqlite"):
        engine = create_async_engine(url)
        _prepare_sqlite(engine, "FULL" if durable else "OFF")
        return engine
    if url.startswith("postgresql"):
        return _postgresql(url, durable)
    raise ValueError(
        f"the database is to be sqlite+aiosqlite:// or postgresql+asyncpg://, not {url.split(':')[0]}://"
    )


def _postgresql(url: str, durable: bool) -> AsyncEngine:
    settings = {"application_name": "skep"} | ({} if durable else {"synchronous_commit": "off"})
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


def _prepare_sqlite(engine: AsyncEngine, synchronous: str) -> None:
    """Write-ahead log, real foreign keys, and transactions begun by us.

    The driver's own transaction handling would commit behind the back of savepoints; the recipe is from
    SQLAlchemy's documentation of the dialect, "Serializable isolation / Savepoints / Transactional DDL".
    The writer begins IMMEDIATE, for a transaction that reads first cannot be upgraded while another writes.
    """

    @event.listens_for(engine.sync_engine, "connect")
    def connect(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        writer = cast("bool", connection.get_execution_options().get("skep_writer", False))
        statement = "BEGIN IMMEDIATE" if writer else "BEGIN"
        # One turn in the driver's thread; a cursor of SQLAlchemy's takes three.
        connection.connection.run_async(lambda driver: driver.execute(statement))
