"""How nodes log in to a private registry: with a secret in each tenant's namespace, which all pods there use.

Format: https://kubernetes.io/docs/tasks/configure-pod-container/pull-image-private-registry/
"""

import base64
from collections.abc import Callable

import msgspec

from skep.model.images import RegistryCredentials
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace

SECRET = "skep-registry"  # noqa: S105 - its name
_KIND = "kubernetes.io/dockerconfigjson"


def furnishing(
    place: str, credentials: RegistryCredentials | None
) -> Callable[[TenantNamespace], list[Manifest]]:
    """What a namespace gets for images at HOST[:PORT]/PREFIX; nothing where nobody logs in there."""

    def furnish(of: TenantNamespace) -> list[Manifest]:
        return [] if credentials is None else [_secret(of, place, credentials), _account(of)]

    return furnish


def _secret(of: TenantNamespace, place: str, credentials: RegistryCredentials) -> Manifest:
    login = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    config = msgspec.json.encode({"auths": {place.partition("/")[0]: {"auth": login}}})
    data = {".dockerconfigjson": base64.b64encode(config).decode()}
    return of.object("v1", "Secret", SECRET, type=_KIND, data=data)


def _account(of: TenantNamespace) -> Manifest:
    """The one that pods have unless they name another; the cluster makes it, too."""
    return of.object("v1", "ServiceAccount", "default", imagePullSecrets=[{"name": SECRET}])
