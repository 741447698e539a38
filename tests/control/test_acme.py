"""Certificates by ACME: what is decided, and the whole with a real authority."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from tests.control.authority import Authority, authority, proof_server
from tests.control.installation import Installation, installation
from tests.control.simulation import app, service
from tests.control.test_endpoints import release, told

from skep.control.desired import DesiredState
from skep.control.endpoints import acme
from skep.control.endpoints.edges import Edges
from skep.control.plans.specifications import Limits
from skep.control.reconcilers.ordering import Ordering
from skep.control.telling.peering import Peering
from skep.model.acme import AcmeAccount, AcmeOrder, AcmeProblem
from skep.model.edge import EdgeEndpoint
from skep.model.errors import Conflict, InvalidInput
from skep.model.ids import AcmeOrderId, TenantId, new_id
from skep.model.spec import AppSpec, EndpointSpec, Extensions
from skep.providers.acme import AcmeIssuer
from skep.store.acme import OrderRow

NOW = 1_800_000_000.0


def secure(host: str) -> AppSpec:
    one = EndpointSpec(host=host, port=8080, tls="acme")
    return app(web=service(x_skep=Extensions(endpoints=(one,))))


def order(tenant: str, host: str, *, due: float = NOW, ordered: float = 0.0, url: str = "") -> OrderRow:
    return OrderRow(
        id=AcmeOrderId(new_id()),
        tenant_id=TenantId(tenant),
        host=host,
        due=due,
        ordered=ordered,
        url=url,
        created=NOW,
    )


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("shop.localhost", "anybody's"),
        ("10.0.0.1", "address"),
        ("*.example.com", "all names below one"),
        ("my_shop.example.com", "_"),
        ("shop.home.arpa", "means nothing on the Internet"),
    ],
)
def test_a_name_that_no_authority_knows_is_refused_with_the_reason(host: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        acme.must_be_possible(secure(host), agreed=True, private=False)

    acme.must_be_possible(secure("shop.example.com"), agreed=True, private=False)
    acme.must_be_possible(secure("shop.home.arpa"), agreed=True, private=True)


def test_nothing_is_ordered_before_somebody_has_agreed_to_the_terms() -> None:
    with pytest.raises(InvalidInput, match="acme_terms_agreed"):
        acme.must_be_possible(secure("shop.example.com"), agreed=False, private=False)


def test_a_tenant_with_many_names_keeps_nobody_from_ordering() -> None:
    greedy = [order("a", f"{number}.example.com") for number in range(300)]
    modest = order("b", "one.example.com", due=NOW - 1e-3)
    names = {(row.tenant_id, row.host) for row in (*greedy, modest)}

    chosen = acme.choose([*greedy, modest], names, NOW)

    assert modest in chosen
    assert len(chosen) == acme.MOST_OF_TENANT + 1
    ordered = [order("c", f"{number}.example.org", ordered=NOW - 60) for number in range(acme.MOST_ORDERS)]
    assert acme.choose([modest, *ordered], names, NOW) == []


def test_what_is_under_way_goes_on_whatever_was_ordered() -> None:
    rows = [order("a", f"{number}.example.com", ordered=NOW, url="https://order") for number in range(300)]

    assert acme.choose(rows, {(row.tenant_id, row.host) for row in rows}, NOW) == rows


def test_failures_wait_longer_each_time_and_as_long_as_the_authority_says() -> None:
    problem = AcmeProblem(kind="dns", detail="no such name")
    first = acme.failed(order("a", "one.example.com", url="https://order"), problem, 0.0, NOW, 0.0)
    second = acme.failed(first, problem, 0.0, NOW, 0.0)

    assert (first.due - NOW, second.due - NOW) == (600, 1200)
    assert (first.url, first.proof) == ("", "")
    assert acme.failed(first, problem, 7200.0, NOW, 0.0).due == NOW + 7200
    assert acme.state(first, None, NOW) == (
        "failed: no such name. What to do: let the name lead to your hosts: an A record with their "
        "addresses. Again at 2027-01-15T08:10:00.000Z."
    )


def test_a_certificate_is_renewed_at_two_thirds_of_its_time_but_not_all_at_once() -> None:
    assert acme.renewal(0, 90, 0.0) == 60
    assert 55 < acme.renewal(0, 90, 1.0) < 56


def test_a_certificate_is_kept_for_a_while_when_nobody_wants_it_any_more() -> None:
    recent, old = (
        order("a", "b.example.com", ordered=NOW),
        order("a", "c.example.com", ordered=NOW - acme.KEPT - 1),
    )

    assert acme.forgotten([recent, old], set(), NOW) == [old]
    assert acme.forgotten([old], {(old.tenant_id, old.host)}, NOW) == []


class Counting(AcmeIssuer):
    """Counts what it orders."""

    orders = 0

    async def order(self, account: AcmeAccount, host: str) -> AcmeOrder:
        self.orders += 1
        return await super().order(account, host)


class Place:
    """A control whose names lead to a web server that shows what hosts were told."""

    def __init__(self, house: Installation, pebble: Authority, folder: Path) -> None:
        self.house = house
        self.issuer = Counting(pebble.directory, "ann@example.com", pebble.certificate)
        self.reached = True
        self._seal = folder / "installation.key"

    def ordering(self) -> Ordering:
        """Of a process that has just been started."""
        house = self.house
        desired = DesiredState(house.database, Limits(), self._seal)
        return Ordering(
            database=house.database,
            issuer=self.issuer,
            edges=Edges(house.database, house.directory, desired, Peering(house.database, house.directory)),
            directory=house.directory,
            seal=self._seal,
            now=house.clock,
            new_id=new_id,
            chance=lambda: 0.0,
        )

    @property
    def endpoint(self) -> EdgeEndpoint:
        one, other = told(self.house)
        assert one.digest == other.digest
        return one.endpoints[0]

    def shown(self, asked: str) -> str:
        one = self.endpoint
        path = f"{one.host}/.well-known/acme-challenge/{one.proof.partition('.')[0]}"
        return one.proof if self.reached and asked == path else ""

    async def state(self) -> str:
        (one,) = await self.house.control.endpoints.list(self.house.admin)
        return one.certificate

    async def until(self, reached: Callable[[str], bool]) -> str:
        """Every look is that of another process; between two of them time passes."""
        async with asyncio.timeout(60):
            while not reached(state := await self.state()):
                await self.ordering().look()
                self.house.clock.time += 2
                await asyncio.sleep(0.02)
        return state


@pytest.fixture(scope="module")
def pebble() -> Iterator[Authority]:
    with authority() as made:
        yield made


@pytest.fixture
async def place(tmp_path: Path, pebble: Authority) -> AsyncIterator[Place]:
    async with installation(tmp_path, hosts=2) as house:
        made = Place(house, pebble, tmp_path)
        async with proof_server(pebble.proofs, made.shown):
            yield made


async def test_a_name_gets_a_certificate_and_another_one_in_time_whoever_dies_in_between(
    place: Place,
) -> None:
    house = place.house
    await release(house, secure("shop.test"))
    assert await place.state() == "ordering"
    assert (place.endpoint.awaited, place.endpoint.tls) == (True, "optional")

    await place.until(lambda state: state.startswith("valid until"))

    first = place.endpoint
    assert (first.awaited, first.tls, first.proof, place.issuer.orders) == (False, "required", "", 1)
    (listed,) = await house.control.certificates.list(house.admin)
    assert (listed.name, listed.names, listed.endpoints) == ("shop.test", ("shop.test",), 1)
    desired = DesiredState(house.database, Limits(), place._seal)
    assert b"PRIVATE KEY" in await desired.certificate(first.certificate)

    house.clock.time += 4 * 365 * 86_400  # pebble's are good for five years
    await place.ordering().look()
    await place.until(lambda state: state.endswith("renewal under way") or place.issuer.orders > 1)
    await place.until(lambda state: not state.endswith("renewal under way"))

    assert place.issuer.orders == 2
    assert place.endpoint.certificate not in ("", first.certificate)


async def test_a_proof_that_is_not_found_is_shown_with_what_to_do_and_not_tried_at_once(place: Place) -> None:
    house = place.house
    await release(house, secure("lost.test"))
    place.reached = False

    said = await place.until(lambda state: state.startswith("failed"))

    assert "What to do: " in said
    assert "PRIVATE" not in said
    for _ in range(5):
        await place.ordering().look()
    assert place.issuer.orders == 1
    with pytest.raises(Conflict, match="a short while ago"):
        await house.control.certificates.renew(house.admin, "lost.test")
    house.clock.time += acme.RETRY
    await house.control.certificates.renew(house.admin, "lost.test")
    await place.ordering().look()
    assert place.issuer.orders == 2


async def test_an_authority_that_is_away_is_waited_for(place: Place, pebble: Authority) -> None:
    await release(place.house, secure("shop.test"))
    there, place.issuer = place.issuer, Counting("https://localhost:1/dir", "", pebble.certificate)

    said = await place.until(lambda state: state.startswith("failed"))

    assert "cannot be reached" in said
    place.issuer = there
    place.house.clock.time += acme.LONGEST_SILENCE
    await place.until(lambda state: state.startswith("valid until"))
