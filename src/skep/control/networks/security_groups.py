"""Security groups of a tenant: list, show, put, remove, and their rules one by one.

A change is in force on every host that answers when the call returns; on the others when they do.
"""

from collections.abc import Callable, Collection
from functools import partial

import msgspec
import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.callers import Caller
from skep.control.clock import Now, rfc3339
from skep.control.telling.guarding import Guarding
from skep.flow import Database
from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.groups import GroupRule, settled
from skep.model.ids import GroupId, TenantId
from skep.model.names import check_name
from skep.model.spec import AppSpec
from skep.model.views.security_groups import GroupRuleView, SecurityGroupView
from skep.store import groups
from skep.store.groups import GroupRow

MOST_GROUPS = 200
MOST_RULES = 100
LONGEST_DESCRIPTION = 200

log = structlog.get_logger("skep.security_groups")


class SecurityGroups:
    """`guarding` tells hosts of a change at once; without it the reconciler does."""

    def __init__(
        self, database: Database, guarding: Guarding | None, now: Now, new_id: Callable[[], str]
    ) -> None:
        self._database = database
        self._guarding = guarding
        self._now = now
        self._new_id = new_id

    async def show(self, caller: Caller, group: str) -> SecurityGroupView:
        async with self._database.read() as connection:
            row = await _named(connection, caller.tenant, group)
            count = await groups.used(connection, caller.tenant)
        return _view(row, count.get(row.name, 0))

    async def put(
        self,
        caller: Caller,
        group: str,
        *,
        rules: Collection[GroupRule] | None = None,
        description: str | None = None,
    ) -> SecurityGroupView:
        """Make the group, or give it these rules and this description in place of its own; None keeps them.

        Raises:
            InvalidInput: the name or a rule cannot be, or there are too many.
            NotFound: a rule names a group that does not exist.
        """
        caller.must_change()
        check_name(group, "The security group")
        if description is not None and len(description) > LONGEST_DESCRIPTION:
            raise InvalidInput(f"A description has at most {LONGEST_DESCRIPTION} characters.")

        def change(row: GroupRow) -> GroupRow:
            return msgspec.structs.replace(
                row,
                rules=row.rules if rules is None else tuple(rules),
                description=row.description if description is None else description,
            )

        return await self._change(caller, group, change, make=True)

    async def add_rule(self, caller: Caller, group: str, rule: GroupRule) -> SecurityGroupView:
        """Adding a rule that is there is success.  Raises as `put`."""
        caller.must_change()
        return await self._change(
            caller, group, lambda row: msgspec.structs.replace(row, rules=(*row.rules, rule))
        )

    async def remove_rule(self, caller: Caller, group: str, rule: str) -> SecurityGroupView:
        """Raises NotFound: the group has no rule of this id."""
        caller.must_change()

        def change(row: GroupRow) -> GroupRow:
            left = tuple(one for one in row.rules if one.id != rule)
            if len(left) == len(row.rules):
                raise NotFound(
                    f"Security group {group!r} has no rule {rule[:40]!r}; see 'skep net group show {group}'."
                )
            return msgspec.structs.replace(row, rules=left)

        return await self._change(caller, group, change)

    async def remove(self, caller: Caller, group: str) -> None:
        """Raises Conflict: services are in it, or rules of other groups name it."""
        caller.must_change()

        async def remove(connection: AsyncConnection) -> None:
            row = await _named(connection, caller.tenant, group)
            if count := (await groups.used(connection, caller.tenant)).get(group, 0):
                raise Conflict(
                    f"{count} services are in security group {group!r}: apply their apps without it first."
                )
            for other in await groups.every(connection, caller.tenant):
                if other.id != row.id and any(rule.group == group for rule in other.rules):
                    raise Conflict(
                        f"A rule of security group {other.name!r} names {group!r}: remove it first."
                    )
            await groups.delete(connection, row.id)

        await self._database.write(remove)
        log.info("security-group.removed", tenant=caller.tenant, group=group, by=caller.user_name)

    async def list(self, caller: Caller) -> list[SecurityGroupView]:
        async with self._database.read() as connection:
            rows = await groups.every(connection, caller.tenant)
            count = await groups.used(connection, caller.tenant)
        return [_view(row, count.get(row.name, 0)) for row in rows]

    async def _change(
        self, caller: Caller, group: str, change: Callable[[GroupRow], GroupRow], *, make: bool = False
    ) -> SecurityGroupView:
        fresh = self._fresh(caller, group) if make else None
        try:
            row = await self._database.write(
                partial(_save, caller=caller, group=group, change=change, fresh=fresh, now=self._now())
            )
        except IntegrityError as error:
            raise Conflict(f"Security group {group!r} was just made by somebody else: try again.") from error
        log.info(
            "security-group.changed",
            tenant=caller.tenant,
            group=group,
            by=caller.user_name,
            rules=[str(rule) for rule in row.rules],
        )
        await self._tell(caller.tenant)
        return await self.show(caller, group)

    def _fresh(self, caller: Caller, group: str) -> GroupRow:
        return GroupRow(
            id=GroupId(self._new_id()),
            tenant_id=caller.tenant,
            name=group,
            description="",
            rules=(),
            created=self._now(),
            changed=self._now(),
            changed_by=caller.user_name,
        )

    async def _tell(self, tenant: TenantId) -> None:
        if self._guarding is not None:
            async with self._database.read() as connection:
                concerned = {row.network_id for row in await groups.members(connection, tenant=tenant)}
            await self._guarding.announce(concerned)


def must_exist(spec: AppSpec, known: Collection[str]) -> None:
    """Raises NotFound: a service names a security group that the tenant does not have."""
    for name, service in spec.services.items():
        for group in service.x_skep.security_groups:
            if group not in known:
                raise NotFound(
                    f"services.{name}.x-skep.security_groups: there is no security group {group!r}; "
                    f"make it with 'skep net group create {group}'."
                )


async def _save(
    connection: AsyncConnection,
    *,
    caller: Caller,
    group: str,
    change: Callable[[GroupRow], GroupRow],
    fresh: GroupRow | None,
    now: float,
) -> GroupRow:
    every = {row.name: row for row in await groups.every(connection, caller.tenant)}
    if group not in every and len(every) >= MOST_GROUPS:
        raise InvalidInput(f"A tenant has at most {MOST_GROUPS} security groups.")
    before = every.get(group) or fresh
    if before is None:
        raise _unknown(group)
    wanted = change(before)
    rules = tuple(dict.fromkeys(settled(rule) for rule in wanted.rules))
    if len(rules) > MOST_RULES:
        raise InvalidInput(f"A security group has at most {MOST_RULES} rules.")
    for rule in rules:
        if rule.group and rule.group not in every and rule.group != group:
            raise _unknown(rule.group)
    row = msgspec.structs.replace(wanted, rules=rules, changed=now, changed_by=caller.user_name)
    await (groups.save if group in every else groups.insert)(connection, row)
    return row


async def _named(connection: AsyncConnection, tenant: TenantId, group: str) -> GroupRow:
    for row in await groups.every(connection, tenant):
        if row.name == group:
            return row
    raise _unknown(group)


def _unknown(group: str) -> NotFound:
    return NotFound(f"There is no security group {group[:80]!r}; see 'skep net group ls'.")


def _view(row: GroupRow, services: int) -> SecurityGroupView:
    return SecurityGroupView(
        id=row.id,
        name=row.name,
        description=row.description,
        rules=tuple(
            GroupRuleView(
                id=rule.id,
                direction=rule.direction,
                protocol=rule.protocol,
                ports=rule.ports,
                cidr=rule.cidr,
                group=rule.group,
            )
            for rule in row.rules
        ),
        services=services,
        created=rfc3339(row.created),
        changed=rfc3339(row.changed),
        changed_by=row.changed_by,
    )
