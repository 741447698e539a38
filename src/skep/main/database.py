"""The database of a process of control; one that cannot be used is named, with what can be done."""

import asyncio
from contextlib import AsyncExitStack

import asyncpg
import structlog
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from skep.configuration import Configuration
from skep.flow import Database
from skep.flow.storage.refusals import is_away
from skep.model.errors import Unavailable
from skep.store.schema import is_current, migrate

log = structlog.get_logger("skep")

_TROUBLE = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    ImportError,
    ValueError,
)

_REST = 1.0

_AUTHORIZATION, _NO_SUCH_DATABASE = "28", "3D000"
"""Of SQLSTATE: a class, and a state."""


async def open_database(stack: AsyncExitStack, settings: Configuration) -> Database:
    """With today's schema.

    Where others are to bring it there, they and the server are waited for, for as long as it takes.

    Raises:
        Unavailable: there is none that can be used.
    """
    waits = settings.migrations == "await"
    try:
        database = await (_awaited(settings.database_url) if waits else Database.open(settings.database_url))
        stack.push_async_callback(database.close)
        if not waits:
            await migrate(database.engine)
    except _TROUBLE as error:
        raise Unavailable(refusal(settings.database_url, error)) from error
    return database


async def await_server(url: str) -> None:
    """Until it answers.  Raises Unavailable: it answers, and refuses us."""
    try:
        await (await _awaited(url, schema=False)).close()
    except _TROUBLE as error:
        raise Unavailable(refusal(url, error)) from error


async def _awaited(url: str, *, schema: bool = True) -> Database:
    told = ""
    while True:
        try:
            database = await Database.open(url)
        except _TROUBLE as error:
            if not is_away(error):
                raise
            reason = str(error) or type(error).__name__
        else:
            if not schema or await _is_current(database):
                return database
            reason = "its schema is older than this version's: skep migrate"
        if reason != told:
            log.info("database.awaited", reason=reason)
            told = reason
        await asyncio.sleep(_REST)


async def _is_current(database: Database) -> bool:
    """One that is not, or that cannot be asked, is closed."""
    try:
        if await is_current(database.engine):
            return True
    except BaseException:
        await database.close()
        raise
    await database.close()
    return False


def refusal(url: str, error: Exception) -> str:
    """Which database it is, what it said, and what to do; never the password."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    said = str(cause) or type(cause).__name__
    return f"The database {where(url)} cannot be used: {said}. {_advice(url, cause)}".rstrip()


def where(url: str) -> str:
    """User, host, port and name, as in the setting 'database'."""
    try:
        return make_url(url).render_as_string(hide_password=True).replace(":***@", "@")
    except (ArgumentError, ValueError):  # what is no URL may have the password anywhere
        return "of the setting 'database'"


def _advice(url: str, cause: BaseException) -> str:
    if not url.startswith("postgresql"):
        return "" if url.startswith("sqlite") else "See the setting 'database'."
    state = str(getattr(cause, "sqlstate", None) or "")
    if state.startswith(_AUTHORIZATION):
        return "See user and password in the setting 'database', and pg_hba.conf of the server."
    if state == _NO_SUCH_DATABASE:
        return "Make it (CREATE DATABASE … OWNER …), or correct the setting 'database'."
    if isinstance(cause, OSError):
        return (
            "Look whether PostgreSQL runs there and is reached from here (listen_addresses, firewalls), "
            "or correct the setting 'database'; then start this process again."
        )
    return "See the setting 'database'."
