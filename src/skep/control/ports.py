"""What control needs from a host, as small Protocols.

`providers/local` and `agent` satisfy them structurally and `main` joins them.  The docstrings are the
contract; `tests/contracts/` holds one suite per Protocol.  Ids are control's own, so every call may be
repeated: making what is there equal is success, removing what is absent is success.

All raise `HostFailure` when the kernel or a tool refuses, with the tool's own words.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from skep.model.acme import AcmeAccount, AcmeOrder
from skep.model.clusters import ClusterAccess, ClusterLook
from skep.model.edge import AccessLine, AppEndpoints, EndpointTraffic
from skep.model.host import (
    ContainerSpec,
    ContainerStatus,
    ContainerUsage,
    DiskSpec,
    DiskUsage,
    ExecSpec,
    HostFacts,
    LogLine,
    NetworkConfig,
    NetworkGuards,
    NetworkPeers,
    NetworkVirtualIps,
    PeersInForce,
    PoolUsage,
    PortConfig,
    ServicePublications,
)
from skep.model.ids import (
    AppId,
    Bytes,
    ContainerId,
    Digest,
    DiskId,
    EndpointId,
    HostName,
    NetworkId,
    PortId,
    ReplicaId,
    ServiceId,
    SnapshotId,
)
from skep.model.images import BuildSpec, ImageInfo, RegistryCredentials
from skep.model.topology import HostLoad
from skep.model.views.clusters import ClusterCheck

Progress = Callable[[str], None]
"""Called with one line at a time; must not block."""


class ExecSession(Protocol):
    """A process started in a running container.  With a TTY stdout carries everything, stderr nothing."""

    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """Chunks as (1 stdout | 2 stderr, bytes), ending when the process has closed both."""

    async def write(self, data: bytes) -> None:
        """Send to stdin; waits while the process is slow to read."""

    async def close_stdin(self) -> None: ...

    async def resize(self, columns: int, rows: int) -> None: ...

    async def wait(self) -> int:
        """The exit code (128 + signal when killed)."""

    async def close(self) -> None:
        """Kill what still runs and free everything.  May be repeated."""


class Engine(Protocol):
    """The containers of one host, kept as they were asked to be.

    A container that was started stays so: the engine restarts it by its policy, probes its health, and
    finds it again after a restart of skep.  It does not survive a reboot by itself: reconcilers start it.
    """

    async def start(self, spec: ContainerSpec) -> None:
        """Make the container and start it.  Running and equal is success; an exited one starts again.

        Its image must be unpacked, its disks attached, its ports plugged.
        Raises:
            InvalidInput: the program or the user does not exist in the image (in words a tenant understands).
        """

    async def stop(self, container: ContainerId, grace: float | None = None) -> None:
        """Send the stop signal, SIGKILL after `grace` seconds (None: the spec's own); no restart after it."""

    async def restart(self, container: ContainerId) -> None:
        """Stop, then start again; counts as a fresh start for the back-off."""

    async def remove(self, container: ContainerId) -> None:
        """Kill it if it runs; remove bundle, mounts, cgroup and logs."""

    async def inspect(self, container: ContainerId) -> ContainerStatus:
        """Raises NotFound: this host does not have it."""

    async def list(self) -> list[ContainerStatus]: ...

    async def wait_ready(self, container: ContainerId) -> None:
        """Return once it is healthy, or, without a health check, once it runs.

        Raises:
            Unavailable: it became unhealthy, exited for good, or ends again and again; the message ends with
                its last log lines.
        """

    async def wait_exit(self, container: ContainerId) -> int:
        """The exit code once it has exited for good."""

    def logs(
        self,
        container: ContainerId,
        *,
        follow: bool = False,
        tail: int | None = None,
        since: str | None = None,
    ) -> AsyncIterator[LogLine]:
        """Oldest first, rotated files included; `follow` goes on until the container is removed."""

    async def exec(self, container: ContainerId, spec: ExecSpec) -> ExecSession:
        """Start a process in the running container.  Raises Conflict: it does not run."""

    async def usage(self, container: ContainerId) -> ContainerUsage: ...

    async def connections(self, container: ContainerId) -> int:
        """Open TCP connections that others have made to it; 0 if it does not run.  Raises NotFound."""


class DiskPool(Protocol):
    """The disks of one host."""

    async def create(self, disk: DiskSpec) -> None:
        """Make an empty disk; writes beyond its size fail with EDQUOT.

        Raises:
            Conflict: a disk with this id and another size or kind exists.
            Exhausted: the pool has no room for its metadata.
        """

    async def resize(self, disk: DiskId, size: Bytes) -> None:
        """Raises InvalidInput: smaller than what is used."""

    async def path(self, disk: DiskId) -> Path:
        """Where the disk is mounted on the host.  Raises NotFound."""

    async def delete(self, disk: DiskId) -> None:
        """With its snapshots."""

    async def list(self) -> dict[DiskId, DiskUsage]: ...

    async def usage(self) -> PoolUsage: ...

    async def snapshot(self, disk: DiskId, snapshot: SnapshotId) -> None:
        """Keep what the disk holds at this moment.  A snapshot with this id that exists stays as it is.

        Raises:
            NotFound: there is no such disk.
        """

    async def restore(self, disk: DiskId, snapshot: SnapshotId) -> None:
        """The disk, which nothing may use now, holds what it held then; the snapshot stays.

        Raises:
            NotFound: there is no such snapshot, or the disk is gone.
        """

    async def delete_snapshot(self, snapshot: SnapshotId) -> None: ...

    async def snapshots(self) -> dict[SnapshotId, DiskId]:
        """Every snapshot, with the disk it is of."""

    def export(self, disk: DiskId, since: str = "") -> AsyncIterator[bytes]:
        """What the data disk holds, as a tar that proves its end (`streams/sealing.py`).

        As of one moment where disks have snapshots; elsewhere what is written meanwhile may be in it or not.
        `since`: the seal of the last export of all that it holds; only what has changed since is sent.
        Raises:
            NotFound: there is no such disk.
            Conflict: what was sent with that seal is not known any more; send all of it.
        """

    async def receive(self, disk: DiskId, stream: AsyncIterator[bytes], onto: str = "") -> None:
        """The disk, which is there and which nothing may use now, holds what was exported, and nothing else.

        All or nothing: if it fails, or nobody is left to end it, the disk holds what it held, and it may be
        asked for again; of two that are under way the younger one counts.

        `onto`: the seal with which what it holds arrived; the stream is what has changed since.  If that
        fails, the disk may hold some of it: send all.
        Raises:
            NotFound: there is no such disk.
            Conflict: something else arrived last; send all of it.
            Exhausted: it does not fit.
            InvalidInput: it is not all that was sent.
            Stale: a younger one has begun.
        """

    async def fingerprint(self, disk: DiskId) -> str:
        """Of all that the disk, which nothing uses now, holds, but for content and attributes.

        Equal for disks in which the same names have the same kinds, owners, modes, sizes, times and targets.
        Raises:
            NotFound: there is no such disk.
        """


class Fabric(Protocol):
    """The tenant networks of one host."""

    async def ensure_network(self, network: NetworkConfig) -> None: ...

    async def delete_network(self, network: NetworkId) -> None: ...

    async def plug(self, port: PortConfig) -> None:
        """Give the replica's network sandbox this NIC; make the sandbox if it is the first.

        The network must be ensured.  Only this address with this MAC can be used through it.
        """

    async def unplug(self, port: PortId) -> None: ...

    async def remove_sandbox(self, replica: ReplicaId) -> None:
        """Remove the replica's network sandbox with all its NICs."""

    async def set_resolvable(self, replica: ReplicaId, up: bool) -> None:
        """Whether the names of the replica's ports resolve (they do while it runs)."""

    async def set_peers(self, peers: NetworkPeers) -> None:
        """Replace what the host knows of the network on other hosts; frames from anybody else are dropped.

        A port that is plugged here stays here, whatever the peers say, until it is unplugged.  What is in
        force outlives a restart of the agent; the same generation again makes it whole.
        Raises:
            Stale: a younger generation is in force; nothing was changed.
            NotFound: the network is not ensured.
            InvalidInput: two ports share an address or a MAC, or one has the gateway's.
            Unsupported: there are peers, and this host has no underlay.
        """

    async def peers(self) -> dict[NetworkId, PeersInForce]:
        """What is in force of every network that was ever told its peers."""

    async def set_guards(self, guards: NetworkGuards) -> None:
        """Replace what decides which connections the guarded addresses of the network may have.

        It holds for what is plugged now and for what is plugged later, and outlives a restart of the agent;
        the same generation again makes it whole.
        Raises:
            Stale: a younger generation is in force; nothing was changed.
            NotFound: the network is not ensured.
            InvalidInput: a port names a group that is not among the groups, or a rule cannot be.
        """

    async def guards(self) -> dict[NetworkId, PeersInForce]:
        """What is in force of every network that was ever told its guards."""

    async def set_virtual_ips(self, told: NetworkVirtualIps) -> None:
        """Replace where the replicas on the network are led that connect to a virtual IP of it.

        New connections are spread over the replicas behind it by weight, and refused at once where there is
        none.  Those that are open stay where they are, but for UDP to a replica that is not named any more.
        It holds for every sandbox with a port on the network, also for those plugged later, and outlives a
        restart of the agent; the same generation again makes it whole.
        Raises:
            Stale: a younger generation is in force; nothing was changed.
            NotFound: the network is not ensured.
            InvalidInput: an address is not one of the network's, or is there twice.
        """

    async def virtual_ips(self) -> dict[NetworkId, PeersInForce]:
        """What is in force of every network that was ever told its virtual IPs."""

    async def publish(self, publications: ServicePublications) -> None:
        """Replace, in one transaction, what the service publishes on the host.

        Ports that another service publishes there, of an older generation, are this one's from then on.
        Raises:
            Stale: something younger is known of the service, or of who has one of its ports; nothing changed.
            Conflict: a process of the host itself listens on that port; or another service publishes it,
                and the generation is not said.
        """

    async def unpublish(self, service: ServiceId) -> None: ...

    async def networks(self) -> set[NetworkId]:
        """The networks that exist on the host, whole (bridge, rules and resolver checked)."""

    async def ports(self) -> set[PortId]:
        """The ports that are plugged, whole."""

    async def sandboxes(self) -> set[ReplicaId]: ...

    async def published(self) -> dict[ServiceId, ServicePublications]: ...


class HostFabric(Fabric, Protocol):
    """What the engine on the same host needs beside."""

    def sandbox(self, replica: ReplicaId) -> Path:
        """The network namespace as a path; it exists once a port is plugged."""


class Edge(Protocol):
    """HTTP(S) by name and path, on one host: where clients come in."""

    async def set_endpoints(self, told: AppEndpoints) -> None:
        """Replace all endpoints of the app at one moment.

        Requests and connections that are under way go on.  It outlives a restart of the agent, and of what
        serves them; the same generation again makes it whole.  A replica on a network that is not ensured
        here gets no requests.
        Raises:
            Stale: a younger generation is in force; nothing was changed.
            Conflict: another process of the host has the port; it is tried again by itself.
            Unsupported: this host is to have no endpoints.
        """

    async def endpoints(self) -> dict[AppId, PeersInForce]:
        """What the host was told last of every app."""

    async def traffic(self) -> list[EndpointTraffic]:
        """Of every endpoint and revision that has servers here; see there for how counters begin anew."""

    async def access(self, endpoint: EndpointId, tail: int = 100) -> list[AccessLine]:
        """The last requests, oldest first; a busy endpoint's are a sample."""


class Issuer(Protocol):
    """A certificate authority that speaks ACME (RFC 8555): one name to an order, proved by HTTP.

    Every method may be repeated, but for `order`, which makes another one.  Nothing waits for the authority's
    work: `look` says how far it is.

    All raise:
        AcmeRefusal: it says no, and why.
        Unavailable: it does not answer.
    """

    @property
    def directory(self) -> str:
        """Which one it is."""

    async def register(self, key: str) -> str:
        """The URL of the account with the key (PEM), made if there is none; its terms are agreed to."""

    async def order(self, account: AcmeAccount, host: str) -> AcmeOrder: ...

    async def look(self, account: AcmeAccount, order: str) -> AcmeOrder: ...

    async def prove(self, account: AcmeAccount, order: str) -> None:
        """Ask it to look for the proof, which is there."""

    async def finalize(self, account: AcmeAccount, order: str, host: str, key: str) -> None:
        """Of an order that is ready: ask for the certificate for this key (PEM)."""

    async def chain(self, account: AcmeAccount, order: str) -> str:
        """Of an order that is valid: the certificate with its chain, PEM."""


class ImageStore(Protocol):
    """Images of one host: blobs by digest, layers unpacked once and shared."""

    async def pull(
        self, reference: str, credentials: RegistryCredentials | None = None, progress: Progress = ...
    ) -> ImageInfo:
        """Fetch from a registry.

        Raises:
            NotFound: the registry has no such image.  Unauthenticated: it wants (other) credentials.
            Unavailable: it does not answer.
        """

    async def load(self, source: Path, progress: Progress = ...) -> dict[str, ImageInfo]:
        """Import an OCI layout (directory or tar), a docker-archive, or a root file-system tar.

        Keys are the references found inside; "" for an image without a name.
        Raises InvalidInput: it is none of these, or a digest does not match.
        """

    def context(self, archive: Path) -> AbstractAsyncContextManager[Path]:
        """An uploaded build context (a tar), unpacked safely for as long as it is needed.

        Raises InvalidInput: it is broken, hostile or too large.
        """

    async def bases(self, context: Path, build: BuildSpec) -> list[str]:
        """The images the Dockerfile builds on, as it writes them.  Raises InvalidInput: it is wrong."""

    async def build(self, context: Path, build: BuildSpec, progress: Progress = ...) -> ImageInfo:
        """Run a Dockerfile in the unpacked context, isolated from the host and from tenants.

        Every image it builds on must be in `build.bases`.

        Raises InvalidInput: the Dockerfile is wrong or a command failed; ends with its last output.
        """

    async def bootstrap(self, suite: str, progress: Progress = ...) -> ImageInfo:
        """Make a Debian base image with debootstrap."""

    async def unpack(self, digest: Digest) -> tuple[Path, ...]:
        """The image's layer directories, lowest first, unpacked and verified.  Raises NotFound."""

    async def info(self, digest: Digest) -> ImageInfo:
        """Raises NotFound."""

    def export(self, digest: Digest) -> AsyncIterator[bytes]:
        """The image as an OCI layout in a tar, for `receive` of another store.  Raises NotFound."""

    async def receive(self, digest: Digest, layout: AsyncIterator[bytes]) -> ImageInfo:
        """Take over what another store exports, verified by digest.

        Raises InvalidInput: it is not this image.
        """

    async def prune(self, keep: set[Digest]) -> Bytes:
        """Delete every image not in `keep`, and blobs and layers nobody uses; answers bytes freed."""


class Spool(Protocol):
    """Files that wait on a host for the run that takes them: archives, build contexts, credentials."""

    async def take(self, file: Path) -> None:
        """Move the file, which is where this process is, to the host, under its own name."""

    async def path(self, name: str) -> Path:
        """Where it is on the host.  Raises NotFound."""

    async def read(self, name: str) -> bytes:
        """For small ones.  Raises NotFound."""

    async def discard(self, name: str) -> None: ...


class Supplies(Protocol):
    """What a host itself asks control for, when it makes a container."""

    async def port(self, port: PortId) -> PortConfig: ...

    async def file(self, digest: str) -> bytes:
        """The content of a config or secret."""

    async def certificate(self, digest: str) -> bytes:
        """A certificate that an endpoint shows, with its key, as PEM.  Raises NotFound: none does."""


class Desired(Supplies, Protocol):
    """What steps and reconcilers ask: specifications by id, so that run histories hold ids only."""

    async def container(self, container: ContainerId) -> ContainerSpec: ...

    async def wanted(self, container: ContainerId) -> bool:
        """Whether the container is its replica's current one and should run, as of now."""

    async def network(self, network: NetworkId) -> NetworkConfig: ...

    async def disk(self, disk: DiskId) -> DiskSpec: ...

    async def publications(self, service: ServiceId, host: HostName) -> ServicePublications:
        """What the host publishes of the service: led to its own replicas, to others while it has none."""


class ContainerEvents(Protocol):
    """Where the agent tells what it observed."""

    async def observed(self, status: ContainerStatus) -> None:
        """Called on every change of state or health; may be repeated."""

    async def removed(self, container: ContainerId) -> None: ...


class Clusters(Protocol):
    """Kubernetes clusters that zones may stand on."""

    async def check(self, kubeconfig: str, context: str | None = None) -> ClusterCheck:
        """What works there and what does not; nothing is changed.

        Raises:
            InvalidInput: it is no kubeconfig, would run programs or read files of this machine, or the
                cluster does not let in who it says.
            Unavailable: the cluster does not answer.
        """

    async def look(self, kubeconfig: str, context: str | None = None) -> ClusterLook:
        """The same, with what control must know of a zone that stands there.  Raises as `check` does."""

    async def check_registry(self, place: str, credentials: RegistryCredentials | None) -> None:
        """Whether the registry lets in who says so.

        Raises:
            InvalidInput: it does not.  Unavailable: it does not answer.
        """

    async def leave(self, cluster: ClusterAccess) -> None:
        """Delete everything that bears the cluster's id; nothing else is touched.  May be repeated.

        Raises:
            Unavailable: the cluster does not answer.
        """

    def rights(self) -> str:
        """Manifests for the account with which skep works in a cluster."""


class SignsOfLife(Protocol):
    """Where a host says that it is there."""

    async def heartbeat(
        self,
        host: HostName,
        *,
        facts: HostFacts | None = None,
        version: str | None = None,
        load: HostLoad | None = None,
    ) -> bool:
        """False: the host was removed, and should end.  May be repeated, and come late."""


class Host(Protocol):
    """One host with all its parts."""

    @property
    def facts(self) -> HostFacts: ...

    @property
    def engine(self) -> Engine: ...

    @property
    def disks(self) -> DiskPool: ...

    @property
    def fabric(self) -> Fabric: ...

    @property
    def edge(self) -> Edge: ...

    @property
    def images(self) -> ImageStore: ...

    @property
    def spool(self) -> Spool: ...
