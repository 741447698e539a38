"""Write the golden outputs anew: `python -m tests.cli.refresh_golden`; then read the difference."""

import asyncio
import tempfile
import threading
from pathlib import Path

from tests.api.conftest import serving
from tests.api.fake_control import FakeControl
from tests.cli.conftest import Skep
from tests.cli.test_commands import COMPOSE, GOLDEN, TABLES, without_ages


def _write(skep: Skep) -> None:
    (skep.directory / "compose.yaml").write_text(f"name: shop\n{COMPOSE}")
    (skep.directory / "web").mkdir()
    (skep.directory / "web" / "Dockerfile").write_text("FROM debian:bookworm\n")
    GOLDEN.joinpath("plan.txt").write_text(skep("plan").stdout)
    skep("apply")
    for name, arguments in TABLES.items():
        GOLDEN.joinpath(f"{name}.txt").write_text(without_ages(skep(*arguments).stdout))


async def _main(folder: Path) -> None:
    (folder / "spool").mkdir()
    (folder / "home").mkdir()
    control = FakeControl(folder / "spool")
    async with serving(control) as url:
        thread = threading.Thread(target=_write, args=(Skep(url, control.world, folder),))
        thread.start()
        await asyncio.to_thread(thread.join)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_main(Path(folder)))
