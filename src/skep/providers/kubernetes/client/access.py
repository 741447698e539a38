"""Who skep is to a cluster: a kubeconfig that somebody sent, and the client that it makes.

Format: https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

import ssl
from collections.abc import Mapping
from typing import Any

import msgspec
import yaml
from httpx2 import AsyncClient as HttpClient
from httpx2 import Timeout
from lightkube import AsyncClient
from lightkube.config import client_adapter
from lightkube.config.client_adapter import ConnectionParams
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import User
from lightkube.core.exceptions import ConfigError

from skep.model.errors import InvalidInput
from skep.providers.kubernetes.client.transport import Transport

MANAGER = "skep"
"""The field manager of everything that skep applies."""

_TIMEOUT = Timeout(10.0)
_RUNS = ("exec", "auth-provider")
_READS = ("client-certificate", "client-key", "tokenFile", "certificate-authority")


def read(text: str, context: str | None = None) -> SingleConfig:
    """One context of the kubeconfig (by default the current one).

    Whoever may send it is no user of this machine: what would run programs of it or read its files is
    refused.
    Raises:
        InvalidInput: it is no kubeconfig, has no such context, or needs a program or a file.
    """
    found = _select(text, context)
    user = _plain(found.user) if found.user else {}
    if runs := [key for key in _RUNS if user.get(key)]:
        raise InvalidInput(
            f"The user of context {found.context_name!r} signs in with a program ({runs[0]}), which skep "
            "does not run: use a service account's token; see 'skep cluster rights'."
        )
    given = {**_plain(found.cluster), **user}
    if reads := [key for key in _READS if given.get(key)]:
        raise InvalidInput(f"{reads[0]} names a file: put its content into the kubeconfig (--flatten).")
    if not user.get("token") and not user.get("client-certificate-data"):
        raise InvalidInput(f"Context {found.context_name!r} has neither a token nor a client certificate.")
    return found


def connect(config: SingleConfig) -> tuple[AsyncClient, HttpClient]:
    """For resources; and, with the same identity, for other documents, as the version.  Both to be closed.

    Proxies of the environment are not for clusters.
    Raises:
        InvalidInput: a certificate or key of the kubeconfig is none.
    """
    try:
        return (
            AsyncClient(
                config, timeout=_TIMEOUT, trust_env=False, field_manager=MANAGER, transport=_way(config)
            ),
            client_adapter.AsyncClient(config, _parameters(config)),
        )
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput(f"A certificate or key of the kubeconfig cannot be read: {error}") from None


def _parameters(config: SingleConfig) -> ConnectionParams:
    # The type of lightkube's own field is that of its other client.
    way: Any = _way(config)
    return ConnectionParams(timeout=_TIMEOUT, trust_env=False, transport=way)


def _way(config: SingleConfig) -> Transport:
    known = client_adapter.verify_cluster(
        config.cluster, config.user or User(), config.abs_file, trust_env=False
    )
    return Transport(known)


def _select(text: str, context: str | None) -> SingleConfig:
    try:
        document = yaml.safe_load(text)
        found = KubeConfig.from_dict(document).get(context)
    except yaml.YAMLError as error:
        raise InvalidInput(f"The kubeconfig is no YAML: {error}") from None
    except ConfigError as error:
        raise InvalidInput(f"The kubeconfig cannot be used: {error}") from None
    except KeyError as error:
        raise InvalidInput(f"This is no kubeconfig: it has no {error}.") from None
    except (TypeError, AttributeError, msgspec.ValidationError) as error:
        raise InvalidInput(f"This is no kubeconfig: {error}") from None
    if found is None:
        raise InvalidInput("The kubeconfig has no current context: name one with --context.")
    return found


def _plain(part: object) -> Mapping[str, Any]:
    found: Mapping[str, Any] = msgspec.to_builtins(part)
    return found
