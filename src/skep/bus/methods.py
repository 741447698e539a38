"""What can be called over a bus: the coroutine functions of Protocols, with what carries them out."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec

from skep.bus.calls import Call, decode, encode
from skep.model.errors import Unsupported

Progress = Callable[[str], None]

_PROGRESS = "progress"
"""The name of the argument that is told lines; it does not travel."""


@dataclass(frozen=True)
class Method:
    do: Callable[..., Any]
    arguments: type[msgspec.Struct]
    tells_progress: bool


class Methods:
    """Served under `room.verb`: `add("engine", Engine, host.engine)` makes `engine.start` callable."""

    def __init__(self, version: str) -> None:
        self.version = version
        self._methods: dict[str, Method] = {}

    def add(self, room: str, protocol: type, target: object, *, without: Collection[str] = ()) -> None:
        """Every coroutine function of the Protocol but those named."""
        for name, function in inspect.getmembers(protocol, inspect.iscoroutinefunction):
            if not name.startswith("_") and name not in without:
                self._methods[f"{room}.{name}"] = _method(name, function, getattr(target, name))

    def names(self) -> list[str]:
        return sorted(self._methods)

    async def carry_out(self, call: Call, progress: Progress) -> msgspec.Raw:
        """The encoded result.

        Raises:
            Unsupported: no such method, or not with such arguments: another release asks.
        """
        method = self._methods.get(call.method)
        if method is None:
            raise self._unsupported(call, "there is no such method")
        try:
            values = msgspec.structs.asdict(decode(call.arguments, method.arguments))
        except msgspec.MsgspecError as error:
            raise self._unsupported(call, str(error)) from error
        if method.tells_progress:
            values[_PROGRESS] = progress
        return msgspec.Raw(encode(await method.do(**values)))

    def _unsupported(self, call: Call, reason: str) -> Unsupported:
        return Unsupported(
            f"skep {self.version} does not know {call.method} as skep {call.version} asks for it: {reason}. "
            "Releases that work together are at most one apart: upgrade the older one."
        )


def _method(name: str, function: Callable[..., Any], do: Callable[..., Any]) -> Method:
    hints, fields = get_type_hints(function), []
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    for parameter in parameters:
        if parameter.name != _PROGRESS:
            field: tuple[Any, ...] = (parameter.name, hints[parameter.name])
            fields.append(
                field if parameter.default is inspect.Parameter.empty else (*field, parameter.default)
            )
    arguments = msgspec.defstruct(name, fields, kw_only=True, frozen=True, forbid_unknown_fields=True)
    return Method(do, arguments, any(p.name == _PROGRESS for p in parameters))
