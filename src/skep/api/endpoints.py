"""HTTP(S) endpoints, and the certificates for them."""

from litestar import Router, delete, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody

from skep.api.asking import Caller, Control
from skep.api.bodies import PutCertificate
from skep.model.views.endpoints import AccessView, CertificateView, EndpointView


@get("/v1/endpoints")
async def list_endpoints(
    control: Control, caller: Caller, app: FromQuery[str | None] = None
) -> list[EndpointView]:
    """The endpoints of the tenant, or of one app, with what was asked of them."""
    return await control.endpoints.list(caller, app)


@get("/v1/apps/{app:str}/access")
async def list_access(
    control: Control, caller: Caller, app: FromPath[str], tail: FromQuery[int] = 100
) -> list[AccessView]:
    """The last requests for the app's endpoints, oldest first.  Those of a busy endpoint are a sample."""
    return await control.endpoints.access(caller, app, tail)


@get("/v1/certificates")
async def list_certificates(control: Control, caller: Caller) -> list[CertificateView]:
    """The certificates of the tenant for its endpoints.  Nobody is shown their keys."""
    return await control.certificates.list(caller)


@put("/v1/certificates/{name:str}")
async def put_certificate(
    control: Control, caller: Caller, name: FromPath[str], data: JSONBody[PutCertificate]
) -> CertificateView:
    """Add a certificate with its chain and key (PEM), or give this one in place of what has the name."""
    return await control.certificates.put(caller, name, data.certificate, data.key)


@delete("/v1/certificates/{name:str}", status_code=204)
async def remove_certificate(control: Control, caller: Caller, name: FromPath[str]) -> None:
    """Remove a certificate that no endpoint names."""
    await control.certificates.remove(caller, name)


@post("/v1/certificates/{name:str}/renew", status_code=202)
async def order_certificate(control: Control, caller: Caller, name: FromPath[str]) -> None:
    """Order another certificate by ACME for the host name at once."""
    await control.certificates.renew(caller, name)


router = Router(
    path="/",
    tags=["endpoints"],
    route_handlers=[
        list_endpoints,
        list_access,
        list_certificates,
        put_certificate,
        remove_certificate,
        order_certificate,
    ],
)
