"""What a document may name: the code of steps, types, and other flows."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, get_type_hints

import msgspec

from skep.flow.definition.hints import Hint
from skep.flow.definition.plan import Flow
from skep.flow.errors import StepError
from skep.flow.steps import Kind, Step


@dataclass(frozen=True)
class Code:
    """A registered step: its function and what its signature says."""

    name: str
    step: Step[Any, Any, Any]
    parameters: Mapping[str, Hint]
    required: frozenset[str]
    returns: Hint
    decode: Callable[[bytes], Any]
    """A result as it was stored, as its type again; raises msgspec.DecodeError if it does not fit."""
    bundle: str = ""
    """Hash of the bundle that it is part of; "" is the program's own."""

    @property
    def kind(self) -> Kind:
        return self.step.kind


class Catalogue(Protocol):
    """What wiring asks a registry for."""

    @property
    def bundle(self) -> str:
        """Hash of the bundle whose documents are wired; "" is the program's own."""

    @property
    def steps(self) -> Mapping[str, Code]: ...

    @property
    def types(self) -> Mapping[str, Hint]: ...

    def flow(self, name: str) -> Flow:
        """The flow of that name, checked.  Raises LookupError: there is none, or it contains itself."""


def inspect_step(step: Step[Any, Any, Any], name: str, bundle: str = "") -> Code:
    """Read the signature of a step.

    Raises:
        StepError: a parameter or the result has no type or one that JSON cannot carry, or the undo takes
            other parameters than its step.
    """
    parameters = _parameters(step.do, name)
    if step.undo_do is not None and list(_parameters(step.undo_do, f"the undo of {name}")) != list(
        parameters
    ):
        raise StepError(f"the undo of step {name} must take the same parameters as the step")
    types = _hints(step.do, name)
    if "return" not in types:
        raise StepError(f"step {name} must say what it returns")
    hints = {key: types[key] for key in parameters if key in types}
    if untyped := parameters.keys() - hints.keys():
        raise StepError(f"step {name} must give parameter {min(untyped)!r} a type")
    try:
        for hint in hints.values():
            msgspec.json.Decoder(hint)
        decode = msgspec.json.Decoder(types["return"]).decode
    except (TypeError, NameError) as error:
        raise StepError(f"step {name} has a type that cannot be stored as JSON: {error}") from error
    required = frozenset(key for key, item in parameters.items() if item.default is inspect.Parameter.empty)
    return Code(name, step, hints, required, types["return"], decode, bundle)


def _parameters(function: Callable[..., object], name: str) -> dict[str, inspect.Parameter]:
    """The parameters after the context, which comes first."""
    context, *parameters = inspect.signature(function).parameters.values() or (None,)
    if context is None or context.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
        raise StepError(f"step {name} must take the context first")
    for item in parameters:
        if item.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            raise StepError(
                f"step {name} must be callable with named arguments: {item} cannot be given by name"
            )
    return {item.name: item for item in parameters}


def _hints(function: Callable[..., object], name: str) -> dict[str, Hint]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError as error:
        raise StepError(f"step {name}: {error}; types of steps are needed at run time") from error
