"""Looks at clusters before they become zones, and leaves them again."""

import contextlib

from skep.model.clusters import ClusterAccess, ClusterLook
from skep.model.errors import InvalidInput, Unauthenticated
from skep.model.images import RegistryCredentials
from skep.model.views.clusters import ClusterCheck
from skep.providers.kubernetes.joining import rights
from skep.providers.local.images.repository import Repository


class Clusters:
    """Satisfies control's port of the same name.  `insecure`: registries that may speak plain HTTP."""

    def __init__(self, insecure: tuple[str, ...] = ()) -> None:
        self._insecure = insecure

    async def check(self, kubeconfig: str, context: str | None = None) -> ClusterCheck:
        return (await self.look(kubeconfig, context)).check

    async def look(self, kubeconfig: str, context: str | None = None) -> ClusterLook:
        # Few installations ever ask: the client of clusters is not loaded at every start.
        from skep.providers.kubernetes.client import access
        from skep.providers.kubernetes.joining import facts
        from skep.providers.kubernetes.joining.judging import judge, usable
        from skep.providers.kubernetes.joining.lacking import lacking

        config = access.read(kubeconfig, context)
        async with contextlib.AsyncExitStack() as stack:
            client, documents = access.connect(config)
            await stack.enter_async_context(client)
            await stack.enter_async_context(documents)
            found = await facts.ask(client, documents)
        findings = judge(found)
        check = ClusterCheck(
            server=config.cluster.server,
            version=".".join(map(str, found.version)),
            usable=usable(findings),
            findings=findings,
        )
        return ClusterLook(
            check=check, facts=found.machine, lacks=lacking(found), ranges=found.addressing.ranges
        )

    async def check_registry(self, place: str, credentials: RegistryCredentials | None) -> None:
        try:
            await Repository(place, credentials, self._insecure).images()
        except Unauthenticated as error:
            raise InvalidInput(error.message) from error

    async def leave(self, cluster: ClusterAccess) -> None:
        from skep.providers.kubernetes.joining import leaving

        await leaving.leave(cluster)

    def rights(self) -> str:
        return rights.manifest()
