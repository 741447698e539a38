"""`skep net group` and `skep net rule`."""

from typing import Annotated, Literal

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.names import complete_group
from skep.cli.output import age, document, say, show
from skep.model.views.security_groups import GroupRuleView, SecurityGroupView

group_app = App(name="group", help="Security groups: list, show, create, remove.")
rule_app = App(name="rule", help="Rules of security groups: add, remove.")

Group = Annotated[str, Parameter(completer=complete_group)]
_URL = "/v1/security-groups"


@group_app.command(name="ls")
def list_groups(*, common: Common = DEFAULT) -> None:
    """List the security groups of the tenant.

    Example: `skep net group ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("RULES", lambda one: len(one.rules)),
        ("SERVICES", lambda one: one.services),
        ("CHANGED", lambda one: age(one.changed)),
        ("BY", lambda one: one.changed_by),
        ("DESCRIPTION", lambda one: one.description),
    ]
    show(common.connect().get(_URL, list[SecurityGroupView]), columns, common.output)


@group_app.command(name="show")
def show_group(group: Group, /, *, common: Common = DEFAULT) -> None:
    """Show the rules of a security group.

    Example: `skep net group show web`

    Parameters
    ----------
    group
        Name of the group.
    """
    _show(common.connect().get(f"{_URL}/{group}", SecurityGroupView), common)


@group_app.command
def create(group: str, /, *, description: str = "", common: Common = DEFAULT) -> None:
    """Make a security group without rules: nothing reaches what is in it, but answers.

    One that is there keeps its rules.

    Examples: `skep net group create web`; `skep net group create db --description "the databases"`

    Parameters
    ----------
    group
        Name of the group; services name it in `x-skep: {security_groups: [web]}`.
    description
        What it is for.
    """
    body = {"description": description} if description else {}
    made = common.connect().put(f"{_URL}/{group}", SecurityGroupView, body)
    if common.output != "table":
        document(made, common.output)
    say(f"Security group {group} is there.")


@group_app.command
def rm(group: Group, /, *, common: Common = DEFAULT) -> None:
    """Remove a security group that no service is in and no rule names.

    Example: `skep net group rm web`

    Parameters
    ----------
    group
        Name of the group.
    """
    common.connect().act("DELETE", f"{_URL}/{group}")
    say(f"Security group {group} is gone.")


@rule_app.command
def add(
    group: Group,
    /,
    *,
    egress: bool = False,
    protocol: Literal["any", "tcp", "udp", "icmp"] = "any",
    port: str = "",
    cidr: str = "",
    remote_group: Annotated[str, Parameter(completer=complete_group)] = "",
    common: Common = DEFAULT,
) -> None:
    """Admit connections to what is in a group, at once and on every host. Without a remote end: of anybody.

    A group with a rule for egress refuses what no such rule admits; without any, everything may go out.

    Examples: `skep net rule add web --protocol tcp --port 80`;
    `skep net rule add db --protocol tcp --port 5432 --remote-group web`;
    `skep net rule add web --egress --cidr 192.0.2.0/24`

    Parameters
    ----------
    group
        Name of the group.
    egress
        Admit what goes out instead of what comes in.
    protocol
        any, tcp, udp or icmp.
    port
        One port, or FIRST-LAST; without it all.
    cidr
        The addresses at the other end.
    remote_group
        The group whose members are at the other end.
    """
    body = {
        "direction": "egress" if egress else "ingress",
        "protocol": protocol,
        "ports": port,
        "cidr": cidr,
        "group": remote_group,
    }
    _show(common.connect().post(f"{_URL}/{group}/rules", SecurityGroupView, body), common)


@rule_app.command(name="rm")
def remove_rule(group: Group, rule: str, /, *, common: Common = DEFAULT) -> None:
    """Admit no longer what a rule admits; connections that it let in end.

    Example: `skep net rule rm web 3f2a9c01`

    Parameters
    ----------
    group
        Name of the group.
    rule
        Id of the rule, as `skep net group show` lists it.
    """
    client = common.connect()
    _show(client.delete(f"{_URL}/{group}/rules/{rule}", SecurityGroupView), common)


def _show(found: SecurityGroupView, common: Common) -> None:
    if common.output != "table":
        document(found, common.output)
        return
    columns = [
        ("RULE", lambda one: one.id),
        ("DIRECTION", lambda one: one.direction),
        ("PROTOCOL", lambda one: one.protocol),
        ("PORTS", lambda one: one.ports or "all"),
        ("REMOTE", _remote),
    ]
    show(list(found.rules), columns, common.output)


def _remote(rule: GroupRuleView) -> str:
    return f"group {rule.group}" if rule.group else rule.cidr or "anybody"
