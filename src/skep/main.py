"""The one place where objects are joined: one process with everything (`up`), and what undoes it."""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvloop
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from skep import configuration
from skep.agent.facts import read_facts
from skep.agent.supervisor import Supervisor
from skep.agent.teardown import teardown as remove_containers
from skep.api.app import build_app
from skep.api.server import make_server
from skep.bus.inprocess import InProcessBus
from skep.configuration import Configuration
from skep.control.control import Control, make_control
from skep.control.desired import DesiredState
from skep.control.events import Observations
from skep.control.flow_engine import FlowRoom, flow_room
from skep.control.flows.catalogue import make_registry
from skep.control.flows.environment import CloudEnvironment, HostEnvironment
from skep.control.hosts import HostDirectory
from skep.control.ports import DiskPool, Engine, Fabric, ImageStore
from skep.control.reconcilers.reconciler import Reconciler
from skep.control.settings import Settings
from skep.control.setup import prepare_installation
from skep.control.specifications import Limits
from skep.flow import CommitFailed, Database
from skep.model.errors import SkepError, Unavailable
from skep.model.host import HostFacts
from skep.model.ids import new_id
from skep.model.views import EventView
from skep.process import alone, collect_garbage_seldom, listener_on, log_events, must_be_root
from skep.providers.local import disks as pool
from skep.providers.local import network
from skep.providers.local.images import store as image_store
from skep.providers.local.images.build_network import BuildNetwork
from skep.providers.local.images.store import OciImages
from skep.providers.local.network.fabric import LocalFabric
from skep.providers.local.programs import require_programs
from skep.providers.local.runtime import Runtime
from skep.store.schema import migrate

log = structlog.get_logger("skep")


@dataclass(frozen=True)
class LocalHost:
    """The machine this process runs on, as control sees a host."""

    facts: HostFacts
    engine: Engine
    disks: DiskPool
    fabric: Fabric
    images: ImageStore


def main() -> None:
    """`python -m skep.main up|down|purge`; the `skep` command calls it for the verbs of the same names."""
    parser = argparse.ArgumentParser(prog="skep.main", description=__doc__)
    parser.add_argument("verb", choices=["up", "down", "purge"])
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground (up always does)")
    arguments = parser.parse_args()
    log_events()
    try:
        settings = configuration.read(os.environ)
        must_be_root()
        if arguments.verb == "up":
            uvloop.run(_up(settings))
        else:
            uvloop.run(tear_down(settings, purge=arguments.verb == "purge"))
    except (SkepError, CommitFailed) as error:
        sys.exit(f"error: {error.message}")
    except OSError as error:
        sys.exit(f"error: {error}")


async def _up(settings: Configuration) -> None:
    """Serve until SIGTERM or SIGINT.  Containers go on when the process ends, and are adopted by the next."""
    collect_garbage_seldom()
    started = time.monotonic()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    require_programs()
    with alone(settings), listener_on(settings) as listener:
        async with installation(settings) as control:
            server = make_server(build_app(control), *settings.address)
            serving = asyncio.create_task(server.serve([listener]))
            log.info("skep.up", listen=settings.listen, took=round(time.monotonic() - started, 3))
            await asyncio.wait(
                [serving, asyncio.create_task(stop.wait())], return_when=asyncio.FIRST_COMPLETED
            )
            server.should_exit = True
            await serving
    log.info("skep.ended")


@asynccontextmanager
async def installation(settings: Configuration) -> AsyncIterator[Control]:
    """Everything but the entrances, joined and running."""
    spool = settings.data / "spool"
    spool.mkdir(exist_ok=True, mode=0o700)
    _sweep(spool)
    async with AsyncExitStack() as stack:
        database = await _database(stack, settings)

        limits = Limits(memory=settings.default_memory, pids=settings.default_pids)
        desired = DesiredState(database, limits)
        bus = InProcessBus[EventView]()
        woken = asyncio.Event()
        observations = Observations(database, bus, woken.set, time.time)
        host = await _local_host(stack, settings, desired, observations)
        await prepare_installation(
            database,
            region=settings.region,
            zone=settings.zone,
            host=settings.host,
            facts=host.facts,
            token_file=settings.etc / "admin.token",
            now=time.time,
            new_id=new_id,
        )
        directory = HostDirectory()
        directory.add(settings.host, host)

        cloud = CloudEnvironment(spool=spool, now=time.time, networks=settings.networks)
        on_host = HostEnvironment(host=host, desired=desired, spool=spool)
        environments = {"": cloud, f"agent.{settings.host}": on_host}
        room = await stack.enter_async_context(
            flow_room(
                *(database, make_registry(), environments.__getitem__, observations.run_ended),
                cache=settings.data / "bundles",
                retention=settings.retention,
                unconfined=settings.unconfined_bundles,
            )
        )

        control = _control(settings, database, room, directory, bus, limits)
        reconciler = Reconciler(
            database=database,
            flows=room.flows,
            hosts=directory,
            desired=desired,
            apps=control.apps,
            woken=woken,
            monotonic=time.monotonic,
        )
        await stack.enter_async_context(_background(reconciler.run(), "reconciler"))
        yield control


async def _database(stack: AsyncExitStack, settings: Configuration) -> Database:
    """Raises Unavailable: nothing that can be used is there."""
    try:
        database = await Database.open(settings.database_url)
        stack.push_async_callback(database.close)
        await migrate(database.engine)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        reason = error.orig if isinstance(error, DBAPIError) else error
        where = (settings.database and "of the setting 'database'") or settings.database_url
        raise Unavailable(f"The database {where} cannot be used: {reason}") from error
    return database


async def _local_host(
    stack: AsyncExitStack, settings: Configuration, desired: DesiredState, observations: Observations
) -> LocalHost:
    runtime = Runtime.find(instance=settings.instance, run=settings.run)
    disks = await stack.enter_async_context(
        pool.BtrfsPool(
            root=settings.data,
            mount=settings.data / "pool",
            device=settings.pool_device,
            size=settings.pool_size,
        )
    )
    images = await stack.enter_async_context(
        OciImages(
            root=settings.data / "images",
            scratch=settings.data / "scratch",
            build_network=_build_network(settings),
            runtime=str(runtime.binary),
            instance=settings.instance,
            insecure=settings.insecure_registries,
        )
    )
    fabric = await stack.enter_async_context(
        LocalFabric(
            instance=settings.instance,
            data=settings.data,
            link_pool=settings.links,
            upstream_dns=settings.dns,
        )
    )
    engine = await stack.enter_async_context(
        Supervisor(
            instance=settings.instance,
            data=settings.data,
            run=settings.run,
            disks=disks,
            fabric=fabric,
            images=images,
            desired=desired,
            events=observations,
            runtime=runtime,
        )
    )
    facts = read_facts(runtime.cgroups)
    return LocalHost(facts=facts, engine=engine, disks=disks, fabric=fabric, images=images)


def _build_network(settings: Configuration) -> BuildNetwork:
    """Builds use the first link of the pool, which no tenant network has: those count from one."""
    link = next(settings.links.subnets(new_prefix=30))
    others = tuple(settings.links.address_exclude(link))
    return BuildNetwork(instance=settings.instance, subnet=link, refused=others)


def _control(
    settings: Configuration,
    database: Database,
    room: FlowRoom,
    directory: HostDirectory,
    bus: InProcessBus[EventView],
    limits: Limits,
) -> Control:
    of_control = Settings(
        first_host=settings.host,
        spool=settings.data / "spool",
        networks=settings.networks,
        default_disk=settings.default_disk,
        limits=limits,
        public_host=settings.public_host,
        public_metrics=settings.metrics == "open",
    )
    return make_control(database, room, directory, of_control, bus, now=time.time, new_id=new_id)


async def tear_down(settings: Configuration, *, purge: bool) -> None:
    """Remove what runs from the machine; with `purge` all data too.  The server must have ended."""
    with alone(settings):
        removed = await remove_containers(settings.instance, settings.data, settings.run)
        await image_store.teardown(settings.data / "images", settings.instance, purge=purge)
        await network.teardown(settings.instance, settings.data, purge=purge)
        await pool.teardown(settings.data, settings.data / "pool", purge=purge)
        log.info("skep.down", containers=removed, purged=purge)
    if purge:
        for directory in (settings.data, settings.run):
            shutil.rmtree(directory, ignore_errors=True)
        (settings.etc / "admin.token").unlink(missing_ok=True)


@asynccontextmanager
async def _background(work: Coroutine[None, None, None], name: str) -> AsyncIterator[None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _sweep(spool: Path) -> None:
    """Uploads whose run never began: a day is longer than any run may wait."""
    for path in spool.iterdir():
        if path.stat().st_mtime < time.time() - 86_400:
            path.unlink()


if __name__ == "__main__":
    main()
