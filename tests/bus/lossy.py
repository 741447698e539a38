"""The bus within one process, with what tests need of it: losses, absence, a record of what was sent."""

from collections.abc import Callable

from skep.bus.bus import Message
from skep.bus.inprocess import InProcessBus
from skep.model.errors import Unavailable


class LossyBus(InProcessBus):
    """`lose(key, message)`: whether a message is lost on its way.  `away`: it answers nobody."""

    def __init__(self) -> None:
        super().__init__()
        self.lose: Callable[[str, Message], bool] = lambda key, message: False
        self.away = False
        self.sent: list[tuple[str, Message]] = []

    async def send(self, key: str, message: Message) -> None:
        self.sent.append((key, message))
        if self.away:
            raise Unavailable("The bus does not answer.")
        if not self.lose(key, message):
            await super().send(key, message)
