"""The broker of a data centre in a box: `scripts/rabbitmq`, which comes with a checkout of skep."""

import asyncio
import subprocess
from ipaddress import IPv4Address
from pathlib import Path

import skep
from skep.model.errors import Unavailable

SCRIPT = Path(skep.__file__).parents[2] / "scripts" / "rabbitmq"


async def start_broker(directory: Path, address: IPv4Address) -> str:
    """Start it if it is down; answers its URL.

    Raises:
        Unavailable: it does not start, or this is no checkout.
    """
    return await _script("start", str(directory), str(address))


async def management_of(directory: Path) -> str:
    """The URL of its management API.  Raises Unavailable: it was never started."""
    return await _script("management", str(directory))


async def stop_broker(directory: Path) -> None:
    """One that was never started is success; one whose script is gone is left alone."""
    if directory.exists() and SCRIPT.exists():
        await _script("stop", str(directory))


async def _script(*words: str) -> str:
    if not SCRIPT.exists():
        raise Unavailable(
            f"{SCRIPT} is not here, so no broker can be started: set 'bus' to the URL of one, or run skep "
            "from a checkout."
        )
    # Not by asyncio: uvloop leaves its ends of the pipes to the broker, which keeps them, and so us waiting.
    done = await asyncio.to_thread(_run, words)
    if done.returncode:
        raise Unavailable(f"The broker does not start: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def _run(words: tuple[str, ...]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [SCRIPT, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
