"""Steps on the rows of an app as a whole."""

from skep.control.flows.environment import Cloud
from skep.flow import step
from skep.model.ids import AppId, ReplicaId
from skep.store import apps, disks, networks
from skep.store import replicas as rows


@step(kind="transactional")
async def want_stopped(cx: Cloud, replicas: list[ReplicaId]) -> None:
    """From now on these replicas are to be stopped."""
    await rows.set_desired(cx.tx, replicas, "stopped")


@want_stopped.undo
async def _want_running_again(cx: Cloud, replicas: list[ReplicaId]) -> None:
    await rows.set_desired(cx.tx, replicas, "running")


@step(kind="transactional")
async def want_running(cx: Cloud, replicas: list[ReplicaId]) -> None:
    """From now on these replicas are to run."""
    await rows.set_desired(cx.tx, replicas, "running")


@want_running.undo
async def _want_stopped_again(cx: Cloud, replicas: list[ReplicaId]) -> None:
    await rows.set_desired(cx.tx, replicas, "stopped")


@step(kind="transactional")
async def forget(cx: Cloud, app: AppId) -> None:
    """Delete the app's rows once nothing of it is left on any host; disks that stay become the tenant's."""
    row = await apps.get(cx.tx, app)
    if row is None:
        return
    await networks.delete_ports(cx.tx, [port.id for port in await networks.ports_of(cx.tx, app=app)])
    services = await rows.services_of(cx.tx, app)
    published = await networks.published_ports(cx.tx, services=[service.id for service in services])
    await networks.delete_published(cx.tx, [port.id for port in published])
    containers = await rows.containers_of(cx.tx, app)
    gone = {container.system_disk for container in containers}
    kept = [disk for disk in await disks.every(cx.tx, app=app) if disk.kind == "data"]
    if row.remove_volumes:
        gone |= {disk.id for disk in kept}
    await disks.delete(cx.tx, gone)
    await disks.set_app(cx.tx, [disk.id for disk in kept if disk.id not in gone], None)
    await rows.delete_containers(cx.tx, [container.id for container in containers])
    await rows.delete(cx.tx, [replica.id for replica in await rows.find(cx.tx, app=app)])
    await rows.delete_services(cx.tx, [service.id for service in services])
    own = [network.id for network in await networks.every(cx.tx, row.tenant_id) if network.app_id == app]
    await networks.delete(cx.tx, own)
    await apps.delete(cx.tx, app)
