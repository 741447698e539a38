"""Compose files read into typed structs: `load_project`, then `to_app_spec`.

Used by the command line, on the client's side, with the tenant's files at hand.  Every key is acted on, named
in a warning, or refused with its line; `docs/reference/compose.md` says which.
"""

from skep.compose.problems import ComposeError, ComposeWarning
from skep.compose.project import Build, Project, Service
from skep.compose.projects import load_project
from skep.compose.release import to_app_spec
from skep.compose.units import format_duration, format_size, parse_duration, parse_size

__all__ = [
    "Build",
    "ComposeError",
    "ComposeWarning",
    "Project",
    "Service",
    "format_duration",
    "format_size",
    "load_project",
    "parse_duration",
    "parse_size",
    "to_app_spec",
]
