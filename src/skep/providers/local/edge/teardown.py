"""Taking the edge of an instance off the machine, whether or not skep runs."""

import shutil
from pathlib import Path

from skep.providers.local.edge.place import Place
from skep.providers.local.edge.process import end_all


async def teardown(instance: str, data: Path, *, purge: bool = False) -> None:
    """End every HAProxy of it, whatever its connections.  What control said stays, unless it is purged."""
    place = Place.of(instance)
    await end_all(place)
    place.remove()
    if purge:
        shutil.rmtree(data / "edge", ignore_errors=True)
