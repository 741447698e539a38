"""`skep flow`."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from skep.cli.common import DEFAULT, Common
from skep.cli.failures import Exit, Failure
from skep.cli.follow import finish, outcome
from skep.cli.names import complete_flow
from skep.cli.output import document, say, show
from skep.cli.values import documents, inputs
from skep.model.views.base import Accepted
from skep.model.views.flows import CheckView, CodeView, DrawnView, FlowDetail, FlowView

app = App(name="flow", help="Flows: list, check, show, draw, start; the steps they are made of.")

Flow = Annotated[str, Parameter(completer=complete_flow)]
Priority = Literal["urgent", "high", "normal", "low", "bulk"]
Flag = Annotated[bool, Parameter(negative=())]


@app.command(name="ls")
def list_flows(*, common: Common = DEFAULT) -> None:
    """List the flows of the program and of the active bundles.

    Example: `skep flow ls`
    """
    columns = [
        ("FLOW", lambda one: one.name),
        ("STEPS", lambda one: one.steps),
        ("INPUT", lambda one: [f"{name}: {kind}" for name, kind in one.input.items()]),
        ("BUNDLE", lambda one: one.bundle[:12]),
    ]
    show(common.connect().get("/v1/flows", list[FlowView]), columns, common.output)


@app.command(name="show")
def show_flow(flow: Flow, /, *, common: Common = DEFAULT) -> None:
    """Show what a flow takes, its steps in order and what each waits for, and what it gives.

    Example: `skep flow show replica.create`

    Parameters
    ----------
    flow
        Name of the flow.
    """
    detail = common.connect().get(f"/v1/flows/{flow}", FlowDetail)
    if common.output != "table":
        document(detail, common.output)
        return
    print(detail.text, end="")
    if detail.flow.bundle:
        say(f"It comes from bundle {detail.flow.bundle[:12]}.")


@app.command
def check(*files: Path, common: Common = DEFAULT) -> None:
    """Check flow documents against the steps and flows of the server. Exit code 1 when they have faults.

    Examples: `skep flow check deploy.yaml`; `skep flow check flows/`

    Parameters
    ----------
    files
        Documents, or directories of them; they may refer to each other.
    """
    body = {"documents": documents(files)}
    found = common.connect().post("/v1/flows/check", CheckView, body)
    if common.output != "table":
        document(found, common.output)
    for one in found.problems if common.output == "table" else ():
        step = f"step {one.step}: " if one.step else ""
        print(f"{one.file}:{one.line}: {step}{one.reason}")
    if found.problems:
        count = len(found.problems)
        raise Failure(f"{count} fault{'' if count == 1 else 's'}; nothing was kept.", Exit.FAILED)
    say(f"Right: {', '.join(found.flows)}.")


@app.command
def graph(flow: Flow, /, *, svg: Flag = False, mermaid: Flag = False, common: Common = DEFAULT) -> None:
    """Draw a flow of the server, or of a document.

    Examples: `skep flow graph replica.create --svg > flow.svg`; `skep flow graph deploy.yaml --mermaid`

    Parameters
    ----------
    flow
        Name of a flow, or a document.
    svg
        As an SVG picture.
    mermaid
        As a Mermaid chart.
    """
    chosen = "svg" if svg else "mermaid" if mermaid else "text"
    client, path = common.connect(), Path(flow)
    if path.suffix in (".yaml", ".yml") or path.is_dir():
        body = {"documents": documents([path]), "format": chosen}
        for drawn in client.post("/v1/flows/draw", list[DrawnView], body):
            print(drawn.content, end="")
        return
    print(client.text(f"/v1/flows/{flow}/graph", format=chosen), end="")


@app.command
def start(
    flow: Flow,
    /,
    *,
    input: Annotated[tuple[str, ...], Parameter(name=["--input", "-i"])] = (),  # noqa: A002 - the option
    key: str | None = None,
    priority: Priority | None = None,
    deadline: datetime | None = None,
    title: str = "",
    wait: bool = True,
    common: Common = DEFAULT,
) -> None:
    """Begin a run of a flow in your tenant, and follow it. Prints what it gives. For admins.

    Example: `skep flow start greet --input name=Kim --key greeting-7`

    Parameters
    ----------
    flow
        Name of the flow.
    input
        NAME=VALUE, or a JSON object; may be given several times.
    key
        The same key again answers the run it began first.
    priority
        Instead of the flow's own.
    deadline
        When it must have ended, as 2030-01-02T03:04:05; without a zone it is UTC.
    title
        What lists call the run.
    wait
        Follow the run to its end.
    """
    client = common.connect()
    types = client.get(f"/v1/flows/{flow}", FlowDetail).flow.input
    body = {
        "input": inputs(input, types),
        "key": key,
        "priority": priority,
        "deadline": _moment(deadline),
        "title": title,
    }
    accepted = client.post(f"/v1/flows/{flow}/runs", Accepted, body)
    run = finish(client, accepted, wait=wait)
    if not wait:
        print(accepted.run)
    elif run is not None and (output := outcome(client, run).output):
        document(output, "json" if common.output == "table" else common.output)


@app.command
def steps(name: str = "", /, *, common: Common = DEFAULT) -> None:
    """List the steps that flows may use, with their signatures and what they promise.

    Examples: `skep flow steps`; `skep flow steps engine.`

    Parameters
    ----------
    name
        Only those whose names begin like this; one alone is shown whole.
    """
    every = common.connect().get("/v1/steps", list[CodeView])
    found = [one for one in every if one.name.startswith(name)]
    if not found:
        raise Failure(f"There is no step {name!r}.", Exit.NOT_FOUND, "`skep flow steps` lists them.")
    if common.output == "table" and len(found) == 1:
        _show_step(found[0])
        return
    columns = [
        ("STEP", lambda one: one.name),
        ("KIND", lambda one: one.kind),
        ("SIGNATURE", _signature),
        ("UNDO", lambda one: one.undo),
        ("PROMISE", lambda one: one.description.split("\n")[0]),
    ]
    show(found, columns, common.output)


def _show_step(step: CodeView) -> None:
    print(f"{step.name}{_signature(step)}")
    said = [step.kind, "with undo" if step.undo else "without undo"]
    said += [f"retry {step.retry}"] if step.retry else []
    said += [f"timeout {step.timeout:g}s"] if step.timeout else []
    said += [f"heartbeat {step.heartbeat:g}s"] if step.heartbeat else []
    said += [f"bundle {step.bundle[:12]}"] if step.bundle else []
    print(f"  {', '.join(said)}\n")
    print(step.description)


def _signature(step: CodeView) -> str:
    parameters = (
        f"{name}: {kind}{'' if name in step.required else ' = …'}" for name, kind in step.parameters.items()
    )
    return f"({', '.join(parameters)}) → {step.returns}"


def _moment(deadline: datetime | None) -> str | None:
    if deadline is None:
        return None
    text = deadline.isoformat()
    return text if deadline.tzinfo is not None else f"{text}Z"
