"""Where the nodes of a graph stand: in layers from left to right, ordered so that few edges cross.

The layers are longest paths; edges over several layers pass through points of their own; the order within
layers is by barycentres, in sweeps to and fro (Sugiyama, Tagawa and Toda 1981).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_SWEEPS = 6
_GAP = 18.0
_COLUMN_GAP = 84.0
Point = tuple[float, float]


@dataclass(frozen=True)
class Box:
    """The upper left corner and the size, in pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Layout:
    """`routes`: for each edge the points from the right side of its source to the left side of its target."""

    boxes: tuple[Box, ...]
    routes: tuple[tuple[Point, ...], ...]
    width: float
    height: float


def lay_out(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Layout:
    """`sizes`: width and height of each node; edges go from nodes to later ones."""
    return _Layering(sizes, edges).layout()


class _Layering:
    def __init__(self, sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> None:
        self.edges = edges
        self.nodes = len(sizes)
        self.sizes = list(sizes)
        self.layer = self._longest_paths()
        self.chains = [self._chain(source, target) for source, target in edges]
        self.before: list[list[int]] = [[] for _ in self.sizes]
        self.behind: list[list[int]] = [[] for _ in self.sizes]
        for chain in self.chains:
            for source, target in pairwise(chain):
                self.before[target].append(source)
                self.behind[source].append(target)
        self.layers: list[list[int]] = [[] for _ in range(max(self.layer, default=-1) + 1)]
        for node, layer in enumerate(self.layer):
            self.layers[layer].append(node)

    def layout(self) -> Layout:
        self._order()
        centres = self._centres()
        columns = self._columns()
        top = min((centres[node] - self.sizes[node][1] / 2 for node in range(len(self.sizes))), default=0.0)
        boxes = []
        for node in range(self.nodes):
            width, height = self.sizes[node]
            boxes.append(Box(columns[self.layer[node]], centres[node] - height / 2 - top, width, height))
        routes = tuple(tuple(self._route(chain, boxes, columns, centres, top)) for chain in self.chains)
        bottom = max((box.y + box.height for box in boxes), default=0.0)
        return Layout(tuple(boxes), routes, max((box.x + box.width for box in boxes), default=0.0), bottom)

    def _longest_paths(self) -> list[int]:
        layer = [0] * self.nodes
        for source, target in sorted(self.edges, key=lambda edge: edge[1]):
            layer[target] = max(layer[target], layer[source] + 1)
        return layer

    def _chain(self, source: int, target: int) -> list[int]:
        """The edge as a path with a point in each layer that it passes."""
        chain = [source]
        for layer in range(self.layer[source] + 1, self.layer[target]):
            chain.append(len(self.sizes))
            self.sizes.append((0.0, 0.0))
            self.layer.append(layer)
        return [*chain, target]

    def _order(self) -> None:
        for sweep in range(_SWEEPS):
            forward = sweep % 2 == 0
            neighbours = self.before if forward else self.behind
            position = {node: index for layer in self.layers for index, node in enumerate(layer)}
            for layer in self.layers if forward else reversed(self.layers):
                layer.sort(
                    key=lambda node: _mean([position[other] for other in neighbours[node]], position[node])
                )
                position.update({node: index for index, node in enumerate(layer)})

    def _centres(self) -> list[float]:
        """The middle of each node from top to bottom, drawn towards its neighbours."""
        centres = [0.0] * len(self.sizes)
        for layer in self.layers:
            self._spread(layer, centres, [0.0] * len(layer))
        for sweep in range(_SWEEPS):
            forward = sweep % 2 == 0
            neighbours = self.before if forward else self.behind
            for layer in self.layers if forward else reversed(self.layers):
                wanted = [
                    _mean([centres[other] for other in neighbours[node]], centres[node]) for node in layer
                ]
                self._spread(layer, centres, wanted)
        return centres

    def _spread(self, layer: list[int], centres: list[float], wanted: list[float]) -> None:
        """As near as can be to where each wants to be, without touching; the rest is shared evenly."""
        low = float("-inf")
        placed = []
        for node, want in zip(layer, wanted, strict=True):
            half = self.sizes[node][1] / 2
            centre = max(want, low + half)
            low = centre + half + _GAP
            placed.append(centre)
        shift = _mean([want - got for want, got in zip(wanted, placed, strict=True)], 0.0)
        for node, centre in zip(layer, placed, strict=True):
            centres[node] = centre + shift

    def _columns(self) -> list[float]:
        columns, x = [], 0.0
        for layer in self.layers:
            columns.append(x)
            x += max(self.sizes[node][0] for node in layer) + _COLUMN_GAP
        return columns

    def _route(
        self, chain: list[int], boxes: list[Box], columns: list[float], centres: list[float], top: float
    ) -> Iterator[Point]:
        first, *through, last = chain
        yield boxes[first].x + boxes[first].width, centres[first] - top
        for point in through:
            left, y = columns[self.layer[point]], centres[point] - top
            yield left, y
            yield left + max(self.sizes[node][0] for node in self.layers[self.layer[point]]), y
        yield boxes[last].x, centres[last] - top


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default
