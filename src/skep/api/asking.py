"""What every handler asks for: `control` to do the work, and `caller`, who wants it done."""

from typing import TYPE_CHECKING, Any, TypeAlias

from litestar.di import NamedDependency

from skep.control import callers

if TYPE_CHECKING:
    from skep.control import control

    Control: TypeAlias = NamedDependency[control.Control]
else:
    Control = NamedDependency[Any]  # main gives it; nothing of a request reaches its type

Caller: TypeAlias = NamedDependency[callers.Caller]
