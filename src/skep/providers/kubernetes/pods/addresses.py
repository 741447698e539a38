"""Annotations by which pods ask network plug-ins for an address.  Pure.

Formats: https://docs.tigera.io/calico/latest/networking/ipam/use-specific-ip,
https://docs.tigera.io/calico/latest/networking/configuring/pod-mac-address and
https://kubeovn.github.io/docs/stable/en/guide/static-ip-mac/
"""

import json
from collections.abc import Mapping

from skep.model.errors import InvalidInput
from skep.model.host import ContainerSpec, FixedAddress
from skep.providers.kubernetes.joining.addressing import Plugin

_CALICO, _CALICO_MAC = "cni.projectcalico.org/ipAddrs", "cni.projectcalico.org/hwAddr"
_KUBE_OVN = "ovn.kubernetes.io/ip_address"
_KEYS = frozenset({_CALICO, _CALICO_MAC, _KUBE_OVN})


def asked(spec: ContainerSpec, plugin: Plugin | None) -> dict[str, str]:
    """Of a container that has a fixed address; nothing of any other.

    Raises:
        InvalidInput: it has one, and nothing in the cluster gives it.
    """
    if spec.fixed is None:
        return {}
    if plugin is None:
        raise InvalidInput(f"{spec.name}: nothing in this cluster gives pods the address that they ask for.")
    return _of_calico(spec.fixed) if plugin is Plugin.CALICO else _of_kube_ovn(spec.fixed)


def is_fixed(annotations: Mapping[str, str]) -> bool:
    """Whether no two pods with these can be at the same time."""
    return not _KEYS.isdisjoint(annotations)


def _of_calico(fixed: FixedAddress) -> dict[str, str]:
    found = {_CALICO: json.dumps(_addresses(fixed)), _CALICO_MAC: fixed.mac or ""}
    return {key: value for key, value in found.items() if value not in ("", "[]")}


def _of_kube_ovn(fixed: FixedAddress) -> dict[str, str]:
    """No MAC: it could be that of the gateway."""
    return {_KUBE_OVN: ",".join(found)} if (found := _addresses(fixed)) else {}


def _addresses(fixed: FixedAddress) -> list[str]:
    return [str(one) for one in (fixed.address, fixed.address6) if one is not None]
