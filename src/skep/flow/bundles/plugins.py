"""Plug-ins that are installed beside the program and say so by entry points: the same checks, no isolation.

[project.entry-points."skep.steps"]
acme = "acme_deploy.steps"          # the steps of this module, named acme.…

[project.entry-points."skep.flows"]
acme = "acme_deploy.flows"          # the *.yaml of this package
"""

from importlib.metadata import EntryPoint, entry_points
from types import ModuleType

from skep.flow.bundles.refusals import BundleRefused
from skep.flow.definition.registry import Registry
from skep.flow.errors import FlowError, StepError

STEPS, FLOWS = "skep.steps", "skep.flows"


def add_entry_points(registry: Registry, steps: str = STEPS, flows: str = FLOWS) -> Registry:
    """Add all steps, then all flows, of the plug-ins that are installed.

    Raises:
        BundleRefused: with what is wrong with each plug-in.
    """
    reasons: list[str] = []
    for point in _sorted(steps):
        _add_steps(registry, point, reasons)
    for point in _sorted(flows):
        _add_flows(registry, point, reasons)
    if reasons:
        raise BundleRefused(reasons)
    return registry


def _sorted(group: str) -> list[EntryPoint]:
    return sorted(entry_points(group=group), key=lambda point: (point.name, point.value))


def _add_steps(registry: Registry, point: EntryPoint, reasons: list[str]) -> None:
    try:
        module = point.load()
        if not isinstance(module, ModuleType):
            raise TypeError(f"{point.value} is not a module")
        registry.add_module(module, point.name)
    except StepError as error:
        reasons.append(f"{_name(point)}: {error}")
    except Exception as error:
        reasons.append(f"{_name(point)}: {type(error).__name__}: {error}")


def _add_flows(registry: Registry, point: EntryPoint, reasons: list[str]) -> None:
    try:
        registry.add_flows(point.value)
    except FlowError as error:
        reasons += [f"{_name(point)}: {problem}" for problem in error.problems]
    except Exception as error:
        reasons.append(f"{_name(point)}: {type(error).__name__}: {error}")


def _name(point: EntryPoint) -> str:
    distribution = point.dist
    return f"{distribution.name} {distribution.version}" if distribution is not None else point.name
