"""What is released: a web server that says which revision it is (`REVISION`).

`/` answers at once (every tenth time with 500 where `BROKEN` is set), `/download` for a while (1 MB in
`seconds`), `/socket` is a WebSocket that echoes.
"""

import asyncio
import itertools
import os

from aiohttp import web  # Debian's, in the container

REVISION = os.environ["REVISION"]
_count = itertools.count()


async def answer(request: web.Request) -> web.Response:
    broken = "BROKEN" in os.environ and next(_count) % 10 == 0
    return web.Response(text=REVISION, headers={"X-Revision": REVISION}, status=500 if broken else 200)


async def download(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"X-Revision": REVISION})
    await response.prepare(request)
    for _ in range(100):
        await response.write(b"x" * 10_000)
        await asyncio.sleep(float(request.query.get("seconds", "10")) / 100)
    await response.write_eof()
    return response


async def socket(request: web.Request) -> web.WebSocketResponse:
    response = web.WebSocketResponse()
    await response.prepare(request)
    async for message in response:
        await response.send_str(f"{REVISION} {message.data}")
    return response


def main() -> None:
    app = web.Application()
    app.add_routes([web.get("/", answer), web.get("/download", download), web.get("/socket", socket)])
    web.run_app(app, port=8080, access_log=None, print=None)


if __name__ == "__main__":
    main()
