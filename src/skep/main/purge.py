"""Forgets an installation: what it has in clusters, then all that is on this machine."""

from skep.configuration import Configuration
from skep.main.leaving_clusters import leave_clusters
from skep.main.process import alone
from skep.main.teardown import tear_down
from skep.providers.kubernetes import Clusters


async def run(settings: Configuration) -> None:
    """The server must have ended."""
    with alone(settings):
        await leave_clusters(settings, Clusters(settings.insecure_registries))
    await tear_down(settings, purge=True)
