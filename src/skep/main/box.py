"""The hosts of a data centre in a box: `skep up --hosts 6 --zones 3`.

Each has an address on an underlay of its own, an agent process, a pool, a bridge for each network, and joins
as a machine elsewhere would.  Agents are nobody's children: they go on when control ends, as machines do.
"""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import structlog

from skep.agent.joined import agent_directory, is_joined
from skep.configuration import Configuration
from skep.model.errors import HostFailure, InvalidInput
from skep.model.ids import Bytes, HostName, ZoneName
from skep.model.views import JoinTokenCreated
from skep.providers.box.broker import stop_broker
from skep.providers.box.underlay import Underlay

log = structlog.get_logger("skep.box")

MOST_HOSTS = 200
POOL = Bytes(20 * 1024**3)
_PATIENCE = 30.0
"""Seconds that an agent has to end when it is asked."""


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """How many hosts in how many zones; DATA/box.json remembers it."""

    hosts: int
    zones: int = 1

    def members(self) -> Iterator[tuple[int, HostName, ZoneName]]:
        """Numbers from 1, dealt out to the zones in turn."""
        for number in range(1, self.hosts + 1):
            yield number, HostName(f"host-{number}"), self.zone(1 + (number - 1) % self.zones)

    @staticmethod
    def zone(number: int) -> ZoneName:
        return ZoneName(f"zone-{number}")


def layout(settings: Configuration) -> Layout | None:
    """What is asked for, else what there is; None: this installation is no box.

    Raises:
        InvalidInput: the number of hosts or zones makes no sense, or there are more hosts already.
    """
    path = settings.data / "box.json"
    known = msgspec.json.decode(path.read_bytes(), type=Layout) if path.exists() else None
    if not settings.box_hosts:
        return known
    wanted = Layout(hosts=settings.box_hosts, zones=settings.box_zones or (known.zones if known else 1))
    if not 0 < wanted.zones <= wanted.hosts <= MOST_HOSTS:
        raise InvalidInput(f"A box has 1 to {MOST_HOSTS} hosts, and no more zones than hosts.")
    if known is not None and (wanted.hosts < known.hosts or wanted.zones != known.zones):
        raise InvalidInput(
            f"The box has {known.hosts} hosts in {known.zones} zones: it can get more hosts, but not fewer "
            "(skep host drain, skep host rm), nor other zones."
        )
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.write_bytes(msgspec.json.encode(wanted))
    return wanted


def broker_directory(settings: Configuration) -> Path:
    """Beside the data, which is for root only: the broker has a user of its own."""
    return settings.data.with_name(f"{settings.data.name}-broker")


class Box:
    """The hosts of an installation on this machine."""

    def __init__(self, settings: Configuration, layout: Layout, underlay: Underlay) -> None:
        self.settings = settings
        self.layout = layout
        self.underlay = underlay

    async def join(self, number: int, host: HostName, token: JoinTokenCreated) -> None:
        """As an operator would, with the command that `skep host add` prints."""
        skep = str(Path(sys.executable).with_name("skep"))
        words = ["--ca", token.authority, "--address", str(self.underlay.address(number))]
        await self._inside(
            number, host, [skep, "agent", "join", token.url, *words], SKEP_JOIN_TOKEN=token.secret
        )

    def has_joined(self, host: HostName) -> bool:
        return is_joined(agent_directory(self._home(host) / "etc"))

    def start(self, number: int, host: HostName) -> None:
        """Start its agent, unless it runs."""
        if self.pid(host) is not None:
            return
        home = self._home(host)
        with (home / "agent.log").open("ab") as output:
            subprocess.Popen(
                [*self._enter(host), sys.executable, "-m", "skep.main", "agent"],
                env=self._environment(number, host),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
            )

    def pid(self, host: HostName) -> int | None:
        """Of its agent, if that runs."""
        try:
            pid = int((self._run(host) / "skep.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if b"skep.main\0agent" in command else None

    async def stop(self, host: HostName, patience: float = _PATIENCE) -> None:
        """End its agent; containers go on."""
        deadline = time.monotonic() + patience
        while (pid := self.pid(host)) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            await asyncio.sleep(0.1)

    async def tear_down(self, *, purge: bool) -> None:
        """End every agent with its containers; with `purge` nothing of the box is left."""
        for number, host, _ in self.layout.members():
            await self.stop(host)
            if self.underlay.namespace(host).exists():
                await self._inside(
                    number, host, [sys.executable, "-m", "skep.main", "purge" if purge else "down"]
                )
        broker = broker_directory(self.settings)
        await stop_broker(broker)
        if purge:
            shutil.rmtree(broker, ignore_errors=True)
        await self.underlay.remove()

    async def _inside(self, number: int, host: HostName, command: list[str], **variables: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._enter(host),
            *command,
            env=self._environment(number, host) | variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise HostFailure(f"{host}: {said.decode(errors='replace').strip()[-500:]}")

    def _enter(self, host: HostName) -> list[str]:
        return ["nsenter", f"--net={self.underlay.namespace(host)}"]

    def _home(self, host: HostName) -> Path:
        return self.settings.data / "hosts" / host

    def _run(self, host: HostName) -> Path:
        return self.settings.run / "hosts" / host

    def _environment(self, number: int, host: HostName) -> dict[str, str]:
        """What distinguishes the host from the machine it is on."""
        home = self._home(host)
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        own = {
            "SKEP_INSTANCE": f"{self.settings.instance}-{number}",
            "SKEP_DATA": str(home / "data"),
            "SKEP_RUN": str(self._run(host)),
            "SKEP_ETC": str(home / "etc"),
            "SKEP_HOST": host,
            "SKEP_UNDERLAY": str(self.underlay.address(number)),
            "SKEP_POOL_SIZE": str(min(self.settings.pool_size, POOL)),
        }
        return {name: value for name, value in os.environ.items() if not name.startswith("SKEP_")} | own
