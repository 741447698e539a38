"""`skep endpoint` and `skep cert`."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.names import complete_app
from skep.cli.output import age, document, say, show, warn
from skep.model.views.endpoints import AccessView, CertificateView, EndpointView

app = App(name="endpoint", help="HTTP(S) endpoints: list, show, who asked for what.")
certificate_app = App(name="cert", help="Certificates for endpoints: list, add, remove.")

AppName = Annotated[str, Parameter(completer=complete_app)]


@app.command(name="ls")
def list_endpoints(app_name: AppName = "", /, *, common: Common = DEFAULT) -> None:
    """List the endpoints of the tenant, or of one app.

    Examples: `skep endpoint ls`; `skep endpoint ls shop`

    Parameters
    ----------
    app_name
        Name of an app.
    """
    columns = [
        ("URL", lambda one: one.url),
        ("APP", lambda one: one.app),
        ("SERVICE", lambda one: one.service),
        ("REPLICAS", lambda one: len(one.replicas)),
        ("REQUESTS", lambda one: _sum(one, [part.requests for part in one.traffic])),
        ("ERRORS", lambda one: _sum(one, [part.server_errors for part in one.traffic])),
    ]
    found = _endpoints(common, app_name)
    if any(one.certificate for one in found):
        columns.append(("CERTIFICATE", lambda one: one.certificate.partition(": ")[0]))
    show(found, columns, common.output)
    _warn(found, common)


def _sum(one: EndpointView, counts: list[int]) -> int | str:
    """Replicas that answer and of which nobody counts anything are those of a cluster."""
    return "-" if one.replicas and not counts else sum(counts)


@app.command(name="show")
def show_endpoints(app_name: AppName, /, *, common: Common = DEFAULT) -> None:
    """Show who answers for an app's endpoints, and what each revision was asked.

    Example: `skep endpoint show shop`

    Parameters
    ----------
    app_name
        Name of the app.
    """
    found = _endpoints(common, app_name)
    if common.output != "table":
        document(found, common.output)
        return
    lines = [(one, part) for one in found for part in one.traffic]
    columns = [
        ("URL", lambda line: line[0].url),
        ("REVISION", lambda line: line[1].revision),
        ("REQUESTS", lambda line: line[1].requests),
        ("4XX", lambda line: line[1].client_errors),
        ("5XX", lambda line: line[1].server_errors),
        ("UNREACHED", lambda line: line[1].connection_errors),
        ("NOW", lambda line: line[1].sessions),
        ("MS", lambda line: round(line[1].response_time)),
        ("REPLICAS", lambda line: line[0].replicas),
    ]
    show(lines, columns, "table")
    for one in {one.host: one for one in found if one.certificate}.values():
        say(f"Certificate of {one.host}: {one.certificate}")
    _warn(found, common)


@app.command
def logs(app_name: AppName, /, *, tail: int = 100, common: Common = DEFAULT) -> None:
    """Show the last requests for an app's endpoints. Those of a busy endpoint are a sample.

    Example: `skep endpoint logs shop --tail 20`

    Parameters
    ----------
    app_name
        Name of the app.
    tail
        How many.
    """
    found = common.connect().get(f"/v1/apps/{app_name}/access", list[AccessView], tail=tail)
    columns = [
        ("TIME", lambda one: one.time),
        ("CLIENT", lambda one: one.client),
        ("STATUS", lambda one: one.status),
        ("MS", lambda one: one.milliseconds),
        ("BYTES", lambda one: one.size),
        ("REPLICA", lambda one: one.replica),
        ("REVISION", lambda one: one.revision or ""),
        ("REQUEST", lambda one: f"{one.method} {one.url}"),
    ]
    show(found, columns, common.output)


@certificate_app.command(name="ls")
def list_certificates(*, common: Common = DEFAULT) -> None:
    """List the certificates of the tenant.

    Example: `skep cert ls`
    """
    columns = [
        ("NAME", lambda one: one.name),
        ("NAMES", lambda one: one.names),
        ("ENDPOINTS", lambda one: one.endpoints),
        ("STATE", lambda one: one.state.partition(": ")[0]),
        ("ADDED", lambda one: age(one.created)),
    ]
    found = common.connect().get("/v1/certificates", list[CertificateView])
    show(found, columns, common.output)
    for one in found:
        if common.output == "table" and ": " in one.state:
            say(f"{one.name}: {one.state}")


@certificate_app.command
def add(name: str, /, *, certificate: Path, key: Path, common: Common = DEFAULT) -> None:
    """Add a certificate, or give a new one in place of what has the name; endpoints show it at once.

    Example: `skep cert add shop --certificate chain.pem --key key.pem`

    Parameters
    ----------
    name
        What endpoints name it by: `x-skep: {endpoints: [{host: shop.example.com, tls: shop}]}`.
    certificate
        File with the certificate and its chain, in PEM.
    key
        File with its private key, in PEM, without a password.
    """
    body = {"certificate": _read(certificate), "key": _read(key)}
    made = common.connect().put(f"/v1/certificates/{name}", CertificateView, body)
    if common.output != "table":
        document(made, common.output)
    say(f"Certificate {name} for {', '.join(made.names)} is there, good until {made.expires}.")


@certificate_app.command
def rm(name: str, /, *, common: Common = DEFAULT) -> None:
    """Remove a certificate that no endpoint names.

    Example: `skep cert rm shop`

    Parameters
    ----------
    name
        Name of the certificate.
    """
    common.connect().act("DELETE", f"/v1/certificates/{name}")
    say(f"Certificate {name} is gone.")


@certificate_app.command
def renew(name: str, /, *, common: Common = DEFAULT) -> None:
    """Order another certificate by ACME now, since what kept it away was put right, or its key is known.

    Example: `skep cert renew shop.example.com`

    Parameters
    ----------
    name
        The host name that it is for.
    """
    common.connect().act("POST", f"/v1/certificates/{name}/renew")
    say(f"A certificate for {name} is ordered; see 'skep cert ls'.")


def _endpoints(common: Common, app_name: str) -> list[EndpointView]:
    return common.connect().get(
        "/v1/endpoints", list[EndpointView], **({"app": app_name} if app_name else {})
    )


def _warn(found: list[EndpointView], common: Common) -> None:
    if common.output == "table" and (trouble := next((one.trouble for one in found if one.trouble), "")):
        warn(f"Some hosts do not serve endpoints: {trouble}")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path} cannot be read: {error}", Exit.INVALID) from error
