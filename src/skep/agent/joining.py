"""`skep agent join`: makes this machine a host.  The command starts `python -m skep.agent.joining`.

Whatever dies in between, the same command again goes on: the key that the machine joins with is on its disk
before anybody hears of it, and the installation gives the same key the same answer.
"""

import contextlib
import os
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from skep.agent.facts import read_facts
from skep.agent.joined import (
    BUS_USER,
    JoinedHost,
    agent_directory,
    api_tls,
    is_joined,
    read_joined,
    write_joined,
)
from skep.model.errors import Conflict, Forbidden, InvalidInput, SkepError, Unavailable
from skep.model.host import HostFacts
from skep.model.ids import HostName, ZoneName
from skep.model.views.joining import HostJoined
from skep.providers.local.cgroups import Cgroups
from skep.trust.authority import Authority
from skep.trust.identity import Identity, signing_request, stored_key
from skep.trust.peers import Role
from skep.trust.pinning import pinned_authority

_KEY = "joining.key"
_SET_THE_CLOCK = "Set the clock of this machine (chrony, systemd-timesyncd), and repeat the command."
_TIMEOUT = httpx.Timeout(30, connect=10)


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was told.  `name` and `address` are found out where they are empty."""

    url: str
    token: str
    ca: str
    name: str = ""
    address: str = ""
    port: int = 7538
    force: bool = False
    system_ca: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """`again`: the machine was one of the installation's already, and nothing was changed."""

    host: JoinedHost
    again: bool


def join(order: Join, directory: Path, facts: HostFacts) -> Outcome:
    """Join, unless that was done already.

    Raises:
        Conflict: the machine belongs to another installation, or the token was used by another one.
        Forbidden: the installation is not the one that was meant, or refused the token.
        Unavailable: it does not answer.
    """
    _require_tls(order.url)
    if not order.force and is_joined(directory):
        return Outcome(host=_same(order, directory), again=True)
    authority = pinned_authority(order.url, order.ca)
    key = stored_key(directory / _KEY)
    address = order.address or _own_address(order.url)
    joined = _ask(order, authority, signing_request(key), facts, address)
    _check(authority, joined)
    host = JoinedHost(
        url=order.url.rstrip("/"),
        host=HostName(joined.host),
        zone=ZoneName(joined.zone),
        pool=joined.pool,
        bus=joined.bus,
        address=address,
        system_ca=order.system_ca,
        own_account=joined.own_account,
    )
    Identity.store(directory, key, joined.certificate, joined.certificates)
    write_joined(directory, host)
    (directory / _KEY).unlink()
    return Outcome(host=host, again=False)


def _same(order: Join, directory: Path) -> JoinedHost:
    """The host this machine is, if it is one of the installation that is meant."""
    found = read_joined(directory)
    if Identity(directory).authority_fingerprint != order.ca:
        raise Conflict(
            f"This machine is host {found.host!r} of another installation, {found.url}. To take it from "
            "there: skep host rm there, skep purge here, and then this with --force."
        )
    return found


def _ask(order: Join, authority: str, request: str, facts: HostFacts, address: str) -> HostJoined:
    context = api_tls(authority, system_ca=order.system_ca)
    body = {
        "request": request,
        "facts": facts,
        "name": order.name,
        "hostname": socket.gethostname(),
        "address": address,
        "port": order.port,
    }
    try:
        with httpx.Client(verify=context, timeout=_TIMEOUT, trust_env=False) as client:
            answer = client.post(
                f"{order.url.rstrip('/')}/v1/hosts/join",
                content=msgspec.json.encode(body),
                headers={
                    "Authorization": f"Bearer {order.token}",
                    "Content-Type": "application/json",
                    BUS_USER: "",
                },
            )
    except httpx.HTTPError as error:
        raise _unreachable(order, str(error)) from error
    if not answer.is_success:
        raise refusal(answer)
    return msgspec.json.decode(answer.content, type=HostJoined)


def refusal(answer: httpx.Response) -> SkepError:
    """What the installation said, in its own words."""
    problem: object = {}
    with contextlib.suppress(ValueError):
        problem = answer.json()
    detail = problem.get("detail") if isinstance(problem, dict) else None
    said = str(detail or f"the API answered {answer.status_code}, which is not skep's way to say no")
    kinds = {401: Forbidden, 403: Forbidden, 409: Conflict, 422: InvalidInput}
    return kinds.get(answer.status_code, Unavailable)(said)


def _unreachable(order: Join, reason: str) -> SkepError:
    url = order.url
    if "not yet valid" in reason or "has expired" in reason:
        now = time.strftime("%F %T", time.gmtime())
        return Unavailable(
            f"The certificate of {url} is not valid at the time of this machine, {now} UTC: {reason}. "
            f"{_SET_THE_CLOCK}"
        )
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        advice = (
            "Its authority is not one that this system trusts: add it (update-ca-certificates), or leave "
            "--system-ca out if the certificate is the installation's own."
            if order.system_ca
            else "If its certificate is of a public authority or of your company's, use --system-ca."
        )
        return Forbidden(f"What answers at {url} cannot prove to be the installation: {reason}. {advice}")
    return Unavailable(f"{url} does not answer to this machine: {reason}. Is a firewall in between?")


def _check(authority: str, joined: HostJoined) -> None:
    """Whether what was issued is good here and now.

    Raises:
        Unavailable: the clocks differ too much.
    """
    try:
        peer = Authority.verify(authority, joined.certificate, time.time())
    except SkepError as error:
        raise Unavailable(
            f"The certificate that was issued is not valid here: {error.message} {_SET_THE_CLOCK}"
        ) from error
    if (peer.role, peer.name) != (Role.AGENT, joined.host):
        raise Forbidden(f"The installation issued a certificate of somebody else: {peer.uri}.")


def _require_tls(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise InvalidInput(f"{url!r} is no https:// URL: tokens and certificates do not travel without TLS.")


def _own_address(url: str) -> str:
    """The address of this machine on the way to the API; nothing is sent to find it."""
    parts = urlsplit(url)
    try:
        family, _, _, _, place = socket.getaddrinfo(
            parts.hostname, parts.port or 443, type=socket.SOCK_DGRAM
        )[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(place)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise Unavailable(f"There is no way from this machine to {url}: {error}.") from error


def main() -> None:
    """Reads a `Join` from stdin, so that no list of processes shows the token; answers an `Outcome`."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Join)
    etc = Path(os.environ.get("SKEP_ETC") or "/etc/skep")
    try:
        facts = read_facts(Cgroups("skep"))
        outcome = join(order, agent_directory(etc), facts)
    except SkepError as error:
        sys.exit(error.message)
    except OSError as error:
        sys.exit(str(error))
    shown = msgspec.structs.replace(outcome, host=msgspec.structs.replace(outcome.host, bus=""))
    sys.stdout.buffer.write(msgspec.json.encode(shown))


if __name__ == "__main__":
    main()
