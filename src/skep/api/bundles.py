"""Bundles: flows and plug-in code, named by the hash of their content; for admins."""

from typing import Annotated, Any

from litestar import Request, Router, delete, get, post
from litestar.params import FromPath, FromQuery, QueryParameter

from skep.api.asking import Caller, Control
from skep.model.errors import InvalidInput
from skep.model.views.bundles import BundleView, PreflightView

LARGEST = 64 * 1024 * 1024
"""Bytes of a bundle as it is sent."""


@get("/")
async def list_bundles(control: Control, caller: Caller) -> list[BundleView]:
    """All versions, newest first."""
    return await control.bundles.list(caller)


@post("/", request_max_body_size=LARGEST)
async def push_bundle(request: Request[Any, Any, Any], control: Control, caller: Caller) -> BundleView:
    """Check a bundle and keep it; the body is a tar of plain files, compressed with zstd.

    Its code is loaded in a confined process, its flows are wired; refused with every reason, or kept and not
    yet used: that takes its activation.
    """
    caller.must_operate()
    content = await request.body()
    if not content:
        raise InvalidInput("The upload is empty: send the bundle as the body of the request.")
    return await control.bundles.push(caller, content)


@post("/collect", status_code=200)
async def collect_bundles(
    control: Control, caller: Caller, keep: Annotated[int, QueryParameter(ge=0, le=1000)] = 3
) -> list[BundleView]:
    """Forget versions that nobody needs, but of each name the newest `keep`; answers what is gone."""
    return await control.bundles.collect(caller, keep=keep)


@get("/{bundle:str}")
async def show_bundle(control: Control, caller: Caller, bundle: FromPath[str]) -> BundleView:
    """One version: by hash, by its beginning, or the newest of a name."""
    return await control.bundles.show(caller, bundle)


@get("/{bundle:str}/preflight")
async def preflight_bundle(control: Control, caller: Caller, bundle: FromPath[str]) -> PreflightView:
    """What would become of each run under way if this version were activated."""
    return await control.bundles.preflight(caller, bundle)


@post("/{bundle:str}/activate", status_code=200)
async def activate_bundle(
    control: Control, caller: Caller, bundle: FromPath[str], migrate: FromQuery[bool] = False
) -> PreflightView:
    """Have new runs use it from now on; with `migrate` move the runs under way that can be moved."""
    return await control.bundles.activate(caller, bundle, migrate=migrate)


@post("/{bundle:str}/rollback", status_code=200)
async def rollback_bundle(control: Control, caller: Caller, bundle: FromPath[str]) -> BundleView:
    """Activate the version of that name which was in force before; answers it."""
    return await control.bundles.rollback(caller, bundle)


@delete("/{bundle:str}/activation", status_code=204)
async def deactivate_bundle(control: Control, caller: Caller, bundle: FromPath[str]) -> None:
    """Have no version of that name in force."""
    await control.bundles.deactivate(caller, bundle)


router = Router(
    path="/v1/bundles",
    tags=["bundles"],
    route_handlers=[
        list_bundles,
        push_bundle,
        collect_bundles,
        show_bundle,
        preflight_bundle,
        activate_bundle,
        rollback_bundle,
        deactivate_bundle,
    ],
)
