"""Where the edge of a host keeps its files.

Not below the installation's other folders, which only root may enter: HAProxy runs without privileges, and
reads them.  What it writes itself is in a folder of its own, so that it cannot change what it is told.
"""

import os
import pwd
import shutil
from pathlib import Path

import msgspec

USERS = ("haproxy", "nobody")


class Place(msgspec.Struct, frozen=True):
    directory: Path

    @classmethod
    def of(cls, instance: str) -> "Place":
        return cls(Path("/run") / f"{instance}-edge")

    @property
    def config(self) -> Path:
        return self.directory / "haproxy.cfg"

    @property
    def routes(self) -> Path:
        return self.directory / "routes.map"

    @property
    def hold(self) -> Path:
        """The code that lets requests wait."""
        return self.directory / "hold.lua"

    @property
    def proofs(self) -> Path:
        """What certificate authorities are to find, by host name and path."""
        return self.directory / "proofs.map"

    @property
    def certificates(self) -> Path:
        """The list of certificates with the names they are shown for."""
        return self.directory / "certificates.list"

    @property
    def own_certificate(self) -> Path:
        """Shown where there is no other."""
        return self.directory / "own.pem"

    def certificate(self, digest: str) -> Path:
        return self.directory / f"{digest}.pem"

    @property
    def log(self) -> Path:
        return self.directory / "log"

    @property
    def live(self) -> Path:
        return self.directory / "live"

    @property
    def admin(self) -> Path:
        """The socket of the runtime API."""
        return self.live / "admin"

    @property
    def pid(self) -> Path:
        return self.live / "pid"

    def make(self) -> None:
        uid, gid = account()
        self.directory.mkdir(mode=0o750, exist_ok=True)
        os.chown(self.directory, 0, gid)
        self.live.mkdir(mode=0o700, exist_ok=True)
        os.chown(self.live, uid, gid)

    def write(self, path: Path, content: str) -> None:
        """For HAProxy to read, and nobody else."""
        draft = path.with_name(f".{path.name}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o640)
        with os.fdopen(descriptor, "w") as file:
            os.fchown(descriptor, 0, account()[1])
            file.write(content)
        draft.replace(path)

    def remove(self) -> None:
        shutil.rmtree(self.directory, ignore_errors=True)


def account() -> tuple[int, int]:
    """The user and group HAProxy runs as."""
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = next(known[name] for name in USERS if name in known)
    return entry.pw_uid, entry.pw_gid
