"""What every answer is made from."""

import msgspec


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Base of everything the API answers."""


class Accepted(View, frozen=True, kw_only=True):
    """Long work was accepted; follow the run.  `run` None: there was nothing to do."""

    run: str | None
    message: str = ""
