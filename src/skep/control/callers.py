"""Who is asking, and what they may do."""

from enum import StrEnum

import msgspec

from skep.model.ids import TenantId, UserId
from skep.model.names import TenantName


class Role(StrEnum):
    """admin: the operator, all tenants.  member: does everything in one tenant.  viewer: reads it."""

    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """An authenticated user acting in one tenant (an admin names it per request, else `default`)."""

    user: UserId
    user_name: str
    role: Role
    tenant: TenantId
    tenant_name: TenantName
