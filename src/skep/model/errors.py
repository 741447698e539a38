"""Everything that can go wrong, in about ten kinds.

The message is written to the person who can act.  `api/errors.py` maps each kind to one HTTP status; what
is no SkepError is a defect, goes to the log, and reaches the caller as "internal error" only.
"""


class SkepError(Exception):
    """Something went wrong."""

    code = "error"

    def __init__(self, message: str | None = None, **details: object) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])
        self.details = details

    @property
    def message(self) -> str:
        return str(self.args[0])


class InvalidInput(SkepError):
    """The request does not make sense as written."""

    code = "invalid-input"


class Unsupported(InvalidInput):
    """The request is understood, but skep does not do this."""

    code = "unsupported"


class Unauthenticated(SkepError):
    """Who are you?  Send a valid token."""

    code = "unauthenticated"


class Forbidden(SkepError):
    """Your role does not allow this."""

    code = "forbidden"


class NotFound(SkepError):
    """There is no such thing, or it is not yours to see."""

    code = "not-found"


class Conflict(SkepError):
    """Something else stands in the way: a name is taken, a port is used, another run holds the lock."""

    code = "conflict"


class Stale(Conflict):
    """Somebody newer has taken this over: nothing was done for who asked."""

    code = "stale"


class Exhausted(SkepError):
    """A quota, a subnet, a pool or a host is full."""

    code = "exhausted"


class Unavailable(SkepError):
    """A part that is needed does not answer right now; trying again later may work."""

    code = "unavailable"


class HostFailure(SkepError):
    """A tool or the kernel of a host refused what was asked of it."""

    code = "host-failure"
