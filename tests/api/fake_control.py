"""A control for tests of the API and the command line: the same use cases over plain memory.

It keeps what it is asked to make, so that a client sees its own work; runs are scripts that take a moment;
`exec` runs real processes of this machine.  What control decides is tested where control is.
"""

import asyncio
import fcntl
import os
import pty
import struct
import termios
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from skep.control.callers import Caller, Role
from skep.control.runs.run_selection import Selection
from skep.model.errors import Conflict, Forbidden, InvalidInput, NotFound, Unauthenticated
from skep.model.groups import GroupRule
from skep.model.host import ExecSpec, LogLine
from skep.model.ids import Bytes, TenantId, UserId
from skep.model.images import BuildSpec, RegistryCredentials
from skep.model.names import ServiceName, TenantName
from skep.model.spec import AppSpec, AppSubnet
from skep.model.views.apps import AppDetail, AppState, AppView, EventView, ReplicaView, UsageView
from skep.model.views.base import Accepted
from skep.model.views.clusters import ClusterCheck, ClusterZoneView, FindingView, RightsView
from skep.model.views.disks import DiskView
from skep.model.views.endpoints import AccessView, CertificateView, EndpointTrafficView, EndpointView
from skep.model.views.hosts import DrainView, HostDetail, HostView, PoolView, StayingView, ZoneView
from skep.model.views.images import ImageView, PruneView
from skep.model.views.joining import JoinTokenCreated, JoinTokenView
from skep.model.views.moves import MovedDisk, MovedImage, MovedReplica, MoveOrder, MovePlan
from skep.model.views.networks import (
    AddressView,
    EgressView,
    HopView,
    NetworkDetail,
    NetworkView,
    PlaceView,
    PortView,
    ReservationView,
    ShareView,
    SubnetView,
    TraceView,
)
from skep.model.views.plans import Action, HostNeed, PlanChange, PlanDetail, ResourceChange, ServicePlan
from skep.model.views.releases import DifferenceView, ReleaseDetail, ReleaseDiff, ReleaseView
from skep.model.views.rollouts import AppStatus, DriftView, RolloutService, RolloutView, ScaleView
from skep.model.views.runs import RunDetail, RunEventView, RunView, StepView
from skep.model.views.security_groups import GroupRuleView, SecurityGroupView
from skep.model.views.system import DeadLetterView, QueueView
from skep.model.views.tenants import Quota, TenantView, TokenCreated, TokenView, UserView, WhoAmI

# inside a class with a method `list` the builtin has no name
Releases = list[ReleaseView]
Usages = list[UsageView]
RunEvents = list[RunEventView]
Places = list[PlaceView]
Egresses = list[EgressView]
Ports = list[PortView]
Zones = list[ZoneView]

VIRTUAL = ("10.128.15.7",)
"""The addresses of every service."""
THEN = "2026-01-02T03:04:05Z"
CHANGES = (
    DifferenceView(path="services.web.environment.MODE", before="slow", after="fast"),
    DifferenceView(path="services.web.replicas", after=3),
    DifferenceView(path="services.cron", before={"image": "cron:1"}),
)
MARK = "3.2.0123456789abcdef0123"
SERVICE_PLAN = ServicePlan(
    service="web",
    strategy="rolling stop-first, 1 at a time",
    before=1,
    after=2,
    restarts=("web-0",),
    moves=("web-1 host1 → host2",),
    touches=("shop.localhost/",),
    interruption="its only replica is replaced in its place",
)
RESOURCES = ResourceChange(replicas=1, cpus=0.5, memory=Bytes(1 << 30), cost=0.25)
TOKENS = {"admin-secret": Role.ADMIN, "member-secret": Role.MEMBER, "viewer-secret": Role.VIEWER}


@dataclass
class World:
    spool: Path
    apps: dict[str, AppSpec] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)
    runs: dict[str, list[RunEventView]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    cancelled: set[str] = field(default_factory=set)
    resolved: list[tuple[str, str, str]] = field(default_factory=list)
    images: dict[str, ImageView] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    builds: list[BuildSpec] = field(default_factory=list)
    tenants: dict[str, TenantView] = field(default_factory=dict)
    users: dict[str, UserView] = field(default_factory=dict)
    tokens: dict[str, TokenView] = field(default_factory=dict)
    join_tokens: dict[str, JoinTokenView] = field(default_factory=dict)
    disks: dict[str, int] = field(default_factory=lambda: {"shop_data": 1 << 30})
    logs: dict[str, list[LogLine]] = field(default_factory=dict)
    groups: dict[str, list[GroupRule]] = field(
        default_factory=lambda: {
            "db": [
                GroupRule(protocol="tcp", ports="5432", group="web"),
                GroupRule(direction="egress", cidr="192.0.2.0/24"),
                GroupRule(protocol="icmp"),
            ]
        }
    )
    registries: dict[str, tuple[str, RegistryCredentials | None]] = field(default_factory=dict)
    """Of zones on clusters."""
    host_state: str = "ready"
    host_labels: dict[str, str] = field(default_factory=lambda: {"disk": "ssd"})
    followers: int = 0
    pace: float = 0.0
    """Seconds between two events of a run."""
    fail_with: str = ""
    """A run whose title contains this fails."""
    finished: dict[str, int] = field(default_factory=dict)
    """How many replicas of an app are done."""

    def start(self, title: str, steps: tuple[str, ...]) -> Accepted:
        run = f"0{len(self.runs) + 1:019d}"
        self.titles[run] = title
        self.runs[run] = []
        kinds = [("", "run-started", "")]
        for step in steps:
            kinds += [
                (step, "started", ""),
                (step, "progress", f"{step} is on its way"),
                (step, "succeeded", ""),
            ]
        failed = bool(self.fail_with) and self.fail_with in title
        if failed:
            kinds[-1] = (steps[-1], "failed", "no such luck")
        last = ("", "run-failed", f"step {steps[-1]}: no such luck") if failed else ("", "run-succeeded", "")
        events = [
            RunEventView(sequence=number, run=run, step=step, kind=kind, at=THEN, message=message)
            for number, (step, kind, message) in enumerate([*kinds, last], start=1)
        ]
        self.runs[run] = events
        return Accepted(run=run)

    def app(self, name: str) -> AppSpec:
        if name not in self.apps:
            raise NotFound(f"There is no app {name!r}.")
        return self.apps[name]

    def replicas(self, spec: AppSpec) -> list[ReplicaView]:
        return [
            self._replica(spec, service, number)
            for service, wanted in sorted(spec.services.items())
            for number in range(wanted.replicas)
        ]

    def _replica(self, spec: AppSpec, service: str, number: int) -> ReplicaView:
        stopped = spec.name in self.stopped
        ports = spec.services[ServiceName(service)].ports
        return ReplicaView(
            id=f"{number:020d}",
            app=spec.name,
            service=service,
            name=f"{service}-{number}",
            desired="stopped" if stopped else "running",
            state="stopped" if stopped else "running",
            health="none",
            addresses=(f"10.128.0.{number + 2}",),
            mac="02:00:00:00:00:01",
            virtual_ips=VIRTUAL,
            ports=tuple(f"{p.host_ip}:{p.published}->{p.target}/{p.protocol}" for p in ports if p.published),
            image=spec.services[ServiceName(service)].image,
            image_digest="sha256:" + "ab" * 32,
            revision=1,
            restarts=0,
            exit_code=None,
            oom_killed=False,
            error="",
            host="host1",
            started=THEN,
            finished=None,
            created=THEN,
        )


def admins_only(caller: Caller) -> None:
    if caller.role is not Role.ADMIN:
        raise Forbidden


def writers_only(caller: Caller) -> None:
    if caller.role is Role.VIEWER:
        raise Forbidden


@dataclass
class FakeAuth:
    world: World

    async def authenticate(self, secret: str, tenant: str | None = None) -> Caller:
        if secret not in TOKENS:
            raise Unauthenticated("The token is unknown, revoked or expired.")
        role = TOKENS[secret]
        if tenant not in (None, "default") and role is not Role.ADMIN:
            raise Forbidden("Only an admin may act in another tenant.")
        return Caller(
            user=UserId("u"),
            user_name=str(role),
            role=role,
            tenant=TenantId("t" if tenant in (None, "default") else tenant),
            tenant_name=TenantName(tenant or "default"),
        )


@dataclass
class FakeApps:
    world: World

    async def list(self, caller: Caller) -> list[AppView]:
        return [self._view(spec, caller) for spec in self.world.apps.values()]

    async def show(self, caller: Caller, app: str) -> AppDetail:
        spec = self.world.app(app)
        return AppDetail(
            app=self._view(spec, caller),
            spec=spec,
            replicas=tuple(self.world.replicas(spec)),
            virtual_ips=dict.fromkeys(spec.services, VIRTUAL),
        )

    async def plan(self, caller: Caller, spec: AppSpec) -> PlanDetail:
        known = spec.name in self.world.apps
        changes = tuple(
            PlanChange(action=Action.KEEP if known else Action.CREATE, kind="replica", name=replica.name)
            for replica in self.world.replicas(spec)
        )
        return PlanDetail(
            app=spec.name,
            revision=1,
            changes=changes,
            mark=MARK,
            services=() if known else (SERVICE_PLAN,),
            order=() if known else (("begin",), ("web-0", "web-1"), ("finish",)),
            peak=() if known else (HostNeed(host="host1", cpus=0.5, memory=Bytes(1 << 30), cpus_free=3.0),),
            resources=ResourceChange() if known else RESOURCES,
        )

    async def apply(
        self, caller: Caller, spec: AppSpec, *, force_recreate: bool = False, note: str = "", mark: str = ""
    ) -> Accepted:
        writers_only(caller)
        if mark not in ("", MARK):
            raise Conflict("The plan is stale: since then app 'shop' became another. Plan again.")
        if self.world.apps.get(spec.name) == spec and not force_recreate:
            return Accepted(run=None, message="Nothing to do.")
        self.world.apps[spec.name] = spec
        steps = [f"{replica.name}.start" for replica in self.world.replicas(spec)]
        return self.world.start(f"apply {spec.name}", ("network.ensure", *steps))

    async def remove(self, caller: Caller, app: str, *, volumes: bool = False) -> Accepted:
        writers_only(caller)
        self.world.app(app)
        del self.world.apps[app]
        return self.world.start(f"remove {app}", ("remove",))

    async def stop(self, caller: Caller, app: str, service: str | None = None) -> Accepted:
        writers_only(caller)
        self.world.stopped.add(self.world.app(app).name)
        return self.world.start(f"stop {app}", ("stop",))

    async def start(self, caller: Caller, app: str, service: str | None = None) -> Accepted:
        writers_only(caller)
        self.world.stopped.discard(self.world.app(app).name)
        return self.world.start(f"start {app}", ("start",))

    async def restart(self, caller: Caller, app: str, service: str | None = None) -> Accepted:
        writers_only(caller)
        return self.world.start(f"restart {self.world.app(app).name}", ("restart",))

    def _view(self, spec: AppSpec, caller: Caller) -> AppView:
        replicas = self.world.replicas(spec)
        stopped = spec.name in self.world.stopped
        urls = {f"http://127.0.0.1:{p.published}" for s in spec.services.values() for p in s.ports}
        return AppView(
            id=f"app-{spec.name}",
            name=spec.name,
            tenant=caller.tenant_name,
            state=AppState.STOPPED if stopped else AppState.RUNNING,
            revision=1,
            services=tuple(sorted(spec.services)),
            replicas=len(replicas),
            running=0 if stopped else len(replicas) - self.world.finished.get(spec.name, 0),
            finished=self.world.finished.get(spec.name, 0),
            urls=tuple(sorted(urls)),
            created=THEN,
            updated=THEN,
        )


@dataclass
class FakeReleases:
    world: World

    async def list(self, caller: Caller, app: str) -> Releases:
        return [self._first(self.world.app(app))]

    async def show(self, caller: Caller, app: str, revision: int) -> ReleaseDetail:
        spec = self.world.app(app)
        if revision != 1:
            raise NotFound(f"App {app!r} has no revision {revision} (any more).")
        return ReleaseDetail(release=self._first(spec), spec=spec, differences=CHANGES)

    async def diff(self, caller: Caller, app: str, before: int, after: int | None = None) -> ReleaseDiff:
        self.world.app(app)
        same = before == (after or 1)
        return ReleaseDiff(app=app, before=before, after=after or 1, differences=() if same else CHANGES)

    async def rollback(
        self, caller: Caller, app: str, revision: int | None = None, *, with_data: bool = False
    ) -> Accepted:
        writers_only(caller)
        return self.world.start(f"roll back {self.world.app(app).name}", ("rollback",))

    def _first(self, spec: AppSpec) -> ReleaseView:
        services = tuple(sorted(spec.services))
        return ReleaseView(
            id="r1",
            app=spec.name,
            revision=1,
            created=THEN,
            created_by="admin",
            current=True,
            services=services,
            images=dict.fromkeys(services, "sha256:" + "ab" * 32),
            state="current",
            note="rollback to 0",
            changed="web: image, replicas 2 → 3",
        )


@dataclass
class FakeRollouts:
    world: World

    async def show(self, caller: Caller, app: str) -> RolloutView:
        return RolloutView(
            app=self.world.app(app).name,
            run="1",
            revision=2,
            strategy="rolling",
            state="succeeded",
            phase="in force",
            done=9,
            total=9,
            services=(RolloutService(service="web", old=1, new=2, ready=1, old_weight=100, new_weight=100),),
            created=THEN,
            finished=THEN,
        )

    async def pause(self, caller: Caller, app: str) -> Accepted:
        return self._steer(caller, app, "pause")

    async def resume(self, caller: Caller, app: str) -> Accepted:
        return self._steer(caller, app, "resume")

    async def abort(self, caller: Caller, app: str) -> Accepted:
        return self._steer(caller, app, "abort")

    def _steer(self, caller: Caller, app: str, verb: str) -> Accepted:
        writers_only(caller)
        return self.world.start(f"{verb} {self.world.app(app).name}", (verb,))


@dataclass
class FakeStatus:
    world: World

    async def show(self, caller: Caller, app: str) -> AppStatus:
        detail = await FakeApps(self.world).show(caller, app)
        rollout = await FakeRollouts(self.world).show(caller, app)
        return AppStatus(
            app=detail.app,
            rollout=rollout,
            drift=(
                DriftView(what="web-0", is_="exited (137)", wanted="running", doing="it is started again"),
            ),
            scales=(ScaleView(service="web", replicas=2, policy="2 to 10 replicas by cpu 50%"),),
        )


@dataclass
class FakeScaling:
    world: World

    async def scale(self, caller: Caller, app: str, counts: Mapping[str, int]) -> Accepted:
        writers_only(caller)
        spec = self.world.app(app)
        services = {
            name: msgspec.structs.replace(one, replicas=counts.get(name, one.replicas))
            for name, one in spec.services.items()
        }
        self.world.apps[app] = msgspec.structs.replace(spec, services=services)
        return self.world.start(f"scale {app}", ("scale",))


@dataclass
class FakeMoving:
    world: World

    async def plan(self, caller: Caller, app: str, order: MoveOrder) -> MovePlan:
        spec = self.world.app(app)
        if order.to_zone == "zone-1":
            raise Conflict(f"App {app!r} is in zone 'zone-1' already.")
        return MovePlan(
            app=spec.name,
            source=("zone-1",),
            target=(order.to_zone,),
            revision=2,
            images=(
                MovedImage(service="web", image="nginx:1", digest="sha256:" + "ab" * 32, size=Bytes(2**20)),
            ),
            disks=(
                MovedDisk(
                    name=f"{app}_data",
                    size=Bytes(2**30),
                    used=Bytes(2**20),
                    source="host-1",
                    target="over-there",
                    copied=order.data != "drop",
                ),
            ),
            replicas=(MovedReplica(replica="web-0", source="host-1", target="over-there"),),
            stop="while its disks are copied a second time",
            warnings=("Networks end at a cluster.",),
        )

    async def start(self, caller: Caller, app: str, order: MoveOrder) -> Accepted:
        writers_only(caller)
        await self.plan(caller, app, order)
        return self.world.start(f"move {app}", ("disk-data-first", "db-0", "finish"))

    async def confirm(self, caller: Caller, app: str) -> Accepted:
        writers_only(caller)
        return self.world.start(f"confirm the move of {self.world.app(app).name}", ("forget",))


@dataclass
class FakeReplicas:
    world: World

    async def list(self, caller: Caller, app: str | None = None) -> list[ReplicaView]:
        apps = [self.world.app(app)] if app else list(self.world.apps.values())
        return [replica for spec in apps for replica in self.world.replicas(spec)]

    async def show(self, caller: Caller, app: str, replica: str) -> ReplicaView:
        for found in self.world.replicas(self.world.app(app)):
            if replica in (found.name, found.service):
                return found
        raise NotFound(f"App {app!r} has no replica {replica!r}.")

    async def logs(
        self, caller: Caller, app: str, replica: str, *, follow: bool, tail: int | None, since: str | None
    ) -> AsyncIterator[LogLine]:
        lines = self.world.logs.setdefault(replica, [])
        self.world.followers += follow
        try:
            sent = 0 if tail is None else max(0, len(lines) - tail)
            while True:
                while sent < len(lines):
                    yield lines[sent]
                    sent += 1
                if not follow:
                    return
                await asyncio.sleep(0.02)
        finally:
            self.world.followers -= follow

    async def exec(self, caller: Caller, app: str, replica: str, spec: ExecSpec) -> "FakeExec":
        writers_only(caller)
        shown = await self.show(caller, app, replica)
        if shown.state != "running":
            raise Conflict(f"Replica {shown.name} does not run.")
        return await FakeExec.begin(spec)

    async def usage(self, caller: Caller, app: str | None = None) -> Usages:
        return [
            UsageView(
                replica=f"{replica.app}/{replica.name}",
                cpu_seconds=1.5,
                memory=Bytes(12 << 20),
                memory_limit=Bytes(64 << 20),
                pids=3,
                disk=Bytes(1 << 20),
                disk_size=Bytes(1 << 30),
            )
            for replica in await self.list(caller, app)
        ]


class FakeExec:
    """A process of this machine behind the Protocol of a session."""

    def __init__(self, process: asyncio.subprocess.Process, master: int | None) -> None:
        self._process = process
        self._master = master

    @classmethod
    async def begin(cls, spec: ExecSpec) -> "FakeExec":
        if not spec.tty:
            pipe = asyncio.subprocess.PIPE
            stdin = pipe if spec.stdin else asyncio.subprocess.DEVNULL
            process = await asyncio.create_subprocess_exec(*spec.args, stdin=stdin, stdout=pipe, stderr=pipe)
            return cls(process, None)
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", spec.rows, spec.columns, 0, 0))
        process = await asyncio.create_subprocess_exec(
            *spec.args,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        return cls(process, master)

    async def output(self) -> AsyncIterator[tuple[int, bytes]]:
        if self._master is not None:
            while data := await asyncio.to_thread(self._read_master):
                yield 1, data
            return
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        while data := await self._process.stdout.read(65536):
            yield 1, data
        while data := await self._process.stderr.read(65536):
            yield 2, data

    def _read_master(self) -> bytes:
        assert self._master is not None
        try:
            return os.read(self._master, 65536)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        if self._master is not None:
            os.write(self._master, data)
        elif self._process.stdin is not None:
            self._process.stdin.write(data)
            await self._process.stdin.drain()

    async def close_stdin(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    async def resize(self, columns: int, rows: int) -> None:
        if self._master is not None:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        code = await self._process.wait()
        return code if code >= 0 else 128 - code

    async def close(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._master is not None:
            os.close(self._master)
            self._master = None


@dataclass
class FakeImages:
    world: World

    async def list(self, caller: Caller) -> list[ImageView]:
        return list(self.world.images.values())

    async def pull(
        self,
        caller: Caller,
        reference: str,
        credentials: RegistryCredentials | None = None,
        *,
        shared: bool = False,
    ) -> Accepted:
        return self._add(caller, reference, "pull")

    async def load(
        self, caller: Caller, archive: Path, reference: str | None, *, shared: bool = False
    ) -> Accepted:
        return self._take(caller, archive, reference or "found:inside", "import")

    async def build(self, caller: Caller, context: Path, build: BuildSpec, reference: str) -> Accepted:
        self.world.builds.append(build)
        return self._take(caller, context, reference, "build")

    async def bootstrap(self, caller: Caller, suite: str, reference: str, *, shared: bool = True) -> Accepted:
        admins_only(caller)
        return self._add(caller, reference, "bootstrap")

    async def remove(self, caller: Caller, reference: str) -> None:
        if self.world.images.pop(reference, None) is None:
            raise NotFound(f"There is no image {reference!r}.")

    async def save(self, caller: Caller, reference: str) -> AsyncIterator[bytes]:
        writers_only(caller)
        if reference not in self.world.images:
            raise NotFound(f"There is no image {reference!r}.")
        return _blocks(reference.encode(), b" and its layers")

    async def prune(self, caller: Caller) -> PruneView:
        return PruneView(freed=Bytes(5 << 20))

    def upload_path(self, caller: Caller) -> Path:
        return self.world.spool / f"upload-{len(list(self.world.spool.iterdir()))}-{len(self.world.uploads)}"

    def _take(self, caller: Caller, archive: Path, reference: str, verb: str) -> Accepted:
        self.world.uploads[reference] = archive.read_bytes()
        archive.unlink()
        return self._add(caller, reference, verb)

    def _add(self, caller: Caller, reference: str, verb: str) -> Accepted:
        writers_only(caller)
        self.world.images[reference] = ImageView(
            id=f"i{len(self.world.images)}",
            reference=reference,
            digest="sha256:" + "cd" * 32,
            size=Bytes(7 << 20),
            created=THEN,
            tenant=None,
            in_use=False,
        )
        return self.world.start(f"{verb} {reference}", (verb,))


async def _blocks(*content: bytes) -> AsyncIterator[bytes]:
    for block in content:
        yield block


@dataclass
class FakeRuns:
    world: World

    async def list(
        self,
        caller: Caller,
        selection: Selection = Selection(),  # noqa: B008 - frozen
        *,
        limit: int = 50,
        before: str | None = None,
        archived: bool = False,
    ) -> list[RunView]:
        return [self._view(run) for run in reversed(self.world.runs)][:limit]

    async def show(self, caller: Caller, run: str, *, fold: bool = False) -> RunDetail:
        names = dict.fromkeys(event.step for event in self._events(run) if event.step)
        steps = tuple(
            StepView(
                name=name,
                use=f"test.{name.rpartition('.')[2]}",
                state=self._step_state(run, name),
                after=(),
                attempts=1,
                started=THEN,
                finished=THEN,
                queued=0.0,
                ran=1.5,
            )
            for name in names
        )
        return RunDetail(run=self._view(run), steps=steps)

    async def glance(self, caller: Caller, run: str) -> RunView:
        return self._view(run)

    async def follow(self, caller: Caller, run: str) -> AsyncIterator[RunEventView]:
        for event in self._events(run):
            if self.world.pace:
                await asyncio.sleep(self.world.pace)
            if run in self.world.cancelled:
                yield RunEventView(
                    sequence=event.sequence,
                    run=run,
                    step="",
                    kind="run-cancelled",
                    at=THEN,
                    message="cancelled",
                )
                return
            yield event
        self.world.ended.add(run)

    async def cancel(self, caller: Caller, run: str) -> None:
        self._events(run)
        self.world.cancelled.add(run)

    async def resolve(
        self, caller: Caller, run: str, step: str, choice: Literal["retry", "skip", "mark-undone"]
    ) -> None:
        self._events(run)
        self.world.resolved.append((run, step, choice))

    def _events(self, run: str) -> RunEvents:
        if run not in self.world.runs:
            raise NotFound(f"There is no run {run!r}.")
        return self.world.runs[run]

    def _step_state(self, run: str, name: str) -> str:
        return next(e.kind for e in reversed(self.world.runs[run]) if e.step == name)

    def _view(self, run: str) -> RunView:
        last = self._events(run)[-1]
        steps = {event.step for event in self.world.runs[run] if event.step}
        state = "cancelled" if run in self.world.cancelled else last.kind.removeprefix("run-")
        if self.world.pace and run not in self.world.ended and run not in self.world.cancelled:
            state = "running"
        return RunView(
            id=run,
            flow="app.apply",
            title=self.world.titles[run],
            tenant="default",
            state=state,
            done=len(steps),
            total=len(steps),
            error=last.message,
            created=THEN,
            started=THEN,
            finished=THEN,
        )


@dataclass
class FakeDisks:
    world: World

    async def list(self, caller: Caller) -> list[DiskView]:
        return [
            DiskView(
                id="d1",
                name=name,
                kind="data",
                size=Bytes(size),
                used=Bytes(4096),
                app="shop",
                attached_to=("shop/db-0",),
                host="host1",
                created=THEN,
            )
            for name, size in self.world.disks.items()
        ]

    async def remove(self, caller: Caller, disk: str) -> Accepted:
        if self.world.disks.pop(disk, None) is None:
            raise NotFound(f"There is no disk {disk!r}.")
        return self.world.start(f"remove {disk}", ("delete",))

    async def resize(self, caller: Caller, disk: str, size: int) -> Accepted:
        if size < 4096:
            raise InvalidInput("4096 bytes are used.")
        self.world.disks[disk] = size
        return self.world.start(f"resize {disk}", ("resize",))


RESERVED = ReservationView(addresses="10.128.0.10-10.128.0.19", purpose="printers", created=THEN)
SHARED = ShareView(network="default", owner="default", tenant="acme", accepted=True, created=THEN)


@dataclass
class FakeNetworks:
    world: World

    async def list(self, caller: Caller) -> list[NetworkView]:
        return [
            NetworkView(
                id="n1",
                name="default",
                owner=caller.tenant_name,
                subnet="10.128.0.0/20",
                gateway="10.128.0.1",
                internal=False,
                ports=2,
                created=THEN,
            )
        ]

    async def ports(self, caller: Caller, network: str | None = None) -> Ports:
        return [
            PortView(
                id="p1",
                network="default",
                replica="shop/web-0",
                address="10.128.0.2",
                mac="02:00:00:00:00:01",
            )
        ]

    async def map(self, caller: Caller, network: str | None = None) -> Places:
        service = PlaceView(
            network="default",
            address=VIRTUAL[0],
            replica="shop/web",
            host="",
            host_state="",
            up=True,
            leads_to=("shop/web-0 (100 %)",),
        )
        here = [
            PlaceView(
                network="default",
                address=f"10.128.0.{number}",
                replica=f"shop/web-{number - 2}",
                host=f"host-{number - 1}",
                host_state=state,
                up=state == "ready",
                egress=f"{LED.address} by {LED.host}",
            )
            for number, state in ((2, "ready"), (3, "lost"))
        ]
        return [*here, service]

    async def trace(
        self, caller: Caller, source: str, target: str, *, port: int | None = None, protocol: str = "tcp"
    ) -> TraceView:
        hops = [
            HopView(at="host-1", what=f"{source} runs", passes=True),
            HopView(at="host-2", what="host-2 does not answer", passes=False),
        ]
        return TraceView(source=source, target=target, reachable=False, hops=hops)

    async def remove(self, caller: Caller, network: str) -> Accepted:
        raise Conflict(f"Network {network!r} still has 2 ports.", ports=2)

    async def create(
        self,
        caller: Caller,
        name: str,
        *,
        subnet: str | None,
        gateway: str | None,
        internal: bool,
        more: Sequence[AppSubnet],
        enable_ipv6: bool,
    ) -> NetworkView:
        return NetworkView(
            id="n2",
            name=name,
            owner=caller.tenant_name,
            subnet=subnet or "10.129.0.0/20",
            gateway=gateway or "10.129.0.1",
            internal=internal,
            ports=0,
            created=THEN,
            subnets=[subnet or "10.129.0.0/20", *(one.subnet for one in more)],
        )

    async def add_subnet(self, caller: Caller, network: str, subnet: AppSubnet) -> Accepted:
        return self.world.start(f"add {subnet.subnet} to network {network}", ("network.widen",))

    async def show(self, caller: Caller, network: str) -> NetworkDetail:
        own = ("10.128.0.2", ("web-0.shop", "web.shop"), caller.tenant_name, "shop/web-0", "host-1")
        guest = ("10.128.0.3", ("cache-0.kv.acme", "cache.kv.acme"), "acme", "", "")
        return NetworkDetail(
            name=network,
            owner=caller.tenant_name,
            subnet="10.128.0.0/20",
            gateway="10.128.0.1",
            internal=False,
            created=THEN,
            ports=[
                AddressView(address=address, names=names, tenant=tenant, replica=replica, host=host)
                for address, names, tenant, replica, host in (own, guest)
            ],
            subnets=[
                SubnetView(subnet="10.128.0.0/20", gateway="10.128.0.1", used=2, reserved=10, free=4081),
                SubnetView(subnet="10.130.0.0/24", gateway="10.130.0.1", used=0, reserved=0, free=253),
            ],
            used=2,
            reserved=10,
            free=4334,
            reservations=[RESERVED],
            shares=[SHARED],
            egress=LED,
        )


class FakeReservations:
    async def add(self, caller: Caller, network: str, addresses: str, purpose: str) -> ReservationView:
        return ReservationView(addresses=addresses, purpose=purpose, created=THEN)

    async def remove(self, caller: Caller, network: str, addresses: str) -> None:
        if addresses != RESERVED.addresses:
            raise NotFound(f"{addresses} is no reservation.")


LED = EgressView(address="203.0.113.10", zone="zone-1", network="default", host="host-1", created=THEN)


class FakeEgress:
    async def list(self, caller: Caller) -> Egresses:
        free = EgressView(address="203.0.113.11", zone="zone-1", tenant="acme", created=THEN)
        return [LED, free]

    async def add(self, caller: Caller, zone: str, addresses: str, tenant: str | None = None) -> Egresses:
        return [EgressView(address=addresses, zone=zone, tenant=tenant or "", created=THEN)]

    async def remove(self, caller: Caller, address: str) -> None:
        if address == LED.address:
            raise Conflict(f"A network leaves by {address}.")

    async def assign(self, caller: Caller, network: str, address: str | None = None) -> EgressView:
        return msgspec.structs.replace(LED, network=network, address=address or LED.address)

    async def unassign(self, caller: Caller, network: str) -> None:
        if network != LED.network:
            raise NotFound(f"Network {network!r} has no egress address.")


class FakeShares:
    async def list(self, caller: Caller) -> list[ShareView]:
        return [SHARED]

    async def offer(self, caller: Caller, network: str, tenant: str) -> ShareView:
        return msgspec.structs.replace(SHARED, network=network, tenant=tenant, accepted=False)

    async def withdraw(self, caller: Caller, network: str, tenant: str) -> None:
        if tenant != SHARED.tenant:
            raise NotFound(f"Not shared with {tenant!r}.")

    async def accept(self, caller: Caller, owner: str, network: str, alias: str | None) -> ShareView:
        return msgspec.structs.replace(SHARED, network=alias or f"{owner}/{network}", owner=owner)

    async def leave(self, caller: Caller, network: str) -> None:
        if "/" not in network:
            raise NotFound(f"{network!r} is not offered to you.")


@dataclass
class FakeEndpoints:
    """One, of the shop, which one client asked for something."""

    world: World

    async def access(self, caller: Caller, app: str, tail: int = 100) -> list[AccessView]:
        line = AccessView(
            time=THEN,
            endpoint="shop.localhost/",
            client="192.0.2.7",
            method="GET",
            url="shop.localhost/cart",
            status=200,
            milliseconds=3,
            size=512,
            replica="web-0",
            revision=1,
        )
        return [line][:tail]

    async def list(self, caller: Caller, app: str | None = None) -> list[EndpointView]:
        counted = EndpointTrafficView(
            revision=1,
            requests=42,
            client_errors=2,
            server_errors=1,
            connection_errors=0,
            sessions=1,
            response_time=3.0,
        )
        one = EndpointView(
            id="endpoint-1",
            app="shop",
            service="web",
            url="http://shop.localhost/",
            host="shop.localhost",
            path="/",
            port=80,
            tls="",
            sticky=False,
            rate=None,
            max_connections=None,
            replicas=("web-0",),
            traffic=(counted,),
            trouble="",
            created=THEN,
        )
        return [one] if app in (None, one.app) else []


class FakeCertificates:
    def __init__(self) -> None:
        self._held: dict[str, CertificateView] = {}

    async def put(self, caller: Caller, name: str, certificate: str, key: str) -> CertificateView:
        writers_only(caller)
        self._held[name] = CertificateView(
            id=f"certificate-{name}",
            name=name,
            names=("shop.example.com",),
            issuer="CN=somebody",
            endpoints=0,
            created=THEN,
            expires=THEN,
            state=f"valid until {THEN}",
        )
        return self._held[name]

    async def remove(self, caller: Caller, name: str) -> None:
        writers_only(caller)
        if self._held.pop(name, None) is None:
            raise NotFound(f"There is no certificate {name!r}.")

    async def renew(self, caller: Caller, name: str) -> None:
        writers_only(caller)
        if name != "shop.example.com":
            raise NotFound(f"No certificate is ordered for {name!r}.")

    async def list(self, caller: Caller) -> list[CertificateView]:
        return list(self._held.values())


@dataclass
class FakeSecurityGroups:
    world: World

    async def list(self, caller: Caller) -> list[SecurityGroupView]:
        return [self._view(name) for name in self.world.groups]

    async def show(self, caller: Caller, group: str) -> SecurityGroupView:
        if group not in self.world.groups:
            raise NotFound(f"There is no security group {group!r}.")
        return self._view(group)

    async def put(
        self,
        caller: Caller,
        group: str,
        *,
        rules: tuple[GroupRule, ...] | None = None,
        description: str | None = None,
    ) -> SecurityGroupView:
        writers_only(caller)
        self.world.groups.setdefault(group, [])
        if rules is not None:
            self.world.groups[group] = list(rules)
        return self._view(group)

    async def add_rule(self, caller: Caller, group: str, rule: GroupRule) -> SecurityGroupView:
        writers_only(caller)
        await self.show(caller, group)
        self.world.groups[group].append(rule)
        return self._view(group)

    async def remove_rule(self, caller: Caller, group: str, rule: str) -> SecurityGroupView:
        writers_only(caller)
        await self.show(caller, group)
        self.world.groups[group] = [one for one in self.world.groups[group] if one.id != rule]
        return self._view(group)

    async def remove(self, caller: Caller, group: str) -> None:
        writers_only(caller)
        await self.show(caller, group)
        del self.world.groups[group]

    def _view(self, group: str) -> SecurityGroupView:
        rules = tuple(
            GroupRuleView(
                id=rule.id,
                direction=rule.direction,
                protocol=rule.protocol,
                ports=rule.ports,
                cidr=rule.cidr,
                group=rule.group,
            )
            for rule in self.world.groups[group]
        )
        return SecurityGroupView(
            id=f"group-{group}",
            name=group,
            description="",
            rules=rules,
            services=1,
            created=THEN,
            changed=THEN,
            changed_by="admin",
        )


_STAYS = StayingView(replica="shop/db-0", reason="its data disks are on this host")


@dataclass
class FakeHosts:
    world: World

    async def list(self, caller: Caller) -> list[HostView]:
        admins_only(caller)
        return [
            HostView(
                name="host1",
                zone="local",
                region="local",
                pool="local",
                cpus=2,
                memory=Bytes(24 << 30),
                kernel="6.18",
                cgroups="hybrid",
                state=self.world.host_state,
                replicas=2,
                pool_total=Bytes(20 << 30),
                pool_used=Bytes(1 << 30),
                labels=self.world.host_labels,
                cpu_overcommit=8.0,
                memory_overcommit=4.0,
                address="10.0.0.1:7538",
                underlay="10.0.0.1",
                version="0.1.0",
                seen=THEN,
            )
        ]

    async def show(self, caller: Caller, host: str) -> HostDetail:
        (one,) = await self.list(caller)
        if host != one.name:
            raise NotFound(f"There is no host {host!r}; see 'skep host ls'.")
        staying = (_STAYS,) if self.world.host_state == "draining" else ()
        return HostDetail(
            host=one, replicas=("shop/db-0", "shop/web-0"), disks=("shop_data",), staying=staying
        )

    async def cordon(self, caller: Caller, host: str) -> HostView:
        self.world.host_state = "cordoned"
        return (await self.show(caller, host)).host

    async def uncordon(self, caller: Caller, host: str) -> HostView:
        self.world.host_state = "ready"
        return (await self.show(caller, host)).host

    async def drain(self, caller: Caller, host: str) -> DrainView:
        self.world.host_state = "draining"
        await self.show(caller, host)
        return DrainView(host=host, runs=("run-drain",), staying=(_STAYS,))

    async def label(self, caller: Caller, host: str, labels: Mapping[str, str | None]) -> HostView:
        merged: dict[str, str | None] = {**self.world.host_labels, **labels}
        self.world.host_labels = {key: value for key, value in merged.items() if value is not None}
        return (await self.show(caller, host)).host

    async def remove(self, caller: Caller, host: str, *, lost: bool = False, fenced: bool = False) -> None:
        await self.show(caller, host)
        if not (lost or fenced):
            raise Conflict(f"Replicas or disks are on host {host!r}.")


@dataclass
class FakeZones:
    world: World

    async def list(self, caller: Caller) -> Zones:
        admins_only(caller)
        return [
            ZoneView(name="k8s", region="local", hosts=1, engine="kubernetes"),
            ZoneView(name="local", region="local", hosts=1),
        ]

    async def add(self, caller: Caller, zone: str, region: str) -> ZoneView:
        admins_only(caller)
        return ZoneView(name=zone, region=region, hosts=0)

    async def remove(self, caller: Caller, zone: str, *, lost: bool = False) -> None:
        admins_only(caller)
        if zone == "local":
            raise Conflict("Zone 'local' has hosts (host1): remove them first.")


@dataclass
class FakeClusters:
    world: World

    async def check(self, caller: Caller, kubeconfig: str, context: str | None) -> ClusterCheck:
        admins_only(caller)
        rights = FindingView(
            subject="rights",
            verdict="missing",
            message="Not allowed: bind clusterroles.",
            remedy="Give them with: skep cluster rights | kubectl apply -f -",
        )
        disks = FindingView(subject="disks", verdict="works", message="Disks are of class fast.")
        findings = [disks] if "admin" in kubeconfig else [rights, disks]
        usable = "admin" in kubeconfig
        return ClusterCheck(
            server="https://203.0.113.7:6443", version="1.33", usable=usable, findings=findings
        )

    async def rights(self, caller: Caller) -> RightsView:
        admins_only(caller)
        return RightsView(manifest="---\napiVersion: v1\nkind: Namespace\n")


@dataclass
class FakeClusterZones:
    world: World

    async def add(
        self,
        caller: Caller,
        zone: str,
        kubeconfig: str,
        registry: str,
        *,
        region: str | None = None,
        context: str | None = None,
        credentials: RegistryCredentials | None = None,
    ) -> ClusterZoneView:
        check = await FakeClusters(self.world).check(caller, kubeconfig, context)
        if not check.usable:
            raise Conflict(f"{check.server} cannot be a zone as it is. {check.findings[0].message}")
        self.world.registries[zone] = (registry, credentials)
        return _cluster_zone(zone, registry, context, check)

    async def change(
        self,
        caller: Caller,
        zone: str,
        *,
        kubeconfig: str | None = None,
        context: str | None = None,
        registry: str | None = None,
        credentials: RegistryCredentials | None = None,
    ) -> ClusterZoneView:
        before = await self.show(caller, zone)
        return _cluster_zone(zone, registry or before.registry, context, before.check)

    async def show(self, caller: Caller, zone: str) -> ClusterZoneView:
        admins_only(caller)
        if zone != "k8s":
            raise NotFound(f"There is no zone {zone!r} that stands on a cluster; see 'skep zone ls'.")
        check = await FakeClusters(self.world).check(caller, "admin", None)
        return _cluster_zone(zone, "registry.example.com/skep", None, check)


def _cluster_zone(
    zone: str, registry: str, context: str | None, check: ClusterCheck | None
) -> ClusterZoneView:
    return ClusterZoneView(
        zone=zone,
        region="local",
        host=zone,
        state="ready",
        server="https://203.0.113.7:6443",
        context=context,
        registry=registry,
        check=check,
    )


@dataclass
class FakePools:
    world: World

    async def list(self, caller: Caller) -> list[PoolView]:
        admins_only(caller)
        return [
            PoolView(
                name="local",
                zone="local",
                hosts=1,
                cpu_overcommit=8.0,
                memory_overcommit=4.0,
                tenant=None,
                labels={"tier": "gold"},
            )
        ]

    async def put(self, caller: Caller, pool: str, **changes: Any) -> PoolView:
        (one,) = await self.list(caller)
        said = {key: value for key, value in changes.items() if value is not None}
        changed: PoolView = msgspec.structs.replace(one, name=pool, **said)
        return changed

    async def remove(self, caller: Caller, pool: str) -> None:
        admins_only(caller)
        if pool == "local":
            raise Conflict("Pool 'local' has hosts (host1): remove them first.")


@dataclass
class FakeQueues:
    world: World

    async def dead(self, caller: Caller, limit: int = 100) -> list[DeadLetterView]:
        admins_only(caller)
        letter = DeadLetterView(id="m1", key="agent.host1", method="engine.start", at=THEN)
        return [letter][:limit]

    async def list(self, caller: Caller) -> list[QueueView]:
        admins_only(caller)
        return [QueueView(key="agent.host1", waiting=0, servers=1)]


@dataclass
class FakeTenants:
    world: World

    async def list(self, caller: Caller) -> list[TenantView]:
        admins_only(caller)
        return list(self.world.tenants.values())

    async def create(self, caller: Caller, name: str, quota: Quota | None = None) -> TenantView:
        admins_only(caller)
        if name in self.world.tenants:
            raise Conflict(f"Tenant {name!r} exists.")
        self.world.tenants[name] = TenantView(id="t1", name=name, created=THEN, quota=quota or Quota())
        return self.world.tenants[name]

    async def remove(self, caller: Caller, name: str) -> None:
        admins_only(caller)
        if self.world.tenants.pop(name, None) is None:
            raise NotFound(f"There is no tenant {name!r}.")


@dataclass
class FakeUsers:
    world: World

    async def list(self, caller: Caller) -> list[UserView]:
        return list(self.world.users.values())

    async def create(self, caller: Caller, name: str, tenant: str, role: Role) -> UserView:
        admins_only(caller)
        self.world.users[name] = UserView(id="u1", name=name, tenant=tenant, role=role, created=THEN)
        return self.world.users[name]

    async def remove(self, caller: Caller, name: str) -> None:
        admins_only(caller)
        if self.world.users.pop(name, None) is None:
            raise NotFound(f"There is no user {name!r}.")

    async def whoami(self, caller: Caller) -> WhoAmI:
        return WhoAmI(user=caller.user_name, role=caller.role, tenant=caller.tenant_name)


@dataclass
class FakeTokens:
    world: World

    async def list(self, caller: Caller) -> list[TokenView]:
        return list(self.world.tokens.values())

    async def create(
        self, caller: Caller, name: str, *, user: str | None = None, expires_in: float | None = None
    ) -> TokenCreated:
        token = TokenView(
            id=f"tok-{name}",
            name=name,
            user=user or caller.user_name,
            created=THEN,
            expires=None,
            last_used=None,
        )
        self.world.tokens[token.id] = token
        return TokenCreated(token=token, secret="skep_" + "s" * 40)

    async def revoke(self, caller: Caller, token: str) -> None:
        if self.world.tokens.pop(token, None) is None:
            raise NotFound(f"There is no token {token!r}.")


@dataclass
class FakeEvents:
    world: World

    async def follow(self, caller: Caller, *, app: str | None = None) -> AsyncIterator[EventView]:
        self.world.followers += 1
        try:
            yield EventView(kind="replica", app=app or "shop", name="web-0", state="running", at=THEN)
            await asyncio.sleep(3600)
        finally:
            self.world.followers -= 1


@dataclass
class FakeMetrics:
    world: World
    public: bool = False

    async def render(self, caller: Caller | None) -> bytes:
        if not self.public:
            assert caller is not None
            admins_only(caller)
        return b"skep_flow_steps_running 0.0\n"


@dataclass
class FakeJoinTokens:
    world: World

    async def create(
        self,
        caller: Caller,
        zone: str,
        *,
        host: str | None = None,
        pool: str | None = None,
        expires_in: float = 3600.0,
        again: bool = False,
    ) -> JoinTokenCreated:
        admins_only(caller)
        token = JoinTokenView(
            id=f"join-{host}",
            host=host,
            zone=zone,
            pool=pool,
            state="waiting",
            created=THEN,
            created_by=caller.user_name,
            expires="2026-01-02T04:04:05Z",
            used=None,
        )
        self.world.join_tokens[token.id] = token
        return JoinTokenCreated(
            token=token,
            secret="skepjoin_" + "s" * 43,
            url="https://skep.example:7537",
            authority="sha256:" + "ab" * 32,
        )

    async def list(self, caller: Caller) -> list[JoinTokenView]:
        admins_only(caller)
        return list(self.world.join_tokens.values())

    async def revoke(self, caller: Caller, token: str) -> None:
        admins_only(caller)
        if self.world.join_tokens.pop(token, None) is None:
            raise NotFound(f"There is no join token {token!r}.")


class FakeEnrolment:
    """Nobody joins a world that is not there; `tests/api/test_joining.py` has a real one."""

    async def admit(self, secret: str) -> None:
        raise Unauthenticated("The join token is not known here.")


class FakeControl:
    """Joins the parts as control does."""

    def __init__(self, spool: Path) -> None:
        self.world = World(spool)
        self.auth = FakeAuth(self.world)
        self.apps = FakeApps(self.world)
        self.releases = FakeReleases(self.world)
        self.scaling = FakeScaling(self.world)
        self.moving = FakeMoving(self.world)
        self.rollouts = FakeRollouts(self.world)
        self.status = FakeStatus(self.world)
        self.replicas = FakeReplicas(self.world)
        self.images = FakeImages(self.world)
        self.runs = FakeRuns(self.world)
        self.disks = FakeDisks(self.world)
        self.networks = FakeNetworks(self.world)
        self.reservations = FakeReservations()
        self.shares = FakeShares()
        self.egress = FakeEgress()
        self.security_groups = FakeSecurityGroups(self.world)
        self.endpoints = FakeEndpoints(self.world)
        self.certificates = FakeCertificates()
        self.hosts = FakeHosts(self.world)
        self.zones = FakeZones(self.world)
        self.clusters = FakeClusters(self.world)
        self.cluster_zones = FakeClusterZones(self.world)
        self.pools = FakePools(self.world)
        self.queues = FakeQueues(self.world)
        self.tenants = FakeTenants(self.world)
        self.users = FakeUsers(self.world)
        self.tokens = FakeTokens(self.world)
        self.join_tokens = FakeJoinTokens(self.world)
        self.enrolment = FakeEnrolment()
        self.events = FakeEvents(self.world)
        self.metrics = FakeMetrics(self.world)

    def as_control(self) -> Any:
        """Structurally a Control; the API asks for no more."""
        return self
