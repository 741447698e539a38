"""Endpoints of an app in a cluster, as clients meet them who come in through its ingress controller.

One skep for the whole file; the tests are a story and come in this order.
"""

import shutil
import ssl
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import httpx
import pytest
from tests.cluster.kubernetes import registry
from tests.cluster.kubernetes.certificates import Authority
from tests.cluster.kubernetes.cluster import Cluster
from tests.cluster.kubernetes.layout import CONTROL
from tests.cluster.kubernetes.test_a_zone import Someone
from tests.machines import busybox_archive

pytestmark = [pytest.mark.root, pytest.mark.kubernetes, pytest.mark.timeout(900)]

HOST, SECURE = "shop.example", "secure.example"
COMPOSE = """
name: shop
x-skep: {zones: [k8s], release: {RELEASE}}
services:
  web:
    image: busybox:1
    command: [sh, -c, "mkdir -p /tmp/api; echo VERSION >/tmp/index.html; echo of api >/tmp/api/index.html;
      exec httpd -f -p 8080 -h /tmp"]
    healthcheck: {test: [CMD, wget, -q, -O, "-", "http://127.0.0.1:8080/"], interval: 1s, retries: 30}
    expose: ["8080"]
    stop_grace_period: 5s
    deploy: {replicas: 3}
    x-skep:
      endpoints:
        - shop.example
        - {host: secure.example, path: /api, tls: shop}
"""
_REGISTRY = 5002


@pytest.fixture(scope="module")
def someone(kubernetes: Cluster) -> Iterator[Someone]:
    folder = Path(tempfile.mkdtemp(prefix="skependpoints-", dir="/srv"))
    with registry.serve(kubernetes, _REGISTRY) as address:
        person = Someone(folder, kubernetes, address)
        try:
            person.up()
            person.type("image", "import", str(busybox_archive(folder)), "busybox:1")
            person.type(
                *("zone", "add", "k8s", "--kubeconfig", str(kubernetes.layout.kubeconfig)),
                *("--registry", f"{address}/skep"),
            )
            person.until(lambda: person.host("k8s")["state"] == "ready", "the cluster is led")
            yield person
        finally:
            person.clear()
            person.type("purge", "--yes")
            shutil.rmtree(folder, ignore_errors=True)


class Visitor:
    """Asks at the address where the cluster is entered, without looking up a name."""

    def __init__(self, address: str, trusted: ssl.SSLContext) -> None:
        self.address = address
        self.client = httpx.Client(verify=trusted, trust_env=False, timeout=10)

    def ask(self, host: str, path: str = "/", scheme: str = "http") -> httpx.Response:
        url = f"{scheme}://{self.address}{path}"
        extensions = {"sni_hostname": host} if scheme == "https" else {}
        return self.client.get(url, headers={"Host": host}, extensions=extensions)

    @contextmanager
    def asking(self) -> Iterator[list[str]]:
        """All the time; what was answered, in order, and what failed."""
        answers: list[str] = []
        enough = Event()
        asking = Thread(target=self._ask_on, args=(answers, enough))
        asking.start()
        try:
            yield answers
        finally:
            enough.set()
            asking.join()

    def _ask_on(self, answers: list[str], enough: Event) -> None:
        while not enough.wait(0.03):
            try:
                answer = self.ask(HOST)
                answers.append(answer.text.strip() if answer.is_success else str(answer.status_code))
            except httpx.HTTPError as error:
                answers.append(repr(error))


@pytest.fixture(scope="module")
def authority(someone: Someone) -> Authority:
    return Authority(someone.folder / "authority", "")


@pytest.fixture(scope="module")
def visitor(someone: Someone, authority: Authority) -> Iterator[Visitor]:
    trusted = ssl.create_default_context(cafile=str(authority.certificate))
    found = Visitor(str(someone.world.layout.address(CONTROL)), trusted)
    with found.client:
        yield found


def release(someone: Someone, version: str, policy: str = "", *words: str, text: str = COMPOSE) -> str:
    file = someone.compose(text.replace("VERSION", version).replace("RELEASE", policy))
    return someone.type("apply", file, *words)


def test_endpoints_answer_by_name_and_path_and_with_the_certificate_of_the_tenant(
    someone: Someone, authority: Authority, visitor: Visitor
) -> None:
    certificate, key = authority.certify("shop", "shop", addresses=[SECURE])
    someone.type("cert", "add", "shop", "--certificate", str(certificate), "--key", str(key))

    said = release(someone, "1")

    assert f"http://{HOST}/\n" in said
    assert f"https://{SECURE}/api\n" in said
    someone.until(lambda: visitor.ask(HOST).is_success, "the controller has heard of it")
    assert visitor.ask(HOST).text == "1\n"
    assert visitor.ask(SECURE, "/api/", "https").text == "of api\n"
    assert visitor.ask(SECURE, "/apix", "https").status_code == httpx.codes.NOT_FOUND
    assert visitor.ask("other.example").status_code == httpx.codes.NOT_FOUND


def test_a_canary_gets_its_share_in_whole_replicas_then_all_and_no_request_fails(
    someone: Someone, visitor: Visitor
) -> None:
    with visitor.asking() as answers:
        release(someone, "2", "strategy: canary, steps: [25], interval: 15s", "--no-wait")

        def shared() -> bool:
            return Counter(answers[-40:]) == {"1": 30, "2": 10}

        someone.until(shared, "one of four replicas is the new one")
        someone.type("rollout", "watch", "shop")
        someone.until(lambda: answers[-50:] == ["2"] * 50, "the new revision has all requests")

    assert set(answers) == {"1", "2"}


def test_what_somebody_deletes_is_made_again(someone: Someone, visitor: Visitor) -> None:
    (namespace,) = someone.namespaces()

    ingresses = ("ingress", f"--namespace={namespace}")
    someone.world.kubectl("delete", "--all", *ingresses)

    someone.until(lambda: bool(someone.world.get(*ingresses)["items"]), "the ingress is there again")
    someone.until(lambda: visitor.ask(HOST).is_success, "the controller has heard of it")


def test_an_app_without_endpoints_is_not_found_while_it_runs(someone: Someone, visitor: Visitor) -> None:
    release(someone, "2", text=COMPOSE.partition("    x-skep:\n")[0])

    gone = httpx.codes.NOT_FOUND
    someone.until(lambda: visitor.ask(HOST).status_code == gone, "nothing leads there")
    assert {one["state"] for one in someone.replicas().values()} == {"running"}
    (namespace,) = someone.namespaces()
    assert (
        someone.world.get("ingress,secret", f"--namespace={namespace}", "--selector=skep.dev/part=endpoints")[
            "items"
        ]
        == []
    )
