"""Pods that carry what a disk holds out of a cluster, or into it, and what they run.  Pure.

A claim is mounted into containers by its folder `data`; beside it, where no container sees it, is room for
what arrives.  What has arrived whole becomes `ready` by one rename; from then on it is the disk's content,
whoever comes next makes it `data`.  What was sent and what arrived last is noted there, too, by its seal, so
that changes can follow; notes that do not fit on the disk cost a whole copy later, nothing else.
"""

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from lightkube.resources.core_v1 import Pod

from skep.model.ids import DiskId
from skep.providers.kubernetes.manifests import Manifest, TenantNamespace
from skep.providers.kubernetes.pods.templates import CONTAINER
from skep.providers.kubernetes.pods.volumes import DATA
from skep.providers.local.disk_tars import CHANGES, LOOK, PACK, UNPACK

VOLUME, SCRATCH = "/disk", "/scratch"
PROGRAMS = (
    *(
        "cat",
        "chmod",
        "cp",
        "find",
        "head",
        "mkdir",
        "mkfifo",
        "mv",
        "rm",
        "sha256sum",
        "sh",
        "sleep",
        "sort",
        "sync",
        "tar",
        "tee",
    ),
)
"""What the scripts need of their image."""
_LIVES = 24 * 3600
"""Seconds after which a porter ends whose skep has ended."""
_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP"]
_SETTLE = f"""
set -eu
cd "$1"
if [ -d ready ]; then
  rm -rf old
  if [ -d {DATA} ]; then mv -T {DATA} old; fi
  mv -T ready {DATA}
  sync -f .
fi
rm -rf old
"""
_DATA = f"[ -d {DATA} ] || {{ mkdir {DATA}; chmod --reference=. {DATA}; }}\n"
UNKNOWN = 65
"""How a script ends that is asked for changes since a copy that is not known here (EX_DATAERR)."""
_SUM = 'rm -f "$2"/*; mkfifo "$2/pipe"; sha256sum < "$2/pipe" > "$2/sum" &\n'
SEND = (
    _SETTLE
    + _DATA
    + f'[ -z "$3" ] || [ -e "sent-$4-$3" ] || exit {UNKNOWN}\n'
    + _SUM
    + f"""
[ -z "$3" ] || cp "sent-$4-$3" "$2/state"
{{
  code=0
  tar {shlex.join(PACK)} --listed-incremental="$2/state" --file=- --directory={DATA} . || code=$?
  echo $code > "$2/code"
}} | tee "$2/pipe"
wait
code=$(cat "$2/code")
[ "$code" -le 1 ] || exit "$code"
if [ -z "$3" ]; then
  rm -f sent-*
  {{ cp "$2/state" noting && mv noting "sent-$4-$(head -c 64 "$2/sum")"; }} 2> /dev/null || rm -f noting
fi
head -c 64 "$2/sum"
"""
)
"""The tar, and the SHA-256 of it.  `$3`: only what has changed since that copy.

A file that changes while it is read (1) is nothing to fail for: who wants none stops what writes.
"""
TAKE = (
    _SETTLE
    + f"""
rm -rf arriving
if [ -z "$3" ]; then
  mkdir arriving
else
  [ -e "arrived-$4-$3" ] && cp -al {DATA} arriving || exit {UNKNOWN}
fi
"""
    + _SUM
    + f"""
code=0
while read -r size && [ "$size" -gt 0 ]; do head -c "$size" || exit 1; done |
  tee "$2/pipe" | tar {shlex.join(UNPACK)} ${{3:+{CHANGES}}} --file=- --directory=arriving || code=$?
wait
[ "$code" = 0 ] || exit "$code"
sync -f .
head -c 64 "$2/sum"
"""
)
"""Reads frames: a length in decimal, a newline, so many bytes; 0 is the last.  Says the SHA-256 of all of it.

Not before Kubernetes 1.30 does a program there hear that its input has ended.  `$3`: what is sent are changes
to what arrived with that seal.  Files are linked to those that are there: tar makes anew what it changes.
"""
KEEP = f"""
cd "$1"
rm -f arrived-* sent-*
[ ! -d arriving ] || mv -T arriving ready
sync -f .
{_SETTLE}
{{ : > "arrived-$4-$3"; }} 2> /dev/null || true
"""
"""`$3`: the seal of what arrived."""
FINGERPRINT = _SETTLE + _DATA + f'cd {DATA}\nexport TMPDIR="$2"\n' + LOOK


def frame(block: bytes) -> bytes:
    """As `TAKE` reads it; an empty one is the end."""
    return b"%d\n" % len(block) + block


def command(script: str, claim: str, seal: str = "") -> tuple[str, ...]:
    """Notes bear the name of the claim: one that was made of a snapshot knows nothing of copies before it."""
    return ("/bin/sh", "-c", script, "sh", VOLUME, SCRATCH, seal, claim)


def porter_name(disk: DiskId) -> str:
    """One at a time for a disk."""
    return f"porter-{disk}"


def porter(
    of: TenantNamespace,
    disk: DiskId,
    claim: str,
    image: str,
    node: str = "",
    near: Sequence[Manifest] = (),
) -> Manifest:
    """`node`: where somebody else has the claim mounted, who may be the only one.

    `near`: where it had better be, as terms of a node selector.
    """
    container = {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["/bin/sleep", str(_LIVES)],
        "workingDir": "/",
        "securityContext": {
            "runAsUser": 0,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": _CAPABILITIES},
        },
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
        "volumeMounts": [
            {"name": "disk", "mountPath": VOLUME},
            {"name": "scratch", "mountPath": SCRATCH},
        ],
    }
    spec: dict[str, Any] = {
        "containers": [container],
        "restartPolicy": "Never",
        "activeDeadlineSeconds": _LIVES,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [
            {"name": "disk", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "scratch", "emptyDir": {}},
        ],
    }
    if node:
        spec["affinity"] = _on(node)
    elif near:
        spec["affinity"] = _near(near)
    return of.object("v1", "Pod", porter_name(disk), {"porter": disk}, spec=spec)


def node_of(pods: Iterable[Pod], claim: str) -> str:
    """The node on which a pod has the claim mounted; empty if none has."""
    for pod in pods:
        spec, over = pod.spec, bool(pod.status and pod.status.phase in ("Succeeded", "Failed"))
        if spec is not None and spec.nodeName and not over and mounts(pod, claim):
            return spec.nodeName
    return ""


def mounts(pod: Pod, claim: str) -> bool:
    volumes = (pod.spec and pod.spec.volumes) or ()
    return claim in (one.persistentVolumeClaim.claimName for one in volumes if one.persistentVolumeClaim)


def _on(node: str) -> Manifest:
    match = {"key": "metadata.name", "operator": "In", "values": [node]}
    wanted = {"nodeSelectorTerms": [{"matchFields": [match]}]}
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": wanted}}


def _near(terms: Sequence[Manifest]) -> Manifest:
    preferred = [{"weight": 100, "preference": one} for one in terms]
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
