"""Keeps the limits that operators set in the database, and in force here."""

from collections.abc import Callable, Sequence

from skep.flow.admission.policies import Policies, Policy, check_key
from skep.flow.storage import settings
from skep.flow.storage.database import Database
from skep.flow.storage.settings import Setting

POLICIES = "policies"
"""The wake-up that tells other workers to look."""


class Policing:
    """`changed` is called when other limits are in force than before."""

    def __init__(self, database: Database, policies: Policies, changed: Callable[[], None]) -> None:
        self._database = database
        self._policies = policies
        self._changed = changed
        self._mine: set[str] = set()

    async def load(self) -> None:
        """Put in force what the database says."""
        wanted = {setting.key: _policy(setting) for setting in await self.every()}
        present = {key: policy for key, policy in self._policies.all().items() if key in self._mine}
        for key in self._mine - wanted.keys():
            self._policies.set(key, None)
        for key, policy in wanted.items():
            if present.get(key) != policy:
                self._policies.set(key, policy)
        if wanted != present:
            self._mine = set(wanted)
            self._changed()

    async def every(self) -> Sequence[Setting]:
        async with self._database.read() as connection:
            return await settings.every(connection)

    async def set(self, key: str, policy: Policy | None, by: str) -> None:
        """None removes it; removing what is not there is success.

        Raises:
            ValueError: that is no key.
        """
        check_key(key)
        if policy is None:
            await self._database.write(lambda connection: settings.remove(connection, key))
        else:
            setting = Setting(
                key=key,
                concurrency=policy.concurrency,
                rate=policy.rate,
                burst=policy.burst,
                weight=policy.weight,
                by=by,
            )
            await self._database.write(lambda connection: settings.save(connection, setting))
        await self.load()


def _policy(setting: Setting) -> Policy:
    return Policy(
        concurrency=setting.concurrency, rate=setting.rate, burst=setting.burst, weight=setting.weight
    )
