"""A handler that keeps what it gets."""

import asyncio

from skep.bus.bus import Message


class Inbox:
    """`refuse`: it raises for so many deliveries at first; None: always."""

    def __init__(self, refuse: int | None = 0) -> None:
        self.messages: list[Message] = []
        self._refuse = refuse
        self._news = asyncio.Event()

    @property
    def ids(self) -> list[str]:
        return [message.id for message in self.messages]

    async def take(self, message: Message) -> None:
        self.messages.append(message)
        self._news.set()
        if self._refuse is None or len(self.messages) <= self._refuse:
            raise ValueError("the handler does not want it")

    async def has(self, count: int, within: float = 10.0) -> list[Message]:
        """Waits until so many deliveries came."""
        async with asyncio.timeout(within):
            while len(self.messages) < count:
                self._news.clear()
                await self._news.wait()
        return self.messages


def letter(name: str = "m-1", body: bytes = b"hello", lifetime: float | None = None) -> Message:
    return Message(id=name, body=body, reply_to="reply.me", lifetime=lifetime, signature=b"\x00signed")
