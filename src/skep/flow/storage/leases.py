"""The look at a worker's lease that every commit begins with: past SQLAlchemy, as every step waits for it."""

from typing import Any

from msgspec import Struct
from sqlalchemy.ext.asyncio import AsyncConnection

POSTGRESQL = (
    "SELECT state, set_config('idle_in_transaction_session_timeout', $2, true) "
    "FROM flow_workers WHERE id = $1 FOR KEY SHARE"
)
_SQLITE = "SELECT state FROM flow_workers WHERE id = ?"


class Lease(Struct, frozen=True):
    """Whose it is.  `stalled`: seconds after which the server ends a transaction of this worker that does
    nothing, for the row stays locked."""

    worker: str
    stalled: float

    @property
    def parameters(self) -> tuple[str, str]:
        """For the statement of PostgreSQL."""
        return self.worker, str(int(self.stalled * 1000))

    async def state(self, connection: AsyncConnection) -> str | None:
        """Of the worker; nobody changes it before this transaction ends.  None: it is unknown."""
        state: str | None
        if connection.dialect.name == "postgresql":
            state = (await connection.exec_driver_sql(POSTGRESQL, self.parameters)).scalar()
            return state
        driver: Any = (await connection.get_raw_connection()).driver_connection
        # One turn in the driver's thread, as in `statements`.
        state = await driver._execute(sqlite_state, driver._conn, self.worker)
        return state


def sqlite_state(driver: Any, worker: str) -> str | None:
    """The same, in the driver's thread."""
    row = driver.execute(_SQLITE, (worker,)).fetchone()
    return row[0] if row else None
