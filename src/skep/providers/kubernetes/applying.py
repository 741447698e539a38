"""What skep wants in a cluster, put there: whatever others have made of it meanwhile."""

from typing import Any

import structlog
from lightkube import codecs

from skep.model.errors import Conflict, Unavailable
from skep.providers.kubernetes.applied import SHUTTING, added, stamped
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.manifests import Manifest

_log = structlog.get_logger(__name__)


async def put(cluster: Cluster, manifest: Manifest) -> Any:
    """Apply it, with its digest.  What another manager has taken is taken back; what others have added, which
    no apply takes away, goes where it undoes that.  Both is said in the log.

    Raises as `Cluster.apply` does; Unavailable: something adds to it again at once.
    """
    wanted = codecs.from_dict(stamped(manifest))
    try:
        found: Any = (await cluster.apply(wanted))[0]
    except Conflict as error:
        if "managers" not in error.details:
            raise
        _drift(manifest, managers=error.details["managers"])
        found = (await cluster.apply(wanted, force=True))[0]
    if manifest["kind"] in SHUTTING and (fields := added(manifest, found.to_dict())):
        _drift(manifest, fields=fields)
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        found = await cluster.replace(type(found), name, "spec", manifest["spec"], namespace)
        if added(manifest, found.to_dict()):
            raise Unavailable(f"Something in the cluster adds to {_called(manifest)}: {', '.join(fields)}.")
    return found


def _drift(manifest: Manifest, **what: object) -> None:
    _log.warning("cluster.drift", object=_called(manifest), **what)


def _called(manifest: Manifest) -> str:
    meta = manifest["metadata"]
    return f"{manifest['kind']} {meta['name']}" + (f" in {meta['namespace']}" if "namespace" in meta else "")
