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
from contextlib import suppress
from pathlib import Path

import structlog

from skep.agent.joined import agent_directory, is_joined, was_removed
from skep.configuration import Configuration
from skep.main.layout import Layout, Member
from skep.model.errors import HostFailure
from skep.model.ids import Bytes, HostName
from skep.model.views.joining import JoinTokenCreated
from skep.providers.box.broker import stop_broker
from skep.providers.box.underlay import Underlay

log = structlog.get_logger("skep.box")

POOL = Bytes(20 * 1024**3)
_MAIN = (sys.executable, "-m", "skep.main")
_AT_ONCE = 4
"""Hosts that are taken down side by side."""
_PATIENCE = 30.0
"""Seconds that an agent has to end when it is asked."""


def broker_directory(settings: Configuration) -> Path:
    """Beside the data, which is for root only: the broker has a user of its own."""
    return settings.data.with_name(f"{settings.data.name}-broker")


class Box:
    """The hosts of an installation on this machine."""

    def __init__(self, settings: Configuration, layout: Layout, underlay: Underlay) -> None:
        self.settings = settings
        self.layout = layout
        self.underlay = underlay

    async def join(self, member: Member, token: JoinTokenCreated) -> None:
        """As an operator would, with the command that `skep host add` prints."""
        skep = str(Path(sys.executable).with_name("skep"))
        words = ["--ca", token.authority, "--address", str(self.underlay.address(member.number))]
        await self._inside(member, [skep, "agent", "join", token.url, *words], SKEP_JOIN_TOKEN=token.secret)

    def has_joined(self, host: HostName) -> bool:
        return is_joined(agent_directory(self._home(host) / "etc"))

    def was_removed(self, host: HostName) -> bool:
        return was_removed(agent_directory(self._home(host) / "etc"))

    def start(self, member: Member) -> None:
        """Start its agent, unless it runs."""
        if self.pid(member.host) is not None:
            return
        with (self._home(member.host) / "agent.log").open("ab") as output:
            subprocess.Popen(
                [*self._enter(member.host), *_MAIN, "agent"],
                env=self._environment(member),
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
        """End its agent, at once if it may take no time; containers go on."""
        deadline = time.monotonic() + patience
        while (pid := self.pid(host)) is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if time.monotonic() < deadline else signal.SIGKILL)
            await asyncio.sleep(0.05)

    async def cut_power(self, member: Member) -> None:
        """The host is gone at once with all that runs on it, and answers nobody.  Its disks stay."""
        await self.underlay.cut(member.number)
        await self.stop(member.host, patience=0)
        await self._inside(member, [*_MAIN, "down"])

    async def tear_down(self, *, purge: bool) -> None:
        """End every agent with its containers; with `purge` nothing of the box is left.

        Raises:
            HostFailure: something of a host is in the way; all others are gone.
        """
        members = [one for one in self.layout.members() if self._home(one.host).is_dir()]
        await self.underlay.make((one.number, one.host) for one in members)
        at_once = asyncio.Semaphore(_AT_ONCE)
        ends = [self._end(one, at_once, "purge" if purge else "down") for one in members]
        outcomes = await asyncio.gather(*ends, return_exceptions=True)
        broker = broker_directory(self.settings)
        await stop_broker(broker)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
        if purge:
            shutil.rmtree(broker, ignore_errors=True)
        await self.underlay.remove()

    async def _end(self, member: Member, at_once: asyncio.Semaphore, verb: str) -> None:
        async with at_once:
            await self.stop(member.host)
            await self._inside(member, [*_MAIN, verb])

    async def _inside(self, member: Member, command: list[str], **variables: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *self._enter(member.host),
            *command,
            env=self._environment(member) | variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await process.communicate()
        if process.returncode:
            raise HostFailure(f"{member.host}: {said.decode(errors='replace').strip()[-500:]}")

    def _enter(self, host: HostName) -> list[str]:
        return ["nsenter", f"--net={self.underlay.namespace(host)}"]

    def _home(self, host: HostName) -> Path:
        return self.settings.data / "hosts" / host

    def _run(self, host: HostName) -> Path:
        return self.settings.run / "hosts" / host

    def _environment(self, member: Member) -> dict[str, str]:
        """What distinguishes the host from the machine it is on."""
        number, host = member.number, member.host
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
