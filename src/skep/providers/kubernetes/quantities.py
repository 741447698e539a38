"""Amounts as Kubernetes writes them: `500m`, `2`, `64Mi`, `1e9`.

https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/
"""

import re
from decimal import Decimal

from skep.model.ids import Bytes

_QUANTITY = re.compile(r"([+-]?[0-9.]+)(?:([eE][+-]?[0-9]+)|([numkMGTPE]i?|Ki))?")
_FACTORS = {
    "": Decimal(1),
    **{unit: Decimal(1000) ** (power - 3) for power, unit in enumerate(("n", "u", "m", "", "k"))},
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", 1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}


def amount(text: str) -> Decimal:
    """Raises ValueError: it is none."""
    found = _QUANTITY.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no quantity")
    number, exponent, unit = found.groups()
    return Decimal(f"{number}{exponent or ''}") * _FACTORS[unit or ""]


def size(text: str) -> Bytes:
    """Whole bytes, rounded down.  Raises ValueError."""
    return Bytes(int(amount(text)))
