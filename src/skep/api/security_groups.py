"""Security groups and their rules."""

from litestar import Router, delete, get, post, put
from litestar.params import FromPath, JSONBody

from skep.api.asking import Caller, Control
from skep.api.bodies import PutSecurityGroup
from skep.model.groups import GroupRule
from skep.model.views.security_groups import SecurityGroupView


@get("/")
async def list_security_groups(control: Control, caller: Caller) -> list[SecurityGroupView]:
    """The security groups of the tenant, with their rules."""
    return await control.security_groups.list(caller)


@get("/{group:str}")
async def show_security_group(control: Control, caller: Caller, group: FromPath[str]) -> SecurityGroupView:
    """One security group."""
    return await control.security_groups.show(caller, group)


@put("/{group:str}")
async def put_security_group(
    control: Control, caller: Caller, group: FromPath[str], data: JSONBody[PutSecurityGroup]
) -> SecurityGroupView:
    """Make the group, or give it these rules in place of its own; in force on every host that answers."""
    return await control.security_groups.put(caller, group, rules=data.rules, description=data.description)


@delete("/{group:str}", status_code=204)
async def remove_security_group(control: Control, caller: Caller, group: FromPath[str]) -> None:
    """Remove a group that no service is in and no rule names."""
    await control.security_groups.remove(caller, group)


@post("/{group:str}/rules", status_code=200)
async def add_security_group_rule(
    control: Control, caller: Caller, group: FromPath[str], data: JSONBody[GroupRule]
) -> SecurityGroupView:
    """Admit more; a rule that is there already is success."""
    return await control.security_groups.add_rule(caller, group, data)


@delete("/{group:str}/rules/{rule:str}", status_code=200)
async def remove_security_group_rule(
    control: Control, caller: Caller, group: FromPath[str], rule: FromPath[str]
) -> SecurityGroupView:
    """Admit no longer what the rule with this id admits."""
    return await control.security_groups.remove_rule(caller, group, rule)


router = Router(
    path="/v1/security-groups",
    tags=["networks"],
    route_handlers=[
        list_security_groups,
        show_security_group,
        put_security_group,
        remove_security_group,
        add_security_group_rule,
        remove_security_group_rule,
    ],
)
