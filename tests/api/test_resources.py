"""Requests and answers of the resources, over a real connection."""

import base64

import httpx
import msgspec
import pytest
from tests.api.fake_control import FakeControl

from skep.model.images import BuildSpec

SHOP = {"name": "shop", "services": {"web": {"image": "web:1", "replicas": 2}, "db": {"image": "db:1"}}}


async def test_a_release_answers_with_the_run_to_follow(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/apps/shop/releases", json=SHOP)

    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/runs/{answer.json()['run']}"


async def test_a_release_that_changes_nothing_has_no_run(client: httpx.AsyncClient) -> None:
    await client.post("/v1/apps/shop/releases", json=SHOP)

    answer = await client.post("/v1/apps/shop/releases", json=SHOP)
    forced = await client.post("/v1/apps/shop/releases?force_recreate=true", json=SHOP)

    assert (answer.status_code, answer.json()["run"]) == (200, None)
    assert forced.status_code == 202


async def test_the_name_in_the_body_must_be_the_one_in_the_address(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/apps/other/releases", json=SHOP)

    assert answer.status_code == 422
    assert "'shop'" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "truncated"),
        (b'{"name": "shop"}', "services"),
        (b'{"name": "shop", "services": {"web": {"image": 5}}}', "image"),
        (b'{"name": "shop", "services": {}, "surprise": 1}', "surprise"),
        (b'{"name": "shop", "services": {"web": {"image": "a", "replicas": 1000000000000}}}', "replicas"),
        (b"[" * 100_000, ""),
    ],
)
async def test_a_body_of_the_wrong_shape_says_what_is_wrong(
    client: httpx.AsyncClient, body: bytes, says: str
) -> None:
    answer = await client.post("/v1/apps/shop/plan", content=body)

    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid-input"
    assert says in answer.json()["detail"]


async def test_a_huge_body_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/apps/shop/plan", content=b" " * (9 * 1024 * 1024))

    assert answer.status_code == 413


async def test_an_app_is_shown_stopped_and_removed(client: httpx.AsyncClient) -> None:
    await client.post("/v1/apps/shop/releases", json=SHOP)

    assert [app["name"] for app in (await client.get("/v1/apps")).json()] == ["shop"]
    assert len((await client.get("/v1/replicas?app=shop")).json()) == 3
    assert (await client.post("/v1/apps/shop/stop?service=web")).status_code == 202
    assert (await client.get("/v1/apps/shop")).json()["app"]["state"] == "stopped"
    assert (await client.post("/v1/apps/shop/start")).status_code == 202
    assert (await client.post("/v1/apps/shop/restart")).status_code == 202
    assert (await client.get("/v1/apps/shop/releases")).json()[0]["current"] is True
    assert (await client.delete("/v1/apps/shop?volumes=true")).status_code == 202
    assert (await client.get("/v1/apps/shop")).status_code == 404


async def test_an_app_moves_and_that_is_confirmed(client: httpx.AsyncClient) -> None:
    await client.post("/v1/apps/shop/releases", json=SHOP)
    over = {"to_zone": "k8s"}

    planned = await client.post("/v1/apps/shop/move/plan", json=over)
    moved = await client.post("/v1/apps/shop/move", json=over)

    assert planned.json()["disks"][0]["name"] == "shop_data"
    assert moved.status_code == 202
    assert (await client.post("/v1/apps/shop/move/confirm")).status_code == 202
    assert (await client.post("/v1/apps/shop/move", json={"to_zone": "zone-1"})).status_code == 409
    assert (await client.post("/v1/apps/shop/move", json={"zone": "k8s"})).status_code in (400, 422)
    assert (await client.post("/v1/apps/other/move", json=over)).status_code == 404


async def test_errors_keep_their_kind_words_and_details(client: httpx.AsyncClient) -> None:
    answer = await client.delete("/v1/networks/default")

    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "urn:skep:problem:conflict",
        "title": "Conflict",
        "status": 409,
        "code": "conflict",
        "detail": "Network 'default' still has 2 ports.",
        "details": {"ports": 2},
    }


async def test_a_defect_tells_the_caller_nothing_but_an_id(
    client: httpx.AsyncClient, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control.apps, "list", None)

    answer = await client.get("/v1/apps")

    assert answer.status_code == 500
    assert "NoneType" not in answer.text
    assert answer.json()["request_id"] in answer.json()["detail"]


async def test_a_role_that_is_not_enough_is_forbidden(url: str) -> None:
    async with httpx.AsyncClient(base_url=url, headers={"Authorization": "Bearer viewer-secret"}) as viewer:
        assert (await viewer.get("/v1/hosts")).status_code == 403
        assert (await viewer.get("/v1/whoami", headers={"X-Skep-Tenant": "other"})).status_code == 403
        assert (await viewer.get("/v1/whoami")).json()["role"] == "viewer"


async def test_an_admin_acts_in_the_tenant_it_names(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/whoami", headers={"X-Skep-Tenant": "acme"})

    assert answer.json()["tenant"] == "acme"


async def test_tenants_users_and_tokens_come_and_go(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/tenants", json={"name": "acme"})).status_code == 201
    assert (await client.post("/v1/tenants", json={"name": "acme"})).status_code == 409
    user = await client.post("/v1/users", json={"name": "ann", "tenant": "acme", "role": "viewer"})
    assert (user.status_code, user.json()["role"]) == (201, "viewer")
    token = await client.post("/v1/tokens", json={"name": "ci", "user": "ann", "expires_in": 60})
    assert token.json()["secret"].startswith("skep_")
    assert (await client.delete("/v1/tokens/tok-ci")).status_code == 204
    assert (await client.delete("/v1/users/ann")).status_code == 204
    assert (await client.delete("/v1/tenants/acme")).status_code == 204
    assert (
        await client.post("/v1/users", json={"name": "a", "tenant": "b", "role": "king"})
    ).status_code == 422


async def test_the_other_lists_answer(client: httpx.AsyncClient) -> None:
    for path in (
        "disks",
        "networks",
        "ports",
        "networks/map",
        "egress-addresses",
        "networks/shares",
        "security-groups",
        "endpoints",
        "certificates",
        "apps/shop/access",
        "hosts",
        "zones",
        "queues",
        "pools",
        "usage",
        "images",
        "runs",
        "tokens",
        "users",
    ):
        answer = await client.get(f"/v1/{path}")
        assert (answer.status_code, type(answer.json())) == (200, list), path


async def test_networks_are_made_reserved_from_and_shared(client: httpx.AsyncClient) -> None:
    more = [{"subnet": "10.1.0.0/24"}]
    made = await client.post("/v1/networks", json={"name": "back", "internal": True, "subnets": more})
    grown = await client.post("/v1/networks/back/subnets", json={"subnet": "10.2.0.0/24"})
    assert (made.json()["subnets"], grown.status_code) == (["10.129.0.0/20", "10.1.0.0/24"], 202)
    assert (made.status_code, made.json()["internal"]) == (201, True)
    shown = await client.get("/v1/networks/details?network=acme/back")
    assert (shown.status_code, shown.json()["name"]) == (200, "acme/back")
    kept = {"addresses": "10.128.0.10-10.128.0.19", "purpose": "printers"}
    assert (await client.post("/v1/networks/back/reservations", json=kept)).status_code == 201
    gone = await client.delete(f"/v1/networks/back/reservations?addresses={kept['addresses']}")
    assert gone.status_code == 204
    assert (await client.delete("/v1/networks/back/reservations?addresses=10.1.0.1")).status_code == 404
    assert (await client.post("/v1/networks/back/shares", json={"tenant": "acme"})).status_code == 201
    accepted = await client.post("/v1/networks/accept", json={"owner": "acme", "network": "back"})
    assert (accepted.status_code, accepted.json()["network"]) == (200, "acme/back")
    assert (await client.post("/v1/networks/leave?network=acme/back")).status_code == 204
    assert (await client.delete("/v1/networks/back/shares/acme")).status_code == 204
    assert (await client.delete("/v1/networks/back/shares/other")).status_code == 404


async def test_certificates_come_and_go_and_their_keys_are_not_shown(client: httpx.AsyncClient) -> None:
    given = {"certificate": "-----BEGIN CERTIFICATE-----", "key": "-----BEGIN PRIVATE KEY-----"}

    made = await client.put("/v1/certificates/shop", json=given)

    assert (made.status_code, made.json()["name"]) == (200, "shop")
    assert "PRIVATE" not in (await client.get("/v1/certificates")).text
    assert (await client.post("/v1/certificates/shop.example.com/renew")).status_code == 202
    assert (await client.post("/v1/certificates/shop/renew")).status_code == 404
    assert (await client.delete("/v1/certificates/shop")).status_code == 204
    assert (await client.delete("/v1/certificates/shop")).status_code == 404


async def test_egress_addresses_are_given_assigned_and_taken_back(client: httpx.AsyncClient) -> None:
    given = await client.post("/v1/egress-addresses", json={"zone": "zone-1", "addresses": "203.0.113.12"})
    assigned = await client.put("/v1/networks/default/egress", json={})
    chosen = await client.put("/v1/networks/default/egress", json={"address": "203.0.113.12"})

    assert (given.status_code, given.json()[0]["address"]) == (201, "203.0.113.12")
    assert (assigned.json()["address"], chosen.json()["address"]) == ("203.0.113.10", "203.0.113.12")
    assert (await client.delete("/v1/networks/default/egress")).status_code == 204
    assert (await client.delete("/v1/networks/other/egress")).status_code == 404
    assert (await client.delete("/v1/egress-addresses/203.0.113.12")).status_code == 204
    assert (await client.delete("/v1/egress-addresses/203.0.113.10")).status_code == 409


async def test_security_groups_come_and_go_with_their_rules(client: httpx.AsyncClient) -> None:
    web = "/v1/security-groups/web"

    made = await client.put(web, json={"rules": [{"protocol": "tcp", "ports": "80"}]})
    more = await client.post(f"{web}/rules", json={"protocol": "icmp"})
    less = await client.delete(f"{web}/rules/{made.json()['rules'][0]['id']}")

    assert (made.status_code, more.status_code, less.status_code) == (200, 200, 200)
    assert [one["protocol"] for one in more.json()["rules"]] == ["tcp", "icmp"]
    assert [one["protocol"] for one in (await client.get(web)).json()["rules"]] == ["icmp"]
    assert (await client.post(f"{web}/rules", json={"protocol": "ipx"})).status_code == 422
    assert (await client.put(web, json={"rule": []})).status_code == 422
    assert (await client.delete(web)).status_code == 204
    assert (await client.get(web)).status_code == 404


async def test_a_cluster_is_looked_at_by_the_kubeconfig_that_comes_along(client: httpx.AsyncClient) -> None:
    checked = await client.post("/v1/clusters/check", json={"kubeconfig": "nobody", "context": "staging"})
    rights = await client.get("/v1/clusters/rights")

    assert (checked.status_code, checked.json()["usable"]) == (200, False)
    assert rights.json()["manifest"].startswith("---")


async def test_a_zone_stands_on_a_cluster(client: httpx.AsyncClient) -> None:
    wanted = {"kubeconfig": "admin", "registry": "registry.example.com/skep"}

    made = await client.post("/v1/zones/k8s/cluster", json=wanted | {"username": "ann", "password": "s3cret"})
    half = await client.post("/v1/zones/k8s/cluster", json=wanted | {"username": "ann"})
    changed = await client.patch("/v1/zones/k8s/cluster", json={"context": "blue"})
    shown = await client.get("/v1/zones/k8s/cluster")

    assert (made.status_code, made.json()["check"]["usable"]) == (200, True)
    assert "s3cret" not in made.text
    assert (half.status_code, changed.status_code, shown.status_code) == (422, 200, 200)
    assert (await client.get("/v1/zones/local/cluster")).status_code == 404
    assert (await client.delete("/v1/zones/k8s", params={"lost": True})).status_code == 204


async def test_disks_are_resized_and_removed(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/disks/shop_data/resize", json={"size": 1 << 31})).status_code == 202
    assert (await client.post("/v1/disks/shop_data/resize", json={"size": 0})).status_code == 422
    assert (await client.delete("/v1/disks/shop_data")).status_code == 202
    assert (await client.delete("/v1/disks/shop_data")).status_code == 404


async def test_images_are_pulled_bootstrapped_removed_and_pruned(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/images/pull", json={"reference": "web:1"})).status_code == 202
    half = {"reference": "web:1", "username": "ann"}
    assert (await client.post("/v1/images/pull", json=half)).status_code == 422
    assert (await client.post("/v1/images/bootstrap", json={"suite": "bookworm"})).status_code == 202
    assert (await client.delete("/v1/images?reference=web:1")).status_code == 204
    assert (await client.post("/v1/images/prune")).json() == {"freed": 5 << 20}


async def test_a_build_carries_its_context_and_its_settings(
    client: httpx.AsyncClient, control: FakeControl
) -> None:
    build = BuildSpec(dockerfile="Other", args={"A": "ü"}, bases={"evil": "sha256:0"})  # type: ignore[dict-item]
    header = base64.urlsafe_b64encode(msgspec.json.encode(build)).decode().rstrip("=")

    answer = await client.post(
        "/v1/images/build?reference=shop-web:latest", content=b"tar", headers={"X-Skep-Build": header}
    )

    assert answer.status_code == 202
    assert control.world.uploads["shop-web:latest"] == b"tar"
    assert control.world.builds == [BuildSpec(dockerfile="Other", args={"A": "ü"})]


async def test_a_build_header_that_is_none_is_refused(client: httpx.AsyncClient) -> None:
    answer = await client.post(
        "/v1/images/build?reference=a", content=b"tar", headers={"X-Skep-Build": "bm90IGpzb24"}
    )

    assert answer.status_code == 422
