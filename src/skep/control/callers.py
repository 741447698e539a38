"""Who is asking, and what they may do."""

from enum import StrEnum

import msgspec

from skep.model.errors import Forbidden
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

    def must_change(self) -> None:
        """Raises Forbidden: the caller may only look."""
        if self.role is Role.VIEWER:
            raise Forbidden(
                f"User {self.user_name!r} is a viewer of tenant {self.tenant_name!r}: it may only look."
            )

    def must_operate(self) -> None:
        """Raises Forbidden: this is for operators of the installation."""
        if self.role is not Role.ADMIN:
            raise Forbidden("Only an admin of the installation may do this.")

    def sees(self, tenant: str) -> bool:
        return self.tenant == tenant
