"""Tenants; for admins."""

from litestar import Router, delete, get, post
from litestar.params import FromPath, JSONBody

from skep.api.asking import Caller, Control
from skep.api.bodies import NewTenant
from skep.model.views.tenants import TenantView


@get("/")
async def list_tenants(control: Control, caller: Caller) -> list[TenantView]:
    """All tenants with their quotas."""
    return await control.tenants.list(caller)


@post("/")
async def create_tenant(control: Control, caller: Caller, data: JSONBody[NewTenant]) -> TenantView:
    """Make a tenant; without a quota it gets the usual one."""
    return await control.tenants.create(caller, data.name, data.quota)


@delete("/{tenant:str}")
async def remove_tenant(control: Control, caller: Caller, tenant: FromPath[str]) -> None:
    """Remove a tenant that owns no apps and no disks any more."""
    await control.tenants.remove(caller, tenant)


router = Router(
    path="/v1/tenants", tags=["tenants"], route_handlers=[list_tenants, create_tenant, remove_tenant]
)
