"""Fetching images with skopeo, and telling a user what a registry's refusal means."""

import asyncio
import base64
import ipaddress
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from skep.model.errors import HostFailure, InvalidInput, NotFound, SkepError, Unauthenticated, Unavailable
from skep.model.ids import Digest
from skep.model.images import RegistryCredentials
from skep.providers.local.commands import LineSink, Outcome, follow, run
from skep.providers.local.images.manifests import checked_digest, for_this_host, read_index

_MEMORY = Path("/dev/shm")  # noqa: S108 - credentials belong into memory, not onto a disk
_REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@\[\]-]{0,500}")
_DOCKER_HUB = "docker.io"


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """An image that lies in the blob folder as OCI, and the configuration it had at its source."""

    digest: Digest
    configuration: bytes


class Skopeo:
    """Copies images into a shared blob folder; blobs that lie there are not fetched again."""

    def __init__(self, blobs: Path, insecure: tuple[str, ...] = (), timeout: float = 3600.0) -> None:
        self._blobs = blobs
        self._insecure = insecure
        self._timeout = timeout

    async def fetch(
        self, reference: str, credentials: RegistryCredentials | None, workplace: Path, progress: LineSink
    ) -> Fetched:
        """Copy from a registry.

        Raises:
            NotFound, Unauthenticated, Unavailable: what the registry said.
        """
        name = full_reference(reference)
        with authfile(name, credentials) as auth:
            plain = may_be_plain(registry_of(name), self._insecure)
            options = ["--src-tls-verify=false"] if plain else []
            options += ["--authfile", str(auth)] if auth else ["--src-no-creds"]
            outcome = await self._copy([*options, f"docker://{name}"], workplace, progress)
            if outcome.code:
                raise explain_refusal(reference, outcome.text, with_credentials=credentials is not None)
            options = ["--tls-verify=false"] if plain else []
            options += ["--authfile", str(auth)] if auth else ["--no-creds"]
            configuration = await self._configuration([*options, f"docker://{name}"], reference)
        return Fetched(digest=_copied(workplace), configuration=configuration)

    async def convert(self, source: str, workplace: Path, progress: LineSink) -> Digest:
        """Copy from a local archive in skopeo's notation.  Raises InvalidInput: it is broken."""
        outcome = await self._copy([source], workplace, progress)
        if outcome.code:
            raise InvalidInput(f"The archive cannot be read: {_reason(outcome.text)}")
        return _copied(workplace)

    async def _configuration(self, arguments: list[str], reference: str) -> bytes:
        """The image's configuration as the registry has it, before any conversion."""
        command = ["skopeo", "inspect", "--config", "--raw", "--retry-times", "2", *arguments]
        try:
            async with asyncio.timeout(self._timeout):
                return (await run(*command)).encode()
        except (HostFailure, TimeoutError) as error:
            raise Unavailable(f"The configuration of {reference!r} could not be fetched: {error}") from error

    async def _copy(self, arguments: list[str], workplace: Path, progress: LineSink) -> Outcome:
        command = ["skopeo", "copy", "--dest-shared-blob-dir", str(self._blobs), *arguments]
        command[2:2] = ["--dest-oci-accept-uncompressed-layers", "--retry-times", "2"]
        environment = {**os.environ, "TMPDIR": str(workplace.parent)}
        try:
            return await follow(
                [*command, f"oci:{workplace}:image"],
                lambda line: None if "level=fatal" in line else progress(line),
                environment=environment,
                timeout=self._timeout,
            )
        except TimeoutError as error:
            raise Unavailable(f"Copying took longer than {self._timeout:.0f} s.") from error


def may_be_plain(registry: str, insecure: tuple[str, ...]) -> bool:
    """Registries that may speak HTTP or show any certificate: on loopback, or named by the operator."""
    if registry in insecure:
        return True
    host = registry.rsplit(":", 1)[0] if not registry.endswith("]") else registry
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def full_reference(reference: str) -> str:
    """Spell out what people leave away: `nginx` is `docker.io/library/nginx:latest`.

    Raises:
        InvalidInput: it is no image reference.
    """
    if not _REFERENCE.fullmatch(reference) or "//" in reference:
        raise InvalidInput(f"{reference[:200]!r} is not the name of an image.")
    registry, _, rest = reference.partition("/")
    if not rest or not ("." in registry or ":" in registry or registry == "localhost"):
        registry, rest = _DOCKER_HUB, reference
    if registry == _DOCKER_HUB and "/" not in rest:
        rest = f"library/{rest}"
    if "@" in rest:  # A digest says everything; skopeo refuses a tag beside it.
        name, digest = rest.split("@", 1)
        return f"{registry}/{name.rsplit(':', 1)[0]}@{checked_digest(digest)}"
    return f"{registry}/{rest}" if ":" in rest else f"{registry}/{rest}:latest"


def registry_of(name: str) -> str:
    """The registry of a full reference."""
    return name.partition("/")[0]


def explain_refusal(reference: str, said: str, *, with_credentials: bool, what: str = "fetched") -> SkepError:
    """The error kind behind skopeo's words; unknown ones count as "does not answer"."""
    reason, text = _reason(said), said.lower()
    if any(sign in text for sign in ("unauthorized", "authentication required", "denied", "status 401")):
        what = "refuses these credentials" if with_credentials else "wants credentials"
        return Unauthenticated(f"The registry {what} for {reference!r}, or there is no such image: {reason}")
    if any(sign in text for sign in ("manifest unknown", "name unknown", "not found", "status 404")):
        return NotFound(f"The registry has no image {reference!r}: {reason}")
    if "no image found in" in text:
        return NotFound(f"{reference!r} has no variant for this host's architecture: {reason}")
    if "http response to https client" in text:
        return InvalidInput(
            f"The registry of {reference!r} speaks plain HTTP: name it in `insecure_registries` of "
            "/etc/skep/skep.yaml, and start skep again."
        )
    return Unavailable(f"{reference!r} could not be {what}: {reason}")


def _reason(said: str) -> str:
    """The end of skopeo's error line, which names the cause."""
    lines = [line for line in said.splitlines() if "level=fatal" in line] or said.splitlines()[-1:]
    text = lines[-1] if lines else "skopeo said nothing"
    found = re.search(r'msg="(.*)"', text)
    return (found.group(1) if found else text).replace('\\"', "'")[-600:]


def _copied(workplace: Path) -> Digest:
    return checked_digest(for_this_host(read_index((workplace / "index.json").read_bytes())).digest)


@contextmanager
def authfile(name: str, credentials: RegistryCredentials | None) -> Iterator[Path | None]:
    """The credentials as a file in memory that only root can read (containers-auth.json(5))."""
    if credentials is None:
        yield None
        return
    secret = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    content = msgspec.json.encode({"auths": {registry_of(name): {"auth": secret}}})
    with tempfile.NamedTemporaryFile(dir=_MEMORY if _MEMORY.is_dir() else None, prefix="skep-auth-") as file:
        file.write(content)
        file.flush()
        yield Path(file.name)
