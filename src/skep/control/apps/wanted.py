"""What an app is to become, as whoever changes it thought it out."""

import hashlib
from collections.abc import Mapping

import msgspec

from skep.control.plans.plans import Destination
from skep.model.ids import DiskId, SnapshotId
from skep.model.images import ImageInfo
from skep.model.references import normalize
from skep.model.spec import AppFile, AppSpec

LONGEST_NOTE = 200


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What an app is to become.  `contents` of its configs and secrets by digest.

    `images`: what its services are made of, whatever their references point at today; of the others the
    references decide.  `base`: the version of the app that this was thought out for.  `note`: why, in words;
    `verb`: what its run is called.  `rollback`: it was in force before.  `mark`: of the plan that
    it must come to, if one was shown.  `keep_scale`: services that scale by themselves keep their numbers.
    `data`: disks that go back to what they held, as of these snapshots.  `destination`: where it moves;
    `keep_new`: with what its disks hold now, not with what it left there.
    """

    spec: AppSpec
    contents: Mapping[str, bytes] = {}
    images: Mapping[str, ImageInfo] = {}
    base: int | None = None
    note: str = ""
    verb: str = "apply"
    rollback: bool = False
    force_recreate: bool = False
    mark: str = ""
    keep_scale: bool = False
    data: Mapping[DiskId, SnapshotId] = {}
    destination: Destination | None = None
    keep_new: bool = True


def settle(spec: AppSpec) -> Wanted:
    """References in their normal form; contents of configs and secrets kept apart, by digest."""
    contents: dict[str, bytes] = {}

    def file(entry: AppFile) -> AppFile:
        if entry.content is None:
            return entry
        digest = f"sha256:{hashlib.sha256(entry.content).hexdigest()}"
        contents[digest] = entry.content
        return AppFile(digest=digest)

    settled = msgspec.structs.replace(
        spec,
        services={
            name: msgspec.structs.replace(service, image=normalize(service.image))
            for name, service in spec.services.items()
        },
        configs={name: file(entry) for name, entry in spec.configs.items()},
        secrets={name: file(entry) for name, entry in spec.secrets.items()},
    )
    return Wanted(spec=settled, contents=contents)
