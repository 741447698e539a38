"""The work that the flow engine's benchmark gives it: no-op steps, and the documents that wire them."""

from skep.flow import Context, Registry, step

LEVELS, WIDTH = 5, 4
STEPS = LEVELS * WIDTH


@step
async def add(cx: Context[None], number: int) -> int:
    return number + 1


def registry() -> Registry:
    """With flows `levels` (five levels of four, each level after the whole one before) and `serial` (20)."""
    made = Registry()
    made.add_step(add, "bench.add")
    made.add_flow(levels("levels", STEPS), "levels.yaml")
    made.add_flow(levels("serial", STEPS, width=1), "serial.yaml")
    return made


def levels(name: str, steps: int, width: int = WIDTH) -> str:
    """A document of so many steps, `width` of them side by side; each needs a result of the level before."""
    lines = [f"flow: {name}", "input: {number: int}", "steps:"]
    for level in range(steps // width):
        before = [f"s{level - 1}_{lane}" for lane in range(width)] if level else []
        for lane in range(width):
            number = before[lane] if level else "input.number"
            after = f", after: [{', '.join(before)}]" if width > 1 and level else ""
            lines.append(f"  s{level}_{lane}: {{use: bench.add, with: {{number: ${number}}}{after}}}")
    return "\n".join(lines) + "\n"


def fan_out(name: str) -> str:
    """A document that does one step for each of a list."""
    return (
        f"flow: {name}\ninput: {{numbers: 'list[int]'}}\nsteps:\n"
        "  all: {use: bench.add, each: $input.numbers, with: {number: $item}}\n"
    )
