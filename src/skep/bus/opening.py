"""The bus that a setting names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ssl import SSLContext

from skep.bus.bus import Bus
from skep.bus.inprocess import InProcessBus


@asynccontextmanager
async def open_bus(
    url: str, ssl_context: SSLContext | None = None, *, of_host: bool = False
) -> AsyncIterator[Bus]:
    """RabbitMQ at the URL (amqp or amqps); without one, the bus within this process.

    `of_host`: with an account that may do what a host must, and no more.

    Raises:
        Unavailable: the broker refuses us.
    """
    if not url:
        yield InProcessBus()
        return
    from skep.bus.rabbitmq import RabbitMqBus  # its libraries cost time and memory that one machine saves

    async with RabbitMqBus(url, ssl_context=ssl_context, of_host=of_host) as bus:
        yield bus
