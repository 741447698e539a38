"""Which replicas of a release have stand-ins, what speaks against its strategy, what to say of it.  Pure."""

from collections.abc import Iterator, Sequence

from skep.control.apps.draining import has_data
from skep.control.flows.rollouts.parts import jobs
from skep.control.naming import attachments
from skep.control.plans.comparing import difference, ordinals
from skep.control.plans.plans import Facts, Plan
from skep.control.plans.specifications import health_check
from skep.model.errors import InvalidInput
from skep.model.names import ServiceName
from skep.model.spec import AppSpec, ServiceSpec

Position = tuple[ServiceName, int]


def stand_ins(
    facts: Facts, spec: AppSpec, *, rollback: bool = False, force_recreate: bool = False
) -> list[Position]:
    """Replicas that run, have to change, and are replaced by one that stands beside them first."""
    staying = {(name, one) for name in spec.services for one in ordinals(facts, spec, name)}
    return [
        (name, row.ordinal)
        for row in facts.replicas
        if ((name := ServiceName(row.service)), row.ordinal) in staying
        and row.desired == "running"
        and beside(spec, name, rollback=rollback)
        and difference(facts, spec, row, force_recreate)
    ]


def beside(spec: AppSpec, name: ServiceName, *, rollback: bool = False) -> bool:
    """Whether the service is to have stand-ins, and can."""
    return (
        _asked(spec, spec.services[name], rollback)
        and name not in jobs(spec)
        and not why_alone(spec.services[name])
    )


def _asked(spec: AppSpec, service: ServiceSpec, rollback: bool) -> bool:
    order = service.rollback.order if rollback else service.update.order
    return spec.x_skep.release.strategy != "rolling" or order == "start-first"


def why_alone(service: ServiceSpec) -> str:
    """Why no second container of a replica can stand beside the first, in words; "" if one can."""
    if service.x_skep.stateful:
        return "it is stateful"
    if reason := has_data(service):
        return reason
    if any(place.is_fixed for _, place in attachments(service)):
        return "its address is fixed"
    return ""


def must_be_checked(plan: Plan, spec: AppSpec) -> None:
    """Raises InvalidInput: what is to be proven has no health check to prove it by."""
    policy = spec.x_skep.release
    if policy.strategy == "rolling" or policy.unchecked:
        return
    starting = {
        change.service for change in plan.replicas if change.action in ("create", "update", "stand-in")
    }
    if bare := [name for name in unchecked(plan, spec) if name in starting]:
        raise InvalidInput(
            f"A release with strategy {policy.strategy} needs health checks, and {_listed(bare)} "
            f"{'has' if len(bare) == 1 else 'have'} none (that is known here): add `healthcheck`, or say "
            "`x-skep: {release: {unchecked: true}}` to count a container as well as soon as it runs."
        )


def unchecked(plan: Plan, spec: AppSpec) -> list[ServiceName]:
    """Services without a health check of their own or of their image; jobs need none."""
    return [
        name
        for name, service in spec.services.items()
        if name not in jobs(spec) and service.replicas and not _is_checked(plan, service, name)
    ]


def remarks(plan: Plan, spec: AppSpec) -> list[str]:
    """What people should know before, and would not expect."""
    return [*_in_place(plan, spec), *_unproven(plan, spec)]


def _in_place(plan: Plan, spec: AppSpec) -> Iterator[str]:
    updated = {change.service for change in plan.replicas if change.action == "update"}
    for name, service in spec.services.items():
        if name in updated and _asked(spec, service, plan.rollback) and (reason := why_alone(service)):
            yield f"Service {name!r} is updated stop-first, in its place, since {reason}."


def _unproven(plan: Plan, spec: AppSpec) -> Iterator[str]:
    replaced = {change.service for change in plan.replicas if change.action in ("update", "stand-in")}
    if bare := [name for name in unchecked(plan, spec) if name in replaced]:
        yield (
            f"No health check: {_listed(bare)}. A new container counts as well as soon as it runs, so one "
            "that does not work may replace one that does; add `healthcheck`."
        )


def _is_checked(plan: Plan, service: ServiceSpec, name: ServiceName) -> bool:
    if service.healthcheck is not None and service.healthcheck.test[:1] != ("NONE",):
        return True
    image = plan.images.get(name)
    return image is not None and health_check(service, image.config) is not None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"service {name!r}" for name in names)
