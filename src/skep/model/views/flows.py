"""Flows, and what is wrong with those that are not yet."""

from skep.model.views.base import View


class FlowView(View, frozen=True, kw_only=True):
    name: str
    steps: int
    input: dict[str, str]
    bundle: str = ""
    """The hash of the bundle it belongs to; "" is the program's own."""


class FlowDetail(View, frozen=True, kw_only=True):
    flow: FlowView
    text: str
    """What it takes, its steps in order and what each waits for, and what it gives."""


class ProblemView(View, frozen=True, kw_only=True):
    file: str
    line: int
    step: str
    reason: str


class CheckView(View, frozen=True, kw_only=True):
    """What came of checking flow documents; without problems they can run."""

    flows: tuple[str, ...]
    problems: tuple[ProblemView, ...]


class DrawnView(View, frozen=True, kw_only=True):
    """A flow as a picture: `svg`, `mermaid` or `text`."""

    flow: str
    format: str
    content: str


class CodeView(View, frozen=True, kw_only=True):
    """A step that flows may use."""

    name: str
    kind: str
    parameters: dict[str, str]
    required: tuple[str, ...]
    returns: str
    undo: bool
    retry: int
    timeout: float | None
    heartbeat: float | None
    description: str
    bundle: str = ""
