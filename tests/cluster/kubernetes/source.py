"""The source of Kubernetes as Debian has it: complete, with every command and every vendored module.

Its binary packages are clients alone.  Where sources come from is derived from where the machine gets its
packages, in a configuration of apt that nobody else sees.
"""

import os
from pathlib import Path

from tests.cluster.kubernetes.progress import Failed, run, say

VERSION = "1.20.2"
"""As upstream says; Debian's revision may move on."""
_ORIGIN = "Debian"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_TARGETS = "$(CREATED_BY)|$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"


def fetch(folder: Path) -> Path:
    """The unpacked source, in that folder.

    Raises:
        Failed: the machine's sources of packages do not offer it.
    """
    tree = folder / "kubernetes"
    if (tree / "cmd/kube-apiserver").is_dir():
        return tree
    say(f"getting the source of Kubernetes {VERSION} from Debian (34 MB)")
    apt = _private_apt(folder / "apt")
    run(["apt-get", *apt, "-q", "update"])
    run(["apt-get", *apt, "-q", "source", "--download-only", f"kubernetes={_revision(apt)}"], folder=folder)
    descriptions = sorted(folder.glob("kubernetes_*.dsc"))
    unpacked = folder / "unpacked"
    run(["rm", "-rf", unpacked])
    run(["dpkg-source", "--no-check", "-x", descriptions[-1], unpacked], folder=folder)
    unpacked.rename(tree)
    return tree


def source_entries(targets: str, keyring: Path | None) -> str:
    """apt's entries for sources, from what `apt-get indextargets` says of packages."""
    signed = f"[signed-by={keyring}] " if keyring else ""
    rows = [line.split("|") for line in targets.splitlines()]
    found = {
        f"deb-src {signed}{uri} {release} {component}\n"
        for created_by, origin, uri, release, component in rows
        if (created_by, origin, component) == ("Packages", _ORIGIN, "main")
    }
    return "".join(sorted(found))


def _private_apt(folder: Path) -> list[str]:
    """The options of an apt that knows sources alone and keeps its lists in that folder."""
    (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
    entries = source_entries(_targets(), _KEYRING if _KEYRING.exists() else None)
    if not entries:
        raise Failed(
            "apt knows no archive of Debian: Kubernetes is built from Debian's source, on Debian 12."
        )
    (folder / "sources.list").write_text(entries)
    settings = {
        "Dir::Etc::SourceList": folder / "sources.list",
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": folder / "lists",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "APT::Sandbox::User": "root",
    }
    return [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


def _targets() -> str:
    command = ["apt-get", "indextargets", "--format", _TARGETS]
    targets = run(command)
    if f"|{_ORIGIN}|" not in targets and os.geteuid() == 0:  # a fresh machine has no lists
        run(["apt-get", "-q", "update"])
        targets = run(command)
    return targets


def _revision(apt: list[str]) -> str:
    """Debian's newest revision of our version."""
    for paragraph in run(["apt-cache", *apt, "showsrc", "kubernetes"]).split("\n\n"):
        for line in paragraph.splitlines():
            if line.startswith("Version: ") and VERSION in line:
                return line.removeprefix("Version: ").strip()
    raise Failed(f"Debian's archives, as this machine knows them, have no source of Kubernetes {VERSION}.")
