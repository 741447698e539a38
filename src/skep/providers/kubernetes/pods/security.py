"""Who a container is and what it may, in words of Kubernetes.  Pure.

Everything stays within the level `baseline`, which namespaces of tenants are held to:
https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline
"""

from typing import Any

from skep.model.errors import InvalidInput
from skep.model.host import ContainerSpec
from skep.model.needs import BASELINE, SAFE_SYSCTLS

_ROOT = "root"


def of_container(spec: ContainerSpec, image_user: str) -> dict[str, Any]:
    """Raises InvalidInput: a capability or a user that a cluster cannot give."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"], "add": sorted(capabilities(spec))},
        "readOnlyRootFilesystem": spec.read_only,
        **identity(spec, image_user),
    }


def of_pod(spec: ContainerSpec) -> dict[str, Any]:
    """Raises InvalidInput: a group without a number, or a sysctl that is not safe."""
    found: dict[str, Any] = {"seccompProfile": {"type": "RuntimeDefault"}}
    if spec.group_add:
        found["supplementalGroups"] = [_number(spec, "group", group) for group in spec.group_add]
    if unsafe := sorted(set(spec.sysctls) - SAFE_SYSCTLS):
        raise InvalidInput(f"{spec.name}: a cluster does not let containers set the sysctl {unsafe[0]}.")
    if spec.sysctls:
        found["sysctls"] = [{"name": name, "value": value} for name, value in sorted(spec.sysctls.items())]
    return found


def capabilities(spec: ContainerSpec) -> frozenset[str]:
    """Without the prefix CAP_.  Elsewhere containers also have NET_RAW, which the level does not give."""
    dropped, added = set(map(_bare, spec.cap_drop)), set(map(_bare, spec.cap_add))
    if refused := sorted(added - BASELINE):
        raise InvalidInput(f"{spec.name}: a cluster does not give containers the capability {refused[0]}.")
    kept = frozenset() if "ALL" in dropped else BASELINE - dropped
    return kept | added


def identity(spec: ContainerSpec, image_user: str) -> dict[str, int]:
    """What the image itself says is left to it: only there names mean something."""
    user, _, group = spec.user.partition(":")
    if spec.user == image_user and not spec.user.isdecimal():
        return {}
    found = {}
    if user:
        found["runAsUser"] = _number(spec, "user", user)
    if group:
        found["runAsGroup"] = _number(spec, "group", group)
    return found


def _number(spec: ContainerSpec, what: str, name: str) -> int:
    if name.isdecimal():
        return int(name)
    if name == _ROOT:
        return 0
    raise InvalidInput(
        f"{spec.name}: a cluster knows users and groups by number only; write the number of {what} {name!r}."
    )


def _bare(capability: str) -> str:
    return capability.upper().removeprefix("CAP_")
