"""Disks: the data disks of volumes and the system disks of replicas."""

from typing import TYPE_CHECKING

from litestar import Response, Router, delete, get, post

from skep.api.answers import follow
from skep.api.bodies import ResizeDisk
from skep.control.callers import Caller
from skep.model.views import Accepted, DiskView

if TYPE_CHECKING:
    from skep.control.control import Control


@get("/")
async def list_disks(control: "Control", caller: Caller) -> list[DiskView]:
    """The disks of the tenant."""
    return await control.disks.list(caller)


@delete("/{disk:str}", status_code=202)
async def remove_disk(control: "Control", caller: Caller, disk: str) -> Response[Accepted]:
    """Delete a disk, by its name, with everything on it.  One that is in use is refused."""
    return follow(await control.disks.remove(caller, disk))


@post("/{disk:str}/resize", status_code=202)
async def resize_disk(control: "Control", caller: Caller, disk: str, data: ResizeDisk) -> Response[Accepted]:
    """Grow a disk while it is in use, or shrink it to what its data allows."""
    return follow(await control.disks.resize(caller, disk, data.size))


router = Router(path="/v1/disks", tags=["disks"], route_handlers=[list_disks, remove_disk, resize_disk])
