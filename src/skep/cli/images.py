"""`skep image`."""

import getpass
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.follow import finish
from skep.cli.output import age, say, show, size
from skep.model.views.base import Accepted
from skep.model.views.images import ImageView, PruneView

app = App(name="image", help="Images: list, pull, import, build, save, remove.")

Shared = Annotated[bool, Parameter(negative=())]
_STABLE = "bookworm"
"""The release of Debian that `debian` means, and that the examples build on."""


@app.command(name="ls")
def list_images(*, common: Common = DEFAULT) -> None:
    """List the images of the tenant and those shared with everybody.

    Example: `skep image ls`
    """
    columns = [
        ("REFERENCE", lambda one: one.reference),
        ("DIGEST", lambda one: one.digest.removeprefix("sha256:")[:12]),
        ("SIZE", lambda one: size(one.size)),
        ("SHARED", lambda one: one.tenant is None),
        ("IN USE", lambda one: one.in_use),
        ("CREATED", lambda one: age(one.created)),
    ]
    show(common.connect().get("/v1/images", list[ImageView]), columns, common.output)


@app.command
def pull(
    reference: str,
    /,
    *,
    username: Annotated[str | None, Parameter(name=["--username", "-u"])] = None,
    password_stdin: Annotated[bool, Parameter(negative=())] = False,
    shared: Shared = False,
    common: Common = DEFAULT,
) -> None:
    """Fetch an image from a registry.

    Example: `skep image pull registry.example.com/team/web:1.2 --username ann`

    Parameters
    ----------
    reference
        Image to fetch.
    username
        User at the registry; its password is asked for.
    password_stdin
        Read the password from stdin.
    shared
        Show it to all tenants; for admins.
    """
    body: dict[str, object] = {"reference": reference, "shared": shared}
    if username is not None:
        body |= {"username": username, "password": ask_password(password_stdin)}
    client = common.connect()
    finish(client, client.post("/v1/images/pull", Accepted, body))


@app.command(name="import")
def import_image(
    archive: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    reference: str | None = None,
    /,
    *,
    shared: Shared = False,
    common: Common = DEFAULT,
) -> None:
    """Import an OCI layout, a docker-archive or a root file-system tar.

    Examples: `skep image import rootfs.tar base:1`; `docker save web | skep image import -`

    Parameters
    ----------
    archive
        File to import; `-` is stdin. A directory is an OCI layout.
    reference
        Name to give it; by default the one inside.
    shared
        Show it to all tenants; for admins.
    """
    client = common.connect()
    accepted = client.upload(
        "/v1/images/import", Accepted, _read(archive), reference=reference, shared=shared
    )
    finish(client, accepted)


@app.command
def build(
    context: Path = Path(),
    /,
    *,
    tag: Annotated[str, Parameter(name=["--tag", "-t"])],
    file: Annotated[str, Parameter(name=["--file", "-f"])] = "Dockerfile",
    build_arg: tuple[str, ...] = (),
    target: str | None = None,
    no_cache: Annotated[bool, Parameter(negative=())] = False,
    common: Common = DEFAULT,
) -> None:
    """Build an image from a Dockerfile.

    Example: `skep image build -t web:1 .`

    Parameters
    ----------
    context
        Directory that is sent, without what .dockerignore names.
    tag
        Name of the image.
    file
        Dockerfile, seen from the context.
    build_arg
        NAME=VALUE for an ARG of the Dockerfile.
    target
        Stage to build.
    no_cache
        Do not use earlier builds.
    """
    from skep.cli.apply import build_one, tagged
    from skep.compose.project import Build

    arguments = dict(one.partition("=")[::2] for one in build_arg)
    wanted = Build(
        context=context.absolute(), dockerfile=file, args=arguments, target=target, no_cache=no_cache
    )
    build_one(common.connect(), wanted, tagged(tag))


@app.command
def bootstrap(
    suite: str = _STABLE,
    /,
    *,
    reference: str | None = None,
    shared: bool = True,
    common: Common = DEFAULT,
) -> None:
    """Make a base image from Debian's packages; needs no registry. For admins.

    Examples: `skep image bootstrap` makes `debian:bookworm`; `skep image bootstrap trixie`

    Parameters
    ----------
    suite
        Release of Debian: `bookworm`, `trixie` or another; `debian` means `bookworm`.
    reference
        Name of the image; by default debian:SUITE.
    shared
        Show it to all tenants.
    """
    suite = _STABLE if suite == "debian" else suite.removeprefix("debian:")
    body = {"suite": suite, "reference": reference or f"debian:{suite}", "shared": shared}
    client = common.connect()
    finish(client, client.post("/v1/images/bootstrap", Accepted, body))


@app.command
def save(
    reference: str,
    archive: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    /,
    *,
    common: Common = DEFAULT,
) -> None:
    """Write an image to a file, to be taken elsewhere: an OCI layout in a tar.

    Example: `skep image save web:1 web.tar`; a registry gets it by
    `skopeo copy oci-archive:web.tar docker://registry.example.com/web:1`

    Parameters
    ----------
    reference
        Image to write.
    archive
        File to write it to; `-` is stdout.
    """
    blocks = common.connect().download("/v1/images/archive", reference=reference)
    if str(archive) == "-":
        for block in blocks:
            sys.stdout.buffer.write(block)
        return
    draft = archive.with_name(f"{archive.name}.part")
    try:
        with draft.open("wb") as file:
            file.writelines(blocks)
        draft.replace(archive)
    except OSError as error:
        raise Failure(f"{archive} cannot be written: {error.strerror}", Exit.INVALID) from error
    finally:
        draft.unlink(missing_ok=True)
    say(f"Wrote {archive}.")


@app.command
def rm(reference: str, /, *, common: Common = DEFAULT) -> None:
    """Remove an image. Replicas that use it go on.

    Example: `skep image rm web:1`

    Parameters
    ----------
    reference
        Image to remove.
    """
    common.connect().act("DELETE", "/v1/images", reference=reference)
    say(f"Removed {reference}.")


@app.command
def prune(*, common: Common = DEFAULT) -> None:
    """Delete what no image and no replica uses.

    Example: `skep image prune`
    """
    freed = common.connect().post("/v1/images/prune", PruneView).freed
    say(f"Freed {size(freed)}.")


def ask_password(stdin: bool) -> str:
    """Of a registry, from a terminal or the next line of stdin; never an argument, which others can see."""
    if stdin:
        return sys.stdin.readline().rstrip("\n")
    return getpass.getpass("Password of the registry: ")


def _read(archive: Path) -> Iterator[bytes]:
    """The archive, chunk by chunk; a directory becomes a tar on the way.

    Raises:
        Failure: it cannot be read.
    """
    if archive.is_dir():
        from skep.cli.archive import everything, stream

        yield from stream(archive, everything(archive))
        return
    try:
        with sys.stdin.buffer if str(archive) == "-" else archive.open("rb") as file:
            while chunk := file.read(256 * 1024):
                yield chunk
    except OSError as error:
        raise Failure(f"{archive} cannot be read: {error.strerror}", Exit.INVALID) from error
