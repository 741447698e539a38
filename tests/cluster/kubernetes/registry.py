"""A registry of plain HTTP for images of tests, where nodes can reach it: Debian's docker-registry."""

import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
from tests.cluster.kubernetes.cluster import Cluster
from tests.cluster.kubernetes.machine import wait_until
from tests.cluster.kubernetes.progress import run

_PORT = 5000
_WITH_US = ("setpriv", "--pdeathsig=KILL", "--")
"""It ends with whoever serves it, also if that is killed."""
_SETTINGS = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "{address}"}}
"""


@contextmanager
def serve(cluster: Cluster, port: int = _PORT) -> Iterator[str]:
    """One on this machine's address among the cluster's, trusted by its nodes: HOST:PORT."""
    address = f"{cluster.layout.gateway}:{port}"
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "settings.yaml")
        settings.write_text(_SETTINGS.format(folder=folder, address=address))
        with (
            Path(folder, "log").open("w") as log,
            subprocess.Popen(
                [*_WITH_US, "docker-registry", "serve", settings], stdout=log, stderr=log
            ) as process,
        ):
            try:
                wait_until(lambda: _answers(address), 60, f"the registry at {address} answers")
                cluster.trust(address)
                yield address
            finally:
                process.kill()


def push(archive: Path, name: str, reference: str) -> None:
    """The image of that name in an OCI archive, to HOST:PORT/REPOSITORY:TAG of such a registry."""
    copy = ["skopeo", "--insecure-policy", "copy", "--quiet", "--dest-tls-verify=false"]
    run([*copy, f"oci-archive:{archive}:{name}", f"docker://{reference}"])


def _answers(address: str) -> bool:
    with suppress(httpx.HTTPError):
        return httpx.get(f"http://{address}/v2/", trust_env=False).status_code == httpx.codes.OK
    return False
