"""Looks at clusters before they become zones."""

import contextlib

from skep.model.views.clusters import ClusterCheck
from skep.providers.kubernetes import rights


class Clusters:
    """Satisfies control's port of the same name."""

    async def check(self, kubeconfig: str, context: str | None = None) -> ClusterCheck:
        # Few installations ever ask: the client of clusters is not loaded at every start.
        from skep.providers.kubernetes import access, facts
        from skep.providers.kubernetes.judging import judge, usable

        config = access.read(kubeconfig, context)
        async with contextlib.AsyncExitStack() as stack:
            client, documents = access.connect(config)
            await stack.enter_async_context(client)
            await stack.enter_async_context(documents)
            found = await facts.ask(client, documents)
        findings = judge(found)
        return ClusterCheck(
            server=config.cluster.server,
            version=".".join(map(str, found.version)),
            usable=usable(findings),
            findings=findings,
        )

    def rights(self) -> str:
        return rights.manifest()
