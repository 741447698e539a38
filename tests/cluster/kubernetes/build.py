"""The programs of Kubernetes, built once per machine and kept outside of every checkout."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.kubernetes import source
from tests.cluster.kubernetes.mending import mend
from tests.cluster.kubernetes.progress import run, run_long, say

CACHE = Path(os.environ.get("SKEP_KUBERNETES_CACHE", "/var/cache/skep-kubernetes"))
RECIPE = 2
"""Raised when what is built, or how, changes."""
PROGRAMS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "kubemark",
)
_GO = Path("/usr/lib/go-1.19")
_INSTALL = Path(__file__).parents[3] / "scripts/install"
_VENDOR = "k8s.io/kubernetes/vendor/k8s.io"
_GENERATED = "pkg/generated/openapi/zz_generated.openapi.go"
"""The one generated file that Debian's package lacks."""
_UNDOCUMENTED = ("/code-generator/", "/sample-apiserver/", "/testdata/", "vendor/k8s.io/kube-openapi/")


def programs() -> Path:
    """The folder with all of them, built now if they are not there.

    Raises:
        Failed: they cannot be built here.
    """
    home = CACHE / f"{source.VERSION}-{RECIPE}"
    ready = home / "bin"
    if not ready.is_dir():
        with _alone(home):
            if not ready.is_dir():
                _build(home)
    return ready


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One builds, the others wait."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(home: Path) -> None:
    if not _GO.is_dir():
        run([_INSTALL, "--go"])
    work = home / "work"
    tree = source.fetch(_made(work))
    mend(tree)
    gopath = _made(work / "gopath/src/k8s.io").parents[1]
    link = gopath / "src/k8s.io/kubernetes"
    if not link.is_symlink():
        link.symlink_to(tree)
    _generate(work, gopath)
    say(f"building Kubernetes {source.VERSION}: about 4 minutes on two idle cores")
    flags = [
        "-v",
        "-tags",
        "providerless notest",
        "-ldflags",
        _linker_flags(),
        "-o",
        f"{_made(work / 'bin')}/",
    ]
    commands = [f"./cmd/{name}" for name in PROGRAMS]
    _go(work, gopath, ["build", *flags, *commands], "building Kubernetes")
    (work / "bin").rename(home / "bin")
    # Only the programs are needed from now on; the rest is 2 GB.
    shutil.rmtree(work, ignore_errors=True)


def _generate(work: Path, gopath: Path) -> None:
    """What the API server publishes as its OpenAPI document; written aside: what is there is whole."""
    tree, aside = gopath / "src/k8s.io/kubernetes", work / "generated"
    if (tree / _GENERATED).exists():
        return
    say("generating the OpenAPI definitions")
    generator = work / "openapi-gen"
    target = f"{_VENDOR}/kube-openapi/cmd/openapi-gen"
    _go(work, gopath, ["build", "-v", "-o", str(generator), target], "building the generator")
    run_long(
        [
            *("nice", generator, "-i", ",".join(f"k8s.io/kubernetes/{name}" for name in _documented(tree))),
            *("-p", "k8s.io/kubernetes/pkg/generated/openapi", "-O", "zz_generated.openapi", "-o", aside),
            *("-h", "hack/boilerplate/boilerplate.generatego.txt", "-r", work / "violations"),
        ],
        _environment(work, gopath),
        tree,
        "generating the OpenAPI definitions",
    )
    (aside / "k8s.io/kubernetes" / _GENERATED).rename(tree / _GENERATED)


def _documented(tree: Path) -> list[str]:
    """The packages that ask for OpenAPI definitions."""
    found = run(
        [
            *("grep", "-rlE", "--include=*.go", "--exclude=*_test.go", r"^// *\+k8s:openapi-gen="),
            *("pkg", "cmd", "plugin", *sorted(str(path) for path in tree.glob("vendor/k8s.io/*/"))),
        ],
        folder=tree,
    )
    folders = {str(Path(line).parent).removeprefix(f"{tree}/") for line in found.splitlines()}
    return sorted(folder for folder in folders if not any(part in f"{folder}/" for part in _UNDOCUMENTED))


def _linker_flags() -> str:
    major, minor, _ = source.VERSION.split(".")
    facts = {"gitVersion": f"v{source.VERSION}", "gitMajor": major, "gitMinor": minor}
    packages = ("client-go/pkg/version", "component-base/version")
    named = [f"-X {_VENDOR}/{p}.{key}={value}" for p in packages for key, value in facts.items()]
    return " ".join(["-s", "-w", *named])


def _go(work: Path, gopath: Path, words: list[str], what: str) -> None:
    tree = gopath / "src/k8s.io/kubernetes"
    run_long(["nice", "-n", "15", _GO / "bin/go", *words], _environment(work, gopath), tree, what)


def _environment(work: Path, gopath: Path) -> dict[str, str]:
    """Offline, by GOPATH: as modules the vendored tree does not build."""
    return {
        "PATH": f"{_GO}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(work),
        "GOROOT": str(_GO),
        "GOPATH": str(gopath),
        "GOCACHE": str(work / "gocache"),
        "GO111MODULE": "off",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
        # Tools look for their package where the shell says they are, not where links lead.
        "PWD": str(gopath / "src/k8s.io/kubernetes"),
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
