"""A real RabbitMQ broker."""

from tests.bus.broker import broker, key, own_broker

__all__ = ["broker", "key", "own_broker"]
