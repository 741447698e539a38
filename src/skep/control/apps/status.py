"""How an app is: its last release on its way, and what is not as its current release says."""

from skep.control.apps import app_views
from skep.control.apps.apps import Apps
from skep.control.apps.autoscaling import in_words, of
from skep.control.apps.drift import Standing, drift
from skep.control.apps.rollouts import Rollouts
from skep.control.callers import Caller
from skep.control.plans import facts
from skep.flow import Database, FlowEngine
from skep.model.errors import NotFound
from skep.model.views.rollouts import AppStatus, RolloutView, ScaleView
from skep.store import replicas


class Status:
    def __init__(self, database: Database, flows: FlowEngine, apps: Apps, rollouts: Rollouts) -> None:
        self._database = database
        self._flows = flows
        self._apps = apps
        self._rollouts = rollouts

    async def show(self, caller: Caller, app: str) -> AppStatus:
        detail = await self._apps.show(caller, app)
        async with self._database.read() as connection:
            record = await facts.load_app(connection, caller.tenant, app)
            members = await replicas.find(connection, app=record.app.id)
            containers = {row.id: row for row in await replicas.containers_of(connection, record.app.id)}
            silent = await app_views.silent_hosts(connection)
        runs = await self._flows.list(labels={"app": record.app.id}, active=True, limit=10)
        if record.release is None:
            return AppStatus(app=detail.app, rollout=await self._rollout(caller, app))
        standing = Standing(
            release=record.release,
            replicas=members,
            containers=containers,
            silent=silent,
            runs=[run.id for run in runs],
        )
        spec = record.release.spec
        return AppStatus(
            app=detail.app,
            rollout=await self._rollout(caller, app),
            drift=tuple(drift(standing)),
            scales=tuple(
                ScaleView(service=name, replicas=spec.services[name].replicas, policy=in_words(policy))
                for name, policy in of(spec).items()
            ),
        )

    async def _rollout(self, caller: Caller, app: str) -> RolloutView | None:
        try:
            return await self._rollouts.show(caller, app)
        except NotFound:  # it ended long ago
            return None
