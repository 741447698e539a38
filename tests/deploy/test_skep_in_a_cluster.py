"""skep's control plane in a real cluster: installed, killed, upgraded, removed, and its API is never away."""

import secrets
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest
from tests.cluster.kubernetes.cluster import Cluster
from tests.cluster.kubernetes.progress import Failed
from tests.deploy import building
from tests.deploy.archives import named
from tests.deploy.manifests import DEPLOY, ROOT

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.slow, pytest.mark.timeout(3600)]

NAMES = {"skep": "localhost/skep:of-tests", "skep-trial": "localhost/skep-trial:of-tests"}
ATTEMPTS = 25
"""Of a request, until it counts as unanswered: clients of skep ask again, too."""
Ask = Callable[..., str]


@pytest.fixture(scope="module")
def images(kubernetes: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """On every node."""
    folder = tmp_path_factory.mktemp("images")
    for archive, name in zip(building.archives(), NAMES.values(), strict=True):
        kubernetes.load(named(archive, name, folder / "image.tar"))


@pytest.fixture
def ask(kubernetes: Cluster) -> Iterator[Ask]:
    """kubectl in a namespace of the test's own, which ends with it."""
    namespace = f"skep-{secrets.token_hex(4)}"
    kubernetes.kubectl("create", "namespace", namespace)
    yield lambda *words, **more: kubernetes.kubectl("--namespace", namespace, *words, **more)
    kubernetes.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def overlay(ask: Ask) -> Iterator[Path]:
    """The trial, with the images of these tests; within the project, for its base is named from there."""
    folder = ROOT / "build" / f"overlay-{secrets.token_hex(4)}"
    folder.mkdir(parents=True)
    lines = ["bases: [../../deploy/kubernetes/overlays/trial-before-1.21]", "images:"]
    for name, image in NAMES.items():
        repository, _, tag = image.rpartition(":")
        lines += [
            f"  - name: registry.example.com/{name}",
            f"    newName: {repository}",
            f"    newTag: {tag}",
        ]
    lines += [f"namespace: {_namespace(ask)}"]
    (folder / "kustomization.yaml").write_text("\n".join(lines) + "\n")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.usefixtures("images")
def test_skep_comes_up_survives_kills_is_upgraded_and_goes(
    kubernetes: Cluster, ask: Ask, overlay: Path
) -> None:
    secret = subprocess.run(
        [DEPLOY / "kubernetes" / "trial-secret"], check=True, capture_output=True, text=True
    )
    ask("create", "--filename=-", stdin=secret.stdout)
    ask("apply", f"--kustomize={overlay}")
    _wait(ask)

    with Client(ask) as client, client.asking() as unanswered:
        before = client.get("/v1/zones").json()
        for component in ("worker", "api"):
            ask("delete", "pod", "--grace-period=0", "--force", _one(ask, component))
        _wait(ask)
        ask("rollout", "restart", "deployment/skep-api", "deployment/skep-worker")
        _wait(ask)
        after = client.get("/v1/zones").json()

    assert unanswered == []
    assert [zone["name"] for zone in before] == ["zone-1"]
    assert after == before
    kubernetes.until(lambda: _says_that_it_is_up(ask), "the command within a pod finds its server")
    assert ask("get", "secret", "skep", "--output=jsonpath={.metadata.name}") == "skep"

    ask("delete", f"--kustomize={overlay}")
    kubernetes.until(lambda: not ask("get", "pods", "--output=name"), "nothing of it runs any more")


class Client:
    """Of the API, by the address and the name of its Service, and by the authority that vouches for it."""

    def __init__(self, ask: Ask) -> None:
        address = ask("get", "service", "skep-api", "--output=jsonpath={.spec.clusterIP}")
        authority = ask("exec", "deployment/skep-api", "--", "cat", "/var/lib/skep/etc/authority.pem")
        token = ask("exec", "deployment/skep-api", "--", "cat", "/keys/admin.token").strip()
        self._name = f"skep-api.{_namespace(ask)}.svc"
        self._http = httpx.Client(
            base_url=f"https://{address}:7537",
            verify=ssl.create_default_context(cadata=authority),
            headers={"Authorization": f"Bearer {token}", "Connection": "close"},
            timeout=30,
            trust_env=False,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str) -> httpx.Response:
        """Asked again if a connection breaks.  Raises HTTPError: nobody answers."""
        for attempt in range(ATTEMPTS):
            try:
                answer = self._http.get(path, extensions={"sni_hostname": self._name})
                return answer.raise_for_status()
            except httpx.HTTPError:
                if attempt + 1 == ATTEMPTS:
                    raise
                time.sleep(0.2)
        raise AssertionError("unreachable")

    @contextmanager
    def asking(self) -> Iterator[list[str]]:
        """Without a pause; what was not answered is in the list."""
        unanswered: list[str] = []
        ended = threading.Event()

        def work() -> None:
            while not ended.wait(0.1):
                try:
                    self.get("/readyz")
                except httpx.HTTPError as error:
                    unanswered.append(repr(error))

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield unanswered
        finally:
            ended.set()
            thread.join()


def _wait(ask: Ask) -> None:
    for name in ("statefulset/skep-postgresql", "statefulset/skep-rabbitmq"):
        ask("rollout", "status", name, "--timeout=600s")
    ask("wait", "job/skep-migrate", "--for=condition=Complete", "--timeout=600s")
    for name in ("deployment/skep-api", "deployment/skep-worker"):
        ask("rollout", "status", name, "--timeout=600s")


def _says_that_it_is_up(ask: Ask) -> bool:
    """Not of a pod that is about to end, which kubectl may choose as well."""
    with suppress(Failed):
        return "is up at" in ask("exec", "deployment/skep-api", "--", "skep", "status")
    return False


def _one(ask: Ask, component: str) -> str:
    found = ask("get", "pods", f"--selector=app.kubernetes.io/component={component}", "--output=name").split()
    return found[0].removeprefix("pod/")


def _namespace(ask: Ask) -> str:
    return ask("get", "serviceaccount", "default", "--output=jsonpath={.metadata.namespace}")
