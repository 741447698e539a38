"""Identifiers.

Every id is chosen by control before anything is made, so that making it may be repeated.  An id is 20
characters of Crockford base32 in lower case: 10 for the milliseconds since 1970 and 10 random ones, so ids
sort by age and never need coordination.  The last ten characters are unique enough to name an interface,
whose name Linux limits to 15 characters.
"""

import hashlib
import secrets
import time
from typing import NewType

RegionName = NewType("RegionName", str)
ZoneName = NewType("ZoneName", str)
HostName = NewType("HostName", str)
TenantId = NewType("TenantId", str)
UserId = NewType("UserId", str)
TokenId = NewType("TokenId", str)
AppId = NewType("AppId", str)
ServiceId = NewType("ServiceId", str)
ReplicaId = NewType("ReplicaId", str)
ReleaseId = NewType("ReleaseId", str)
ContainerId = NewType("ContainerId", str)
NetworkId = NewType("NetworkId", str)
PortId = NewType("PortId", str)
ReservationId = NewType("ReservationId", str)
EgressId = NewType("EgressId", str)
ShareId = NewType("ShareId", str)
GroupId = NewType("GroupId", str)
EndpointId = NewType("EndpointId", str)
CertificateId = NewType("CertificateId", str)
ClusterId = NewType("ClusterId", str)
AcmeOrderId = NewType("AcmeOrderId", str)
DiskId = NewType("DiskId", str)
SnapshotId = NewType("SnapshotId", str)
ImageId = NewType("ImageId", str)
Digest = NewType("Digest", str)
"""``sha256:`` and 64 hexadecimal digits."""

Bytes = NewType("Bytes", int)
Seconds = NewType("Seconds", float)

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
LENGTH = 20


def new_id() -> str:
    """A fresh id; wrap it in its type: ``DiskId(new_id())``."""
    return _encode(time.time_ns() // 1_000_000) + _encode(secrets.randbits(50))


def derived_id(of: str) -> str:
    """The same for the same text: for what several make at the same moment, of which there is to be one."""
    number = int.from_bytes(hashlib.sha256(of.encode()).digest(), "big")
    return _encode(number) + _encode(number >> 50)


def short(identifier: str) -> str:
    """The last ten characters: what fits into the name of a network interface."""
    return identifier[-10:]


def _encode(number: int) -> str:
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(45, -1, -5))
