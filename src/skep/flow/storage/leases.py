"""The look at a worker's lease that every commit begins with: past SQLAlchemy, as every step waits for it."""

from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

_POSTGRESQL = (
    "SELECT state, set_config('idle_in_transaction_session_timeout', $2, true) "
    "FROM flow_workers WHERE id = $1 FOR KEY SHARE"
)
_SQLITE = "SELECT state FROM flow_workers WHERE id = ?"


async def look_at_lease(connection: AsyncConnection, worker: str, stalled: float) -> str | None:
    """The state of the worker, which nobody changes before this transaction ends; None if it is unknown.

    `stalled`: seconds after which the server ends a transaction that does nothing, for the row stays locked.
    """
    if connection.dialect.name == "postgresql":
        parameters = (worker, str(int(stalled * 1000)))
        state: str | None = (await connection.exec_driver_sql(_POSTGRESQL, parameters)).scalar()
        return state
    driver: Any = (await connection.get_raw_connection()).driver_connection
    # One turn in the driver's thread, as in `statements`.
    row = await driver._execute(_look, driver._conn, worker)
    return row[0] if row else None


def _look(driver: Any, worker: str) -> Any:
    return driver.execute(_SQLITE, (worker,)).fetchone()
