"""What a network has beside its first subnet, as its row keeps it."""

import msgspec


class Subnet(msgspec.Struct, frozen=True, kw_only=True):
    """One more range of addresses.  `cursor`: the one given out last, counted from the range's first."""

    cidr: str
    gateway: str
    cursor: int
