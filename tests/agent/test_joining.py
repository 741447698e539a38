"""A machine joins an installation over TLS, stays one of its hosts, and leaves."""

import asyncio
import os
import ssl
import stat
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.api.conftest import serving
from tests.control.installation import Installation, installation

from skep.agent import joining
from skep.agent.joined import JoinedHost, is_joined, read_joined
from skep.agent.joining import Join, Outcome, join
from skep.agent.renewal import keep_renewed, renew
from skep.control.control import Control
from skep.control.hosts.bus_accounts import Login, SharedBusAccount
from skep.model.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from skep.model.ids import HostName, ZoneName
from skep.model.views.joining import HostJoined
from skep.providers.simulated.host import FACTS
from skep.trust.api_contexts import api_context
from skep.trust.authority import Authority
from skep.trust.identity import Identity, new_key, signing_request
from skep.trust.peers import Role
from skep.trust.pinning import pinned_authority


@dataclass
class Site:
    """An installation that is served with TLS, and a machine that is none of its hosts yet."""

    made: Installation
    url: str
    authority: str
    machine: Path

    def as_control(self) -> Control:
        return self.made.control

    async def order(self, host: str | None = "host-9") -> Join:
        made = await self.made.control.join_tokens.create(self.made.admin, "zone", host=host)
        return Join(url=self.url, token=made.secret, ca=self.authority, address="10.0.0.9")

    async def join(self, order: Join) -> Outcome:
        return await asyncio.to_thread(join, order, self.machine, FACTS)


async def tls(made: Installation, directory: Path) -> ssl.SSLContext:
    addresses = [ip_address("127.0.0.1")]
    await made.control.authorities.identity(directory, Role.SERVE, "serve-1", addresses=addresses)
    return api_context(directory / "identity.pem")


def of_another_authority(folder: Path) -> Path:
    """A certificate for this machine in `identity.pem` there; answers the file with who issued it."""
    key, authority = new_key(), Authority.make("another", time.time())
    issued = authority.issue(
        signing_request(key), role=Role.SERVE, name="s", now=time.time(), addresses=[ip_address("127.0.0.1")]
    )
    Identity.store(folder, key, issued.certificate, authority.certificate)
    return folder / "authority.pem"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with installation(tmp_path) as made:
        made.clock.time = time.time()
        found = Site(
            made, "", (await made.control.authorities.show()).fingerprint, tmp_path / "etc" / "agent"
        )
        async with serving(found, await tls(made, tmp_path / "serve")) as url:
            found.url = url
            yield found


async def test_a_machine_becomes_a_host(site: Site) -> None:
    outcome = await site.join(await site.order())

    assert outcome == Outcome(host=read_joined(site.machine), again=False)
    assert (outcome.host.host, outcome.host.zone, outcome.host.address) == ("host-9", "zone", "10.0.0.9")
    assert outcome.host.bus == "amqp://bus.example"
    identity = Identity(site.machine)
    assert (identity.peer.role, identity.peer.name) == (Role.AGENT, "host-9")
    assert await site.made.control.authorities.is_known(HostName("host-9"), identity.peer.serial)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in site.machine.iterdir()}
    assert modes == dict.fromkeys(("identity.pem", "authority.pem", "host.json"), 0o600)


async def test_joining_again_changes_nothing_and_needs_no_token(site: Site) -> None:
    first = await site.join(await site.order())
    before = Identity(site.machine).peer

    again = await site.join(Join(url=site.url, token="", ca=site.authority))

    assert (again.again, again.host) == (True, first.host)
    assert Identity(site.machine).peer == before


async def test_a_machine_that_died_before_the_answer_arrived_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = await site.order()

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(joining, "_check", dies)
        died = await asyncio.to_thread(_caught, order, site.machine)
    assert isinstance(died, KeyboardInterrupt)
    assert not is_joined(site.machine)

    outcome = await site.join(order)

    assert (outcome.again, outcome.host.host) == (False, "host-9")


async def test_a_command_that_is_killed_after_the_token_was_used_is_repeated(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, used = await site.order(), asyncio.Event()
    etc = site.machine.parent
    enrolment = site.made.control.enrolment
    answer = enrolment.join

    async def keeps_the_answer(*given: Any, **named: Any) -> HostJoined:
        joined = await answer(*given, **named)
        used.set()
        await asyncio.sleep(3)
        return joined

    monkeypatch.setattr(enrolment, "join", keeps_the_answer)
    killed = await _command(order, etc)
    await asyncio.wait_for(used.wait(), 60)
    killed.kill()
    await killed.communicate()
    monkeypatch.undo()
    assert not is_joined(site.machine)

    again = await _command(order, etc)
    said, complaint = await again.communicate()

    assert again.returncode == 0, complaint
    assert msgspec.json.decode(said, type=Outcome).host.host == "host-9"
    assert msgspec.json.decode(said, type=Outcome).host.bus == "", "passwords are not for the terminal"
    assert read_joined(site.machine).bus == "amqp://bus.example"
    (token,) = await site.made.control.join_tokens.list(site.made.admin)
    assert token.state == "used"


async def _command(order: Join, etc: Path) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "skep.agent.joining"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "SKEP_ETC": str(etc)},
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(order))
    process.stdin.close()
    return process


def _caught(order: Join, machine: Path) -> BaseException:
    """What it died of; an event loop would not pass it on."""
    try:
        join(order, machine, FACTS)
    except BaseException as error:
        return error
    raise AssertionError("it lives")


async def test_another_machine_with_the_same_token_is_refused(site: Site, tmp_path: Path) -> None:
    order = await site.order(None)
    await site.join(order)

    with pytest.raises(Conflict, match="skep host add"):
        await asyncio.to_thread(join, order, tmp_path / "other", FACTS)


async def test_who_is_not_the_installation_gets_no_token(site: Site, tmp_path: Path) -> None:
    order = await site.order()
    stranger = Authority.make("other", time.time())

    with pytest.raises(Forbidden, match="Somebody may be in between"):
        await site.join(msgspec.structs.replace(order, ca=stranger.fingerprint))

    (tmp_path / "other").mkdir()
    async with installation(tmp_path / "other") as other:
        other.clock.time = time.time()
        between = Site(other, "", "", tmp_path)
        async with serving(between, await tls(other, tmp_path / "between")) as url:
            with pytest.raises(Forbidden, match="Somebody may be in between"):
                await site.join(msgspec.structs.replace(order, url=url))
    assert (await site.join(order)).host.host == "host-9"


async def test_who_shows_the_right_authority_but_is_another_gets_no_token(site: Site, tmp_path: Path) -> None:
    """The certificate of an authority is no secret: anybody can show it."""
    of_another_authority(tmp_path / "mallory")
    order = await site.order()

    async with serving(site, api_context(tmp_path / "mallory" / "identity.pem")) as url:
        with pytest.raises(Forbidden, match="cannot prove to be the installation"):
            await site.join(msgspec.structs.replace(order, url=url))

    (token,) = await site.made.control.join_tokens.list(site.made.admin)
    assert token.state == "waiting"


async def test_a_machine_joins_through_what_has_a_certificate_that_its_system_trusts(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    company = of_another_authority(tmp_path / "company")
    async with serving(site, api_context(tmp_path / "company" / "identity.pem")) as url:
        order = msgspec.structs.replace(await site.order(), url=url)
        with pytest.raises(Forbidden, match="use --system-ca"):
            await site.join(order)
        by_system = msgspec.structs.replace(order, system_ca=True)
        with pytest.raises(Forbidden, match="not one that this system trusts"):
            await site.join(by_system)

        monkeypatch.setenv("SSL_CERT_FILE", str(company))
        host = (await site.join(by_system)).host
        renewed = await renew(Identity(site.machine), host)

    assert (host.host, renewed.host, read_joined(site.machine).system_ca) == ("host-9", "host-9", True)


async def test_a_token_that_is_over_says_what_to_do(site: Site) -> None:
    order = await site.order()
    site.made.clock.time += 3601

    with pytest.raises(Forbidden, match="Ask the operator for a new one: skep host add"):
        await site.join(order)


async def test_a_wrong_clock_is_named(site: Site) -> None:
    order = await site.order()
    site.made.clock.time += 600  # the installation's is ahead of ours by more than certificates allow for

    with pytest.raises(Unavailable, match="Set the clock of this machine"):
        await site.join(order)

    assert not is_joined(site.machine)


async def test_nothing_is_sent_without_tls_and_to_no_address(site: Site) -> None:
    order = await site.order()

    for url, kind in (
        ("http://127.0.0.1:1", InvalidInput),
        ("nonsense", InvalidInput),
        ("https://127.0.0.1:1", Unavailable),
    ):
        with pytest.raises(kind):
            await site.join(msgspec.structs.replace(order, url=url))
    with pytest.raises(InvalidInput, match="no fingerprint"):
        await asyncio.to_thread(pinned_authority, site.url, "sha256:12")


async def test_a_host_of_another_installation_joins_with_force_only(site: Site, tmp_path: Path) -> None:
    await site.join(await site.order())
    (tmp_path / "other").mkdir()
    async with installation(tmp_path / "other") as other:
        other.clock.time = time.time()
        authority = (await other.control.authorities.show()).fingerprint
        second = Site(other, "", authority, site.machine)
        async with serving(second, await tls(other, tmp_path / "two")) as second.url:
            order = await second.order("host-2")

            with pytest.raises(Conflict, match=r"host 'host-9' of another installation.*--force"):
                await second.join(order)
            forced = await second.join(msgspec.structs.replace(order, force=True))

    assert (forced.host.host, read_joined(site.machine).url) == ("host-2", second.url)
    assert Identity(site.machine).authority_fingerprint == authority


async def test_the_address_is_the_one_on_the_way_to_the_api(site: Site) -> None:
    outcome = await site.join(msgspec.structs.replace(await site.order(), address=""))

    assert outcome.host.address == "127.0.0.1"


async def test_a_host_renews_its_certificate_when_it_is_time(site: Site) -> None:
    host = (await site.join(await site.order())).host
    identity = Identity(site.machine)
    first, late = identity.peer.serial, identity.renewal

    renewal = asyncio.create_task(keep_renewed(identity, host, lambda: late, interval=0.05))
    while identity.peer.serial == first:
        await asyncio.sleep(0.02)
    renewal.cancel()

    assert Identity(site.machine).peer == identity.peer
    assert await site.made.control.authorities.is_known(host.host, identity.peer.serial)


async def test_renewal_waits_for_the_api_and_then_goes_on(site: Site) -> None:
    host = (await site.join(await site.order())).host
    away = msgspec.structs.replace(host, url="https://127.0.0.1:1")

    with pytest.raises(Unavailable):
        await renew(Identity(site.machine), away)

    assert (await renew(Identity(site.machine), host)).host == "host-9"


async def test_a_removed_host_is_told_so(site: Site) -> None:
    host = (await site.join(await site.order())).host
    await site.made.database.write(lambda tx: site.made.control.enrolment.revoke(tx, host.host))

    with pytest.raises(Forbidden, match="revoked"):
        await renew(Identity(site.machine), host)


async def test_a_new_account_on_the_bus_is_noted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    host = (await site.join(await site.order())).host
    monkeypatch.setattr(site.made.control.enrolment._accounts, "_url", "amqp://new.example")

    renewed = await renew(Identity(site.machine), host)

    assert renewed.bus == read_joined(site.machine).bus == "amqp://new.example"


class OwnAccounts(SharedBusAccount):
    """One for each host, which keeps it once it says that it has it."""

    def __init__(self) -> None:
        super().__init__("amqp://all@bus.example")
        self.asked: list[str | None] = []

    async def check(self, user: str | None = "") -> None:
        self.asked.append(user)

    async def current(self, host: HostName, zone: ZoneName, user: str | None) -> Login:
        self.asked.append(user)
        return Login("" if user == host else f"amqp://{host}:1@bus.example", own=True)


async def test_a_host_gets_an_account_of_its_own_and_says_that_it_has_it(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = OwnAccounts()
    monkeypatch.setattr(site.made.control.enrolment, "_accounts", accounts)
    host = (await site.join(await site.order())).host

    first = await renew(Identity(site.machine), host)
    second = await renew(Identity(site.machine), first)

    assert (first.bus, first.own_account) == ("amqp://host-9:1@bus.example", True)
    assert second == first == read_joined(site.machine)
    assert accounts.asked == ["", "all", "host-9"]


def test_a_machine_that_is_no_host_says_how_to_become_one(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="skep host add"):
        read_joined(tmp_path)


def test_what_is_damaged_is_said(tmp_path: Path) -> None:
    for name in ("identity.pem", "host.json"):
        (tmp_path / name).write_text("{")

    with pytest.raises(InvalidInput, match="--force"):
        read_joined(tmp_path)


def test_the_password_of_the_bus_is_for_the_machine_only() -> None:
    fields = set(JoinedHost.__struct_fields__)

    assert "bus" in fields
    assert "token" not in fields
