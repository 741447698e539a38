"""Flows as SVG pictures: from left to right, readable on light and on dark ground."""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from skep.flow.definition.drawing import Drawing, Edge, Node
from skep.flow.definition.layout import Box, Layout, Point, lay_out

_CHARACTER, _LINE, _PADDING, _MARGIN = 7.3, 16.0, 10.0, 12.0
_LONGEST_LINE = 40
_STYLE = """
.skep-flow{--ink:#1f2933;--soft:#5f6c7b;--line:#7b8794;--fill:#f5f7fa;--good:#1f8a5b;--busy:#2b6cb0;--wait:#9a6f14;
--bad:#c53030;--back:#6b46c1;font:12px ui-monospace,Menlo,Consolas,monospace}
@media (prefers-color-scheme:dark){.skep-flow{--ink:#e4e7eb;--soft:#9aa5b1;--line:#7b8794;--fill:#27303a;
--good:#4cc38a;--busy:#63a8f0;--wait:#d9ab45;--bad:#f56565;--back:#a78bfa}}
.skep-flow text{fill:var(--ink)}.skep-flow .more{fill:var(--soft)}
.skep-flow .box{fill:var(--fill);stroke:var(--line);stroke-width:1.2}
.skep-flow .data,.skep-flow .order{fill:none;stroke:var(--line);stroke-width:1.2}
.skep-flow .order{stroke-dasharray:4 4}.skep-flow .label{fill:var(--soft);font-size:10px}
.skep-flow .tip{fill:var(--line)}
.skep-flow .succeeded>.box{stroke:var(--good);stroke-width:2}
.skep-flow .running>.box{stroke:var(--busy);stroke-width:3}
.skep-flow .waiting>.box,.skep-flow .retrying>.box{stroke:var(--wait);stroke-width:3}
.skep-flow .failed>.box,.skep-flow .needs-operator>.box{stroke:var(--bad);stroke-width:3}
.skep-flow .undoing>.box,.skep-flow .undone>.box,.skep-flow .kept>.box{stroke:var(--back);stroke-width:2}
.skep-flow .skipped{opacity:.55}
""".replace("\n", "")


@dataclass(frozen=True)
class _Picture:
    """A drawing with its layout, and those of the bodies within it."""

    drawing: Drawing
    layout: Layout
    inside: tuple["_Picture | None", ...]


def render(drawing: Drawing) -> str:
    """The text of the picture; ends with a newline."""
    picture = _arrange(drawing)
    width, height = picture.layout.width + 2 * _MARGIN, picture.layout.height + 2 * _MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="skep-flow" role="img" width="{width:.0f}" '
        f'height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="skep-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>',
        *_drawn(picture, _MARGIN, _MARGIN),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _arrange(drawing: Drawing) -> _Picture:
    inside = tuple(_arrange(node.body) if node.body is not None else None for node in drawing.nodes)
    sizes = [_size(node, body) for node, body in zip(drawing.nodes, inside, strict=True)]
    edges = [(edge.source, edge.target) for edge in drawing.edges]
    return _Picture(drawing, lay_out(sizes, edges), inside)


def _size(node: Node, body: _Picture | None) -> tuple[float, float]:
    lines = list(_lines(node))
    width = max(map(len, lines)) * _CHARACTER + 2 * _PADDING
    height = len(lines) * _LINE + 1.4 * _PADDING
    if body is None:
        return width, height
    return max(width, body.layout.width + 2 * _PADDING), height + body.layout.height + _PADDING


def _drawn(picture: _Picture, left: float, top: float) -> Iterator[str]:
    for edge, route in zip(picture.drawing.edges, picture.layout.routes, strict=True):
        yield from _edge(edge, [(left + x, top + y) for x, y in route])
    boxes = picture.layout.boxes
    for node, box, body in zip(picture.drawing.nodes, boxes, picture.inside, strict=True):
        place = Box(left + box.x, top + box.y, box.width, box.height)
        yield f'<g class="{escape(f"{node.kind} {node.state}".strip())}">'
        yield from _node(node, place)
        if body is not None:
            yield from _drawn(
                body, place.x + _PADDING, place.y + place.height - body.layout.height - _PADDING
            )
        yield "</g>"


def _node(node: Node, box: Box) -> Iterator[str]:
    yield f"<title>{escape(' — '.join(filter(None, (node.name, *node.lines[1:], node.state))))}</title>"
    radius = min(box.height / 2, 24) if node.kind == "wait" else 5
    if node.kind == "fan-out":
        yield _rectangle(Box(box.x + 4, box.y + 4, box.width, box.height), radius)
    yield _rectangle(box, radius)
    for index, line in enumerate(_lines(node)):
        more = "" if index == 0 else ' class="more"'
        y = box.y + 0.6 * _PADDING + (index + 0.75) * _LINE
        yield f'<text x="{box.x + _PADDING:.1f}" y="{y:.1f}"{more}>{escape(line)}</text>'


def _rectangle(box: Box, radius: float) -> str:
    return (
        f'<rect class="box" x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="{radius:.0f}"/>'
    )


def _edge(edge: Edge, route: list[Point]) -> Iterator[str]:
    path = "".join(_curve(begin, end) for begin, end in pairwise(route))
    kind = "data" if edge.data else "order"
    yield f'<path class="{kind}" marker-end="url(#skep-tip)" d="M{_at(route[0])}{path}"/>'
    if edge.label:
        (x, y), (to_x, to_y) = route[-2], route[-1]
        place = f'x="{(x + to_x) / 2:.1f}" y="{(y + to_y) / 2 - 3:.1f}"'
        yield f'<text class="label" text-anchor="middle" {place}>{escape(edge.label)}</text>'


def _curve(begin: Point, end: Point) -> str:
    middle = (begin[0] + end[0]) / 2
    return f"C{_at((middle, begin[1]))} {_at((middle, end[1]))} {_at(end)}"


def _at(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"


def _lines(node: Node) -> Iterator[str]:
    for line in filter(None, node.lines):
        text = " ".join(line.split())
        yield text if len(text) <= _LONGEST_LINE else f"{text[: _LONGEST_LINE - 1]}…"
