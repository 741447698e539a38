"""The code of a bundle as a registry, with every reason why it cannot be one."""

import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from skep.flow.definition.catalogue import Code
from skep.flow.definition.hints import Hint
from skep.flow.definition.registry import Registry
from skep.flow.errors import StepError

Import = Callable[[str], ModuleType]


class BundleCode:
    """The steps and types of a bundle; `reasons` says what is wrong with it."""

    def __init__(self, bundle: str) -> None:
        self.registry = Registry(bundle=bundle)
        self.reasons: list[str] = []

    @property
    def steps(self) -> dict[str, Code]:
        return dict(self.registry.steps)

    @property
    def types(self) -> dict[str, Hint]:
        return dict(self.registry.types)


def import_code(
    load: Import,
    modules: Iterable[str],
    types: Iterable[str],
    prefix: str | None,
    home: str,
    bundle: str = "",
) -> BundleCode:
    """Import the modules and take the steps and types out of them.  What it raises is a reason."""
    code = BundleCode(bundle)
    for name in modules:
        module = _imported(load, name, home, code.reasons)
        if module is not None:
            _take_steps(code, module, name, prefix)
    for path in types:
        _take_type(code, load, path, home)
    return code


def _imported(load: Import, name: str, home: str, reasons: list[str]) -> ModuleType | None:
    try:
        return load(name)
    except BaseException as error:
        reasons.append(f"{_place(error, name, home)}: {type(error).__name__}: {_message(error)}")
        return None


def _take_steps(code: BundleCode, module: ModuleType, name: str, prefix: str | None) -> None:
    before = len(code.registry.steps)
    try:
        code.registry.add_module(module, name.rpartition(".")[2] if prefix is None else prefix)
    except StepError as error:
        code.reasons.append(f"{name}: {error}")
        return
    if len(code.registry.steps) == before:
        code.reasons.append(f"{name} defines no steps")


def _take_type(code: BundleCode, load: Import, path: str, home: str) -> None:
    module_name, _, name = path.partition(":")
    module = _imported(load, module_name, home, code.reasons)
    if module is None:
        return
    if not hasattr(getattr(module, name, None), "__name__"):
        code.reasons.append(f"{module_name} has no type {name!r}")
        return
    code.registry.types[name] = getattr(module, name)


def _place(error: BaseException, module: str, home: str) -> str:
    """`acme/steps.py:3`, where the code of the bundle is at fault."""
    if isinstance(error, SyntaxError) and error.filename and error.filename.startswith(home):
        return f"{Path(error.filename).relative_to(home)}:{error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(home)]
    return f"{Path(frames[-1].filename).relative_to(home)}:{frames[-1].lineno}" if frames else module


def _message(error: BaseException) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)
