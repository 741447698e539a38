"""`skep login`, `skep whoami`, `skep version`."""

import getpass
import sys

from skep import __version__
from skep.cli.client import Client
from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Failure
from skep.cli.output import document, say, show_one
from skep.cli.settings import Context, config_path, read_config, resolve, write_config
from skep.cli.trust import learn
from skep.model.views.system import VersionView
from skep.model.views.tenants import WhoAmI


def login(url: str, /, *, name: str | None = None, ca: str | None = None, common: Common = DEFAULT) -> None:
    """Remember a server and a token; the token is asked for, or read from stdin.

    Example: `skep login http://cloud.example.com:7537 < token`

    Parameters
    ----------
    url
        Address of the server.
    name
        Name of the context; by default the host of the URL.
    ca
        Fingerprint of the installation's authority (sha256:...), or a file with its certificates; needed
        where the server's certificate is of that authority.
    """
    token = common.token or _token()
    trusted = learn(url, ca) if ca else resolve(url, token, None).ca
    context = Context(url=url.rstrip("/"), token=token, tenant=common.tenant or "", ca=trusted)
    who = Client(context).get("/v1/whoami", WhoAmI)
    path = config_path()
    label = name or context.url.partition("://")[2].partition(":")[0] or "default"
    write_config(path, read_config(path).with_login(label, context))
    say(f"Logged in at {context.url} as {who.user} ({who.role}) of tenant {who.tenant}; kept in {path}.")


def whoami(*, common: Common = DEFAULT) -> None:
    """Show the user, the role and the tenant of your token.

    Example: `skep whoami`
    """
    context = resolve(common.url, common.token, common.tenant)
    fields = [
        ("User", lambda one: one.user),
        ("Role", lambda one: one.role),
        ("Tenant", lambda one: one.tenant),
        ("Server", lambda _: context.url),
    ]
    show_one(Client(context).get("/v1/whoami", WhoAmI), fields, common.output)


def version(*, common: Common = DEFAULT) -> None:
    """Show the versions of this command and of the server.

    Example: `skep version`
    """
    try:
        server: str | None = common.connect().get("/v1", VersionView).version
    except Failure:
        server = None
    if common.output != "table":
        document({"command": __version__, "server": server}, common.output)
        return
    print(f"command {__version__}")
    print(f"server  {server or 'does not answer'}")


def _token() -> str:
    if sys.stdin.isatty():
        return getpass.getpass("Token: ").strip()
    return sys.stdin.readline().strip()
