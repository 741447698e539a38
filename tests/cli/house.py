"""A whole control on a simulated host, served to commands of the same process."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.api.conftest import serving
from tests.cli import errands
from tests.cli.conftest import Skep
from tests.control.installation import Installation, installation

from skep.cli.client import Client
from skep.cli.settings import Context
from skep.control.control import Control

T = TypeVar("T")


class House(Skep):
    """The command, acting as the admin; `made` lives in another thread, in `loop`."""

    made: Installation
    loop: asyncio.AbstractEventLoop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Something that is done in the server itself."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def until(self, run: str, kind: str, step: str | None = None) -> None:
        """Follow the run until this has happened."""
        client = Client(Context(url=self.url, token=self.token))
        for event in client.run_events(run):
            if event.kind == kind and step in (None, event.step):
                return
        raise AssertionError(f"{run} ended without {kind}")

    def start(self, flow: str, *inputs: str) -> str:  # type: ignore[override]
        """Begin a run; answers its id."""
        given = [word for value in inputs for word in ("--input", value)]
        done = self("flow", "start", flow, *given, "--no-wait")
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def member(self, name: str, tenant: str = "default") -> str:
        """The token of a new member."""
        assert self("user", "create", name, "--of", tenant).returncode == 0
        return self("token", "create", "login", "--user", name).stdout.strip()


class _Served:
    def __init__(self, control: Control) -> None:
        self._control = control

    def as_control(self) -> Control:
        return self._control


@contextmanager
def housed(folder: Path) -> Iterator[House]:
    """Serve it from a thread of its own until the test is over."""
    for name in ("home", "etc"):
        (folder / name).mkdir()
    opened: asyncio.Queue[None] = asyncio.Queue()
    ready, found, failed = threading.Event(), [], []

    async def serve() -> None:
        try:
            async with (
                installation(folder, errands.registry()) as made,
                serving(_Served(made.control)) as url,
            ):
                secret = (folder / "admin.token").read_text().strip()
                house = House(url, None, folder, secret)  # type: ignore[arg-type]  # a world of its own
                house.made, house.loop = made, asyncio.get_running_loop()
                found.append(house)
                ready.set()
                await opened.get()
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            ready.set()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(30)
    if not found:
        thread.join()
        raise failed[0]
    try:
        yield found[0]
    finally:
        found[0].loop.call_soon_threadsafe(opened.put_nowait, None)
        thread.join(30)
