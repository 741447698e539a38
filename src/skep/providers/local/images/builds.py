"""Building images from Dockerfiles with buildah, away from everything.

Each scope (a tenant) has a buildah storage of its own: its layer cache and its base images, which are brought
in from the store only when a build of that scope may use them.  So nothing that a Dockerfile can name leads
to an image of someone else.  buildah runs in a `sandbox.Room`, in the network of builds, in the cgroup of
builds, at low priority; when it ends or is killed, its room takes all processes and mounts along.
"""

import asyncio
import contextlib
import re
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec

from skep.model.errors import HostFailure, InvalidInput
from skep.model.ids import Bytes, Digest, Seconds
from skep.model.images import BuildSpec
from skep.providers.local.commands import LineSink, Outcome, follow
from skep.providers.local.images.blobs import Blobs, hex_of
from skep.providers.local.images.build_groups import BuildGroup
from skep.providers.local.images.build_network import BuildNetwork, upstream_servers
from skep.providers.local.images.dockerfiles import base_references, check_instructions, expand_bases
from skep.providers.local.images.layers import remove_tree, size_of
from skep.providers.local.images.manifests import (
    OCI_MANIFEST,
    Configuration,
    Descriptor,
    checked_digest,
    read_index,
    read_manifest,
)
from skep.providers.local.images.sandbox import Room, inside

_SCOPE = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_STORAGE = "/build/cache/storage"
_JOB = Path("/build/job")
_CONTEXT = Path("/build/context")
_RUN_ROOT = "/run/buildah"
"""Inside the room: the scope's storage, this step's folder, the context; state of mounts, gone with it."""
_BUILDAH = ("buildah", "--root", _STORAGE, "--runroot", _RUN_ROOT, "--storage-driver", "overlay")
_STORED = f"containers-storage:[overlay@{_STORAGE}+{_RUN_ROOT}]"
"""The prefix of images in the scope's storage, as containers-transports(5) writes it."""
_CONFIGURATION = "configuration.json"
_INSPECT = ("sh", "-c", 'skopeo inspect --config --raw "$1" > "$2"', "inspect")
_LARGEST_DOCKERFILE = 1024 * 1024
_LAST_LINES = 20
_NOISE = re.compile(
    r"level=(warning|info|debug)|Failed to remove (cgroup|paths)"
    r"|^(Getting image source|Copying |Writing manifest|Storing sig)"
)


class BuildLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What all builds of a host together may use, and how long one may take.

    A scope's cache that was not used for `cache_age`, or is larger than `cache_size`, is deleted by pruning.
    """

    memory: Bytes = Bytes(4 * 1024**3)
    pids: int = 4096
    at_once: int = 2
    timeout: Seconds = Seconds(1800.0)
    cache_age: Seconds = Seconds(7 * 86_400.0)
    cache_size: Bytes = Bytes(20 * 1024**3)


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """An image in the storage of a scope."""

    scope: str
    image: str


class Builds:
    """Builds below `root`; temporary files in `scratch`.  Without a network builds have only loopback."""

    def __init__(
        self,
        *,
        root: Path,
        scratch: Path,
        blobs: Blobs,
        network: BuildNetwork | None,
        runtime: str,
        instance: str,
        limits: BuildLimits,
    ) -> None:
        self._root = root
        self._scratch = scratch
        self._blobs = blobs
        self._network = network
        self._runtime = runtime
        self._limits = limits
        self._group = BuildGroup(instance, memory=limits.memory, pids=limits.pids)
        self._slots = asyncio.Semaphore(limits.at_once)
        self._locks: dict[str, asyncio.Lock] = {}

    def prepare(self) -> None:
        self._root.mkdir(parents=True, exist_ok=True)
        for left in [*self._root.glob("job-*"), *self._root.glob("gone-*")]:
            remove_tree(left)

    async def build(self, context: Path, build: BuildSpec, progress: LineSink) -> Built:
        """Run the Dockerfile.

        Raises:
            InvalidInput: it is wrong, a base is missing, a command failed, or it took too long.
        """
        scope = _checked_scope(build.scope)
        dockerfile = read_dockerfile(context, build)
        check_instructions(dockerfile)
        _check_bases(needed_bases(context, build), build.bases)
        async with self._slots, self._locked(scope), self._job() as job:
            for digest in sorted(set(build.bases.values())):
                await self._bring(scope, digest, job, progress)
            _write_instructions(context, build, job, dockerfile)
            command = _command(self._runtime, f"/{self._group.name}/{job.name}", build)
            told = _translated(progress, build.bases)
            outcome = await self._run(scope, command, job, told, context=context, networked=True)
            if outcome.code:
                raise InvalidInput("The build failed:\n" + _last_words(outcome))
            return Built(scope=scope, image=(job / "image").read_text().strip().removeprefix("sha256:"))

    async def export(self, built: Built, stored: Mapping[Digest, Descriptor], place: Path) -> Digest:
        """Bring a built image into the store; layers that are `stored` already are not written again.

        buildah keeps layers as plain tars, so the name of a blob it would write is the layer's diff id.
        An empty file of that name makes it believe the blob is there.
        """
        async with self._slots, self._locked(built.scope), self._job() as job:
            target = job / "out"
            folder = target / "blobs" / "sha256"
            folder.mkdir(parents=True)
            for layer in stored:
                (folder / hex_of(layer)).touch()
            source = f"{_STORED}@{built.image}"
            command = ("skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers")
            await self._must(built.scope, (*command, source, f"oci:{_JOB / target.name}:image"), job)
            await self._must(built.scope, (*_INSPECT, source, _JOB / target.name / _CONFIGURATION), job)
            return await asyncio.to_thread(self._collect, target, stored)

    async def prune(self) -> Bytes:
        """Delete build caches that are old or too large; answers the bytes freed."""
        freed = 0
        for folder in [path for path in self._root.iterdir() if _SCOPE.fullmatch(path.name)]:
            lock = self._locks.setdefault(folder.name, asyncio.Lock())
            if not lock.locked():
                async with lock:
                    freed += await asyncio.to_thread(self._delete_if_stale, folder)
        return Bytes(freed)

    async def _bring(self, scope: str, digest: Digest, job: Path, progress: LineSink) -> None:
        """Make a base image available to the builds of a scope under a private name."""
        have = await self._run(scope, (*_BUILDAH, "images", "-q", _base_name(digest)), job, _ignore)
        if have.code == 0:
            return
        progress(f"preparing base {digest[:19]}")
        layout = await asyncio.to_thread(self._blobs.layout_of, digest, job / f"base-{hex_of(digest)}")
        source, target = f"oci:{_JOB / layout.name}", f"{_STORED}{_base_name(digest)}"
        await self._must(scope, ("skopeo", "copy", "--quiet", source, target), job)

    async def _must(self, scope: str, command: tuple[str | Path, ...], job: Path) -> None:
        """Run a step that has no reason to fail."""
        outcome = await self._run(scope, command, job, _ignore)
        if outcome.code:
            raise HostFailure(f"buildah failed: {_last_words(outcome)}")

    async def _run(
        self,
        scope: str,
        command: tuple[str | Path, ...],
        job: Path,
        progress: LineSink,
        *,
        context: Path | None = None,
        networked: bool = False,
    ) -> Outcome:
        if networked and self._network:
            await self._network.ensure()
        base = job / "room"
        base.mkdir(exist_ok=True)
        room = Room(
            base=base,
            writable={str(Path(_STORAGE).parent): self._root / scope, str(_JOB): job},
            readable={str(_CONTEXT): context} if context else {},
            network=self._network.path if networked and self._network else None,
            groups=await asyncio.to_thread(self._group.prepare),
            nameservers=tuple(str(server) for server in upstream_servers()) if networked else (),
        )
        try:
            return await follow(
                inside(room, command),
                lambda line: None if _NOISE.search(line) else progress(line),
                environment=_environment(job),
                timeout=self._limits.timeout,
            )
        except TimeoutError as error:
            raise InvalidInput(f"The build took longer than {self._limits.timeout:.0f} s.") from error

    def _collect(self, target: Path, stored: Mapping[Digest, Descriptor]) -> Digest:
        """Take over what is new in a written layout, and its manifest with our own layers in it."""
        index = read_index((target / "index.json").read_bytes())
        folder = target / "blobs" / "sha256"
        manifest = read_manifest((folder / hex_of(checked_digest(index.manifests[0].digest))).read_bytes())
        config = checked_digest(manifest.config.digest)
        self._blobs.put_file(folder / hex_of(config), config)
        diff_ids = msgspec.json.decode(self._blobs.document(config), type=Configuration).rootfs.diff_ids
        layers = tuple(
            stored.get(Digest(diff_id)) or self._take(folder, layer)
            for diff_id, layer in zip(diff_ids, manifest.layers, strict=True)
        )
        image = self._blobs.put_manifest(
            msgspec.structs.replace(manifest, layers=layers, media_type=OCI_MANIFEST)
        )
        return self._blobs.with_healthcheck(image, (target / _CONFIGURATION).read_bytes())

    def _take(self, folder: Path, layer: Descriptor) -> Descriptor:
        digest = checked_digest(layer.digest)
        self._blobs.put_file(folder / hex_of(digest), digest)
        return layer

    def _delete_if_stale(self, folder: Path) -> int:
        stale = time.time() - folder.stat().st_mtime > self._limits.cache_age
        size = size_of(folder)
        if not stale and size <= self._limits.cache_size:
            return 0
        grave = self._root / f"gone-{folder.name}"
        remove_tree(grave)
        folder.rename(grave)
        remove_tree(grave)
        return size

    @contextlib.asynccontextmanager
    async def _locked(self, scope: str) -> AsyncIterator[None]:
        """One build per scope at a time: buildah's storage would serialise most of it anyway."""
        async with self._locks.setdefault(scope, asyncio.Lock()):
            folder = self._root / scope
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "used").touch()
            yield

    @contextlib.asynccontextmanager
    async def _job(self) -> AsyncIterator[Path]:
        """A folder for one step, on the file system of the store (for hard links), gone at the end."""
        job = Path(tempfile.mkdtemp(dir=self._root, prefix="job-"))
        try:
            yield job
        finally:
            await asyncio.to_thread(remove_tree, job)


def _command(runtime: str, group: str, build: BuildSpec) -> tuple[str | Path, ...]:
    """The build, by paths inside the room."""
    bases = [f"{name}=container-image://{_base_name(digest)}" for name, digest in build.bases.items()]
    return (
        # Docker's format has HEALTHCHECK, ONBUILD and SHELL; `export` turns it into OCI's.
        *_BUILDAH,
        *("build", "--isolation", "oci", "--runtime", runtime, "--network", "host", "--pull=never"),
        *("--format", "docker", "--layers", "--cgroup-parent", group, "--file", _JOB / "Dockerfile"),
        # buildah would show the host's cgroups, writable by the root of the build.
        *("--volume", "/run/empty:/sys/fs/cgroup:ro"),
        *("--ignorefile", _JOB / "ignore", "--iidfile", _JOB / "image", "--identity-label=false"),
        *(["--no-cache"] if build.no_cache else []),
        *(["--target", build.target] if build.target else []),
        *(part for base in bases for part in ("--build-context", base)),
        *(part for key, value in build.args.items() for part in ("--build-arg", f"{key}={value}")),
        *(part for key, value in build.labels.items() for part in ("--label", f"{key}={value}")),
        _CONTEXT,
    )


def _write_instructions(context: Path, build: BuildSpec, job: Path, dockerfile: str) -> None:
    (job / "Dockerfile").write_text(expand_bases(dockerfile, build.args))
    (job / "ignore").write_text(_read_ignore(context, build.dockerfile))


def needed_bases(context: Path, build: BuildSpec) -> list[str]:
    """The images that the Dockerfile names in FROM and COPY --from, as it writes them."""
    return base_references(read_dockerfile(context, build), build.args)


def read_dockerfile(context: Path, build: BuildSpec) -> str:
    """The text of the Dockerfile, which must lie in the context: a link that leads out is refused."""
    if build.dockerfile_inline is not None:
        return build.dockerfile_inline
    text = _read_inside(context, build.dockerfile)
    if text is None:
        raise InvalidInput(f"The build context has no {build.dockerfile!r}.")
    return text


def _read_ignore(context: Path, dockerfile: str) -> str:
    """The Dockerfile's own .dockerignore, or the context's; empty without one."""
    return _read_inside(context, f"{dockerfile}.dockerignore") or _read_inside(context, ".dockerignore") or ""


def _read_inside(context: Path, name: str) -> str | None:
    path = (context / name).resolve()
    if not path.is_relative_to(context.resolve()) or not path.is_file():
        return None
    if path.stat().st_size > _LARGEST_DOCKERFILE:
        raise InvalidInput(f"{name} is larger than {_LARGEST_DOCKERFILE} bytes.")
    return path.read_text(errors="replace")


def _check_bases(needed: list[str], bases: Mapping[str, Digest]) -> None:
    if missing := [name for name in needed if name not in bases]:
        raise InvalidInput(f"There is no image {missing[0]!r}: import or pull it first.")


def _checked_scope(scope: str) -> str:
    if not _SCOPE.fullmatch(scope) or scope.startswith(("job-", "gone-")):
        raise InvalidInput(f"{scope!r} cannot be the scope of a build.")
    return scope


def _base_name(digest: Digest) -> str:
    return f"localhost/skep-base:{hex_of(digest)}"


def _translated(progress: LineSink, bases: Mapping[str, Digest]) -> LineSink:
    """Show base images by the names the Dockerfile has for them."""
    names = {_base_name(digest): name for name, digest in bases.items()}

    def told(line: str) -> None:
        for private, name in names.items():
            line = line.replace(private, name)
        progress(line)

    return told


def _environment(job: Path) -> dict[str, str]:
    """Of a process in the room."""
    (job / "tmp").mkdir(exist_ok=True)
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "TMPDIR": str(_JOB / "tmp"),
        "CONTAINERS_CONF": "/etc/containers/containers.conf",
        "CONTAINERS_REGISTRIES_CONF": "/etc/containers/registries.conf",
    }


def _last_words(outcome: Outcome) -> str:
    told = [line for line in outcome.lines if not _NOISE.search(line)]
    return "\n".join(line[:2000] for line in told[-_LAST_LINES:])


def _ignore(line: str) -> None:
    """Output of steps that a user need not see."""
