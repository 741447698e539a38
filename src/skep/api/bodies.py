"""Bodies of requests that are not a noun of the model already."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from skep.control.callers import Role
from skep.control.runs.run_selection import Action, Selection
from skep.model.errors import InvalidInput
from skep.model.groups import GroupRule
from skep.model.host import HostFacts
from skep.model.spec import AppSpec, AppSubnet, Count, Positive
from skep.model.views.tenants import Quota


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


class Scale(Body, frozen=True, kw_only=True):
    """How many replicas by service; the others keep theirs."""

    replicas: dict[str, Count]


class NewNetwork(Body, frozen=True, kw_only=True):
    """Without `subnet` one is chosen; the gateway is its first address; `internal` has no way out.

    `subnets` follow: they are used when those before are full; one may be of IPv6.  With `enable_ipv6` a
    network that names none gets one.
    """

    name: str
    subnet: str | None = None
    gateway: str | None = None
    internal: bool = False
    subnets: tuple[AppSubnet, ...] = ()
    enable_ipv6: bool = False


class Reserve(Body, frozen=True, kw_only=True):
    """`addresses`: 10.1.0.5, 10.1.0.5-10.1.0.9 or 10.1.0.16/28; `purpose` is for people."""

    addresses: str
    purpose: str = ""


class NewEgressAddresses(Body, frozen=True, kw_only=True):
    """`addresses`: 203.0.113.5, 203.0.113.5-203.0.113.9 or 203.0.113.16/28; without a tenant for anybody."""

    zone: str
    addresses: str
    tenant: str | None = None


class AssignEgress(Body, frozen=True, kw_only=True):
    """The address that the network leaves by; without one, any that is free."""

    address: str | None = None


class OfferNetwork(Body, frozen=True, kw_only=True):
    """The tenant that may plug in once it accepts."""

    tenant: str


class AcceptNetwork(Body, frozen=True, kw_only=True):
    """The network of `owner`; `alias` is what apps call it, by default `owner/network`."""

    owner: str
    network: str
    alias: str | None = None


class PutCertificate(Body, frozen=True, kw_only=True):
    """Both in PEM; the certificate is followed by its chain."""

    certificate: str
    key: str


class PutSecurityGroup(Body, frozen=True, kw_only=True):
    """What is left out stays as it is."""

    rules: tuple[GroupRule, ...] | None = None
    description: str | None = None


class ResizeDisk(Body, frozen=True, kw_only=True):
    """The new size in bytes."""

    size: Positive


class ResolveStep(Body, frozen=True, kw_only=True):
    """What to do with a step that needs its operator."""

    choice: Literal["retry", "skip", "mark-undone"]


class ActOnRuns(Body, frozen=True, kw_only=True):
    """Either `runs` or a `selection`; `dry`: do nothing, answer the runs that are meant."""

    action: Action
    runs: tuple[str, ...] = ()
    selection: Selection | None = None
    dry: bool = False


class Approve(Body, frozen=True, kw_only=True):
    """`approved` false refuses, which fails the step."""

    approved: bool = True
    comment: str = ""


class SendSignal(Body, frozen=True, kw_only=True):
    """`value` is any JSON; the same `key` again changes nothing."""

    name: str
    value: Any = None
    key: str | None = None


class CheckFlows(Body, frozen=True, kw_only=True):
    """Flow documents by file name."""

    documents: dict[str, str]


class DrawFlows(Body, frozen=True, kw_only=True):
    """Flow documents by file name."""

    documents: dict[str, str]
    format: Literal["svg", "mermaid", "text"] = "svg"


class StartFlow(Body, frozen=True, kw_only=True):
    """The same `key` again answers the run it began first; `deadline` is RFC 3339."""

    input: dict[str, Any] = {}
    key: str | None = None
    priority: str | None = None
    deadline: datetime | None = None
    title: str = ""


class SetSchedule(Body, frozen=True, kw_only=True):
    """`cron`: minute hour day month weekday, or @daily and the like; `overlap`: skip, queue, cancel or allow,
    while the last run goes on; `missed`: once or none, for times at which nobody was there."""

    flow: str
    cron: str
    input: dict[str, Any] = {}
    timezone: str = "UTC"
    overlap: str = "skip"
    missed: str = "once"
    priority: str | None = None


class SetLimit(Body, frozen=True, kw_only=True):
    """`rate` is per second; what is None is left to less exact keys and to the flow."""

    key: str
    concurrency: int | None = None
    rate: float | None = None
    burst: float | None = None
    weight: float | None = None


class SetLabels(Body, frozen=True, kw_only=True):
    """What is null is removed."""

    labels: dict[str, str | None]


class NewZone(Body, frozen=True, kw_only=True):
    name: str
    region: str


class NewClusterZone(Body, frozen=True, kw_only=True):
    """`kubeconfig`: its text, which names no files and no programs; `context`: by default its current one.

    `registry`: HOST[:PORT]/PREFIX where images for the cluster are kept; `username` and `password` are its.
    `region`: by default the only one there is.
    """

    kubeconfig: str
    registry: str
    context: str | None = None
    region: str | None = None
    username: str | None = None
    password: str | None = None


class SetClusterZone(Body, frozen=True, kw_only=True):
    """What is null stays as it is; a new registry has the credentials that come with it, or none."""

    kubeconfig: str | None = None
    context: str | None = None
    registry: str | None = None
    username: str | None = None
    password: str | None = None


class CheckCluster(Body, frozen=True, kw_only=True):
    """`kubeconfig`: its text, which names no files and no programs; `context`: by default its current one."""

    kubeconfig: str
    context: str | None = None


class SetPool(Body, frozen=True, kw_only=True):
    """`zone` is needed for a new one; `tenant` "" gives it to everybody; what is null stays as it is."""

    zone: str | None = None
    cpu_overcommit: float | None = None
    memory_overcommit: float | None = None
    tenant: str | None = None
    labels: dict[str, str] | None = None


class NewJoinToken(Body, frozen=True, kw_only=True):
    """`host` None: the host brings its own name; `expires_in` is in seconds.

    `again`: for a host that is there and has lost what it proves itself with.
    """

    zone: str
    host: str | None = None
    pool: str | None = None
    expires_in: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    again: bool = False


class JoinHost(Body, frozen=True, kw_only=True):
    """`request`: a certificate signing request (PEM), of which only the key counts.

    `name`: how the host wants to be called, `hostname`: how otherwise; what the token says goes before both.
    `address`: the host's own on the network between hosts; `port`: where its agent will listen there.
    """

    request: Annotated[str, msgspec.Meta(max_length=10_000)]
    facts: HostFacts
    name: str = ""
    hostname: str = ""
    address: str = ""
    port: Annotated[int, msgspec.Meta(gt=0, lt=65536)] = 7538


class RenewCertificate(Body, frozen=True, kw_only=True):
    """`certificate`: the present one; `request`: for the new one; both PEM.

    `signature`: of the request, made with the present certificate's key (ECDSA with SHA-256, DER, base64).
    """

    certificate: Annotated[str, msgspec.Meta(max_length=10_000)]
    request: Annotated[str, msgspec.Meta(max_length=10_000)]
    signature: bytes


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


def named(spec: AppSpec, app: str) -> AppSpec:
    """The specification, which must be that of the app in the address."""
    if spec.name != app:
        raise InvalidInput(f"The body is app {spec.name!r} but the address says {app!r}; they must be equal.")
    return spec
