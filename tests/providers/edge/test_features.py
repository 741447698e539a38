"""What endpoints do besides leading to replicas."""

import asyncio
import ssl

import msgspec
import pytest
from tests.providers.edge.conftest import HTTPS, Site, certificate, endpoint

from skep.model.edge import EdgeEndpoint
from skep.model.ids import AppId, EndpointId, TenantId, new_id
from skep.providers.local.edge.text import HELD_OF_ONE

pytestmark = pytest.mark.root


async def subject(site: Site, host: str) -> str:
    """The name in the certificate that a client is shown."""
    said = await site.client(
        *("openssl", "s_client", "-connect", "192.0.2.1:443", "-servername", host, "-showcerts")
    )
    pem = said[said.index("-----BEGIN") : said.index("-----END CERTIFICATE-----") + 25]
    decoded = await asyncio.to_thread(ssl.PEM_cert_to_DER_cert, pem + "\n")
    return next(name for name in ("new.example", "old.example", "localhost") if name.encode() in decoded)


async def test_https_shows_the_certificate_of_the_name_and_speaks_http_2(site: Site) -> None:
    one = await site.replica("one")
    site.certificates |= {"old": certificate("old.example"), "new": certificate("new.example")}
    shop = endpoint("shop.example", one, tls="required", certificate="old")
    await site.tell(shop, endpoint("other.localhost", one))

    assert await site.get(
        "shop.example", "/", "--http2", "-w", " %{http_version} %{http_code}", port=HTTPS
    ) == ("200 one 2")
    assert (await site.get("shop.example", "/a?b", "-w", "%{redirect_url} %{http_code}")) == (
        "308 https://shop.example/a?b"
    )
    assert await subject(site, "shop.example") == "old.example"
    assert await subject(site, "other.localhost") == "localhost"

    await site.tell(msgspec.structs.replace(shop, certificate="new"))
    assert await subject(site, "shop.example") == "new.example"

    await site.restart()
    await site.tell(msgspec.structs.replace(shop, certificate=""))
    assert await subject(site, "shop.example") == "localhost"


async def test_an_endpoint_whose_certificate_is_not_to_be_had_is_served_all_the_same(site: Site) -> None:
    one = await site.replica("one")

    await site.tell(endpoint("shop.example", one, certificate="lost"))

    assert await site.get("shop.example", port=HTTPS) == "200 one"


async def test_a_sticky_client_comes_back_to_its_replica_also_on_another_day(site: Site) -> None:
    one, two = await site.replica("one"), await site.replica("two")
    await site.tell(endpoint("shop.localhost", one, two, sticky=True))
    jar = str(site.world.data / "jar")

    answers = [await site.get("shop.localhost", "/", "-c", jar, "-b", jar) for _ in range(6)]

    assert len(set(answers)) == 1
    assert len({await site.get("shop.localhost") for _ in range(6)}) == 2


async def test_a_client_that_asks_too_often_is_told_so(site: Site) -> None:
    one = await site.replica("one")
    await site.tell(endpoint("shop.localhost", one, rate=3), endpoint("free.localhost", one))

    answers = await asyncio.gather(*(site.get("shop.localhost") for _ in range(12)))

    assert "429 Too many requests." in answers
    assert await site.get("free.localhost") == "200 one"


async def test_headers_say_who_asked_whatever_the_client_claims(site: Site) -> None:
    one = await site.replica("one")
    await site.tell(endpoint("shop.localhost", one))
    lies = [
        word
        for name in (
            *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-User", "Forwarded"),
            "x-original-forwarded-for",
        )
        for word in ("-H", f"{name}: 10.9.9.9")
    ]

    said = (await site.get("shop.localhost", "/headers", *lies)).lower()

    assert "x-forwarded-for: 192.0.2.2" in said
    assert "x-forwarded-proto: http" in said
    assert "host: shop.localhost" in said
    assert "10.9.9.9" not in said


async def test_requests_are_counted_and_written_down_by_endpoint_and_revision(site: Site) -> None:
    one, two = await site.replica("one"), await site.replica("two")
    shop, other = endpoint("shop.localhost", one, revision=7), endpoint("other.localhost", two)
    await site.tell(shop)
    await site.tell(other, app=AppId(new_id()))

    await site.get("shop.localhost", "/cart?secret=1")
    await site.get("other.localhost")

    counted = {(part.endpoint, part.revision): part.requests for part in await site.edge.traffic()}
    assert counted == {(shop.id, 7): 1, (other.id, 1): 1}
    async with asyncio.timeout(5):
        while not (lines := await site.edge.access(shop.id)):
            await asyncio.sleep(0.05)
    assert [(line.status, line.path, line.replica, line.revision, line.client) for line in lines] == [
        (200, "/cart", "web-0", 7, "192.0.2.2")
    ]


async def test_a_thousand_endpoints_of_many_apps_are_served(site: Site) -> None:
    one = await site.replica("one")
    for first in range(0, 1000, 100):
        some = [endpoint(f"n{number}.localhost", one) for number in range(first, first + 100)]
        await site.tell(*some, app=AppId(new_id()))

    changed: EdgeEndpoint = endpoint("late.localhost", one)
    await site.tell(changed)

    for host in ("n0", "n512", "n999", "late"):
        assert await site.get(f"{host}.localhost") == "200 one"


async def test_a_dead_replica_fails_no_request_that_may_be_repeated(site: Site) -> None:
    one, two = await site.replica("one"), await site.replica("two")
    await site.tell(endpoint("shop.localhost", one, two))
    await site.stop(one)

    answers = {await site.get("shop.localhost") for _ in range(10)}

    assert answers == {"200 two"}


async def test_a_certificate_authority_finds_the_proof_before_all_that_tenants_have(site: Site) -> None:
    made, other = await site.replica("one"), await site.replica("other")
    await site.tell(
        endpoint("shop.example.com", made, tls="required", proof="token.thumb"),
        endpoint("shop.example.com", made, path="/.well-known/acme-challenge"),
    )
    await site.tell(endpoint("other.example.com", other), app=AppId(new_id()))

    asked = "/.well-known/acme-challenge/token"

    assert await site.get("shop.example.com", asked) == "200 token.thumb"
    assert await site.get("other.example.com", asked) == "200 other"
    assert (await site.get("shop.example.com", f"{asked}s")) == "200 one"
    await site.tell(endpoint("shop.example.com", made, path="/.well-known/acme-challenge"))
    assert await site.get("shop.example.com", asked) == "200 one"


async def test_https_says_that_a_certificate_is_still_to_come(site: Site) -> None:
    made = await site.replica("one")
    one = endpoint("shop.example.com", made, awaited=True)
    await site.tell(one)

    said = await site.get("shop.example.com", port=HTTPS)

    assert said.startswith("503 The certificate of this name is still to come")
    assert await site.get("shop.example.com") == "200 one"
    await site.tell(msgspec.structs.replace(one, awaited=False))
    assert await site.get("shop.example.com", port=HTTPS) == "200 one"


async def held(site: Site) -> dict[EndpointId, int]:
    return {one.endpoint: one.waiting for one in await site.edge.traffic() if one.revision == 0}


async def test_requests_wait_for_the_first_one_who_serves_but_not_too_many_of_a_tenant(site: Site) -> None:
    stranger = AppId(new_id())
    asleep, other = (endpoint(f"{name}.example.com", hold=True) for name in ("shop", "other"))
    wide = endpoint("*.example.org", hold=True, rate=1000)
    await site.tell(asleep, other)
    await site.tell(wide, app=stranger, tenant=TenantId(new_id()))
    many = (
        "--parallel-immediate",
        "--parallel-max",
        "200",
        "--connect-to",
        "::192.0.2.1:80",
        "-w",
        "%{http_code}\n",
    )
    urls = f"http://shop.example.com/[1-{HELD_OF_ONE}]"
    waiting = [
        asyncio.create_task(site.client("curl", "-s", "-Z", *many, "-o", "/dev/null", urls)),
        asyncio.create_task(site.get("a.example.org", "/cart", "-m", "60")),
    ]
    async with asyncio.timeout(60):
        while await held(site) != {asleep.id: HELD_OF_ONE, wide.id: 1}:
            await asyncio.sleep(0.1)

    for refused in ("shop.example.com", "other.example.com"):
        assert await site.get(refused) == "503 Nobody serves this yet: it is being started."

    made = await site.replica("one")
    (server,) = endpoint("", made).servers
    await site.tell(msgspec.structs.replace(asleep, servers=(server,)))
    await site.tell(msgspec.structs.replace(wide, servers=(server,)), app=stranger)
    of_shop, of_wide = await asyncio.gather(*waiting)
    assert of_shop.split() == ["200"] * HELD_OF_ONE
    assert of_wide == "200 one"
    assert await held(site) == {}
