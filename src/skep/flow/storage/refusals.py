"""Why a database refuses: for a while, or for ever."""

import sqlite3

import asyncpg
import msgspec
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolEmpty

_FINAL_CLASSES = ("22", "23", "54")
"""Of SQLSTATE (PostgreSQL 15, appendix A): data exception, integrity violation, program limit exceeded."""
_CONFLICTS = frozenset({"40001", "40P01"})
"""Serialization failure, deadlock detected."""


_CONNECTION = "08"
"""Of SQLSTATE: connection exception."""
_ENDING = frozenset({"57P01", "57P02", "57P03"})
"""The server ends, has crashed, or is only starting."""


TROUBLE = (DBAPIError, OSError, PoolEmpty)
"""What asking a database raises.  All of the pool may be in use, where each connection waits for one lock."""


class Unstorable(ValueError):
    """Values that no row can be made of."""


_FINAL = (
    Unstorable,
    IntegrityError,
    DataError,
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    msgspec.MsgspecError,
    UnicodeError,
    OverflowError,
)


def is_final(error: BaseException | None) -> bool:
    """The same rows will be refused whenever they are tried: they cannot be stored, or contradict what is."""
    if isinstance(error, _FINAL):
        return True
    if isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        return True  # the driver could not put a value into the column's type
    return _state(error)[:2] in _FINAL_CLASSES


def is_conflict(error: BaseException | None) -> bool:
    """Another's transaction was in the way: tried again it may pass."""
    return _state(error) in _CONFLICTS


def is_away(error: BaseException | None) -> bool:
    """The server does not answer, or ended the connection: it may be there again in a moment.  So may a
    connection of the pool."""
    if isinstance(error, DBAPIError):
        if error.connection_invalidated:
            return True
        error = error.orig
    if isinstance(error, sqlite3.Error):
        return False
    return (
        isinstance(error, OSError | PoolEmpty) or _state(error)[:2] == _CONNECTION or _state(error) in _ENDING
    )


def reason(error: BaseException) -> str:
    """In the driver's words, without the statement and its values."""
    return str(error.orig) if isinstance(error, DBAPIError) else str(error)


def _state(error: BaseException | None) -> str:
    """The SQLSTATE, or ""."""
    if isinstance(error, DBAPIError):
        error = error.orig
    return str(getattr(error, "sqlstate", None) or "")
