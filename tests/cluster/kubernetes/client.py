"""The little that the test cluster's own parts ask of its API server, as its administrator."""

import base64
import json
import ssl
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from tests.cluster.kubernetes.layout import Layout

_TIMEOUT = 30.0
_CONFLICT, _NOT_FOUND = 409, 404


@contextmanager
def connect(layout: Layout, agent: str) -> Iterator[httpx.Client]:
    """`agent` is how the API server's figures call this client."""
    headers = {"User-Agent": agent}
    with httpx.Client(
        base_url=layout.api, verify=tls(layout), headers=headers, timeout=_TIMEOUT, trust_env=False
    ) as api:
        yield api


def get(api: httpx.Client, path: str) -> Any:
    return api.get(path).raise_for_status().json()


def create(api: httpx.Client, path: str, thing: object) -> None:
    """That it is there is success."""
    answer = api.post(path, json=thing)
    if answer.status_code != _CONFLICT:
        answer.raise_for_status()


def merge(api: httpx.Client, path: str, change: object) -> None:
    headers = {"Content-Type": "application/merge-patch+json"}
    api.patch(path, json=change, headers=headers).raise_for_status()


def delete(api: httpx.Client, path: str) -> None:
    """That it is absent is success."""
    answer = api.delete(path)
    if answer.status_code != _NOT_FOUND:
        answer.raise_for_status()


def wait_for_change(api: httpx.Client, path: str, version: str, seconds: int) -> None:
    """Until something below that path changed after that version, or the time is over."""
    params = {"watch": "1", "resourceVersion": version, "timeoutSeconds": str(seconds)}
    with api.stream("GET", path, params=params) as answer:
        answer.raise_for_status()
        next(answer.iter_lines(), None)


def follow(api: httpx.Client, path: str) -> Iterator[list[Any]]:
    """All that is below that path, again after each change; ends when the API server ends the watch.

    Raises httpx.HTTPError: it does not answer any more.
    """
    listed = get(api, path)
    found = {one["metadata"]["uid"]: one for one in listed["items"]}
    yield list(found.values())
    params = {"watch": "1", "resourceVersion": listed["metadata"]["resourceVersion"]}
    for_ever = httpx.Timeout(_TIMEOUT, read=None)
    with api.stream("GET", httpx.URL(path).copy_merge_params(params), timeout=for_ever) as answer:
        for line in answer.raise_for_status().iter_lines():
            change = json.loads(line)
            if change["type"] == "ERROR":  # what it knew is too old: all is listed anew
                return
            uid = change["object"]["metadata"]["uid"]
            found.pop(uid, None)
            if change["type"] != "DELETED":
                found[uid] = change["object"]
            yield list(found.values())


def pause(seconds: float) -> None:
    time.sleep(seconds)


def tls(layout: Layout) -> ssl.SSLContext:
    """Of its administrator."""
    conf = json.loads(layout.kubeconfig.read_bytes())
    cluster, user = conf["clusters"][0]["cluster"], conf["users"][0]["user"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    context = ssl.create_default_context(cadata=authority)
    with tempfile.NamedTemporaryFile() as chain:  # ssl reads files alone
        chain.write(base64.b64decode(user["client-certificate-data"]))
        chain.write(base64.b64decode(user["client-key-data"]))
        chain.flush()
        context.load_cert_chain(chain.name)
    return context
