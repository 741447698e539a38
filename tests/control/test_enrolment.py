"""Join tokens, what they open and how often; certificates that are renewed and revoked."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from tests.control.installation import Installation, installation

from skep.control.hosts.bus_accounts import Login
from skep.control.settings import Settings
from skep.model.errors import Conflict, InvalidInput, NotFound, Unauthenticated, Unavailable
from skep.model.ids import HostName, ZoneName
from skep.model.topology import Intent, Liveness
from skep.model.views.joining import HostJoined, JoinTokenCreated
from skep.providers.simulated.host import FACTS
from skep.store import hosts, tables
from skep.trust.authority import Authority, fingerprint
from skep.trust.identity import Identity, new_key, signing_request
from skep.trust.peers import Role

Key = ec.EllipticCurvePrivateKey


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as made:
        yield made


async def token(house: Installation, host: str | None = "host-9", **how: float) -> JoinTokenCreated:
    return await house.control.join_tokens.create(house.admin, "zone", host=host, **how)  # type: ignore[arg-type]


async def join(house: Installation, secret: str, key: Key, name: str = "") -> HostJoined:
    return await house.control.enrolment.join(
        secret, signing_request(key), FACTS, name=name, hostname="Box-7.lan", address="10.9.8.7"
    )


async def removed(house: Installation, host: str) -> None:
    """What `skep host rm` does with the trust in a host."""
    await house.database.write(lambda tx: house.control.enrolment.revoke(tx, HostName(host)))
    await house.control.enrolment.forget(HostName(host))


async def serial(joined: HostJoined) -> str:
    return f"{x509.load_pem_x509_certificate(joined.certificate.encode()).serial_number:x}"


async def test_a_token_says_where_to_join_and_whom_to_believe(house: Installation) -> None:
    made = await token(house)

    authority = await house.control.authorities.show()
    assert (made.url, made.authority) == ("https://skep.example:7537", authority.fingerprint)
    assert made.authority == fingerprint(authority.certificates)
    assert made.token.expires == "2027-01-15T09:00:00.000Z"
    assert (made.token.state, made.token.zone, made.token.created_by) == ("waiting", "zone", "admin")


async def test_a_token_is_stored_as_a_hash_and_never_logged(house: Installation) -> None:
    with structlog.testing.capture_logs() as logs:
        made = await token(house)
        await join(house, made.secret, new_key())

    async with house.database.read() as connection:
        stored = (await connection.execute(sa.select(tables.join_tokens))).all()
    assert made.secret not in str(stored)
    assert made.secret not in str(logs)
    assert [line["event"] for line in logs] == ["authority.made", "join-token.created", "host.joined"]


async def test_a_host_joins_with_name_zone_and_address(house: Installation) -> None:
    joined = await join(house, (await token(house)).secret, new_key())

    assert (joined.host, joined.zone, joined.bus) == ("host-9", "zone", "amqp://bus.example")
    peer = await house.control.authorities.recognise(joined.certificate)
    assert (peer.role, peer.name) == (Role.AGENT, "host-9")
    async with house.database.read() as connection:
        row = await hosts.get(connection, HostName("host-9"))
    assert row is not None
    assert (row.state, row.pool, row.underlay) == ("joining", "zone", "10.9.8.7")
    assert (row.certificate, row.address) == (peer.serial, "10.9.8.7:7538")


async def test_a_token_without_a_name_takes_the_hosts(house: Installation) -> None:
    first = await join(house, (await token(house, None)).secret, new_key())
    second = await join(house, (await token(house, None)).secret, new_key(), "other")

    assert (first.host, second.host) == ("box-7", "other")


async def test_a_token_for_one_host_is_not_for_another(house: Installation) -> None:
    made = await token(house)

    with pytest.raises(Conflict, match="for host 'host-9', not for 'other'"):
        await join(house, made.secret, new_key(), "other")

    assert (await join(house, made.secret, new_key())).host == "host-9"


async def test_a_token_joins_one_host_only(house: Installation) -> None:
    made = await token(house, None)
    await join(house, made.secret, new_key())

    with pytest.raises(Conflict, match="used by host 'box-7' already"):
        await join(house, made.secret, new_key(), "other")

    (view,) = await house.control.join_tokens.list(house.admin)
    assert (view.state, view.host) == ("used", "box-7")


async def test_of_two_hosts_at_once_one_joins(house: Installation) -> None:
    made = await token(house, None)

    both = await asyncio.gather(
        *(join(house, made.secret, new_key(), name) for name in ("one", "two")), return_exceptions=True
    )

    assert {type(one) for one in both} == {HostJoined, Conflict}
    async with house.database.read() as connection:
        assert len(await hosts.every(connection)) == 2


async def test_the_same_key_may_ask_again_until_the_token_ends(house: Installation) -> None:
    made, key = await token(house), new_key()
    first = await join(house, made.secret, key)
    house.clock.time += 3599

    again = await join(house, made.secret, key)

    assert again.host == first.host
    assert await serial(again) != await serial(first)
    for one in (first, again):
        assert (await house.control.authorities.recognise(one.certificate)).name == "host-9"
    house.clock.time += 1
    with pytest.raises(Unauthenticated, match=r"good until .* skep host add"):
        await join(house, made.secret, key)


async def test_a_removed_host_does_not_come_back_with_its_old_token(house: Installation) -> None:
    made, key = await token(house), new_key()
    await join(house, made.secret, key)
    await removed(house, "host-9")
    await house.database.write(lambda tx: hosts.delete(tx, HostName("host-9")))

    with pytest.raises(Conflict, match="was removed"):
        await join(house, made.secret, key)


async def test_unknown_and_revoked_tokens_open_nothing(house: Installation) -> None:
    made = await token(house)
    await house.control.join_tokens.revoke(house.admin, made.token.id)

    for secret in (made.secret, "skepjoin_nonsense", ""):
        with pytest.raises(Unauthenticated, match="skep host add"):
            await join(house, secret, new_key())
    with pytest.raises(NotFound):
        await house.control.join_tokens.revoke(house.admin, made.token.id)


async def test_a_name_that_is_taken_is_refused_and_the_token_stays_good(house: Installation) -> None:
    made = await token(house, None)

    with pytest.raises(Conflict, match="skep host rm host-1"):
        await join(house, made.secret, new_key(), "host-1")

    assert (await join(house, made.secret, new_key(), "host-2")).host == "host-2"


class Accounts:
    """Notes who was given one and who lost it."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def check(self, user: str | None = "") -> None:
        if user is None:
            raise Conflict("Upgrade skep there.")

    async def open(self, host: HostName, zone: ZoneName) -> Login:
        self.calls.append(f"open {host} in {zone}")
        return Login(f"amqp://{host}:{len(self.calls)}@bus", own=True)

    async def current(self, host: HostName, zone: ZoneName, user: str | None) -> Login:
        self.calls.append(f"current {host} in {zone} as {user}")
        return Login("")

    async def close(self, host: HostName) -> None:
        self.calls.append(f"close {host}")


async def test_a_host_that_lost_its_key_joins_again_and_keeps_its_row(house: Installation) -> None:
    host = HostName("host-9")
    lost = await join(house, (await token(house)).secret, new_key())
    await house.database.write(lambda tx: hosts.set_intent(tx, host, Intent.CORDONED))
    house.clock.time += 40 * 86_400
    made = await house.control.join_tokens.create(house.admin, "zone", host=host, again=True)

    again = await join(house, made.secret, new_key())

    assert not await house.control.authorities.is_known(host, await serial(lost))
    assert await house.control.authorities.is_known(host, await serial(again))
    async with house.database.read() as connection:
        row = await hosts.get(connection, host)
    assert row is not None
    assert (row.intent, row.state) == ("cordoned", "joining")


async def test_of_two_tokens_for_one_name_the_second_does_not_take_it_over(house: Installation) -> None:
    first, second = await token(house), await token(house)
    await join(house, first.secret, new_key())

    with pytest.raises(Conflict, match="already"):
        await join(house, second.secret, new_key())


async def test_only_a_host_that_is_there_joins_again(house: Installation) -> None:
    create = house.control.join_tokens.create

    with pytest.raises(NotFound, match="no host 'host-5'"):
        await create(house.admin, "zone", host="host-5", again=True)
    with pytest.raises(InvalidInput, match="Which host"):
        await create(house.admin, "zone", again=True)


async def test_accounts_on_the_bus_are_for_those_who_have_joined(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = Accounts()
    monkeypatch.setattr(house.control.enrolment, "_accounts", accounts)
    made, key = await token(house, None), new_key()

    with pytest.raises(Conflict):
        await join(house, made.secret, new_key(), "host-1")
    first, again = await join(house, made.secret, key), await join(house, made.secret, key)
    await removed(house, "box-7")

    assert accounts.calls == ["open box-7 in zone", "open box-7 in zone", "close box-7"]
    assert (first.bus, again.bus) == ("amqp://box-7:1@bus", "amqp://box-7:2@bus")
    assert first.own_account


async def test_a_machine_whose_release_has_no_account_of_its_own_uses_up_no_token(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = Accounts()
    monkeypatch.setattr(house.control.enrolment, "_accounts", accounts)
    made, request = await token(house), signing_request(new_key())

    with pytest.raises(Conflict, match="Upgrade skep there"):
        await house.control.enrolment.join(made.secret, request, FACTS, user=None)

    assert (await join(house, made.secret, new_key())).host == "host-9"
    assert accounts.calls == ["open host-9 in zone"]


async def test_a_host_whose_account_cannot_be_closed_stays_a_host(
    house: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would go on with an account that nobody knows of."""

    class Stuck(Accounts):
        async def close(self, host: HostName) -> None:
            raise Unavailable("The broker does not answer.")

    monkeypatch.setattr(house.control.enrolment, "_accounts", Stuck())
    joined = await join(house, (await token(house)).secret, new_key())

    with pytest.raises(Unavailable, match="broker"):
        await house.control.hosts.remove(house.admin, "host-9", lost=True)

    assert await house.control.authorities.is_known(HostName("host-9"), await serial(joined))


async def test_what_is_no_request_name_or_address_uses_up_no_token(house: Installation) -> None:
    made = await token(house, None)
    enrolment, request = house.control.enrolment, signing_request(new_key())

    for wrong in (
        enrolment.join(made.secret, "nonsense", FACTS, name="a"),
        enrolment.join(made.secret, request, FACTS, name="../a"),
        enrolment.join(made.secret, request, FACTS, name="a", address="here"),
        enrolment.join(made.secret, request, FACTS),
    ):
        with pytest.raises(InvalidInput):
            await wrong

    assert (await join(house, made.secret, new_key())).host == "box-7"


async def test_tokens_for_what_is_not_there_are_not_made(house: Installation) -> None:
    with pytest.raises(NotFound, match="no zone 'moon', only zone"):
        await house.control.join_tokens.create(house.admin, "moon")
    with pytest.raises(NotFound, match="no pool 'tide', only zone"):
        await house.control.join_tokens.create(house.admin, "zone", pool="tide")
    with pytest.raises(Conflict, match="skep host rm host-1"):
        await token(house, "host-1")
    with pytest.raises(InvalidInput):
        await token(house, expires_in=0)
    with pytest.raises(InvalidInput):
        await token(house, expires_in=8 * 86_400)


@pytest.mark.parametrize(
    ("change", "says"),
    [({"bus_url": ""}, "no bus"), ({"api_url": ""}, "TLS"), ({"api_url": "http://skep.example"}, "TLS")],
)
async def test_no_token_is_made_where_nobody_could_join(
    house: Installation, change: dict[str, str], says: str
) -> None:
    tokens = house.control.join_tokens
    kept = {name: getattr(tokens._settings, name) for name in Settings.__struct_fields__}
    tokens._settings = Settings(**(kept | change))

    with pytest.raises(Unavailable, match=says):
        await token(house)


async def test_a_certificate_is_renewed_with_the_present_one(house: Installation, tmp_path: Path) -> None:
    key = new_key()
    joined = await join(house, (await token(house)).secret, key)
    identity = Identity.store(tmp_path / "agent", key, joined.certificate, joined.certificates)
    house.clock.time += 15 * 86_400
    request = signing_request(fresh := new_key())

    renewed = await house.control.enrolment.renew(
        identity.certificate, request, identity.sign(request.encode())
    )

    identity.renew(fresh, renewed.certificate, renewed.certificates)
    assert identity.expires == pytest.approx(house.clock() + 30 * 86_400, abs=1)
    found = x509.load_pem_x509_certificate(renewed.certificate.encode())
    names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.9.8.7"]
    assert await house.control.authorities.is_known(HostName("host-9"), identity.peer.serial)


async def test_renewal_needs_the_key_of_a_living_certificate(house: Installation, tmp_path: Path) -> None:
    key = new_key()
    joined = await join(house, (await token(house)).secret, key)
    identity = Identity.store(tmp_path / "agent", key, joined.certificate, joined.certificates)
    worker = await house.control.authorities.identity(tmp_path / "worker", Role.WORKER, "worker-1")
    stranger = Authority.make("x", house.clock()).issue(
        signing_request(key), role=Role.AGENT, name="host-9", now=house.clock()
    )
    renew, request = house.control.enrolment.renew, signing_request(new_key())
    other = Identity.store(tmp_path / "other", key, joined.certificate, joined.certificates)
    forged = key.sign(b"something else", ec.ECDSA(hashes.SHA256()))

    for certificate, signature in (
        (identity.certificate, forged),
        (identity.certificate, worker.sign(request.encode())),
        (worker.certificate, worker.sign(request.encode())),
        (stranger.certificate, other.sign(request.encode())),
        (identity.certificate, b""),
    ):
        with pytest.raises(Unauthenticated):
            await renew(certificate, request, signature)


async def test_the_certificate_of_a_removed_host_is_worth_nothing(
    house: Installation, tmp_path: Path
) -> None:
    key = new_key()
    joined = await join(house, (await token(house)).secret, key)
    identity = Identity.store(tmp_path / "agent", key, joined.certificate, joined.certificates)
    known = await house.control.authorities.is_known(HostName("host-9"), identity.peer.serial)

    await removed(house, "host-9")

    assert known
    assert not await house.control.authorities.is_known(HostName("host-9"), identity.peer.serial)
    request = signing_request(new_key())
    with pytest.raises(Unauthenticated, match="revoked"):
        await house.control.enrolment.renew(identity.certificate, request, identity.sign(request.encode()))


async def test_a_host_that_is_gone_is_not_known_any_more(house: Installation) -> None:
    joined = await join(house, (await token(house)).secret, new_key())
    host = HostName("host-9")

    await house.database.write(lambda tx: hosts.set_state(tx, host, Liveness.GONE))

    assert not await house.control.authorities.is_known(host, await serial(joined))


async def test_the_certificates_of_a_former_host_of_the_name_stay_worthless(house: Installation) -> None:
    host = HostName("host-9")
    former = await join(house, (await token(house)).secret, new_key())
    await house.database.write(lambda tx: hosts.delete(tx, host))

    await join(house, (await token(house)).secret, new_key())

    assert not await house.control.authorities.is_known(host, await serial(former))


async def test_an_expired_certificate_is_not_renewed(house: Installation, tmp_path: Path) -> None:
    key = new_key()
    joined = await join(house, (await token(house)).secret, key)
    identity = Identity.store(tmp_path / "agent", key, joined.certificate, joined.certificates)
    house.clock.time += 31 * 86_400
    request = signing_request(new_key())

    with pytest.raises(Unauthenticated, match="is valid from"):
        await house.control.enrolment.renew(identity.certificate, request, identity.sign(request.encode()))
