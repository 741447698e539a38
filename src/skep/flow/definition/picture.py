"""Flows for the eye: as a Mermaid chart, as an SVG picture, and as text.

`states` and `took` (seconds), by the names of a run's steps, colour the picture of a run that goes on.
"""

from collections.abc import Iterator, Mapping, Sequence

from skep.flow.definition import mermaid as charts
from skep.flow.definition import svg as pictures
from skep.flow.definition import writing
from skep.flow.definition.drawing import Progress, draw
from skep.flow.definition.plan import Each, Plan, PlannedStep, RetryPolicy
from skep.flow.definition.writing import share, span, written

LARGEST_PICTURE = 2000
"""Nodes; nobody sees anything in a larger one."""


def mermaid(
    plan: Plan, *, states: Mapping[str, str] | None = None, took: Mapping[str, float] | None = None
) -> str:
    """A flowchart.  Raises ValueError: too many steps."""
    _check_size(plan)
    return charts.render(draw(plan, Progress.of(states, took)))


def svg(
    plan: Plan, *, states: Mapping[str, str] | None = None, took: Mapping[str, float] | None = None
) -> str:
    """A picture that stands alone.  Raises ValueError: too many steps."""
    _check_size(plan)
    return pictures.render(draw(plan, Progress.of(states, took)))


def describe(plan: Plan) -> str:
    """What the flow takes, its steps in order and what each waits for, and what it gives."""
    taken = ", ".join(f"{name}: {hint}" for name, hint in plan.input.items())
    return "\n".join([f"{plan.flow}({taken})", *_run(plan), *_steps(plan.steps, "  "), *_output(plan)]) + "\n"


def _check_size(plan: Plan) -> None:
    size = sum(1 for _ in _every(plan.steps))
    if size > LARGEST_PICTURE:
        raise ValueError(f"flow {plan.flow} has {size} steps; at most {LARGEST_PICTURE} can be drawn")


def _every(steps: Sequence[PlannedStep]) -> Iterator[PlannedStep]:
    for step in steps:
        yield step
        if step.each is not None:
            yield from _every(step.each.steps)


def _run(plan: Plan) -> Iterator[str]:
    """What is said of the run as a whole."""
    if plan.locks:
        yield f"  lock {', '.join(map(written, plan.locks))}"
    if plan.limits:
        yield f"  limit {', '.join(map(writing.limit, plan.limits))}"
    if plan.priority is not None:
        yield f"  priority {written(plan.priority)}"
    if plan.timeout is not None:
        yield f"  timeout {span(plan.timeout)}"
    if plan.on_failure != "undo":
        yield f"  on failure {plan.on_failure}"


def _steps(steps: Sequence[PlannedStep], indent: str) -> Iterator[str]:
    width = max((len(step.name) for step in steps), default=0)
    for step in steps:
        after = ", ".join(steps[index].name for index in step.after)
        said = " · ".join([_does(step), *_conditions(step), *([f"after {after}"] if after else [])])
        yield f"{indent}{step.name:<{width}}  {said}"
        if step.each is not None and not _is_single(step):
            yield from _steps(step.each.steps, f"{indent}    ")


def _does(step: PlannedStep) -> str:
    if step.wait is not None:
        carried = f" as {step.wait.type}" if step.wait.kind == "signal" else ""
        return f"waits: {step.wait.kind} {written(step.wait.value)}{carried}"
    if step.each is None:
        return step.use
    inner = step.each.steps[0]
    what = " · ".join([_does(inner), *_conditions(inner)]) if _is_single(step) else "sub-flow"
    return f"each of {written(step.each.items)}{_bounds(step.each)}: {what}"


def _is_single(step: PlannedStep) -> bool:
    return step.each is not None and [inner.name for inner in step.each.steps] == [step.name]


def _bounds(each: Each) -> str:
    bounds = [f"{each.parallel} at once"] if each.parallel is not None else []
    if each.failures:
        bounds.append(f"{share(each.failures)} may fail")
    return f" ({', '.join(bounds)})" if bounds else ""


def _conditions(step: PlannedStep) -> Iterator[str]:
    if step.when is not None:
        yield f"when {written(step.when)}"
    if step.on is not None:
        yield f"on {written(step.on)}"
    if step.limits:
        yield f"limit {', '.join(map(writing.limit, step.limits))}"
    if step.retry is not None:
        yield f"retry {_tries(step.retry)}"
    if step.timeout is not None:
        yield f"timeout {span(step.timeout)}"


def _tries(retry: RetryPolicy) -> str:
    if retry.budget is None:
        return str(retry.times)
    return f"{retry.times} within {span(retry.budget)}" if retry.times < 1000 else f"for {span(retry.budget)}"


def _output(plan: Plan) -> Iterator[str]:
    if plan.output:
        yield f"gives {', '.join(f'{name}: {written(value)}' for name, value in plan.output.items())}"
