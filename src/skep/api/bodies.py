"""Bodies of requests that are not a noun of the model already."""

from typing import Annotated, Literal

import msgspec

from skep.control.callers import Role
from skep.model.spec import Positive
from skep.model.views import Quota


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all bodies: a misspelt field is an error, not a surprise."""


class PullImage(Body, frozen=True, kw_only=True):
    """`username` and `password` are for the registry; `shared` (admins) shows the image to all tenants."""

    reference: str
    username: str | None = None
    password: str | None = None
    shared: bool = False


class BootstrapImage(Body, frozen=True, kw_only=True):
    """A Debian base image; `suite` is for example `bookworm`."""

    suite: str = "bookworm"
    reference: str = "debian:bookworm"
    shared: bool = True


class ResizeDisk(Body, frozen=True, kw_only=True):
    """The new size in bytes."""

    size: Positive


class ResolveStep(Body, frozen=True, kw_only=True):
    """What to do with a step that needs its operator."""

    choice: Literal["retry", "skip", "mark-undone"]


class NewTenant(Body, frozen=True, kw_only=True):
    name: str
    quota: Quota | None = None


class NewUser(Body, frozen=True, kw_only=True):
    name: str
    tenant: str
    role: Role = Role.MEMBER


class NewToken(Body, frozen=True, kw_only=True):
    """`user` None is the caller; `expires_in` is in seconds, None never."""

    name: str
    user: str | None = None
    expires_in: Annotated[float, msgspec.Meta(gt=0)] | None = None
