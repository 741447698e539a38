"""Which replica a request comes to."""

import pytest
from tests.providers.edge.conftest import Site, endpoint

pytestmark = pytest.mark.root


async def test_the_longest_path_wins_and_an_exact_name_before_a_wildcard(site: Site) -> None:
    web, api, wild = [await site.replica(name) for name in ("web", "api", "wild")]

    await site.tell(
        endpoint("shop.localhost", web),
        endpoint("shop.localhost", api, path="/api"),
        endpoint("*.localhost", wild),
    )

    assert await site.get("shop.localhost") == "200 web"
    assert await site.get("SHOP.localhost", "/api") == "200 api"
    assert await site.get("shop.localhost", "/api/orders?id=1") == "200 api"
    assert await site.get("shop.localhost", "/apix") == "200 web"
    assert await site.get("any.localhost", "/api") == "200 wild"
    assert (await site.get("elsewhere.example")).startswith("404 ")
