"""A whole data centre of real processes, to be killed: workers, API processes and agents on one PostgreSQL
and one RabbitMQ.

Every agent is in the network namespace of a host of its own, on an underlay whose cables can be pulled.  The
processes are as an operator would start them: by the command line, each with its own SKEP_* and directories.
"""

import asyncio
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.bus import broker as brokers
from tests.bus.broker import Broker
from tests.cluster.members import UP, Api, Member
from tests.cluster.server import JSON, MAIN
from tests.flow import postgresql
from tests.flow.postgresql import Cluster
from tests.machines import traces

from skep.model.ids import HostName
from skep.providers.box.underlay import Underlay
from skep.trust.api_contexts import verifying

_HOSTS = "host-{}"


class DataCentre:
    """Everything, by name; see `data_centre`."""

    def __init__(
        self, folder: Path, underlay: Underlay, database: Cluster, broker: Broker, more: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.underlay = underlay
        self.database = database
        self.broker = broker
        self.more = more
        self.instance = f"t{secrets.token_hex(2)}"
        self.apis: list[Api] = []
        self.workers: list[Member] = []
        self.agents: dict[HostName, Member] = {}
        self.numbers: dict[HostName, int] = {}

    @property
    def members(self) -> list[Member]:
        return [*self.apis, *self.workers, *self.agents.values()]

    @property
    def database_url(self) -> str:
        return self.database.of("skep")

    def variables(self, name: str) -> dict[str, str]:
        """What every process of control is told."""
        return {
            "SKEP_INSTANCE": f"{self.instance}-{name}",
            "SKEP_DATABASE": self.database_url,
            "SKEP_BUS": self.broker.url,
            "SKEP_BUS_MANAGEMENT": self.broker.management,
            "SKEP_DEFAULT_DISK": "64MiB",
            "SKEP_DEFAULT_MEMORY": "64MiB",
            **self.more,
        }

    def add_api(self, number: int) -> Api:
        name = f"serve-{number}"
        listen = f"{self.underlay.gateway}:{free_port(self.underlay.gateway)}"
        api = Api(name, "serve", self.folder / name, self.variables(name) | {"SKEP_LISTEN": listen})
        api.url = f"https://{listen}"
        self._share_key(api)
        self.apis.append(api)
        return api

    def add_worker(self, number: int, **more: str) -> Member:
        name = f"worker-{number}"
        worker = Member(name, "worker", self.folder / name, self.variables(name) | more)
        self._share_key(worker)
        self.workers.append(worker)
        return worker

    async def add_host(self, number: int) -> Member:
        """A new host: its namespace, what `skep host add` prints done in it, its agent not yet started."""
        name = HostName(_HOSTS.format(number))
        await self.underlay.make([(number, name)])
        enter = ["nsenter", f"--net={self.underlay.namespace(name)}"]
        own = {
            "SKEP_INSTANCE": f"{self.instance}-{number}",
            "SKEP_HOST": name,
            "SKEP_UNDERLAY": str(self.underlay.address(number)),
            "SKEP_POOL_SIZE": "1GiB",
            **self.more,
        }
        agent = Member(name, "agent", self.folder / name, own, enter)
        self.agents[name], self.numbers[name] = agent, number
        token = await self.ask("POST", "/hosts/join-tokens", json={"zone": "zone-1", "host": name})
        skep = str(Path(sys.executable).with_name("skep"))
        words = ["--ca", token["authority"], "--address", own["SKEP_UNDERLAY"]]
        await run(
            [*enter, skep, "agent", "join", token["url"], *words],
            agent.environment | {"SKEP_JOIN_TOKEN": token["secret"]},
        )
        return agent

    async def ask(self, method: str, path: str, *, api: int = 0, **arguments: object) -> JSON:
        """The answer of that API process, decoded; a problem is an AssertionError."""
        response = await self.apis[api].client.request(method, path, **arguments)  # type: ignore[arg-type]
        assert response.status_code < 400, f"{method} {path}: {response.status_code} {response.text}"
        answer: JSON = response.json() if response.content else {}
        return answer

    async def run_of(self, accepted: JSON, timeout: float = 60) -> JSON:
        """The run that was accepted, once it has ended."""
        deadline = time.monotonic() + timeout
        view: JSON = {}
        while time.monotonic() < deadline:
            view = (await self.ask("GET", f"/runs/{accepted['run']}"))["run"]
            if view["state"] in ENDED:
                return view
            await asyncio.sleep(0.1)
        raise AssertionError(f"run {view} did not end\n{self.said()}")

    async def load(self, archive: Path, reference: str = "busybox:1") -> None:
        path = f"/images/import?reference={reference}&shared=true"
        run_ = await self.run_of(await self.ask("POST", path, content=archive.read_bytes()))
        assert run_["state"] == "succeeded", run_["error"]

    async def until_hosts_answer(self) -> None:
        deadline = time.monotonic() + UP
        while time.monotonic() < deadline:
            rows = await self.ask("GET", "/hosts")
            if [row["state"] for row in rows] == ["ready"] * len(self.agents):  # type: ignore[index]
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"hosts do not answer: {rows}\n{self.said()}")

    def said(self) -> str:
        return "\n".join(member.said() for member in self.members)

    # what is really there

    def containers(self, host: HostName) -> set[str]:
        return {path.name for path in (self.agents[host].folder / "data/containers").glob("*")}

    def sandboxes(self, host: HostName) -> set[str]:
        return {path.name for path in Path("/run/netns").glob(f"{self.instance}-{self.numbers[host]}-r-*")}

    def disks(self, host: HostName) -> set[str]:
        return {path.name for path in (self.agents[host].folder / "data/pool/disks").glob("[0-9a-z]*")}

    def cgroups(self, host: HostName) -> set[str]:
        found = Path("/sys/fs/cgroup").glob(f"*/{self.instance}-{self.numbers[host]}/[0-9]*")
        return {path.name for path in found}

    def mounts(self, host: HostName) -> set[str]:
        """Of containers."""
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return {line.split()[4] for line in lines if str(self.agents[host].folder / "run") in line}

    # the end

    async def close(self) -> None:
        """Nothing of it is left, whatever state it is in."""
        for member in self.members:
            member.end()
        for api in self.apis:
            if hasattr(api, "client"):
                await api.client.aclose()
        purges = [run([*agent.prefix, *MAIN, "purge"], agent.environment) for agent in self.agents.values()]
        await asyncio.gather(*purges)
        await self.underlay.remove()

    def _share_key(self, member: Member) -> None:
        """The file that every machine of the control plane must have."""
        key = member.folder / "etc/installation.key"
        if self.apis and self.apis[0] is not member and not key.exists():
            key.write_bytes((self.apis[0].folder / "etc/installation.key").read_bytes())
            key.chmod(0o600)


ENDED = ("succeeded", "failed", "cancelled", "needs-operator")


@asynccontextmanager
async def data_centre(
    folder: Path, *, hosts: int = 3, workers: int = 3, apis: int = 2, more: Mapping[str, str] = {}
) -> AsyncIterator[DataCentre]:
    """Up and answering; afterwards nothing of it is left.  `more`: what all processes are told."""
    subnet = free_subnet()
    async with Underlay(f"t{secrets.token_hex(2)}", subnet) as underlay:
        await underlay.make([])
        try:
            with postgresql.serve() as database, brokers.serve(str(underlay.gateway)) as broker:
                connection = await database.connect()
                await connection.execute("CREATE DATABASE skep")
                await connection.close()
                centre = DataCentre(folder, underlay, database, broker, more)
                try:
                    await _raise(centre, hosts, workers, apis)
                    yield centre
                finally:
                    await centre.close()
        finally:
            await underlay.remove()
    left = [line for number in range(1, hosts + 1) for line in traces(f"{centre.instance}-{number}", folder)]
    assert left == []


async def _raise(centre: DataCentre, hosts: int, workers: int, apis: int) -> None:
    first = centre.add_api(1)
    first.start()
    await _installed(first)
    token = (first.folder / "etc/admin.token").read_text().strip()
    context = verifying((first.folder / "etc/authority.pem").read_text())
    for number in range(2, apis + 1):
        centre.add_api(number).start()
    for number in range(1, workers + 1):
        centre.add_worker(number).start()
    for api in centre.apis:
        api.connect(token, context)
    for api in centre.apis:
        await api.until_it_answers()
    await asyncio.gather(*(centre.add_host(number) for number in range(1, hosts + 1)))
    for agent in centre.agents.values():
        agent.start()
    await centre.until_hosts_answer()


async def _installed(api: Api) -> None:
    """The first process has made what the others need."""
    deadline = time.monotonic() + UP
    needed = [api.folder / "etc" / name for name in ("admin.token", "authority.pem", "installation.key")]
    while not all(path.exists() and path.read_bytes() for path in needed):
        if not api.alive or time.monotonic() > deadline:
            raise AssertionError(api.said())
        await asyncio.sleep(0.05)


async def run(command: list[str], environment: Mapping[str, str]) -> None:
    """Raises AssertionError with what it said."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, f"{command}: {said.decode(errors='replace')[-2000:]}"


def free_port(address: IPv4Address) -> int:
    """One that stays free while a process is down: outside of the range the kernel deals out."""
    while True:
        port = 20_000 + secrets.randbelow(10_000)
        with socket.socket() as found:
            try:
                found.bind((str(address), port))
            except OSError:
                continue
            return port


def free_subnet() -> IPv4Network:
    used = subprocess.run(["ip", "-o", "-4", "addr"], capture_output=True, text=True, check=True).stdout
    while f" {(subnet := IPv4Network(f'198.18.{100 + secrets.randbelow(150)}.0/24'))[1]}/" in used:
        pass
    return subnet
