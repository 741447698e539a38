"""Disks: the data disks of volumes and the system disks of replicas."""

from litestar import Response, Router, delete, get, post
from litestar.params import FromPath, JSONBody

from skep.api.answers import follow
from skep.api.asking import Caller, Control
from skep.api.bodies import ResizeDisk
from skep.model.views.base import Accepted
from skep.model.views.disks import DiskView


@get("/")
async def list_disks(control: Control, caller: Caller) -> list[DiskView]:
    """The disks of the tenant."""
    return await control.disks.list(caller)


@delete("/{disk:str}", status_code=202)
async def remove_disk(control: Control, caller: Caller, disk: FromPath[str]) -> Response[Accepted]:
    """Delete a disk, by its name, with everything on it.  One that is in use is refused."""
    return follow(await control.disks.remove(caller, disk))


@post("/{disk:str}/resize", status_code=202)
async def resize_disk(
    control: Control, caller: Caller, disk: FromPath[str], data: JSONBody[ResizeDisk]
) -> Response[Accepted]:
    """Grow a disk while it is in use, or shrink it to what its data allows."""
    return follow(await control.disks.resize(caller, disk, data.size))


router = Router(path="/v1/disks", tags=["disks"], route_handlers=[list_disks, remove_disk, resize_disk])
