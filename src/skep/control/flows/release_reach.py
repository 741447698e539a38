"""How the services of a release are reached: groups, virtual IPs, published ports, endpoints."""

from sqlalchemy.ext.asyncio import AsyncConnection

from skep.control.endpoints import endpoints as endpoint_rules
from skep.control.networks import security_groups
from skep.control.plans import publications
from skep.control.plans.plans import Plan
from skep.control.telling import virtual_ips
from skep.model.ids import NetworkId, ServiceId, new_id
from skep.model.names import ServiceName
from skep.model.spec import AppSpec
from skep.store import endpoints, groups, networks, replicas
from skep.store import virtual_ips as virtual_ip_rows
from skep.store.apps import AppRow
from skep.store.releases import ReleaseRow


async def join_groups(tx: AsyncConnection, plan: Plan, row: ReleaseRow) -> None:
    """Raises NotFound: a security group was removed since the plan was made."""
    known = {group.name for group in await groups.every(tx, row.tenant_id)}
    security_groups.must_exist(row.spec, known)
    await set_groups(tx, plan, row.spec)


async def set_groups(tx: AsyncConnection, plan: Plan, spec: AppSpec) -> None:
    for name, service in spec.services.items():
        if name in plan.services:
            await replicas.set_groups(tx, plan.services[name], service.x_skep.security_groups)


async def led(tx: AsyncConnection, spec: AppSpec, app: AppRow) -> set[tuple[ServiceId, NetworkId]]:
    """Which services have a virtual IP, on which networks."""
    services = {ServiceName(row.name): row.id for row in await replicas.services_of(tx, app.id)}
    known = await networks.reachable(tx, app.tenant_id)
    return virtual_ips.wanted(spec, services, {name: row.id for name, row in known.items()})


async def give_virtual_ips_back(tx: AsyncConnection, spec: AppSpec, app: AppRow) -> None:
    """All but those that the release with this specification has."""
    wanted = await led(tx, spec, app)
    present = await virtual_ip_rows.of_app(tx, app.id)
    await virtual_ip_rows.delete(
        tx, [row.id for row in present if (row.service_id, row.network_id) not in wanted]
    )


async def publish(tx: AsyncConnection, plan: Plan, row: ReleaseRow) -> None:
    """Claim what is published anew."""
    own = {port.id for port in plan.published_before}
    others = [port for port in await networks.published_ports(tx) if port.id not in own]
    chosen = publications.choose(plan, row.spec, row.tenant_id, others)
    await networks.delete_published(tx, [port.id for port in chosen.superseded])
    await networks.insert_published(tx, chosen.new)


async def unpublish(tx: AsyncConnection, plan: Plan) -> None:
    """Back to what the current release publishes; nobody else could take its numbers meanwhile."""
    before = {port.id: port for port in plan.published_before}
    services = {plan.services[name] for name in plan.republish} | set(plan.removed_services)
    present = {port.id for port in await networks.published_ports(tx, services=services)}
    await networks.delete_published(tx, present - before.keys())
    await networks.insert_published(tx, [port for name, port in before.items() if name not in present])


async def claim_endpoints(tx: AsyncConnection, plan: Plan, row: ReleaseRow, now: float) -> None:
    """Those that are new; requests for them come to whoever serves already.

    Raises:
        Conflict: a name is somebody else's.
        NotFound: there is no such certificate.
    """
    held = {one.name for one in await endpoints.certificates(tx, row.tenant_id)}
    endpoint_rules.must_have_certificates(row.spec, held)
    new = endpoint_rules.claim(
        row.spec,
        plan.services,
        await endpoints.every(tx),
        app=row.app_id,
        tenant=row.tenant_id,
        now=now,
        new_id=new_id,
    )
    await endpoints.insert(tx, new)


async def settle_endpoints(tx: AsyncConnection, plan: Plan, row: ReleaseRow) -> None:
    """From now on they are as this release has them, and what it has not is anybody's."""
    rows = await endpoints.every(tx, app=row.app_id)
    changed, gone = endpoint_rules.settle(row.spec, plan.services, rows)
    for one in changed:
        await endpoints.save(tx, one)
    await endpoints.delete(tx, gone)


async def release_endpoints(tx: AsyncConnection, plan: Plan, before: ReleaseRow | None) -> None:
    """Give back what the release before did not have."""
    rows = await endpoints.every(tx, app=plan.app)
    kept = {(one.host, one.path) for _, one in endpoint_rules.wanted(before.spec)} if before else set()
    await endpoints.delete(tx, [row.id for row in rows if (row.host, row.path) not in kept])
