"""Column types that mean the same on SQLite and PostgreSQL."""

from typing import Any, Generic, TypeVar

import msgspec
from sqlalchemy import Dialect, Text
from sqlalchemy.types import TypeDecorator

T = TypeVar("T")


def encode_hook(value: object) -> object:
    """Values msgspec does not know by itself (addresses, paths) are stored as their text."""
    return str(value)


def decode_hook(kind: type, value: object) -> object:
    return kind(value)


class Wide(TypeDecorator[int]):
    """A number of up to 128 bits, as hexadecimal text of one length: it sorts as the number does."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> str | None:
        return None if value is None else f"{value:032x}"

    def process_result_value(self, value: str | None, dialect: Dialect) -> int | None:
        return None if value is None else int(value, 16)


class Json(TypeDecorator[T], Generic[T]):
    """A typed value as JSON text: `Json(AppSpec)`."""

    impl = Text
    cache_ok = True

    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: T | None, dialect: Dialect) -> str | None:
        return None if value is None else msgspec.json.encode(value, enc_hook=encode_hook).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> T | None:
        if value is None:
            return None
        decoded: T = msgspec.json.decode(value, type=self.kind, dec_hook=decode_hook)
        return decoded
