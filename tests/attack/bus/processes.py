"""Processes of an installation on a bus that they share, one of whose hosts was taken over.

The attacker has what `host-1` had: its account on the bus, its key and its certificate.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import msgspec
from tests.trust.conftest import enrol

from skep.bus.bus import Bus, Message
from skep.bus.calls import Call, encode
from skep.bus.client import CallClient, Pace
from skep.bus.inprocess import InProcessBus
from skep.bus.methods import Methods
from skep.bus.server import CallServer
from skep.bus.signing import SignedBus
from skep.model.ids import new_id
from skep.trust.authority import Authority
from skep.trust.peers import Role
from skep.trust.signatures import Signatures

QUICK = Pace(first=0.3, longest=0.5, patience=1.0)


class Jars(Protocol):
    async def open(self, jar: str) -> str: ...


class RealJars:
    """What a host does when it is told."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    async def open(self, jar: str) -> str:
        self.opened.append(jar)
        return f"{jar} of this host"


class Installation:
    """`wire` is the bus as whoever has an account may use it.  `signed=False`: without the defence."""

    def __init__(self, folder: Path, *, signed: bool) -> None:
        self.folder = folder
        self.wire = InProcessBus()
        self.signed = signed
        self.authority = Authority.make("inst1", time.time())

    def as_process(
        self,
        role: Role,
        name: str,
        *,
        of: Authority | None = None,
        now: Callable[[], float] = time.time,
    ) -> Bus:
        """The bus as a process with this certificate signs on it, and checks what it hears."""
        if not self.signed:
            return self.wire
        authority = of or self.authority
        identity = enrol(authority, self.folder / f"{authority.fingerprint[-6:]}-{role}-{name}", role, name)
        return SignedBus(self.wire, Signatures(identity), now=now)

    @asynccontextmanager
    async def host(self, name: str, now: Callable[[], float] = time.time) -> AsyncIterator[RealJars]:
        """A host that serves; what it does."""
        jars, methods = RealJars(), Methods("1")
        methods.add("jars", Jars, jars)
        async with CallServer(self.as_process(Role.AGENT, name, now=now), f"agent.{name}", methods):
            yield jars

    @asynccontextmanager
    async def control(self) -> AsyncIterator[CallClient]:
        async with CallClient(self.as_process(Role.WORKER, "worker-1"), "worker-1", pace=QUICK) as calls:
            yield calls


async def open_jar(control: CallClient, host: str, jar: str = "honey") -> str:
    return await control.tell(f"agent.{host}", "jars.open", str, {"jar": jar})


def command(jar: str) -> Message:
    """As control would send it, but for a signature."""
    call = Call(
        id=new_id(),
        method="jars.open",
        arguments=msgspec.Raw(encode({"jar": jar})),
        version="1",
        command=True,
    )
    return Message(id=call.id, body=encode(call))
