"""The database of a process of control; one that cannot be used is named, with what can be done."""

from contextlib import AsyncExitStack

import asyncpg
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from skep.configuration import Configuration
from skep.flow import Database
from skep.model.errors import Unavailable
from skep.store.schema import migrate

_TROUBLE = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    ImportError,
    ValueError,
)

_AUTHORIZATION, _NO_SUCH_DATABASE = "28", "3D000"
"""Of SQLSTATE: a class, and a state."""


async def open_database(stack: AsyncExitStack, settings: Configuration) -> Database:
    """With today's schema.

    Raises:
        Unavailable: there is none that can be used.
    """
    try:
        database = await Database.open(settings.database_url)
        stack.push_async_callback(database.close)
        await migrate(database.engine)
    except _TROUBLE as error:
        raise Unavailable(refusal(settings.database_url, error)) from error
    return database


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
