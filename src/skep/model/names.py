"""Names people choose: DNS labels, because most of them become DNS names."""

import re
from typing import NewType

from skep.model.errors import InvalidInput

AppName = NewType("AppName", str)
ServiceName = NewType("ServiceName", str)
TenantName = NewType("TenantName", str)

_LABEL = re.compile(r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?")


def check_name(name: str, what: str) -> str:
    """Answer the name if it is 1 to 63 of a-z, 0-9, ``-`` and ``_`` (Compose allows ``_``), not at the ends.

    Raises:
        InvalidInput: it is not; `what` says whose name it is.
    """
    if not _LABEL.fullmatch(name):
        raise InvalidInput(
            f"{what} {name[:80]!r} is not a valid name: use 1 to 63 lower-case letters, digits, '-' or '_', "
            "beginning and ending with a letter or digit."
        )
    return name
