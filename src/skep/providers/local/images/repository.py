"""One repository of a registry, where images are kept by digest: pushed, asked for, fetched, deleted.

skopeo does it, with the credentials in memory.  An image is tagged with its own digest, so that what is
there can be listed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from skep.model.errors import HostFailure, NotFound, SkepError, Unavailable, Unsupported
from skep.model.ids import Digest
from skep.model.images import RegistryCredentials
from skep.providers.local.commands import LineSink, follow, run
from skep.providers.local.images.manifests import checked_digest, digest_of
from skep.providers.local.images.skopeo import authfile, explain_refusal, may_be_plain, registry_of

_TIMEOUT = 3600.0
_PREFIX = "sha256-"


class _Tags(msgspec.Struct, frozen=True, rename="pascal"):
    tags: tuple[str, ...] | None = None


class Repository:
    """`place` is HOST[:PORT]/PATH; registries named as `insecure` may speak plain HTTP.

    All raise:
        NotFound: the registry has no such image.  Unauthenticated: it wants (other) credentials.
        Unavailable: it does not answer.
    """

    def __init__(
        self, place: str, credentials: RegistryCredentials | None = None, insecure: tuple[str, ...] = ()
    ) -> None:
        self.place = place
        self.registry = registry_of(place)
        self.credentials = credentials
        self._plain = may_be_plain(self.registry, insecure)

    def reference(self, digest: Digest) -> str:
        """As whoever runs it names it."""
        return f"{self.place}@{checked_digest(digest)}"

    async def push(self, layout: Path, digest: Digest, progress: LineSink) -> None:
        """The only image of an OCI layout; parts that are there are not sent again.

        It keeps its digest: what the registry makes of it otherwise is an error.
        """
        with self._login("dest") as options:
            words = ["copy", "--preserve-digests", "--retry-times", "2", *options]
            await self._follow([*words, f"oci:{layout}", self._tagged(digest)], progress, "pushed")
        if (there := digest_of(await self.manifest(digest))) != digest:
            raise Unavailable(f"The registry {self.registry} keeps {there} in place of {digest}.")

    async def manifest(self, digest: Digest) -> bytes:
        """As it is there."""
        return await self._inspect(digest, "--raw")

    async def configuration(self, digest: Digest) -> bytes:
        return await self._inspect(digest, "--config", "--raw")

    async def fetch(self, digest: Digest, layout: Path, blobs: Path, progress: LineSink) -> None:
        """Into an OCI layout, its blobs into the shared folder."""
        with self._login("src") as options:
            words = ["copy", "--retry-times", "2", "--dest-shared-blob-dir", str(blobs)]
            words += ["--dest-oci-accept-uncompressed-layers", *options]
            await self._follow([*words, self._docker(digest), f"oci:{layout}:image"], progress, "fetched")

    async def images(self) -> list[Digest]:
        """What was pushed here; nothing, if nothing ever was."""
        try:
            found = msgspec.json.decode(await self._run("list-tags", f"docker://{self.place}"), type=_Tags)
        except NotFound:
            return []
        names = [tag.removeprefix(_PREFIX) for tag in found.tags or () if tag.startswith(_PREFIX)]
        return [Digest(f"sha256:{name}") for name in names if len(name) == 64]

    async def delete(self, digest: Digest) -> None:
        """Absent is success.  Raises Unsupported: this registry deletes nothing."""
        try:
            await self._run("delete", self._docker(digest))
        except NotFound:
            return
        except Unavailable as error:
            if any(sign in error.message.lower() for sign in ("unsupported", "405", "not allowed")):
                raise Unsupported(f"The registry {self.registry} deletes no images.") from error
            raise

    async def _inspect(self, digest: Digest, *options: str) -> bytes:
        return await self._run("inspect", "--retry-times", "2", *options, self._docker(digest))

    async def _run(self, verb: str, *words: str) -> bytes:
        with self._login("") as options:
            try:
                return (await run("skopeo", verb, *options, *words)).encode()
            except HostFailure as error:
                raise self._refusal(error.message, "asked for") from error

    async def _follow(self, words: list[str], progress: LineSink, what: str) -> None:
        try:
            outcome = await follow(["skopeo", *words], _without_errors(progress), timeout=_TIMEOUT)
        except TimeoutError as error:
            raise Unavailable(f"{self.place} took longer than {_TIMEOUT:.0f} s.") from error
        if outcome.code:
            raise self._refusal(outcome.text, what)

    def _refusal(self, said: str, what: str) -> SkepError:
        return explain_refusal(self.place, said, with_credentials=self.credentials is not None, what=what)

    def _docker(self, digest: Digest) -> str:
        return f"docker://{self.reference(digest)}"

    def _tagged(self, digest: Digest) -> str:
        return f"docker://{self.place}:{checked_digest(digest).replace(':', '-')}"

    @contextmanager
    def _login(self, side: str) -> Iterator[list[str]]:
        """Options for the side of the copy that is the registry; "" where there is no other side."""
        prefix = f"--{side}-" if side else "--"
        with authfile(self.place, self.credentials) as auth:
            login = [f"{prefix}no-creds"] if auth is None else ["--authfile", str(auth)]
            yield [*login, *([f"{prefix}tls-verify=false"] if self._plain else [])]


def _without_errors(progress: LineSink) -> LineSink:
    return lambda line: None if "level=fatal" in line else progress(line)
