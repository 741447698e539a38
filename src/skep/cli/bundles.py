"""`skep bundle`."""

import io
import os
import stat
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.names import complete_bundle
from skep.cli.output import age, confirm, document, say, show, show_one, size
from skep.model.views.bundles import BundleView, PreflightView

app = App(name="bundle", help="Bundles: push flows and plug-in code, switch them on and back. For admins.")

Bundle = Annotated[str, Parameter(completer=complete_bundle)]
Flag = Annotated[bool, Parameter(negative=())]
_LARGEST = 50 * 1024 * 1024


@app.command(name="ls")
def list_bundles(*, common: Common = DEFAULT) -> None:
    """List all versions, newest first.

    Example: `skep bundle ls`
    """
    columns = [
        ("BUNDLE", lambda one: one.name),
        ("VERSION", lambda one: one.version),
        ("HASH", lambda one: one.hash[:12]),
        ("ACTIVE", lambda one: one.active),
        ("PROCESS", lambda one: one.process),
        ("PUSHED", lambda one: age(one.pushed)),
        ("BY", lambda one: one.by),
    ]
    show(common.connect().get("/v1/bundles", list[BundleView]), columns, common.output)


@app.command(name="show")
def show_bundle(bundle: Bundle, /, *, common: Common = DEFAULT) -> None:
    """Show one version: by its hash, or the newest of a name.

    Example: `skep bundle show acme-deploy`

    Parameters
    ----------
    bundle
        Its hash or the first 8 or more digits of it; a name stands for its newest version.
    """
    fields = [
        ("Bundle", lambda one: f"{one.name} {one.version}"),
        ("Hash", lambda one: one.hash),
        ("Active", lambda one: one.active),
        ("About", lambda one: one.description),
        ("Steps", lambda one: one.steps),
        ("Process", lambda one: one.process),
        ("Requires", lambda one: one.requirements),
        (
            "Rights",
            lambda one: [
                f"{name}: {size(right) if name == 'memory' else right}" for name, right in one.rights.items()
            ],
        ),
        ("Pushed", lambda one: f"{age(one.pushed)} ago by {one.by}"),
    ]
    show_one(common.connect().get(f"/v1/bundles/{bundle}", BundleView), fields, common.output)


@app.command
def push(directory: Path, /, *, activate: Flag = False, common: Common = DEFAULT) -> None:
    """Send a bundle; it is checked, kept, and not used before it is activated. Prints its hash.

    Example: `skep bundle push acme-deploy/`

    Parameters
    ----------
    directory
        Where its bundle.yaml is.
    activate
        Activate it, too.
    """
    client = common.connect()
    made = client.upload("/v1/bundles", BundleView, iter([pack(directory)]))
    say(f"{made.name} {made.version} is kept as {made.hash[:12]}.")
    if activate:
        client.post(f"/v1/bundles/{made.hash}/activate", PreflightView)
        say(f"It is active: new runs use it; `skep bundle rollback {made.name}` takes it back.")
    if common.output == "table":
        print(made.hash)
    else:
        document(made, common.output)


@app.command
def preflight(bundle: Bundle, /, *, common: Common = DEFAULT) -> None:
    """Say what would become of each run under way if this version were activated.

    Example: `skep bundle preflight acme-deploy`

    Parameters
    ----------
    bundle
        Its hash or the first 8 or more digits of it; a name stands for its newest version.
    """
    _show_fates(common.connect().get(f"/v1/bundles/{bundle}/preflight", PreflightView), common)


@app.command
def activate(bundle: Bundle, /, *, migrate: Flag = False, common: Common = DEFAULT) -> None:
    """Have new runs use this version from now on. Runs under way stay with theirs.

    Example: `skep bundle activate 9f86d081884c --migrate`

    Parameters
    ----------
    bundle
        Its hash or the first 8 or more digits of it; a name stands for its newest version.
    migrate
        Move the runs under way that can be moved.
    """
    done = common.connect().post(f"/v1/bundles/{bundle}/activate", PreflightView, migrate=migrate)
    say(f"{done.bundle.name} {done.bundle.version} ({done.bundle.hash[:12]}) is active.")
    if migrate or common.output != "table":
        _show_fates(done, common, "Runs that were under way on other versions")


@app.command
def rollback(name: Bundle, /, *, common: Common = DEFAULT) -> None:
    """Activate the version that was in force before.

    Example: `skep bundle rollback acme-deploy`

    Parameters
    ----------
    name
        Name of the bundle.
    """
    now = common.connect().post(f"/v1/bundles/{name}/rollback", BundleView)
    if common.output != "table":
        document(now, common.output)
    say(f"{now.name} {now.version} ({now.hash[:12]}) is active again.")


@app.command
def deactivate(
    name: Bundle,
    /,
    *,
    yes: Annotated[bool, Parameter(name=["--yes", "-y"], negative=())] = False,
    common: Common = DEFAULT,
) -> None:
    """Have no version in force: its flows cannot be started any more. Runs under way go on.

    Example: `skep bundle deactivate acme-deploy --yes`

    Parameters
    ----------
    name
        Name of the bundle.
    yes
        Do not ask.
    """
    confirm(f"Deactivate {name}?", yes)
    common.connect().act("DELETE", f"/v1/bundles/{name}/activation")
    say(f"No version of {name} is active.")


@app.command
def gc(*, keep: int = 3, common: Common = DEFAULT) -> None:
    """Forget versions that are neither active nor needed by a run under way.

    Example: `skep bundle gc --keep 5`

    Parameters
    ----------
    keep
        How many of each name to keep anyhow, the newest.
    """
    gone = common.connect().post("/v1/bundles/collect", list[BundleView], keep=str(keep))
    if common.output != "table":
        document(gone, common.output)
    say(f"Forgot {', '.join(f'{one.name} {one.version} ({one.hash[:12]})' for one in gone) or 'nothing'}.")


def pack(directory: Path) -> bytes:
    """A tar of the plain files, without hidden ones and compiled code, compressed with zstd.

    Raises:
        Failure: it is no bundle, or too large.
    """
    import zstandard

    if not (directory / "bundle.yaml").is_file():
        hint = "A bundle is a directory with a bundle.yaml; see docs/how-to/bundles.md."
        raise Failure(f"There is no bundle.yaml in {directory.resolve()}.", Exit.INVALID, hint)
    buffer, size = io.BytesIO(), 0
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in sorted(_files(directory)):
            size += path.stat().st_size
            if size > _LARGEST:
                raise Failure(f"{directory} is larger than 50 MiB.", Exit.INVALID)
            member = tarfile.TarInfo(name)
            content = path.read_bytes()
            member.size = len(content)
            member.mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            archive.addfile(member, io.BytesIO(content))
    return zstandard.ZstdCompressor().compress(buffer.getvalue())


def _files(directory: Path) -> Iterator[tuple[str, Path]]:
    root = directory.resolve()
    for parent, folders, names in os.walk(directory):
        folders[:] = [name for name in folders if name != "__pycache__" and not name.startswith(".")]
        for path in (Path(parent, name) for name in names):
            if path.name.startswith(".") or path.suffix == ".pyc":
                continue
            if not path.resolve().is_relative_to(root) or not path.is_file():
                raise Failure(f"{path} is no file within the bundle.", Exit.INVALID)
            yield path.relative_to(directory).as_posix(), path


def _show_fates(
    found: PreflightView, common: Common, whose: str = "Runs under way on other versions"
) -> None:
    if common.output != "table":
        document(found, common.output)
        return
    counts = Counter(fate.verdict for fate in found.fates)
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    say(f"{whose} of {found.bundle.name}: {said or 'none'}.")
    if found.fates:
        columns = [
            ("RUN", lambda one: one.run),
            ("FLOW", lambda one: one.flow),
            ("VERDICT", lambda one: one.verdict),
            ("WHY", lambda one: "; ".join(one.reasons)),
        ]
        show(found.fates, columns, "table")
