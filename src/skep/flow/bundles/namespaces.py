"""Code of bundles inside the worker: several versions of the same modules side by side.

The modules of a version live below a package of their own, `skep_bundle_<hash>`.  What they import of their
own bundle by its plain name is looked up there: each module gets an `__import__` that knows the names of its
bundle.  Python takes `__import__` from the built-ins of the module that an `import` statement stands in, so
nobody else is touched.  (`importlib.import_module` with an absolute name of the own bundle is not seen; with
a relative one it is.)
"""

import builtins
import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

PREFIX = "skep_bundle_"


class Namespace:
    """The modules of one version; `hash` is its name."""

    def __init__(self, hash: str, home: Path) -> None:  # noqa: A002
        self.package = PREFIX + hash[:20]
        self.home = home
        self.own = frozenset(_top_names(home))

    def load(self, name: str) -> ModuleType:
        """Import a module of the bundle, or another if it has none of that name."""
        _finder.known[self.package] = self
        top = name.partition(".")[0]
        return importlib.import_module(f"{self.package}.{name}" if top in self.own else name)

    def unload(self) -> None:
        """Forget the modules; what still uses them keeps them alive."""
        _finder.known.pop(self.package, None)
        for name in [
            name for name in sys.modules if name == self.package or name.startswith(self.package + ".")
        ]:
            del sys.modules[name]

    def built_ins(self) -> dict[str, Any]:
        """For the modules of the bundle."""
        return vars(builtins) | {"__import__": self._import}

    def _import(
        self,
        name: str,
        globals: Mapping[str, object] | None = None,  # noqa: A002
        locals: Mapping[str, object] | None = None,  # noqa: A002
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        top = name.partition(".")[0]
        if level or top not in self.own:
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        found = importlib.import_module(f"{self.package}.{name}")
        if not fromlist:
            return sys.modules[f"{self.package}.{top}"]
        for item in fromlist:
            if not hasattr(found, item) and hasattr(found, "__path__") and item != "*":
                self._import_part(found, item)
        return found

    def _import_part(self, package: ModuleType, name: str) -> None:
        """`from package import module`; that there is none is for the statement to say."""
        full = f"{package.__name__}.{name}"
        try:
            importlib.import_module(full)
        except ModuleNotFoundError as error:
            if error.name != full:
                raise


class _Loader(SourceFileLoader):
    def __init__(self, fullname: str, path: str, namespace: Namespace) -> None:
        super().__init__(fullname, path)
        self._namespace = namespace

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["__builtins__"] = self._namespace.built_ins()
        super().exec_module(module)

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Compiled code is not kept: the directory is as it was packed."""


class _Finder:
    """Finds the modules below the packages of the versions that are loaded."""

    def __init__(self) -> None:
        self.known: dict[str, Namespace] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(PREFIX):
            return None
        package, _, rest = fullname.partition(".")
        namespace = self.known.get(package)
        if namespace is None:
            return None
        if not rest:
            spec = ModuleSpec(package, None, is_package=True)
            spec.submodule_search_locations = [str(namespace.home)]
            return spec
        found = PathFinder.find_spec(fullname, path)
        if found is not None and isinstance(found.loader, SourceFileLoader):
            found.loader = _Loader(fullname, found.loader.path, namespace)
        return found


def _top_names(home: Path) -> set[str]:
    return {path.stem for path in home.iterdir() if path.suffix == ".py" or _has_code(path)}


def _has_code(path: Path) -> bool:
    return path.is_dir() and next(path.rglob("*.py"), None) is not None


_finder = _Finder()
sys.meta_path.insert(0, _finder)
