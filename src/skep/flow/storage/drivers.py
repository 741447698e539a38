"""Connections to SQLite and PostgreSQL, set up as the engine wants them."""

import socket
from contextlib import suppress
from functools import partial
from typing import Any, cast

from sqlalchemy import Connection, event, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from skep.flow.storage.sqlite import COMPILED, connect

BUSY_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT = 5.0
"""Seconds; who waits for a server tries again."""
STALLED_MS = 30_000
"""After which a transaction that does nothing is ended: whoever hangs in the middle of one keeps its rows
locked for others.  As long as a transactional step may take.  PostgreSQL does it, but in the middle of a
statement, where the other processes do (`stalls`)."""
_LOST_MS = 10_000
"""A server, or a client, that vanished is noticed after so long, however long a query takes."""
_IDLE, _INTERVAL, _PROBES = 5, 2, 3
"""Seconds without a word before the other side is probed, between two probes, and how many."""
_RTO_MAX_MS = 44
"""`TCP_RTO_MAX_MS` of Linux 6.15 and newer, see linux/tcp.h."""
_LONGEST_REST_MS = 2000
"""Between two tries to send what was not acknowledged: else the pauses double, and who asks when a network is
mended waits for as long as it was broken."""
_OF_CLIENT = {
    getattr(socket, "TCP_KEEPIDLE", None): _IDLE,
    getattr(socket, "TCP_KEEPINTVL", None): _INTERVAL,
    getattr(socket, "TCP_KEEPCNT", None): _PROBES,
    getattr(socket, "TCP_USER_TIMEOUT", None): _LOST_MS,
    _RTO_MAX_MS: _LONGEST_REST_MS,
}
_OF_SERVER = {
    "tcp_keepalives_idle": str(_IDLE),
    "tcp_keepalives_interval": str(_INTERVAL),
    "tcp_keepalives_count": str(_PROBES),
    "tcp_user_timeout": str(_LOST_MS),
}


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
    settings |= _OF_SERVER
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
    for option, value in _OF_CLIENT.items():
        if option is not None:
            with suppress(OSError):  # this kernel has not got it
                stream.setsockopt(socket.IPPROTO_TCP, option, value)


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
