"""Hosts join and renew over HTTP, in a whole control."""

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from tests.api.conftest import serving
from tests.control.installation import Installation, installation

from skep.api.errors import TooMany
from skep.api.turnstile import BURST, Turnstile
from skep.control.control import Control
from skep.model.views.joining import HostJoined, JoinTokenCreated
from skep.providers.simulated.host import FACTS
from skep.trust.authority import fingerprint
from skep.trust.identity import Identity, new_key, signing_request


class _Served:
    def __init__(self, control: Control) -> None:
        self._control = control

    def as_control(self) -> Control:
        return self._control


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[Installation]:
    async with installation(tmp_path) as house:
        yield house


@pytest.fixture
async def http(made: Installation) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(_Served(made.control)) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


async def token(made: Installation) -> JoinTokenCreated:
    return await made.control.join_tokens.create(made.admin, "zone", host="host-9")


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def body(key: Any) -> dict[str, Any]:
    return {"request": signing_request(key), "facts": msgspec.to_builtins(FACTS), "address": "10.0.0.9"}


async def test_anybody_may_see_the_authority_and_nobody_makes_one_by_looking(
    http: httpx.AsyncClient, made: Installation
) -> None:
    assert (await http.get("/v1/authority")).status_code == 404

    await token(made)
    shown = (await http.get("/v1/authority")).json()

    assert shown["fingerprint"] == fingerprint(shown["certificates"])
    assert "PRIVATE" not in shown["certificates"]


async def test_tokens_are_made_listed_and_revoked(http: httpx.AsyncClient, tmp_path: Path) -> None:
    admin = bearer((tmp_path / "admin.token").read_text().strip())

    created = await http.post("/v1/hosts/join-tokens", json={"zone": "zone", "host": "h"}, headers=admin)
    listed = await http.get("/v1/hosts/join-tokens", headers=admin)
    path = f"/v1/hosts/join-tokens/{created.json()['token']['id']}"
    revoked = await http.delete(path, headers=admin)

    assert (created.status_code, revoked.status_code) == (201, 204)
    assert created.json()["secret"] not in listed.text
    assert [one["host"] for one in listed.json()] == ["h"]
    assert (await http.get("/v1/hosts/join-tokens", headers=admin)).json() == []


async def test_a_host_joins_and_renews(http: httpx.AsyncClient, made: Installation, tmp_path: Path) -> None:
    key, secret = new_key(), (await token(made)).secret

    answer = await http.post("/v1/hosts/join", json=body(key), headers=bearer(secret))

    assert answer.status_code == 201
    joined = msgspec.json.decode(answer.content, type=HostJoined)
    identity = Identity.store(tmp_path / "agent", key, joined.certificate, joined.certificates)
    request = signing_request(fresh := new_key())
    signature = base64.b64encode(identity.sign(request.encode())).decode()
    asked = {"certificate": identity.certificate, "request": request, "signature": signature}
    renewed = await http.post("/v1/hosts/renew", json=asked)
    assert renewed.status_code == 201
    identity.renew(fresh, renewed.json()["certificate"], renewed.json()["certificates"])


async def test_strangers_are_refused_before_their_body_is_read(http: httpx.AsyncClient) -> None:
    for headers in ({}, bearer("wrong"), bearer("skepjoin_wrong")):
        answer = await http.post("/v1/hosts/join", content=b"{", headers=headers)
        assert answer.status_code == 401


async def test_a_users_token_does_not_join(http: httpx.AsyncClient, tmp_path: Path) -> None:
    admin = (tmp_path / "admin.token").read_text().strip()

    answer = await http.post("/v1/hosts/join", json=body(new_key()), headers=bearer(admin))

    assert answer.status_code == 401


async def test_a_join_token_is_no_users(http: httpx.AsyncClient, made: Installation) -> None:
    secret = (await token(made)).secret

    assert (await http.get("/v1/hosts", headers=bearer(secret))).status_code == 401


async def test_a_second_host_is_told_that_the_token_is_used(
    http: httpx.AsyncClient, made: Installation
) -> None:
    secret = (await token(made)).secret
    await http.post("/v1/hosts/join", json=body(new_key()), headers=bearer(secret))

    answer = await http.post("/v1/hosts/join", json=body(new_key()), headers=bearer(secret))

    assert answer.status_code == 409
    assert "skep host add" in answer.json()["detail"]


async def test_who_knocks_too_often_has_to_wait(http: httpx.AsyncClient) -> None:
    many = (http.post("/v1/hosts/join", headers=bearer("wrong")) for _ in range(3 * BURST))

    answers = await asyncio.gather(*many)

    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {401, 429}
    assert refused[0].json()["code"] == "too-many"
    assert refused[0].headers["retry-after"]


def test_each_address_has_a_turnstile_of_its_own() -> None:
    now = 100.0
    turnstile = Turnstile(lambda: now)
    for _ in range(BURST):
        turnstile.enter("a")
    with pytest.raises(TooMany):
        turnstile.enter("a")

    turnstile.enter("b")
    now += 1.0
    turnstile.enter("a")
    with pytest.raises(TooMany):
        turnstile.enter("a")


async def test_a_host_hears_whether_it_is_one_still(
    http: httpx.AsyncClient, made: Installation, tmp_path: Path
) -> None:
    key = new_key()
    joined = await http.post("/v1/hosts/join", json=body(key), headers=bearer((await token(made)).secret))
    host, certificate = joined.json()["host"], joined.json()["certificate"]
    identity = Identity.store(tmp_path / "agent", key, certificate, joined.json()["certificates"])
    request = signing_request(new_key())
    signature = base64.b64encode(identity.sign(request.encode())).decode()
    asked = {"certificate": certificate, "request": request, "signature": signature}

    before = await http.post("/v1/hosts/belongs", json=asked)
    await made.control.hosts.remove(made.admin, host)
    after = await http.post("/v1/hosts/belongs", json=asked)
    forged = await http.post("/v1/hosts/belongs", json=asked | {"request": signing_request(key)})

    assert (before.json(), after.json()) == ({"belongs": True}, {"belongs": False})
    assert forged.status_code == 401


async def test_a_removed_host_cannot_renew(
    http: httpx.AsyncClient, made: Installation, tmp_path: Path
) -> None:
    key = new_key()
    joined = await http.post("/v1/hosts/join", json=body(key), headers=bearer((await token(made)).secret))
    certificate = joined.json()["certificate"]
    identity = Identity.store(tmp_path / "agent", key, certificate, joined.json()["certificates"])
    await made.database.write(lambda tx: made.control.enrolment.revoke(tx, joined.json()["host"]))
    request = signing_request(new_key())
    signature = base64.b64encode(identity.sign(request.encode())).decode()

    answer = await http.post(
        "/v1/hosts/renew", json={"certificate": certificate, "request": request, "signature": signature}
    )

    assert answer.status_code == 401
    assert "revoked" in answer.json()["detail"]
