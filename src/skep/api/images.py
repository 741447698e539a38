"""Images: pull, import, build, bootstrap, remove."""

import base64
import binascii
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, delete, get, post
from litestar.params import FromQuery, HeaderParameter, JSONBody
from litestar.response import Stream

from skep.api.answers import follow
from skep.api.asking import Caller, Control
from skep.api.bodies import BootstrapImage, PullImage
from skep.api.uploads import receive
from skep.model.errors import InvalidInput
from skep.model.images import BuildSpec, RegistryCredentials
from skep.model.views.base import Accepted
from skep.model.views.images import ImageView, PruneView


@get("/")
async def list_images(control: Control, caller: Caller) -> list[ImageView]:
    """The images of the tenant and those shared with everybody."""
    return await control.images.list(caller)


@post("/pull", status_code=202)
async def pull_image(control: Control, caller: Caller, data: JSONBody[PullImage]) -> Response[Accepted]:
    """Fetch an image from a registry."""
    credentials = login_of(data.username, data.password)
    return follow(await control.images.pull(caller, data.reference, credentials, shared=data.shared))


@post("/import", status_code=202, request_max_body_size=None)
async def import_image(
    request: Request[Any, Any, Any],
    control: Control,
    caller: Caller,
    reference: FromQuery[str | None] = None,
    shared: FromQuery[bool] = False,
) -> Response[Accepted]:
    """Import an archive sent as the body: an OCI layout, a docker-archive or a root file-system tar.

    `reference` names the image; without it the name inside the archive is taken.
    """
    archive = await receive(request, control.images.upload_path(caller))
    return follow(await control.images.load(caller, archive, reference, shared=shared))


@post("/build", status_code=202, request_max_body_size=None)
async def build_image(
    request: Request[Any, Any, Any],
    control: Control,
    caller: Caller,
    reference: FromQuery[str],
    build: Annotated[str | None, HeaderParameter(name="X-Skep-Build")] = None,
) -> Response[Accepted]:
    """Build an image from a Dockerfile; the body is a tar of the build context.

    The header `X-Skep-Build` is a BuildSpec as JSON in base64url; without it the file `Dockerfile` at the
    root of the context is built.
    """
    spec = decode_build(build)
    context = await receive(request, control.images.upload_path(caller))
    return follow(await control.images.build(caller, context, spec, reference))


@post("/bootstrap", status_code=202)
async def bootstrap_image(
    control: Control, caller: Caller, data: JSONBody[BootstrapImage]
) -> Response[Accepted]:
    """Make a Debian base image from the Debian archive; for admins."""
    return follow(await control.images.bootstrap(caller, data.suite, data.reference, shared=data.shared))


@get("/archive", media_type="application/x-tar")
async def save_image(control: Control, caller: Caller, reference: FromQuery[str]) -> Stream:
    """The image as an OCI layout in a tar, which registries and other engines take."""
    return Stream(await control.images.save(caller, reference), media_type="application/x-tar")


@delete("/", status_code=204)
async def remove_image(control: Control, caller: Caller, reference: FromQuery[str]) -> None:
    """Forget the image.  Its layers go with the next prune."""
    await control.images.remove(caller, reference)


@post("/prune", status_code=200)
async def prune_images(control: Control, caller: Caller) -> PruneView:
    """Delete what no image and no replica uses."""
    return await control.images.prune(caller)


def decode_build(header: str | None) -> BuildSpec:
    """The BuildSpec of the header.  `bases` is never the client's: control resolves it."""
    if not header:
        return BuildSpec()
    try:
        text = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
        build = msgspec.json.decode(text, type=BuildSpec)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"The header X-Skep-Build is no BuildSpec in base64url: {error}") from error
    return msgspec.structs.replace(build, bases={})


def login_of(username: str | None, password: str | None) -> RegistryCredentials | None:
    """Of a registry.  Raises InvalidInput: one of the two is missing."""
    if username is None and password is None:
        return None
    if username is None or password is None:
        raise InvalidInput("A registry wants a user name and a password: one of them is missing.")
    return RegistryCredentials(username=username, password=password)


router = Router(
    path="/v1/images",
    tags=["images"],
    route_handlers=[
        list_images,
        pull_image,
        import_image,
        build_image,
        bootstrap_image,
        save_image,
        remove_image,
        prune_images,
    ],
)
