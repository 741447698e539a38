"""Calls over a bus, as they travel: msgpack, by name, readable for the release before and the one after.

Unknown fields are ignored and new ones have defaults.  Arguments that are None are left out, so that an
argument of a newer release is refused (`Unsupported`) only by whom it was meant for.
"""

from typing import Literal, TypeVar

import msgspec

from skep.bus.stamps import Stamp
from skep.model.errors import Unsupported
from skep.model.faults import Fault, error_of

T = TypeVar("T")


def quick(key: str) -> str:
    """The queue of what nobody needs kept, which goes with its server: an agent has one beside its durable
    one, while the workers of a zone, being several, share one that is durable."""
    return f"{key}.now" if key.startswith("agent.") else key


NOTHING = msgspec.Raw(b"\xc0")
"""None, encoded."""


class Call(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`method` is `room.verb`; `arguments` a map by name; `version` the asker's release.

    A `command` changes something: it is kept until it is done.  With `withdrawn` the asker says that it no
    longer waits for the call of this id.
    """

    id: str
    method: str
    arguments: msgspec.Raw
    version: str
    command: bool = False
    stamp: Stamp | None = None
    withdrawn: bool = False


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`working` is no answer yet: the call goes on, and these `lines` of progress came since the last one."""

    id: str
    version: str
    state: Literal["done", "working"] = "done"
    result: msgspec.Raw = NOTHING
    fault: Fault | None = None
    lines: tuple[str, ...] = ()


def encode(value: object) -> bytes:
    """Addresses, networks and paths travel as their text."""
    return msgspec.msgpack.encode(value, enc_hook=str)


def decode(data: bytes | msgspec.Raw, kind: type[T]) -> T:
    """Raises msgspec.MsgspecError: it is no such value."""
    return msgspec.msgpack.decode(data, type=kind, dec_hook=_decode_hook)


def result_of(answer: Answer, kind: type[T], asked: str) -> T:
    """What the call came to.

    Raises:
        SkepError: the error it ended with.  Unsupported: the answer is of a release we do not understand.
    """
    if answer.fault is not None:
        raise error_of(answer.fault)
    try:
        return decode(answer.result, kind)
    except msgspec.MsgspecError as error:
        raise Unsupported(f"skep {answer.version} answered {asked} as we cannot read it: {error}") from error


def _decode_hook(kind: type, value: object) -> object:
    return kind(value)
