"""What anybody may ask without a token: version, health, and the description of the API."""

from importlib.resources import files

from litestar import MediaType, Response, Router, get
from litestar.datastructures import State

from skep import __version__
from skep.api.auth import PUBLIC
from skep.model.errors import Unavailable
from skep.model.views.system import VersionView


@get("/v1", opt=PUBLIC, tags=["system"], security=[{}])
async def version() -> VersionView:
    """The version of the server."""
    return VersionView(version=__version__)


@get("/healthz", opt=PUBLIC, tags=["system"], security=[{}], media_type=MediaType.TEXT)
async def healthz() -> str:
    """`ok` while the process answers at all."""
    return "ok"


@get("/readyz", opt=PUBLIC, tags=["system"], security=[{}], media_type=MediaType.TEXT)
async def readyz(state: State) -> str:
    """`ready` once requests can be served; a 503 problem before."""
    if not state.ready():
        raise Unavailable("skep is starting.")
    return "ready"


@get("/v1/openapi.json", opt=PUBLIC, include_in_schema=False, sync_to_thread=True)
def openapi_json(state: State) -> Response[bytes]:
    """The OpenAPI document; made when first asked for."""
    return Response(state.document(), media_type="application/json")


@get("/v1/docs", opt=PUBLIC, include_in_schema=False, sync_to_thread=False)
def docs() -> Response[bytes]:
    """The OpenAPI document as a page to read; it needs nothing from the internet."""
    page = files("skep.api").joinpath("docs.html").read_bytes()
    policy = "default-src 'none'; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return Response(page, media_type=MediaType.HTML, headers={"Content-Security-Policy": policy})


router = Router(path="/", route_handlers=[version, healthz, readyz, openapi_json, docs])
