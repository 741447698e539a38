"""How many requests of one tenant may be under way: a stream that is followed is one until it ends."""

from collections import Counter

from litestar.types import ASGIApp, Receive, Scope, Send

from skep.api.errors import TooMany
from skep.model.ids import TenantId

AT_ONCE = 256


class Crowd:
    """The requests under way, by tenant; one for all routes."""

    def __init__(self) -> None:
        self.inside: Counter[TenantId] = Counter()

    def enter(self, tenant: TenantId) -> None:
        """Raises TooMany: the tenant has as many as it may."""
        if self.inside[tenant] >= AT_ONCE:
            raise TooMany(
                f"Your tenant has {AT_ONCE} requests under way already: end some of the streams you follow."
            )
        self.inside[tenant] += 1

    def leave(self, tenant: TenantId) -> None:
        self.inside[tenant] -= 1
        if not self.inside[tenant]:
            del self.inside[tenant]


class CrowdControl:
    """Comes after authentication; who needs no token is not counted."""

    def __init__(self, app: ASGIApp, crowd: Crowd) -> None:
        self._app = app
        self._crowd = crowd

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope.get("user")
        if caller is None:
            await self._app(scope, receive, send)
            return
        self._crowd.enter(caller.tenant)
        try:
            await self._app(scope, receive, send)
        finally:
            self._crowd.leave(caller.tenant)
