"""What leads requests into a test cluster: a small ingress controller over Debian's HAProxy.

No controller is in Debian or PyPI.  This one watches the API server and does nothing while nothing changes.
It serves `networking.k8s.io/v1` Ingresses of its class, the cluster's default one, and HTTPRoutes of gateways
of its class, at the address of the control plane's machine, ports 80 and 443; their status says so.  A
new configuration takes the ports over from the one before it (`-x`), which ends when its requests have.
"""

import ssl
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

import httpx
from tests.cluster.kubernetes import client, gateway_rules
from tests.cluster.kubernetes.ingress_rules import (
    CONTROLLER,
    DEFAULT,
    Known,
    Object,
    certificates,
    configuration,
    routes,
)
from tests.cluster.kubernetes.layout import CONTROL, Layout, saved

PROGRAM = "ingress"
CLASS = "haproxy"
_API = "/apis/networking.k8s.io/v1"
_WATCHED = {
    "classes": f"{_API}/ingressclasses",
    "ingresses": f"{_API}/ingresses",
    "services": "/api/v1/services",
    "endpoints": "/api/v1/endpoints",
    "secrets": "/api/v1/secrets?fieldSelector=type%3Dkubernetes.io/tls",
}
_OF_GATEWAYS = {
    "gateways": f"{gateway_rules.API}/gateways",
    "routes": f"{gateway_rules.API}/httproutes",
}
_TOGETHER = 0.02
"""Seconds for what comes with a change: a service and its endpoints are two."""


def objects(layout: Layout) -> list[Object]:
    return [ingress_class(), *(gateway_rules.definitions() if _has_gateways(layout) else ())]


def ingress_class() -> Object:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": CLASS, "annotations": {DEFAULT: "true"}},
        "spec": {"controller": CONTROLLER},
    }


def _has_gateways(layout: Layout) -> bool:
    """A cluster that was raised before goes on without: its API server does not survive custom resources."""
    return layout.recipe >= gateway_rules.RECIPE


class Controller:
    """Of one cluster, in the network of its control plane's machine."""

    def __init__(self, layout: Layout, folder: Path) -> None:
        self._layout = layout
        self._address = str(layout.address(CONTROL))
        self._haproxy = Haproxy(folder)
        self._watched = _WATCHED | (_OF_GATEWAYS if _has_gateways(layout) else {})
        self._parts: dict[str, list[Object]] = {}
        self._news = threading.Event()

    def serve(self) -> None:
        """For ever; the API server may come and go."""
        with client.connect(self._layout, "skep-test-ingress") as api:
            for part in self._watched:
                threading.Thread(target=self._follow, args=(api, part), daemon=True).start()
            while True:
                self._news.wait()
                client.pause(_TOGETHER)
                self._news.clear()
                if self._parts.keys() == self._watched.keys():
                    self._bring(api, Known(**self._parts))

    def _follow(self, api: httpx.Client, part: str) -> None:
        while True:
            try:
                for found in client.follow(api, self._watched[part]):
                    self._parts[part] = found
                    self._news.set()
            except httpx.HTTPError as error:
                print(error, flush=True)
                client.pause(1)

    def _bring(self, api: httpx.Client, known: Known) -> None:
        try:
            self._haproxy.serve(known, self._address)
            self._tell(api, known)
        except (httpx.HTTPError, subprocess.SubprocessError) as error:
            print(error, flush=True)

    def _tell(self, api: httpx.Client, known: Known) -> None:
        """Each ingress says where it is served."""
        status = {"loadBalancer": {"ingress": [{"ip": self._address}]}}
        for one in known.ours():
            meta = one["metadata"]
            if one.get("status") != status:
                path = f"{_API}/namespaces/{meta['namespace']}/ingresses/{meta['name']}/status"
                client.merge(api, path, {"status": status})


class Haproxy:
    """One that takes new connections; those before it end what they began."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._now = ""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def serve(self, known: Known, address: str) -> None:
        """Raises CalledProcessError: HAProxy does not take it; what was served is served on."""
        shown = [
            f"{self._certificate(pem)} {host}"
            for host, pem in sorted(certificates(known.ours(), known.secrets).items())
            if _is_good(pem)
        ]
        crt_list = self._written("".join(f"{line}\n" for line in shown).encode(), "list")
        found = [*routes(known.ours()), *gateway_rules.http_routes(known)]
        wanted = configuration(known, found, address=address, admin=str(self._admin), crt_list=str(crt_list))
        if wanted != self._now:
            (self._folder / "haproxy.cfg").write_text(wanted)
            self._start()
            self._now = wanted

    def _start(self) -> None:
        pid = self._folder / "pid"
        command = ["haproxy", "-D", "-f", str(self._folder / "haproxy.cfg"), "-p", str(pid)]
        if old := [one for one in _pids(pid) if Path(f"/proc/{one}").exists()]:
            command += ["-x", str(self._admin), "-sf", *old]
        subprocess.run(command, check=True, timeout=30, cwd="/")

    @property
    def _admin(self) -> Path:
        return self._folder / "admin"

    def _certificate(self, pem: bytes) -> Path:
        return self._written(pem, "pem")

    def _written(self, content: bytes, kind: str) -> Path:
        """In a file that is called by what is in it, so that a change of it is one of the configuration."""
        file = self._folder / f"{sha256(content).hexdigest()[:20]}.{kind}"
        file.touch(mode=0o600)
        file.write_bytes(content)
        return file


def _pids(file: Path) -> list[str]:
    with suppress(FileNotFoundError):
        return file.read_text().split()
    return []


def _is_good(pem: bytes) -> bool:
    """One that is broken must not keep the others from being shown."""
    with tempfile.NamedTemporaryFile() as file, suppress(ssl.SSLError):
        file.write(pem)
        file.flush()
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file.name)
        return True
    return False


if __name__ == "__main__":
    found = saved(sys.argv[1])
    assert found is not None, "there is no such cluster"
    Controller(found, found.folder / CONTROL / PROGRAM).serve()
