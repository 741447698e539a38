"""Plans as `skep plan` shows them, and as files that `skep apply --plan` carries out."""

import os
from collections.abc import Container
from pathlib import Path

import msgspec

from skep.cli.client import Client
from skep.cli.common import Common
from skep.cli.differences import print_differences
from skep.cli.failures import Exit, Failure
from skep.cli.output import document, say, show, size, warn
from skep.model.spec import AppSpec
from skep.model.views.plans import PlanChange, PlanDetail, ResourceChange

LARGEST = 64 * 1024 * 1024
"""Bytes of a plan file."""
HOURS_OF_A_MONTH = 730


class PlanFile(msgspec.Struct, frozen=True, kw_only=True):
    """What was planned, with the contents of its configs and secrets, and the mark of the plan."""

    skep_plan: int = 1
    mark: str
    spec: AppSpec


def write(path: Path, spec: AppSpec, mark: str) -> None:
    """For its owner alone: it holds what the secrets hold."""
    content = msgspec.json.encode(PlanFile(mark=mark, spec=spec))
    try:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        raise Failure(f"Cannot write {path}: {error.strerror}.", Exit.INVALID) from error
    say(f"The plan is in {path}, with its secrets: carry it out with 'skep apply --plan {path}'.")


def read(path: Path) -> PlanFile:
    try:
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(LARGEST), type=PlanFile)
    except OSError as error:
        raise Failure(f"Cannot read {path}: {error.strerror}.", Exit.INVALID) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failure(
            f"{path} is no plan: {error}.", Exit.INVALID, f"Make one with: skep plan --out {path}"
        ) from error


def of(client: Client, spec: AppSpec) -> PlanDetail:
    """What the server would do to make the app so."""
    return client.post(f"/v1/apps/{spec.name}/plan", PlanDetail, spec)


def with_builds(planned: PlanDetail, builds: Container[str]) -> PlanDetail:
    """The plan, with what becomes of images that are built from here, which the server does not know."""
    changes = tuple(
        msgspec.structs.replace(one, reason="is not here: will be built") if _is_built(one, builds) else one
        for one in planned.changes
    )
    return msgspec.structs.replace(planned, changes=changes)


def must_be_built(planned: PlanDetail, builds: Container[str]) -> None:
    """Before it is written: a plan from a file builds nothing."""
    if missing := [one.name for one in planned.changes if _is_built(one, builds)]:
        raise Failure(
            f"Not written: {', '.join(missing)} must be built first, or it would be pulled.",
            Exit.CONFLICT,
            "Say 'skep build', and plan again.",
        )


def _is_built(change: PlanChange, builds: Container[str]) -> bool:
    return change.kind == "image" and change.name in builds


def print_plan(planned: PlanDetail, common: Common) -> None:
    for warning in planned.warnings:
        warn(warning)
    if common.output != "table":
        document(planned, common.output)
        return
    if planned.empty and not planned.differences:
        say(f"{planned.app} is as it should be: nothing would change.")
        return
    _print_changes(planned)
    if planned.differences:
        print("\nDIFFERENCE")
        print_differences(planned.differences)
    if planned.services:
        print()
        show(planned.services, _SERVICES, "table")
    if planned.order:
        print("\nORDER")
        for number, steps in enumerate(planned.order, start=1):
            print(f"{number:>3}. {', '.join(steps)}")
    if planned.peak:
        print()
        show(planned.peak, _PEAK, "table")
    _print_resources(planned.resources)


def _print_changes(planned: PlanDetail) -> None:
    changes = [change for change in planned.changes if change.action != "keep"]
    kept = len(planned.changes) - len(changes)
    if changes:
        columns = [
            ("ACTION", lambda change: change.action.value),
            ("KIND", lambda change: change.kind),
            ("NAME", lambda change: change.name),
            ("REASON", lambda change: change.reason),
        ]
        show(changes, columns, "table")
    if kept and changes:
        say(f"{kept} more stay as they are.")


_SERVICES = [
    ("SERVICE", lambda one: one.service),
    ("REPLICAS", lambda one: f"{one.before} → {one.after}" if one.before != one.after else one.after),
    ("STRATEGY", lambda one: one.strategy),
    ("RESTARTS", lambda one: one.restarts),
    ("MOVES", lambda one: one.moves),
    ("TOUCHES", lambda one: one.touches),
    ("REQUESTS MAY FAIL", lambda one: one.interruption or "no"),
]
_PEAK = [
    ("HOST", lambda one: one.host),
    ("CPUS AT THE PEAK", lambda one: f"+{one.cpus:g}"),
    ("FREE", lambda one: None if one.cpus_free is None else f"{one.cpus_free:g}"),
    ("MEMORY AT THE PEAK", lambda one: f"+{size(one.memory)}"),
    ("FREE", lambda one: size(one.memory_free)),
]


def _print_resources(change: ResourceChange) -> None:
    if not (change.replicas or change.cpus or change.memory):
        return
    said = [f"{change.replicas:+d} replicas", f"{change.cpus:+g} CPUs"]
    said.append(f"{'-' if change.memory < 0 else '+'}{size(abs(change.memory))} memory")
    if change.cost is not None:
        said.append(f"{change.cost:+.4f} per hour, {change.cost * HOURS_OF_A_MONTH:+.2f} per month")
    print(f"\nAFTERWARDS {', '.join(said)}")
