"""A node of a test cluster: containerd, kubelet and kube-proxy, and the network of its pods.

Pods are attached point to point (`ptp`) and routed: unlike with a bridge, all they send passes the node's
rules, so services work without br_netfilter.  Those that ask for an address get it (`addresses`).
Nothing enforces NetworkPolicies: no plug-in in Debian does.
"""

from contextlib import suppress
from pathlib import Path

import msgspec
from tests.cluster.kubernetes import addresses, dns, images
from tests.cluster.kubernetes.certificates import Authority
from tests.cluster.kubernetes.layout import Layout
from tests.cluster.kubernetes.machine import PROGRAMS, Machine
from tests.cluster.kubernetes.progress import Failed

CONTAINERD = "containerd"
KUBELET = "kubelet"
PROXY = "kube-proxy"
SOCKET = "/run/containerd/containerd.sock"
VOLUMES = "/var/lib/volumes"
"""Where volumes of the storage class are."""
_FILES = "/var/lib/kubernetes"
_REGISTRIES = "/var/lib/registries"
_NETWORKS = "/var/lib/cni/conf"
_ENDPOINT = f"unix://{SOCKET}"

_CONTAINERD = f"""
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.PAUSE}"
  disable_apparmor = true
  # Root of a container or of a small machine may not lower it.
  restrict_oom_score_adj = true

  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{addresses.PROGRAMS}"
    conf_dir = "{_NETWORKS}"

  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{_REGISTRIES}"
"""


def furnish(machine: Machine, authority: Authority) -> None:
    """Lay what the programs are configured with where they look for it."""
    layout, name = machine.layout, machine.name
    certificate, key = authority.certify(
        name, f"system:node:{name}", ("system:nodes",), [machine.address, name]
    )
    machine.write(f"{_FILES}/authority.crt", authority.certificate.read_bytes())
    machine.write(f"{_FILES}/kubelet.crt", certificate.read_bytes())
    machine.write(f"{_FILES}/kubelet.key", key.read_bytes())
    kubelet = authority.kubeconfig(name, f"system:node:{name}", ("system:nodes",))
    machine.write(f"{_FILES}/{KUBELET}.conf", kubelet)
    machine.write(f"{_FILES}/{PROXY}.conf", authority.kubeconfig(PROXY, f"system:{PROXY}"))
    machine.write(f"{_FILES}/containerd.toml", _CONTAINERD.encode())
    machine.write(f"{_FILES}/{KUBELET}.json", _json(_kubelet(machine)))
    machine.write(f"{_FILES}/{PROXY}.json", _json(_proxy(layout, name)))
    machine.write(f"{_FILES}/resolv.conf", b"# Pods that want the node's own resolver get none.\n")
    addresses.furnish(machine)
    machine.write(f"{_NETWORKS}/10-pods.conflist", _json(_network(machine)))
    for address in layout.registries:
        trust(machine, address)


def trust(machine: Machine, registry: str) -> None:
    """Pull from that registry (HOST:PORT) without TLS, from now on; containerd looks each time."""
    hosts = (
        f'server = "http://{registry}"\n\n[host."http://{registry}"]\n  capabilities = ["pull", "resolve"]\n'
    )
    machine.write(f"{_REGISTRIES}/{registry}/hosts.toml", hosts.encode())


def commands(machine: Machine) -> dict[str, list[str]]:
    """By program, in the order in which they are started."""
    return {
        CONTAINERD: ["containerd", "--config", f"{_FILES}/containerd.toml"],
        KUBELET: [
            *(
                f"{PROGRAMS}/{KUBELET}",
                f"--config={_FILES}/{KUBELET}.json",
                f"--kubeconfig={_FILES}/{KUBELET}.conf",
            ),
            *(f"--hostname-override={machine.name}", f"--node-ip={machine.address}"),
            *("--container-runtime=remote", f"--container-runtime-endpoint={_ENDPOINT}"),
            *(f"--image-service-endpoint={_ENDPOINT}", f"--containerd={SOCKET}"),
            f"--pod-infra-container-image={images.PAUSE}",
        ],
        PROXY: [f"{PROGRAMS}/{PROXY}", f"--config={_FILES}/{PROXY}.json"],
    }


def load(machine: Machine, archive: Path) -> None:
    """The images of an OCI archive, by the names that it says."""
    inside = machine.disk / "lib/kubernetes" / archive.name
    inside.write_bytes(archive.read_bytes())
    try:
        containerd(machine, "images", "import", f"{_FILES}/{archive.name}")
    finally:
        inside.unlink()


def containerd(machine: Machine, *words: str) -> str:
    """What its command-line client answers, about what kubelet sees."""
    return machine.run("ctr", "--address", SOCKET, "--namespace", "k8s.io", *words)


def answers(machine: Machine) -> bool:
    """Whether containerd does."""
    with suppress(Failed):
        containerd(machine, "version")
        return True
    return False


def _kubelet(machine: Machine) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{_FILES}/authority.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{_FILES}/kubelet.crt",
        "tlsPrivateKeyFile": f"{_FILES}/kubelet.key",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{machine.cgroup}",
        "clusterDNS": [str(machine.layout.dns)],
        "clusterDomain": dns.DOMAIN,
        "resolvConf": f"{_FILES}/resolv.conf",
        "volumePluginDir": f"{_FILES}/volume-plugins",
        "failSwapOn": False,
        "oomScoreAdj": 0,
        "maxOpenFiles": 20_000,
        "serializeImagePulls": False,
        # The disk is the real machine's: what others leave free is no reason to evict or to remove images.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "nodeStatusUpdateFrequency": "4s",
        # A pod that is about to go is looked at again after so long (by default a minute).
        "syncFrequency": "5s",
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "eventRecordQPS": 100,
        "eventBurst": 200,
    }


def _proxy(layout: Layout, name: str) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "bindAddress": "0.0.0.0",
        "clientConnection": {"kubeconfig": f"{_FILES}/{PROXY}.conf"},
        "hostnameOverride": name,
        "mode": "iptables",
        "clusterCIDR": str(layout.pods),
        # These are the real machine's.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "oomScoreAdj": 0,
    }


def _network(machine: Machine) -> dict[str, object]:
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    plugins = [addresses.attachment(machine), ports, addresses.announcement(machine)]
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value))
