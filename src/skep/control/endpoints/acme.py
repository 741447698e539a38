"""Certificates by ACME: which names get one, when something is to be done, and what is said of it.  Pure."""

import re
from collections.abc import Collection, Iterable
from ipaddress import ip_address

import msgspec

from skep.control.clock import rfc3339
from skep.model.acme import AcmeProblem
from skep.model.endpoints import ACME, FREE
from skep.model.errors import InvalidInput
from skep.model.ids import TenantId
from skep.model.spec import AppSpec
from skep.store.acme import OrderRow
from skep.store.endpoints import EndpointRow

Name = tuple[TenantId, str]
"""A host name of a tenant."""

WINDOW = 3 * 3600.0
MOST_ORDERS = 240
MOST_OF_TENANT = 40
"""New orders within the window.  Let's Encrypt takes 300 of an account in three hours."""
KEPT = 7 * 86_400.0
"""Seconds after its order for which a certificate is kept that nobody wants any more: so who removes an app
and applies it again gets no other one.  Let's Encrypt gives five equal ones a week."""
FIRST_REST, LONGEST_REST = 600.0, 86_400.0
"""Between failures of a name, of which Let's Encrypt takes five an hour."""
FIRST_SILENCE, LONGEST_SILENCE = 15.0, 1800.0
"""While the authority does not answer."""
LONGEST_WAIT = 7 * 86_400.0
"""However long an authority wants us to wait."""
RETRY = 900.0
"""Seconds between two orders that a tenant asks for by hand."""

_NOT_PUBLIC = re.compile(r"(.*\.)?(local|internal|test|example|invalid|onion|lan|home\.arpa)")
"""Names that mean nothing on the Internet: RFC 6761, 6762, 7686, 8375."""
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")

_ADVICE = {
    "dns": "let the name lead to your hosts: an A record with their addresses.",
    "connection": "let port 80 of the hosts that the name leads to be reached from outside.",
    "unauthorized": "the name leads to others' servers too; let its A and AAAA records name your hosts only.",
    "caa": "allow this authority in the CAA records of the domain.",
    "rateLimited": "nothing is to be done; it is asked again when it allows it.",
    "rejectedIdentifier": "take another name, or give a certificate of your own ('skep cert add').",
    "serverInternal": "nothing is to be done; it is asked again.",
}
_OF_OPERATOR = "the operator of the installation must see to it (docs/reference/endpoints.md, Certificates)."
_OPERATORS = ("accountDoesNotExist", "externalAccountRequired", "userActionRequired", "invalidContact")


def must_be_possible(spec: AppSpec, *, agreed: bool, private: bool) -> None:
    """`private`: the authority is not one of the Internet, and may know names that mean nothing there.

    Raises InvalidInput: an endpoint wants a certificate that cannot be had.
    """
    problems = [
        f"services.{name}.x-skep.endpoints: {one.host}: {problem}"
        for name, service in spec.services.items()
        for one in service.x_skep.endpoints
        if one.tls == ACME and (problem := _off(agreed) or _impossible(one.host, private))
    ]
    if problems:
        raise InvalidInput("; ".join(problems[:20]), problems=problems)


def _off(agreed: bool) -> str:
    return (
        ""
        if agreed
        else "this installation orders no certificates: its operator must agree to the terms of an authority "
        "('acme_terms_agreed' in skep.yaml). Give one with 'skep cert add', and name it in place of acme"
    )


def _impossible(host: str, private: bool) -> str:
    if host.startswith("*."):
        return "no certificate can be ordered for all names below one; give one with 'skep cert add'"
    if host.endswith(f".{FREE}"):
        return "names below localhost are anybody's, so nobody gets a certificate for one; leave out tls"
    if _is_address(host):
        return "no certificate can be ordered for an address; take a name"
    if not all(_LABEL.fullmatch(label) for label in host.split(".")):
        return "no authority gives a certificate for a name with _; take another one"
    if not private and _NOT_PUBLIC.fullmatch(host):
        return "the name means nothing on the Internet, so no authority there gives a certificate for it"
    return ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def wanted(rows: Iterable[EndpointRow]) -> set[Name]:
    return {(row.tenant_id, row.host) for row in rows if row.spec.tls == ACME}


def forgotten(orders: Iterable[OrderRow], names: Collection[Name], now: float) -> list[OrderRow]:
    """Those that nobody wants any more, and that need not be remembered."""
    return [row for row in orders if (row.tenant_id, row.host) not in names and row.ordered < now - KEPT]


def choose(orders: Iterable[OrderRow], names: Collection[Name], now: float) -> list[OrderRow]:
    """Those to go on with: what is under way, and new orders within what authorities take.

    Who has ordered least goes first.
    """
    rows = list(orders)
    counts: dict[TenantId, int] = {}
    for row in rows:
        if row.ordered > now - WINDOW:
            counts[row.tenant_id] = counts.get(row.tenant_id, 0) + 1
    due = [row for row in rows if row.due <= now and (row.tenant_id, row.host) in names]
    chosen, room = [row for row in due if row.url], MOST_ORDERS - sum(counts.values())
    fresh = [row for row in due if not row.url]
    while fresh and room > 0:
        row = min(fresh, key=lambda one: (counts.get(one.tenant_id, 0), one.due))
        fresh.remove(row)
        if counts.get(row.tenant_id, 0) < MOST_OF_TENANT:
            counts[row.tenant_id] = counts.get(row.tenant_id, 0) + 1
            chosen.append(row)
            room -= 1
    return chosen


def renewal(begin: float, end: float, chance: float) -> float:
    """When a certificate is ordered anew: at two thirds of its time, or a bit before.  `chance`: 0 to 1."""
    return begin + (end - begin) * (2 / 3 - 0.05 * chance)


def failed(row: OrderRow, problem: AcmeProblem, wait: float, now: float, chance: float) -> OrderRow:
    """The order came to nothing: another one later."""
    rest = min(FIRST_REST * 2.0**row.failures, LONGEST_REST) * (1 + 0.2 * chance)
    return msgspec.structs.replace(
        row,
        url="",
        sealed_key=b"",
        proof="",
        failures=min(row.failures + 1, 30),
        problem=f"{_sentence(problem.detail)} {_advice(problem.kind)}",
        due=now + max(rest, min(wait, LONGEST_WAIT)),
    )


def unanswered(row: OrderRow, message: str, wait: float, now: float, chance: float) -> OrderRow:
    """Nothing was heard, so the order may be whole: it is looked at again."""
    rest = min(FIRST_SILENCE * 2.0**row.failures, LONGEST_SILENCE) * (1 + 0.2 * chance)
    return msgspec.structs.replace(
        row,
        failures=min(row.failures + 1, 30),
        problem=f"{_sentence(message)} {_advice('serverInternal')}",
        due=now + max(rest, min(wait, LONGEST_WAIT)),
    )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "…")) else f"{text}."


def _advice(kind: str) -> str:
    what = (
        _OF_OPERATOR if kind in _OPERATORS else _ADVICE.get(kind, _ADVICE["unauthorized"] if not kind else "")
    )
    return f"What to do: {what or 'see what it says; it is asked again.'}"


def state(order: OrderRow | None, expires: float | None, now: float) -> str:
    """In words.  `expires`: of the certificate that is there."""
    valid = ""
    if expires is not None:
        valid = f"{'valid until' if expires > now else 'over since'} {rfc3339(expires)}"
    if order is None:
        return valid
    if order.problem:
        failed = f"failed: {order.problem} Again at {rfc3339(order.due)}."
        return f"{valid}; renewal {failed}" if valid else failed
    if order.url or not valid:
        return f"{valid}; renewal under way" if valid else "ordering"
    return valid
