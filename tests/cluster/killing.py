"""Who kills what of a data centre, and how long it takes until things go on."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.cluster.customers import Client
from tests.cluster.datacentre import DataCentre
from tests.cluster.members import Api, Member

from skep.model.ids import HostName

RESTART = 1.0
"""Seconds after which somebody starts again what died, as systemd would (`RestartSec`)."""


@dataclass(frozen=True)
class Recovery:
    """`took`: seconds from the kill (from the mending of a cable) to the next effect that needs what died."""

    kind: str
    victim: str
    took: float


@dataclass
class Killer:
    """`probes`: an app on each host that is restarted to see whether things go on."""

    centre: DataCentre
    client: Client
    chance: random.Random
    recoveries: list[Recovery] = field(default_factory=list)

    @property
    def kinds(self) -> dict[str, Callable[[], Awaitable[None]]]:
        return {
            "worker": self.worker,
            "api": self.api,
            "agent": self.agent,
            "broker": self.broker,
            "database": self.database,
            "partition": self.partition,
        }

    async def prepare(self) -> None:
        """An app on each host, whose restart shows that control, bus and host do what is asked."""
        await asyncio.gather(*(self._probe_on(host) for host in self.centre.agents))

    async def worker(self) -> None:
        worker = self.chance.choice(self.centre.workers)
        await self._kill("worker", worker, self._any_host())

    async def api(self) -> None:
        api = self.chance.choice(self.centre.apis)
        await self._kill("api", api, self._any_host())

    async def agent(self) -> None:
        host = self._any_host()
        await self._kill("agent", self.centre.agents[host], host)

    async def broker(self) -> None:
        await self._restart("broker", self.centre.broker.kill, self.centre.broker.start)

    async def database(self) -> None:
        await self._restart("database", self.centre.database.kill, self.centre.database.start)

    async def partition(self) -> None:
        host = self._any_host()
        number = self.centre.numbers[host]
        await self.centre.underlay.cut(number)
        asked = asyncio.create_task(self._effect_on(host))
        await asyncio.sleep(self.chance.uniform(2, 6))
        await self.centre.underlay.mend(number)
        mended = time.monotonic()
        await asked
        self._note("partition", host, mended)

    async def _kill(self, kind: str, victim: Member, host: HostName) -> None:
        begun = time.monotonic()
        victim.kill()
        raising = asyncio.create_task(self._raise(victim))
        await self._effect_on(host)
        self._note(kind, victim.name, begun)
        await raising

    async def _raise(self, victim: Member) -> None:
        await asyncio.sleep(RESTART)
        victim.start()
        if isinstance(victim, Api):
            await victim.until_it_answers()

    async def _restart(self, kind: str, kill: Callable[[], None], start: Callable[[], None]) -> None:
        begun = time.monotonic()
        await asyncio.to_thread(kill)
        host = self._any_host()
        asked = asyncio.create_task(self._effect_on(host))
        await asyncio.to_thread(start)
        self._note(f"{kind} (its own start)", kind, begun)
        up = time.monotonic()
        await asked
        self._note(kind, kind, up)

    async def _effect_on(self, host: HostName) -> None:
        """Something asked for now is done on the host."""
        run = await self.client.change("POST", f"/apps/probe-{host}/restart")
        assert run, "there was nothing to restart"
        assert run["state"] == "succeeded", run["error"]

    async def _probe_on(self, host: HostName) -> None:
        service = {
            "image": "busybox:1",
            "command": ["sleep", "10000"],
            "stop_grace_period": 0.1,
            "placement": {"constraints": [f"node.hostname == {host}"]},
        }
        name = f"probe-{host}"
        spec = {"name": name, "services": {"it": service}}
        run = await self.client.change("POST", f"/apps/{name}/releases", json=spec)
        assert run, "the probe was there already"
        assert run["state"] == "succeeded", run["error"]

    def _any_host(self) -> HostName:
        return self.chance.choice(sorted(self.centre.agents))

    def _note(self, kind: str, victim: str, since: float) -> None:
        self.recoveries.append(Recovery(kind, victim, time.monotonic() - since))
