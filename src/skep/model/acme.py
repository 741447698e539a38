"""What a certificate authority says that speaks ACME (RFC 8555)."""

from typing import Literal

import msgspec

from skep.model.errors import Unavailable


class AcmeAccount(msgspec.Struct, frozen=True, kw_only=True):
    """`key` is PEM, and is not to be shown."""

    key: str
    url: str

    def __repr__(self) -> str:
        return f"AcmeAccount(url={self.url!r})"


class AcmeProblem(msgspec.Struct, frozen=True, kw_only=True):
    """`kind` is the last part of its type (RFC 8555, 6.7): `dns`, `rateLimited`, …; `detail` for people."""

    kind: str
    detail: str


class AcmeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order for one name, as the authority has it now (RFC 8555, 7.1.6)."""

    url: str
    state: Literal["pending", "ready", "processing", "valid", "invalid"]
    proof: str = ""
    """pending: what is to be found under the name."""
    asked: bool = False
    """pending: the authority was told to look for it."""
    problem: AcmeProblem | None = None
    wait: float = 0.0
    """Seconds before it wants to be asked again; 0: it has not said."""


class AcmeRefusal(Unavailable):
    """The certificate authority refuses.  `wait`: seconds before it wants to be asked again; 0: not said."""

    def __init__(self, problem: AcmeProblem, wait: float = 0.0) -> None:
        super().__init__(problem.detail)
        self.problem = problem
        self.wait = wait
