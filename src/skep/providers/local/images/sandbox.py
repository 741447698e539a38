"""A room for build tools that has nothing of the host but its programs.

buildah runs as root, and a Dockerfile steers it (bind mounts, links, archives); its past holes let builds
read and write the file system it stands on.  So it stands on an almost empty one: the system's programs
read-only, a few devices, and the folders of this build.  The room is a mount and process namespace: when its
first process ends, however it ends, every process and mount in it is gone.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """`base` is an empty folder to mount the room on; `writable` and `readable` are shown below its names.

    So nothing inside depends on where the folders lie: tools read much into `+`, `,`, `[` and `:` of a path.
    Large temporary files go to $TMPDIR, which must lie in a writable folder.  The processes enter `groups`
    (cgroup.procs files).  Without a `network` there is only loopback.  /run/empty is an empty folder.
    """

    base: Path
    writable: Mapping[str, Path]
    readable: Mapping[str, Path] = {}
    network: Path | None = None
    groups: tuple[Path, ...] = ()
    nameservers: tuple[str, ...] = ()


_POLICY = '{"default":[{"type":"insecureAcceptAnything"}]}'
"""Images come from our own verified store only; signatures are not what decides."""

_ENTER = r"""
set -eu
base=$1 nameservers=$2; shift 2
mount -t tmpfs -o mode=755,size=64m skep-build "$base"
cd "$base"
mkdir -p etc/containers proc sys dev dev/shm run/empty tmp var old root
ln -s "$TMPDIR" var/tmp
show() { mkdir -p ".$2"; mount --bind "$3" ".$2"; if [ "$1" = ro ]; then mount -o remount,bind,ro ".$2"; fi; }
for name in bin sbin lib lib32 lib64 libx32 usr; do
  if [ -L "/$name" ]; then cp -P "/$name" "$name"
  elif [ -d "/$name" ]; then show ro "/$name" "/$name"; fi
done
for name in etc/ssl etc/ca-certificates etc/alternatives; do
  if [ -d "/$name" ]; then show ro "/$name" "/$name"; fi
done
for name in null zero full random urandom tty; do
  touch "dev/$name"; mount --bind "/dev/$name" "dev/$name"
done
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777,size=64m skep-build-shm dev/shm
mount -t proc proc proc
mount --rbind /sys sys
mount -o remount,bind,ro sys
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > etc/passwd
printf 'root:x:0:\nnogroup:x:65534:\n' > etc/group
printf '127.0.0.1 localhost\n' > etc/hosts
printf '%s' '@POLICY@' > etc/containers/policy.json
printf 'unqualified-search-registries = []\n' > etc/containers/registries.conf
printf '[network]\ncni_config_dir = "/run/no-cni"\n' > etc/containers/containers.conf
: > etc/resolv.conf
for server in $nameservers; do echo "nameserver $server" >> etc/resolv.conf; done
while [ "$1" != -- ]; do show "$1" "$2" "$3"; shift 3; done
shift
pivot_root . old
cd /
umount -l /old
exec "$@"
""".replace("@POLICY@", _POLICY)

_JOIN = 'groups=$1; shift; IFS=:; for group in $groups; do echo $$ > "$group"; done; unset IFS; exec "$@"'


def inside(room: Room, command: Sequence[str | Path]) -> list[str]:
    """The command line that runs `command` in the room, as politely as possible."""
    network = [f"--net={room.network}"] if room.network else []
    enter = ["nsenter", *network] if network else ["unshare", "--net"]
    return [
        *("setpriv", "--pdeathsig", "KILL"),  # a killed skep takes its builds along
        *("sh", "-c", _JOIN, "join", ":".join(str(group) for group in room.groups)),
        *("nice", "-n", "10", "ionice", "-c", "2", "-n", "7"),
        *enter,
        *(
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--ipc",
            "--uts",
            "--propagation",
            "private",
        ),
        *("sh", "-c", _ENTER, "enter", str(room.base), " ".join(room.nameservers)),
        *_shown("rw", room.writable),
        *_shown("ro", room.readable),
        "--",
        *(str(part) for part in command),
    ]


def _shown(how: str, folders: Mapping[str, Path]) -> list[str]:
    return [part for name, folder in folders.items() for part in (how, name, str(folder))]
