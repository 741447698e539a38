"""What a worker and the process of a bundle tell each other: msgpack, each message after its length."""

import asyncio
import struct

import msgspec

from skep.flow.bundles.shapes import Shape, Table
from skep.flow.steps import Kind

LARGEST_MESSAGE = 64 * 1024 * 1024
_LENGTH = struct.Struct(">I")


class StepShape(msgspec.Struct, frozen=True):
    """What the signature of a step says."""

    name: str
    kind: Kind
    retry: int
    timeout: float | None
    heartbeat: float | None
    undo: bool
    parameters: dict[str, Shape]
    required: frozenset[str]
    returns: Shape


class Description(msgspec.Struct, frozen=True):
    """What the code of a bundle offers; `types` are those that an `input:` may name."""

    steps: tuple[StepShape, ...] = ()
    types: dict[str, Shape] = {}
    table: Table = {}


class Confinement(msgspec.Struct, frozen=True):
    """Where and as whom the code runs.

    `root`: an empty directory for its root to be.  `visible`: what it sees of the machine, read-only.
    `memory`: bytes beyond those of the empty process.
    """

    root: str
    visible: tuple[str, ...]
    user: int
    memory: int
    network: bool


class Setup(msgspec.Struct, frozen=True):
    """The first message to a process.  `confinement` None: it may do whatever the worker may."""

    home: str
    packages: str | None
    modules: tuple[str, ...]
    types: tuple[str, ...]
    prefix: str | None
    confinement: Confinement | None


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Call a step, or its undo.  `arguments` is JSON."""

    id: int
    step: str
    arguments: bytes
    run: str
    name: str
    attempt: int
    epoch: int
    round: int
    undoing: bool


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    id: int


class Described(msgspec.Struct, frozen=True, tag="described"):
    description: Description


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """The code cannot be loaded; `confined` False: it was not even tried."""

    reasons: tuple[str, ...]
    confined: bool = True


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    id: int
    message: str


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    id: int


class Answer(msgspec.Struct, frozen=True, tag="answer"):
    """`result` is JSON."""

    id: int
    result: bytes


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """`retry`: the step raised `Retry`.  `exhausted`: there was no memory left; the process ends itself."""

    id: int
    message: str
    retry: bool = False
    after: float | None = None
    exhausted: bool = False


ToChild = Ask | Cancel
FromChild = Described | Refused | Progress | Beat | Answer | Failed


def frame(message: msgspec.Struct) -> bytes:
    content = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(content)) + content


async def read_frame(reader: asyncio.StreamReader) -> bytes | None:
    """The next message; None at the end.

    Raises:
        ValueError: one that is longer than any of ours.
    """
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > LARGEST_MESSAGE:
            raise ValueError(f"a message of {length} bytes")
        return await reader.readexactly(length)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
