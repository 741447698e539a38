"""Options that every command has."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

if TYPE_CHECKING:
    from skep.cli.client import Client

OUTPUT_GROUP = Group("Common options", sort_key=100)


@Parameter(name="*", group=OUTPUT_GROUP)
@dataclass(frozen=True)
class Common:
    """Where skep is, as whom to act, and how to print."""

    output: Annotated[Literal["table", "json", "yaml"], Parameter(name=["--output", "-o"])] = "table"
    """How to print what is shown."""
    url: Annotated[str | None, Parameter(env_var="SKEP_URL")] = None
    """Address of the server."""
    token: Annotated[str | None, Parameter(env_var="SKEP_TOKEN", show_env_var=True)] = None
    """Token to act with."""
    tenant: Annotated[str | None, Parameter(env_var="SKEP_TENANT")] = None
    """Tenant to act in; for admins."""

    def connect(self) -> "Client":
        """A client of the server that these options mean."""
        from skep.cli.client import Client
        from skep.cli.settings import resolve

        return Client(resolve(self.url, self.token, self.tenant))


DEFAULT = Common()
