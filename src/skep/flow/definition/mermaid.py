"""Flows as Mermaid flowcharts (https://mermaid.js.org/syntax/flowchart.html)."""

from collections.abc import Iterator

from skep.flow.definition.drawing import Drawing, Kind, Node

_SHAPES: dict[Kind, tuple[str, str]] = {"step": ("[", "]"), "wait": ("([", "])"), "fan-out": ("[[", "]]")}
_ESCAPES = str.maketrans({character: f"#{ord(character)};" for character in '"#&<>`|[]{}()'})
_STYLES = {
    "succeeded": "fill:#2e9e6b33,stroke:#2e9e6b",
    "running": "fill:#3b82c433,stroke:#3b82c4,stroke-width:2px",
    "waiting": "fill:#b5892f33,stroke:#b5892f",
    "retrying": "fill:#b5892f33,stroke:#b5892f,stroke-width:2px",
    "failed": "fill:#d2484833,stroke:#d24848,stroke-width:2px",
    "needs-operator": "fill:#d2484855,stroke:#d24848,stroke-width:3px",
    "undoing": "fill:#8b5fbf33,stroke:#8b5fbf,stroke-width:2px",
    "undone": "fill:#8b5fbf22,stroke:#8b5fbf",
    "kept": "fill:#8b5fbf22,stroke:#8b5fbf,stroke-dasharray:2",
    "skipped": "stroke-dasharray:4,opacity:0.6",
    "pending": "opacity:0.8",
}


def render(drawing: Drawing) -> str:
    """The text of a chart; ends with a newline."""
    lines = ["flowchart LR", *(f"  {line}" for line in _lines(drawing, "n"))]
    used = dict.fromkeys(_states(drawing))
    lines += [f"  classDef {state} {_STYLES[state]}" for state in used]
    return "\n".join(lines) + "\n"


def _lines(drawing: Drawing, prefix: str) -> Iterator[str]:
    for index, node in enumerate(drawing.nodes):
        yield from _node(node, f"{prefix}{index}")
    for edge in drawing.edges:
        arrow = "-->" if edge.data else "-.->"
        label = f"|{_escaped(edge.label)}|" if edge.label else ""
        yield f"{prefix}{edge.source} {arrow}{label} {prefix}{edge.target}"


def _node(node: Node, id: str) -> Iterator[str]:  # noqa: A002  (Mermaid's own word)
    text = "<br/>".join(map(_escaped, filter(None, node.lines)))
    state = node.state if node.state in _STYLES else ""
    if node.body is None:
        begin, end = _SHAPES[node.kind]
        yield f'{id}{begin}"{text}"{end}{":::" if state else ""}{state}'
        return
    yield f'subgraph {id}["{text}"]'
    yield from (f"  {line}" for line in _lines(node.body, f"{id}_"))
    yield "end"
    if state:
        yield f"class {id} {state}"


def _states(drawing: Drawing) -> Iterator[str]:
    for node in drawing.nodes:
        if node.state in _STYLES:
            yield node.state
        if node.body is not None:
            yield from _states(node.body)


def _escaped(text: str) -> str:
    return " ".join(text.split()).translate(_ESCAPES)
