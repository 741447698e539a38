"""The programs of the host that skep works with; asked for once, before anything is made."""

import shutil

from skep.model.errors import Unavailable

PACKAGES = {
    "conmon": "conmon",
    "nft": "nftables",
    "ip": "iproute2",
    "mkfs.btrfs": "btrfs-progs",
    "mount": "mount",
    "umount": "mount",
    "losetup": "mount",
    "blkid": "util-linux",
    "skopeo": "skopeo",
    "buildah": "buildah",
    "haproxy": "haproxy",
    "setpriv": "util-linux",
}
"""The Debian package of each.  The OCI runtime is chosen, and missed, by `runtime.py`."""
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def require_programs() -> None:
    """Raises Unavailable: naming every program that is missing, and what to install."""
    missing = [name for name in PACKAGES if shutil.which(name, path=_PATH) is None]
    if missing:
        packages = " ".join(sorted({PACKAGES[name] for name in missing}))
        raise Unavailable(f"Missing on this machine: {', '.join(missing)}. Run: apt-get install {packages}")
