"""Streams that prove their end: what broke off on its way is not taken for whole.

The SHA-256 of everything before follows as 64 hexadecimal digits.  Used by whoever sends or takes over disks.
"""

import hashlib
from collections.abc import AsyncIterator, Callable

from skep.model.errors import InvalidInput

LENGTH = 64
Note = Callable[[str], object]
"""Told the seal: those digits."""


def _nobody(seal: str) -> None:
    pass


async def sealed(content: AsyncIterator[bytes], note: Note = _nobody) -> AsyncIterator[bytes]:
    """`note` is told before the seal is sent."""
    digest = hashlib.sha256()
    async for block in content:
        digest.update(block)
        yield block
    note(digest.hexdigest())
    yield digest.hexdigest().encode()


async def unsealed(stream: AsyncIterator[bytes], note: Note = _nobody) -> AsyncIterator[bytes]:
    """The content.  Whoever keeps it must not count on it before this has come to its end.

    `note` is told when all has arrived.

    Raises:
        InvalidInput: it is not what was sent, or not all of it.
    """
    digest, rest = hashlib.sha256(), b""
    async for block in stream:
        rest += block
        content, rest = rest[:-LENGTH], rest[-LENGTH:]
        if content:
            digest.update(content)
            yield content
    if rest.decode(errors="replace") != digest.hexdigest():
        raise InvalidInput(
            "What arrived of the disk is not all that was sent, or not the same: send it again."
        )
    note(digest.hexdigest())
