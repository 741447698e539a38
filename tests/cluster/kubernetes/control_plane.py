"""The control plane of a test cluster: what its four programs are started with.

Time limits are shorter than by default where tests would have to wait for them, and limits of requests are
higher.
"""

from ipaddress import IPv4Address

from tests.cluster.kubernetes import audit
from tests.cluster.kubernetes.certificates import Authority
from tests.cluster.kubernetes.layout import CONTROL, Layout
from tests.cluster.kubernetes.machine import PROGRAMS, Machine

APISERVER = "kube-apiserver"
ETCD = "etcd"
MANAGER = "kube-controller-manager"
SCHEDULER = "kube-scheduler"
SILENT = 20
"""Seconds without news after which a node is NotReady (by default 40)."""
TOLERATED = 30
"""Seconds after which pods leave a node that is NotReady (by default 300)."""
_FILES = "/var/lib/kubernetes"
_ETCD = "http://127.0.0.1:2379"
_RATES = ("--kube-api-qps=200", "--kube-api-burst=400")


def furnish(machine: Machine, authority: Authority) -> None:
    """Lay certificates and kubeconfigs where the programs look for them."""
    layout = machine.layout
    addresses: list[str | IPv4Address] = [
        *("kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"),
        *(layout.address(CONTROL), layout.services[1], IPv4Address("127.0.0.1")),
    ]
    authority.certify("apiserver", "kube-apiserver", addresses=addresses)
    authority.certify("apiserver-kubelet-client", "kube-apiserver-kubelet-client", ("system:masters",))
    names = ("authority", "apiserver", "apiserver-kubelet-client", "accounts")
    for path in authority.folder.iterdir():
        if path.stem in names:
            machine.write(f"{_FILES}/{path.name}", path.read_bytes())
    audit.furnish(machine)
    for program in (MANAGER, SCHEDULER):
        machine.write(f"{_FILES}/{program}.conf", authority.kubeconfig(program, f"system:{program}"))


def commands(layout: Layout) -> dict[str, list[str]]:
    """By program, in the order in which they are started."""
    return {
        ETCD: _etcd(),
        APISERVER: [f"{PROGRAMS}/{APISERVER}", *_apiserver(layout)],
        MANAGER: [f"{PROGRAMS}/{MANAGER}", *_manager()],
        SCHEDULER: [f"{PROGRAMS}/{SCHEDULER}", *_scheduler()],
    }


def _etcd() -> list[str]:
    peer = "http://127.0.0.1:2380"
    return [
        *("etcd", "--name=etcd", "--data-dir=/var/lib/etcd", "--logger=zap"),
        *(f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}"),
        *(
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=etcd={peer}",
        ),
    ]


def _apiserver(layout: Layout) -> list[str]:
    address = layout.address(CONTROL)
    return [
        f"--etcd-servers={_ETCD}",
        *(
            "--bind-address=0.0.0.0",
            f"--advertise-address={address}",
            "--secure-port=6443",
            "--insecure-port=0",
        ),
        f"--service-cluster-ip-range={layout.services}",
        *("--allow-privileged=true", "--authorization-mode=Node,RBAC"),
        "--enable-admission-plugins=NodeRestriction",
        f"--client-ca-file={_FILES}/authority.crt",
        *(f"--tls-cert-file={_FILES}/apiserver.crt", f"--tls-private-key-file={_FILES}/apiserver.key"),
        f"--kubelet-certificate-authority={_FILES}/authority.crt",
        f"--kubelet-client-certificate={_FILES}/apiserver-kubelet-client.crt",
        f"--kubelet-client-key={_FILES}/apiserver-kubelet-client.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={_FILES}/accounts.pub",
        f"--service-account-signing-key-file={_FILES}/accounts.key",
        f"--default-not-ready-toleration-seconds={TOLERATED}",
        f"--default-unreachable-toleration-seconds={TOLERATED}",
        *audit.flags(),
    ]


def _manager() -> list[str]:
    return [
        *(f"--kubeconfig={_FILES}/{MANAGER}.conf", "--leader-elect=false", *_RATES),
        *("--port=0", "--bind-address=127.0.0.1", "--use-service-account-credentials=true"),
        f"--service-account-private-key-file={_FILES}/accounts.key",
        f"--root-ca-file={_FILES}/authority.crt",
        f"--cluster-signing-cert-file={_FILES}/authority.crt",
        f"--cluster-signing-key-file={_FILES}/authority.key",
        f"--node-monitor-grace-period={SILENT}s",
        "--flex-volume-plugin-dir=/var/lib/kubernetes/volume-plugins",
    ]


def _scheduler() -> list[str]:
    conf = f"--kubeconfig={_FILES}/{SCHEDULER}.conf"
    return [conf, "--leader-elect=false", *_RATES, "--port=0", "--bind-address=127.0.0.1"]
