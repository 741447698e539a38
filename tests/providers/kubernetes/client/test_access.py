"""A kubeconfig comes from somebody who is no user of this machine."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
import yaml

from skep.model.errors import InvalidInput
from skep.providers.kubernetes.client import access

TOKEN: dict[str, Any] = {"token": "t"}
NOTHING: Mapping[str, Any] = MappingProxyType({})


def kubeconfig(
    user: dict[str, Any] = TOKEN, current: str | None = "x", cluster: Mapping[str, Any] = NOTHING
) -> str:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://203.0.113.7:6443", **cluster}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
    }
    return yaml.safe_dump(document | ({"current-context": current} if current else {}))


def test_the_current_context_is_read_unless_one_is_named() -> None:
    current = access.read(kubeconfig())
    named = access.read(kubeconfig(current=None), "x")

    assert current.cluster.server == "https://203.0.113.7:6443"
    assert named.user
    assert named.user.token == "t"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no YAML"),
        ("[]", "no kubeconfig"),
        ("kind: Config", "no kubeconfig: it has no 'clusters'"),
        (kubeconfig(current="y"), "'y' not found"),
        (kubeconfig(current=None), "current context"),
        (kubeconfig(user={}), "neither a token nor"),
        (kubeconfig(user={"exec": {"apiVersion": "v1", "command": "touch"}}), "signs in with a program"),
        (kubeconfig(user={"auth-provider": {"name": "gcp"}}), "signs in with a program"),
        (kubeconfig(user={"tokenFile": "/etc/shadow"}), "tokenFile names a file"),
        (kubeconfig(user={"client-certificate": "a", "client-key": "b"}), "names a file"),
        (kubeconfig(cluster={"certificate-authority": "/etc/shadow"}), "names a file"),
    ],
)
def test_what_cannot_be_used_is_refused_with_the_reason(text: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        access.read(text)


def test_a_certificate_that_is_none_is_refused() -> None:
    config = access.read(kubeconfig(cluster={"certificate-authority-data": "bm9uZQ=="}))

    with pytest.raises(InvalidInput, match="cannot be read"):
        access.connect(config)
