"""Streams, uploads and exec, over real connections."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from httpx_sse import aconnect_sse
from tests.api.fake_control import FakeControl
from tests.api.test_resources import SHOP
from websockets.asyncio.client import ClientConnection, connect

from skep.api import log_merge, uploads
from skep.model.host import LogLine
from skep.streams import pump


def line(number: int, text: str = "") -> LogLine:
    return LogLine(
        time=f"2026-01-01T00:00:{number:02d}.000000000Z", stream="stdout", text=text or str(number)
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
async def shop(client: httpx.AsyncClient) -> str:
    return str((await client.post("/v1/apps/shop/releases", json=SHOP)).json()["run"])


async def test_a_run_is_followed_to_its_end(client: httpx.AsyncClient, shop: str) -> None:
    async with aconnect_sse(client, "GET", f"/v1/runs/{shop}/events") as source:
        events = [event async for event in source.aiter_sse()]

    assert events[0].event == "run-started"
    assert events[-2].event == "run-succeeded"
    assert events[-1].event == "end"
    assert [int(event.id) for event in events[:-1]] == list(range(1, len(events)))


async def test_a_client_that_reconnects_misses_nothing(client: httpx.AsyncClient, shop: str) -> None:
    headers = {"Last-Event-ID": "3"}

    async with aconnect_sse(client, "GET", f"/v1/runs/{shop}/events", headers=headers) as source:
        events = [event async for event in source.aiter_sse()]

    assert events[0].id == "4"


async def test_an_unknown_run_is_not_found_before_the_stream_begins(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/runs/nope/events")).status_code == 404
    assert (await client.get("/v1/apps/nope/logs")).status_code == 404


async def test_runs_are_cancelled_and_resolved(
    client: httpx.AsyncClient, shop: str, control: FakeControl
) -> None:
    assert (await client.post(f"/v1/runs/{shop}/cancel")).status_code == 204
    resolve = f"/v1/runs/{shop}/steps/web-0.start/resolve"
    assert (await client.post(resolve, json={"choice": "retry"})).status_code == 204
    assert (await client.post(resolve, json={"choice": "hope"})).status_code == 422
    assert control.world.resolved == [(shop, "web-0.start", "retry")]


async def test_a_silent_stream_is_kept_alive(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "KEEP_ALIVE", 0.05)

    async with client.stream("GET", "/v1/events") as answer:
        lines = answer.aiter_lines()
        async with asyncio.timeout(5):
            seen = [await anext(lines) for _ in range(12)]

    assert ": keep-alive" in seen


async def test_a_follower_that_goes_away_ends_its_generator(
    client: httpx.AsyncClient, control: FakeControl
) -> None:
    async with client.stream("GET", "/v1/events") as answer:
        await anext(answer.aiter_lines())
        await until(lambda: control.world.followers == 1)

    await until(lambda: control.world.followers == 0)


async def test_logs_of_a_replica_are_lines_of_json(
    client: httpx.AsyncClient, shop: str, control: FakeControl
) -> None:
    control.world.logs["web-0"] = [line(1), line(2)]

    answer = await client.get("/v1/apps/shop/replicas/web/logs?tail=1")

    assert [json.loads(text) for text in answer.text.splitlines()] == [
        {"replica": "web-0", "time": line(2).time, "stream": "stdout", "text": "2"}
    ]


async def test_logs_of_an_app_are_merged_by_time(
    client: httpx.AsyncClient, shop: str, control: FakeControl
) -> None:
    control.world.logs = {"web-0": [line(1), line(4)], "web-1": [line(2)], "db-0": [line(3), line(5)]}

    everything = await client.get("/v1/apps/shop/logs")
    web = await client.get("/v1/apps/shop/logs?service=web")

    assert [json.loads(text)["text"] for text in everything.text.splitlines()] == ["1", "2", "3", "4", "5"]
    assert [json.loads(text)["text"] for text in web.text.splitlines()] == ["1", "2", "4"]


async def test_followed_logs_take_up_replicas_that_come_later(
    client: httpx.AsyncClient, shop: str, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_merge, "LOOK_AGAIN", 0.05)
    control.world.logs["web-0"] = [line(1)]
    more = {**SHOP, "services": {"web": {"image": "web:1", "replicas": 3}}}

    async with aconnect_sse(client, "GET", "/v1/apps/shop/logs?follow=true") as source:
        events = source.aiter_sse()
        first = await anext(events)
        await client.post("/v1/apps/shop/releases", json=more)
        control.world.logs["web-2"] = [line(9)]
        async with asyncio.timeout(5):
            second = await anext(events)

    assert (first.json()["replica"], second.json()["replica"]) == ("web-0", "web-2")
    await until(lambda: control.world.followers == 0)


async def test_many_lines_arrive_whole(client: httpx.AsyncClient, shop: str, control: FakeControl) -> None:
    control.world.logs["web-0"] = [line(1, "x" * 100) for _ in range(20_000)]

    answer = await client.get("/v1/apps/shop/replicas/web-0/logs")

    assert len(answer.text.splitlines()) == 20_000


async def test_an_upload_is_streamed_to_the_spool(client: httpx.AsyncClient, control: FakeControl) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(64):
            yield b"x" * 65_536

    answer = await client.post("/v1/images/import?reference=big:1", content=body())

    assert answer.status_code == 202
    assert len(control.world.uploads["big:1"]) == 4 * 1024 * 1024
    assert list(control.world.spool.iterdir()) == []


async def test_an_upload_that_breaks_off_leaves_no_file(
    client: httpx.AsyncClient, control: FakeControl
) -> None:
    class Broken(Exception): ...

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 100_000
        await until(lambda: bool(list(control.world.spool.iterdir())))
        raise Broken

    with pytest.raises(Broken):
        await client.post("/v1/images/import?reference=big:1", content=body())

    await until(lambda: not list(control.world.spool.iterdir()))
    assert control.world.uploads == {}


async def test_an_upload_that_stands_still_is_dropped(
    url: str, control: FakeControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads.receive, "__kwdefaults__", {"limit": 1000, "patience": 0.1})
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/images/import HTTP/1.1\r\nHost: skep\r\nAuthorization: Bearer admin-secret\r\n"
        b"Content-Length: 100\r\n\r\nabc"
    )

    status = await asyncio.wait_for(reader.readline(), 5)

    assert b" 503 " in status
    assert list(control.world.spool.iterdir()) == []
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("body", [b"", b"x" * 2000])
async def test_an_upload_that_is_empty_or_too_large_is_refused(
    client: httpx.AsyncClient, control: FakeControl, body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads.receive, "__kwdefaults__", {"limit": 1000, "patience": 5})

    answer = await client.post("/v1/images/import", content=body)

    assert answer.status_code == (413 if body else 422)
    assert list(control.world.spool.iterdir()) == []


@pytest.fixture
async def socket(url: str, shop: str) -> AsyncIterator[ClientConnection]:
    address = url.replace("http", "ws") + "/v1/apps/shop/replicas/web-0/exec"
    async with connect(address, additional_headers={"Authorization": "Bearer member-secret"}) as one:
        yield one


async def test_exec_carries_both_streams_and_the_exit_code(socket: ClientConnection) -> None:
    await socket.send(json.dumps({"args": ["sh", "-c", "cat; echo err >&2; exit 7"], "stdin": True}))
    await socket.send(b"\x00hello")
    await socket.send(json.dumps({"eof": True}))

    messages = [message async for message in socket]

    assert messages == [b"\x01hello", b"\x02err\n", '{"exit":7}']


async def test_exec_with_a_terminal_follows_its_size(socket: ClientConnection) -> None:
    await socket.send(
        json.dumps(
            {"args": ["sh", "-c", "stty size; read x; stty size"], "tty": True, "stdin": True, "rows": 9}
        )
    )
    first = await socket.recv()
    await socket.send(json.dumps({"resize": [100, 30]}))
    await socket.send(b"\x00\n")

    rest = [message async for message in socket]

    assert first == b"\x019 80\r\n"
    assert b"30 100" in b"".join(part for part in rest if isinstance(part, bytes))
    assert rest[-1] == '{"exit":0}'


async def test_exec_in_a_replica_that_is_not_there_says_so(url: str, shop: str) -> None:
    address = url.replace("http", "ws") + "/v1/apps/shop/replicas/nope-0/exec"
    async with connect(address, additional_headers={"Authorization": "Bearer admin-secret"}) as socket:
        await socket.send(json.dumps({"args": ["true"]}))
        answer = json.loads(await socket.recv())

    assert answer["error"]["code"] == "not-found"


@pytest.mark.parametrize("first", ["{", '{"args": 5}', "[]"])
async def test_exec_wants_an_exec_spec_first(socket: ClientConnection, first: str) -> None:
    await socket.send(first)

    assert json.loads(await socket.recv())["error"]["code"] == "invalid-input"


async def test_a_client_that_goes_away_ends_the_process(
    socket: ClientConnection, tmp_path_factory: pytest.TempPathFactory
) -> None:
    await socket.send(json.dumps({"args": ["sh", "-c", "echo $$; exec sleep 600"]}))
    message = await socket.recv()
    assert isinstance(message, bytes)
    await socket.close()

    def gone() -> bool:
        from pathlib import Path

        return not Path(f"/proc/{int(message[1:])}").exists()

    await until(gone)
