"""Limits: what operators allow of flows, steps, hosts, tenants and any other key, at once and per second.

The engine counts tenants by their ids; people name them: `tenant/acme/builds`.
"""

from skep.control.callers import Caller, Role
from skep.control.clock import rfc3339
from skep.flow import Database, FlowEngine
from skep.flow.admission.policies import Policy
from skep.flow.storage.settings import Setting
from skep.model.errors import InvalidInput, NotFound
from skep.model.views.limits import LimitView
from skep.store import tenants

_TENANT = "tenant"
_ANY = "*"


class FlowLimits:
    def __init__(self, database: Database, engine: FlowEngine) -> None:
        self._database = database
        self._engine = engine

    async def put(
        self,
        caller: Caller,
        key: str,
        *,
        concurrency: int | None = None,
        rate: float | None = None,
        burst: float | None = None,
        weight: float | None = None,
    ) -> LimitView:
        """Put it in force for the key, in place of what was; `rate` is per second.

        Raises:
            InvalidInput: that is no key, a number is out of its range, or nothing is limited.
            NotFound: there is no such tenant.
        """
        caller.must_operate()
        if concurrency is rate is burst is weight is None:
            raise InvalidInput("Say what to limit: concurrency, rate, burst or weight.")
        if weight is not None and not key.startswith(f"{_TENANT}/"):
            raise InvalidInput("Only tenants have a weight: the key must be tenant/NAME or tenant/*.")
        stored = await self._stored(key)
        try:
            policy = Policy(concurrency=concurrency, rate=rate, burst=burst, weight=weight)
            await self._engine.set_limit(stored, policy, by=caller.user_name)
        except ValueError as error:
            raise InvalidInput(f"{error}.") from error
        return next(one for one in await self.list(caller) if one.key == key)

    async def remove(self, caller: Caller, key: str) -> None:
        """Raises NotFound: none is set for that key."""
        caller.must_operate()
        if key not in {one.key for one in await self.list(caller)}:
            raise NotFound(f"No limit is set for {key!r}; see 'skep limit ls'.")
        await self._engine.set_limit(await self._stored(key), None, by=caller.user_name)

    async def list(self, caller: Caller) -> list[LimitView]:
        """By key; for members those of their tenant, and those of every tenant."""
        async with self._database.read() as connection:
            names = {row.id: row.name for row in await tenants.every(connection)}
        shown = [_view(one, _shown(one.key, names)) for one in await self._engine.limits()]  # type: ignore[arg-type]
        if caller.role is Role.ADMIN:
            return shown
        return [one for one in shown if _tenant_of(one.key) in (caller.tenant_name, _ANY)]

    async def _stored(self, key: str) -> str:
        """The key as the engine counts it."""
        tenant = _tenant_of(key)
        if tenant in (None, _ANY):
            return key
        async with self._database.read() as connection:
            row = await tenants.by_name(connection, str(tenant))
            known = {one.id for one in await tenants.every(connection)}
        if row is not None:
            return _with_tenant(key, row.id)
        if tenant in known:
            return key
        raise NotFound(f"There is no tenant {tenant!r}; see 'skep tenant ls'.")


def _tenant_of(key: str) -> str | None:
    first, *rest = key.split("/")
    return rest[0] if first == _TENANT and rest else None


def _with_tenant(key: str, tenant: str) -> str:
    first, _, *rest = key.split("/")
    return "/".join([first, tenant, *rest])


def _shown(key: str, names: dict[str, str]) -> str:
    tenant = _tenant_of(key)
    return key if tenant is None else _with_tenant(key, names.get(tenant, tenant))


def _view(setting: Setting, key: str) -> LimitView:
    return LimitView(
        key=key,
        concurrency=setting.concurrency,
        rate=setting.rate,
        burst=setting.burst,
        weight=setting.weight,
        by=setting.by,
        changed=rfc3339(setting.at),
    )
