"""Those who use a data centre while it is being killed: they apply, scale and remove apps all the time.

A customer asks whichever API process it likes and asks another one when that does not answer.  Every answer
that was none is noted, to be held against the times at which the processes were down.
"""

import asyncio
import random
import time
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.cluster.datacentre import ENDED, DataCentre
from tests.cluster.members import Api
from tests.cluster.server import JSON

PATIENCE = 60.0
"""Seconds after which a customer gives up: nothing is to take so long."""
_REST = 0.2


@dataclass(frozen=True)
class Failure:
    """An answer that was none, or that says the server is at fault."""

    api: Api
    begun: float
    ended: float
    request: str
    reason: str

    @property
    def excused(self) -> bool:
        """The process that was asked was itself down."""
        return self.api.was_down(self.begun, self.ended)


@dataclass
class Client:
    """Asks until there is an answer."""

    centre: DataCentre
    chance: random.Random
    failures: list[Failure] = field(default_factory=list)
    asked: int = 0

    async def ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """The first answer that is one, be it a refusal."""
        deadline = time.monotonic() + PATIENCE
        while True:
            api = self.chance.choice(self.centre.apis)
            begun = time.monotonic()
            self.asked += 1
            try:
                answer = await api.client.request(method, path, **arguments)
            except httpx.HTTPError as error:
                reason = type(error).__name__
            else:
                if answer.status_code < 500:
                    return answer
                reason = f"{answer.status_code} {answer.json().get('detail', '')}"
            ended = time.monotonic()
            self.failures.append(Failure(api, begun, ended, f"{method} {path}", reason))
            assert ended < deadline, f"{method} {path}: nobody answers for {PATIENCE} s: {reason}"
            await asyncio.sleep(_REST)

    async def change(self, method: str, path: str, **arguments: Any) -> JSON | None:
        """Have it done and wait for the end of its run; None: there was nothing to do.

        An answer may have got lost, so a change that is refused because one is under way is asked for again
        when that has ended.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = await self.ask(method, path, **arguments)
            body: JSON = answer.json() if answer.content else {}
            if answer.status_code == 409 and (run := body.get("details", {}).get("run")):
                await self.ended(run)
            elif answer.status_code == 409:
                assert time.monotonic() < deadline, body
                await asyncio.sleep(_REST)
            elif answer.status_code == 404 and method == "DELETE":
                return None
            else:
                assert answer.status_code < 400, f"{method} {path}: {answer.status_code} {body}"
                return await self.ended(body["run"]) if body.get("run") else None

    async def ended(self, run: str) -> JSON:
        deadline = time.monotonic() + 2 * PATIENCE
        while True:
            view: JSON = (await self.ask("GET", f"/runs/{run}")).json()["run"]
            if view["state"] in ENDED:
                return view
            assert time.monotonic() < deadline, f"run {run} does not end: {view}"
            await asyncio.sleep(_REST)


@dataclass
class Customer:
    """Has one app, and knows how it is to be.  `wanted` None: removed."""

    client: Client
    name: str
    wanted: JSON | None = None
    changes: int = 0
    lost: list[str] = field(default_factory=list)
    """Changes that did not end as they should."""
    ended: list[float] = field(default_factory=list)

    async def shop(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.change_something()

    async def change_something(self) -> None:
        if self.wanted is not None and self.client.chance.random() < 0.25:
            await self.remove()
        else:
            await self.apply()

    async def apply(self) -> None:
        """Another release, which starts its container anew, with some number of replicas."""
        spec = self._spec(self.client.chance.randint(1, 3))
        await self._do("POST", f"/apps/{self.name}/releases", spec)

    async def remove(self) -> None:
        await self._do("DELETE", f"/apps/{self.name}?volumes=true", None)

    async def _do(self, method: str, path: str, wanted: JSON | None) -> None:
        self.changes += 1
        self.wanted = wanted
        run = await self.client.change(method, path, **({} if wanted is None else {"json": wanted}))
        if run is not None and run["state"] != "succeeded":
            self.lost.append(f"{run['title']}: {run['state']}: {run['error']}")
        self.ended.append(time.monotonic())

    def _spec(self, replicas: int) -> JSON:
        service = {
            "image": "busybox:1",
            "command": ["sh", "-c", "echo $N >> /data/starts; exec sleep 10000"],
            "environment": {"N": str(self.changes)},
            "stop_grace_period": 0.1,
            "replicas": replicas,
            "mounts": [{"type": "volume", "source": "data", "target": "/data"}],
        }
        scaled = {key: value for key, value in service.items() if key != "mounts"} | {
            "command": ["sleep", "10000"]
        }
        return {
            "name": self.name,
            "services": {"one": service | {"replicas": 1}, "many": scaled},
            "volumes": {"data": {}},
        }
