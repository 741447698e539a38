"""Where pods look names up: those of their own app first, whatever other apps are called.

Kubernetes' own domains come before those that a pod adds, and there an app is a service: `db` of an app would
be led to an app called `db`.  So pods ask the cluster's name service in an order of their own.
"""

from lightkube.resources.core_v1 import Service

from skep.model.errors import NotFound
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.manifests import Manifest, app_service

DOMAIN = "cluster.local"
_SYSTEM, _NAMERS = "kube-system", ("kube-dns", "coredns", "rke2-coredns-rke2-coredns")


def pod_dns(app: str, namespace: str, nameserver: str = "") -> Manifest:
    """As the specification of a pod has it.  Without a `nameserver` Kubernetes' own domains come first."""
    domain = f"svc.{DOMAIN}"
    own = [f"{app_service(app)}.{namespace}.{domain}", f"{namespace}.{domain}"]
    if not nameserver:
        return {"dnsConfig": {"searches": own[:1]}}
    return {
        "dnsPolicy": "None",
        "dnsConfig": {
            "nameservers": [nameserver],
            "searches": [*own, domain, DOMAIN],
            "options": [{"name": "ndots", "value": "5"}],
        },
    }


async def nameserver(cluster: Cluster) -> str:
    """The address of the cluster's name service; "": it is not where it usually is."""
    for name in _NAMERS:
        try:
            found = await cluster.get(Service, name, _SYSTEM)
        except NotFound:
            continue
        return (found.spec and found.spec.clusterIP) or ""
    return ""
