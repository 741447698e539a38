"""Networks of their own, reserved addresses, and networks of two tenants: who gets in, and what each sees."""

from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from pathlib import Path

import msgspec
import pytest
from tests.control.installation import Installation, installation
from tests.control.simulation import app, service

from skep.control.callers import Caller, Role
from skep.control.networks.addresses import Addresses
from skep.control.plans.plans import NewPort
from skep.flow import RunId, RunState
from skep.model.errors import Conflict, InvalidInput, NotFound
from skep.model.ids import PortId, ReplicaId
from skep.model.spec import AppNetwork, AppSpec, NetworkAttachment
from skep.store import networks


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path, hosts=2) as made:
        yield made


@pytest.fixture
async def owner(house: Installation) -> Caller:
    """With a network called back."""
    await house.control.tenants.create(house.admin, "owner")
    made = await house.person("olga", Role.MEMBER, "owner")
    await house.control.networks.create(made, "back", subnet="10.1.0.0/28")
    return made


@pytest.fixture
async def guest(house: Installation) -> Caller:
    await house.control.tenants.create(house.admin, "guest")
    return await house.person("gert", Role.MEMBER, "guest")


def on(network: str, *, name: str = "shop", address: str | None = None, mac: str | None = None) -> AppSpec:
    """An app of one replica on an external network."""
    place = NetworkAttachment(ipv4_address=address, mac_address=mac)
    wanted = service(endpoint_mode="dnsrr")  # no virtual IP, which would have an address too
    made = app(name, web=msgspec.structs.replace(wanted, networks={"n": place}))
    return msgspec.structs.replace(made, networks={"n": AppNetwork(external=network)})


async def put(house: Installation, caller: Caller, spec: AppSpec) -> None:
    await house.finish(await house.control.apps.apply(caller, spec))


async def refused(house: Installation, caller: Caller, spec: AppSpec) -> str:
    """The error of the run that fails."""
    accepted = await house.control.apps.apply(caller, spec)
    record = await house.flows.wait(RunId(str(accepted.run)), 30)
    assert record.state is RunState.FAILED
    return str(record.error)


async def share(house: Installation, owner: Caller, guest: Caller, alias: str | None = None) -> None:
    await house.control.shares.offer(owner, "back", guest.tenant_name)
    await house.control.shares.accept(guest, owner.tenant_name, "back", alias)


async def test_an_app_joins_a_network_that_belongs_to_none(house: Installation, owner: Caller) -> None:
    await put(house, owner, on("back"))

    shown = await house.control.networks.show(owner, "back")
    assert (shown.owner, shown.subnet, shown.gateway) == ("owner", "10.1.0.0/28", "10.1.0.1")
    assert (shown.used, shown.reserved, shown.free) == (1, 0, 12)
    (port,) = shown.ports
    assert (port.address, port.names) == ("10.1.0.2", ("web-0.shop", "web.shop"))
    assert (port.tenant, port.replica, port.host) == ("owner", "shop/web-0", "host-1")
    with pytest.raises(Conflict, match="plugged into network 'back'"):
        await house.control.networks.remove(owner, "back")


async def test_a_network_goes_when_nobody_is_on_it(house: Installation, owner: Caller) -> None:
    await house.control.reservations.add(owner, "back", "10.1.0.5")
    await house.control.shares.offer(owner, "back", "somebody")

    await house.finish(await house.control.networks.remove(owner, "back"))

    assert await house.control.networks.list(owner) == []
    assert await house.control.shares.list(owner) == []


async def test_names_and_subnets_of_a_tenant_are_its_own(
    house: Installation, owner: Caller, guest: Caller
) -> None:
    make = house.control.networks.create
    with pytest.raises(Conflict, match="already"):
        await make(owner, "back")
    with pytest.raises(Conflict, match="overlaps"):
        await make(owner, "more", subnet="10.1.0.0/24")
    with pytest.raises(InvalidInput, match="gateway"):
        await make(owner, "more", subnet="10.2.0.0/24", gateway="10.3.0.1")

    made = await make(guest, "back", subnet="10.1.0.0/28")

    assert (made.owner, made.subnet) == ("guest", "10.1.0.0/28")


async def test_a_reserved_address_goes_only_to_who_asks_for_it(house: Installation, owner: Caller) -> None:
    await house.control.reservations.add(owner, "back", "10.1.0.2-10.1.0.13", "printers")
    await put(house, owner, on("back", name="first"))

    why = await refused(house, owner, on("back", name="second"))
    await put(house, owner, on("back", name="third", address="10.1.0.5"))

    shown = await house.control.networks.show(owner, "back")
    assert [port.address for port in shown.ports] == ["10.1.0.5", "10.1.0.14"]
    assert (shown.used, shown.reserved, shown.free) == (2, 11, 0)
    assert "1 addresses are in use, and the rest is reserved (10.1.0.2-10.1.0.13 for printers)" in why


async def test_reservations_do_not_overlap_and_are_given_up_whole(house: Installation, owner: Caller) -> None:
    reservations = house.control.reservations
    await reservations.add(owner, "back", "10.1.0.4/30")
    with pytest.raises(Conflict, match=r"10\.1\.0\.4-10\.1\.0\.7 is reserved already"):
        await reservations.add(owner, "back", "10.1.0.7")
    for wrong in ("10.2.0.1", "10.1.0.9-10.1.0.3", "10.1.0.10-10.1.0.99", "nonsense"):
        with pytest.raises(InvalidInput):
            await reservations.add(owner, "back", wrong)
    with pytest.raises(NotFound):
        await reservations.remove(owner, "back", "10.1.0.4")

    await reservations.remove(owner, "back", "10.1.0.4-10.1.0.7")

    assert (await house.control.networks.show(owner, "back")).reservations == []


@pytest.mark.parametrize("offered", [False, True])
@pytest.mark.parametrize("name", ["owner/back", "back"])
async def test_who_was_not_invited_or_did_not_accept_cannot_plug(
    house: Installation, owner: Caller, guest: Caller, offered: bool, name: str
) -> None:
    if offered:
        await house.control.shares.offer(owner, "back", "guest")

    with pytest.raises(NotFound, match="not shared with you"):
        await house.control.apps.apply(guest, on(name))
    with pytest.raises(NotFound):
        await house.control.networks.show(guest, name)

    assert (await house.control.networks.show(owner, "back")).ports == []


@pytest.mark.parametrize("offered", [False, True])
async def test_a_claim_by_who_did_not_accept_is_refused_in_its_transaction(
    house: Installation, owner: Caller, guest: Caller, offered: bool
) -> None:
    """As a plan would claim that was made while the network was shared, or that somebody forged."""
    if offered:
        await house.control.shares.offer(owner, "back", "guest")
    (network,) = [row.id for row in await rows_of(house)]
    port = NewPort(
        id=PortId("p"), network=network, names=("a",), position=0, address=None, mac=None, new=True
    )

    with pytest.raises(Conflict, match="not shared with you"):
        await house.database.write(
            lambda tx: Addresses(tx, guest.tenant, IPv4Network("10.128.0.0/9"), 0.0).claim(
                [(ReplicaId("r"), port)]
            )
        )


async def test_who_was_not_invited_cannot_accept(house: Installation, owner: Caller, guest: Caller) -> None:
    await house.control.shares.offer(owner, "back", "another")

    for network in ("back", "none"):
        with pytest.raises(NotFound, match=f"'owner/{network}' is not offered to you"):
            await house.control.shares.accept(guest, "owner", network)
    assert await house.control.shares.list(guest) == []


async def test_only_the_owner_may_share_and_only_what_goes_with_no_app(
    house: Installation, owner: Caller, guest: Caller
) -> None:
    await share(house, owner, guest)
    with pytest.raises(NotFound):
        await house.control.shares.offer(guest, "owner/back", "third")
    with pytest.raises(InvalidInput):
        await house.control.shares.offer(owner, "back", "owner")

    made = app("own", web=msgspec.structs.replace(service(), networks={"n": NetworkAttachment()}))
    await put(house, owner, msgspec.structs.replace(made, networks={"n": AppNetwork()}))
    with pytest.raises(Conflict, match="belongs to an app"):
        await house.control.shares.offer(owner, "own_n", "guest")


async def test_an_accepted_network_is_joined_by_its_name_or_its_alias(
    house: Installation, owner: Caller, guest: Caller
) -> None:
    await share(house, owner, guest, "theirs")

    await put(house, guest, on("theirs"))

    (shared,) = await house.control.networks.list(guest)
    assert (shared.name, shared.owner, shared.ports) == ("theirs", "owner", 1)
    with pytest.raises(Conflict, match="already"):
        await house.control.networks.create(guest, "theirs")
    with pytest.raises(Conflict, match="accepted already, as 'theirs'"):
        await house.control.shares.accept(guest, "owner", "back", "other")


@pytest.mark.parametrize("alias", ["default", "mine", "owner/back", "Ä"])
async def test_an_alias_takes_no_other_networks_place(
    house: Installation, owner: Caller, guest: Caller, alias: str
) -> None:
    await house.control.networks.create(guest, "mine")
    await house.control.shares.offer(owner, "back", "guest")

    with pytest.raises((InvalidInput, Conflict)):
        await house.control.shares.accept(guest, "owner", "back", alias)


async def test_each_sees_the_other_as_addresses_and_names_only(
    house: Installation, owner: Caller, guest: Caller
) -> None:
    await share(house, owner, guest)
    await house.control.reservations.add(owner, "back", "10.1.0.9", "secret")
    await put(house, owner, on("back"))
    await put(house, guest, on("owner/back"))

    ours = await house.control.networks.show(owner, "back")
    theirs = await house.control.networks.show(guest, "owner/back")

    foreign, own = theirs.ports
    assert (foreign.tenant, foreign.names, foreign.replica, foreign.host) == (
        *("owner", ("web-0.shop", "web.shop"), "", ""),
    )
    assert (own.names, own.replica) == (("web-0.shop.guest", "web.shop.guest"), "shop/web-0")
    assert (theirs.used, theirs.free, theirs.reserved, theirs.reservations) == (None, None, None, [])
    assert (ours.ports[1].tenant, ours.ports[1].replica, ours.ports[1].host) == ("guest", "", "")
    assert (ours.used, ours.reserved) == (2, 1)
    for who, name in ((owner, "back"), (guest, "owner/back")):
        assert [port.replica for port in await house.control.networks.ports(who, name)] == ["shop/web-0"]
        (place,) = await house.control.networks.map(who, name)
        assert (place.network, place.replica) == (name, "shop/web-0")
        with pytest.raises(NotFound):
            await house.control.networks.trace(who, "shop/web-0", "other/web-0")


async def test_a_guest_gets_no_reserved_address_and_chooses_no_mac(
    house: Installation, owner: Caller, guest: Caller
) -> None:
    await share(house, owner, guest)
    await house.control.reservations.add(owner, "back", "10.1.0.9", "secret")
    await put(house, owner, on("back", mac="02:00:00:00:00:07"))

    reserved = await refused(house, guest, on("owner/back", name="a", address="10.1.0.9"))
    chosen = await refused(house, guest, on("owner/back", name="b", mac="02:00:00:00:00:08"))
    twice = await refused(house, owner, on("back", name="c", mac="02:00:00:00:00:07"))

    assert "is reserved by its owner" in reserved
    assert "secret" not in reserved
    assert "leave the MAC" in chosen
    assert "MAC 02:00:00:00:00:07 is in use" in twice


async def test_either_ends_it_when_the_guests_replicas_have_left(
    house: Installation, owner: Caller, guest: Caller
) -> None:
    shares = house.control.shares
    await share(house, owner, guest)
    await put(house, guest, on("owner/back"))
    for end in (shares.withdraw(owner, "back", "guest"), shares.leave(guest, "owner/back")):
        with pytest.raises(Conflict, match=r"web-0\.shop\.guest \(10\.1\.0\.2\)"):
            await end
    with pytest.raises(Conflict, match="plugged into"):
        await house.control.networks.remove(owner, "back")
    await house.finish(await house.control.apps.remove(guest, "shop"))

    await shares.withdraw(owner, "back", "guest")
    with pytest.raises(NotFound):
        await house.control.apps.apply(guest, on("owner/back"))
    await share(house, owner, guest)
    await shares.leave(guest, "owner/back")

    assert await shares.list(owner) == await shares.list(guest) == []
    assert await house.control.networks.list(guest) == []


async def test_a_tenant_whose_network_others_use_is_not_removed(
    house: Installation, owner: Caller, guest: Caller
) -> None:
    await share(house, owner, guest)
    await put(house, guest, on("owner/back"))

    with pytest.raises(Conflict, match="Replicas of guest are plugged into networks of 'owner'"):
        await house.control.tenants.remove(house.admin, "owner")
    await house.finish(await house.control.apps.remove(guest, "shop"))
    await house.control.tenants.remove(house.admin, "guest")

    assert await house.control.shares.list(owner) == []
    await house.control.tenants.remove(house.admin, "owner")


async def test_hosts_hear_the_names_of_two_tenants_apart(
    house: Installation, owner: Caller, guest: Caller
) -> None:
    await share(house, owner, guest)
    await put(house, owner, on("back"))
    await put(house, guest, on("owner/back"))

    plugged = [port.app for host in house.hosts.values() for port in host.fabric._ports()]
    async with house.database.read() as connection:
        rows = await networks.attachments(connection)

    assert sorted(plugged) == ["shop", "shop.guest"]
    assert {row.guest for row in rows} == {"", "guest"}


async def rows_of(house: Installation) -> list[networks.NetworkRow]:
    async with house.database.read() as connection:
        return await networks.every(connection)
