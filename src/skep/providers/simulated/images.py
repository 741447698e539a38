"""Images as digests: nothing is unpacked or run.  Satisfies `ImageStore` of control.

Archives are recognised as the local store does it, and Dockerfiles are read by the same parser.
"""

import hashlib
import io
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from skep.model.errors import InvalidInput, NotFound, Unauthenticated
from skep.model.ids import Bytes, Digest
from skep.model.images import BuildSpec, ImageConfig, ImageInfo, RegistryCredentials
from skep.providers.local.images.builds import needed_bases, read_dockerfile
from skep.providers.local.images.dockerfiles import check_instructions
from skep.providers.local.images.sources import Kind, detect, saved_images

_MIB = 1024 * 1024
_SIMULATED = "skep.simulated.image"
"""The annotation by which a simulated image knows itself again."""


def _silent(line: str) -> None:
    """Progress nobody asked for."""


Progress = Callable[[str], None]


class SimulatedImages:
    """`registries`: what can be pulled, by full reference (`docker.io/library/redis:7`).

    `password`: what the registries ask for, if they do.
    """

    def __init__(
        self,
        *,
        registries: Mapping[str, ImageInfo] | None = None,
        password: str | None = None,
        root: Path = Path("/simulated/layers"),
    ) -> None:
        self._registries = dict(registries or {})
        self._password = password
        self._root = root
        self._images: dict[Digest, ImageInfo] = {}

    async def pull(
        self, reference: str, credentials: RegistryCredentials | None = None, progress: Progress = _silent
    ) -> ImageInfo:
        progress(f"pulling {reference}")
        if self._password is not None and (credentials is None or credentials.password != self._password):
            raise Unauthenticated(f"The registry of {reference} wants credentials.")
        if reference not in self._registries:
            raise NotFound(f"The registry has no image {reference}.")
        return self.add(self._registries[reference])

    async def load(self, source: Path, progress: Progress = _silent) -> dict[str, ImageInfo]:
        kind = detect(source)
        progress(f"{source.name}: {kind.value}")
        match kind:
            case Kind.OCI_FOLDER:
                return self._named(_names_of_layout((source / "index.json").read_bytes()), source.name)
            case Kind.OCI_TAR:
                return self._named(_names_of_layout(_member(source, "index.json")), _hash_of(source))
            case Kind.DOCKER_TAR:
                names = [name for saved in saved_images(source) for name in saved.names or ("",)]
                return self._named(names, _hash_of(source))
            case Kind.ROOT_TAR:
                _must_hold_files(source)
                return {"": self.add(image(_hash_of(source), source.stat().st_size))}

    @asynccontextmanager
    async def context(self, archive: Path) -> AsyncIterator[Path]:
        with tempfile.TemporaryDirectory() as place:
            try:
                with tarfile.open(archive, "r:*") as tar:
                    tar.extractall(place, filter="data")
            except (tarfile.TarError, OSError, EOFError) as error:
                raise InvalidInput(f"The build context cannot be unpacked: {error}") from error
            yield Path(place)

    async def bases(self, context: Path, build: BuildSpec) -> list[str]:
        return needed_bases(context, build)

    async def build(self, context: Path, build: BuildSpec, progress: Progress = _silent) -> ImageInfo:
        dockerfile = read_dockerfile(context, build)
        check_instructions(dockerfile)
        for base in needed_bases(context, build):
            if base not in build.bases:
                raise InvalidInput(f"The Dockerfile builds on {base}, which is not here.")
            await self.info(build.bases[base])
        for line in dockerfile.splitlines():
            progress(line)
            if line.split() == ["RUN", "false"]:
                raise InvalidInput(f"The build failed at {line!r}.")
        essence = msgspec.json.encode((dockerfile, build.args, build.bases, _hashes(context)), order="sorted")
        return self.add(image(hashlib.sha256(essence).hexdigest(), _MIB))

    async def bootstrap(self, suite: str, progress: Progress = _silent) -> ImageInfo:
        progress(f"making Debian {suite}")
        return self.add(image(hashlib.sha256(suite.encode()).hexdigest(), 100 * _MIB))

    async def unpack(self, digest: Digest) -> tuple[Path, ...]:
        info = await self.info(digest)
        return tuple(self._root / layer.removeprefix("sha256:") for layer in info.layers)

    async def info(self, digest: Digest) -> ImageInfo:
        if digest not in self._images:
            raise NotFound(f"This host does not have the image {digest}.")
        return self._images[digest]

    async def export(self, digest: Digest) -> AsyncIterator[bytes]:
        """As much of an OCI layout as there is: its index, with all that is known of the image."""
        about = msgspec.json.encode(await self.info(digest)).decode()
        index = msgspec.json.encode(_Index(manifests=(_Descriptor(annotations={_SIMULATED: about}),)))
        with io.BytesIO() as whole:
            with tarfile.open(fileobj=whole, mode="w") as tar:
                for name, content in (("oci-layout", b"{}"), ("index.json", index)):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
            yield whole.getvalue()

    async def receive(self, digest: Digest, layout: AsyncIterator[bytes]) -> ImageInfo:
        with tempfile.NamedTemporaryFile(suffix=".tar") as file:
            file.write(b"".join([block async for block in layout]))
            file.flush()
            index = _index_of(_member(Path(file.name), "index.json"))
        for found in index.manifests:
            info = msgspec.json.decode(found.annotations.get(_SIMULATED, "null"), type=ImageInfo | None)
            if info is not None and info.digest == digest:
                return self.add(info)
        raise InvalidInput(f"What arrived is not the image {digest}.")

    async def prune(self, keep: set[Digest]) -> Bytes:
        gone = [self._images.pop(digest) for digest in set(self._images) - keep]
        return Bytes(sum(info.size for info in gone))

    def add(self, info: ImageInfo) -> ImageInfo:
        """Have the image, wherever it comes from."""
        self._images[info.digest] = info
        return info

    def digests(self) -> set[Digest]:
        return set(self._images)

    def _named(self, names: list[str], seed: str) -> dict[str, ImageInfo]:
        if not names:
            raise InvalidInput("The archive holds no image.")
        return {
            name: self.add(image(hashlib.sha256(f"{seed} {number}".encode()).hexdigest(), _MIB))
            for number, name in enumerate(names)
        }


def image(hexadecimal: str, size: int, config: ImageConfig | None = None) -> ImageInfo:
    """An image of one layer, named after the 64 digits given."""
    layer = hashlib.sha256(hexadecimal.encode()).hexdigest()
    return ImageInfo(
        digest=Digest(f"sha256:{hexadecimal}"),
        config=config or ImageConfig(cmd=("/bin/sh",)),
        layers=(Digest(f"sha256:{layer}"),),
        size=Bytes(size),
    )


def _hash_of(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): _hash_of(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def _must_hold_files(source: Path) -> None:
    """Raises InvalidInput: not a tar, or one with nothing in it."""
    try:
        with tarfile.open(source, "r:*") as tar:
            empty = tar.next() is None
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InvalidInput(f"{source.name} is no archive that can be read: {error}") from error
    if empty:
        raise InvalidInput(f"{source.name} holds no root file system: it is empty.")


def _member(archive: Path, name: str) -> bytes:
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                if member.name.removeprefix("./") == name and (file := tar.extractfile(member)):
                    return file.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise InvalidInput(f"{archive.name} cannot be read: {error}") from error
    raise InvalidInput(f"{archive.name} has no {name}.")


class _Descriptor(msgspec.Struct, frozen=True):
    annotations: dict[str, str] = {}


class _Index(msgspec.Struct, frozen=True):
    manifests: tuple[_Descriptor, ...] = ()


def _index_of(document: bytes) -> _Index:
    try:
        return msgspec.json.decode(document, type=_Index)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"The index of the OCI layout cannot be read: {error}") from error


def _names_of_layout(document: bytes) -> list[str]:
    found = _index_of(document)
    return [item.annotations.get("org.opencontainers.image.ref.name", "") for item in found.manifests]
