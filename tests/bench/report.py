"""Figures of a benchmark: one JSON object per line on stdout, a readable table on stderr."""

import sys
from typing import Literal

import msgspec
from rich.console import Console
from rich.table import Table


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured value, with the peer's beside it and what it should be.

    `ratio` is how many times better than the peer (above 1: better), whichever way round that is.
    """

    name: str
    value: float
    unit: str
    peer: str | None = None
    peer_value: float | None = None
    ratio: float | None = None
    target: str | None = None
    met: bool | None = None
    how: str = ""
    """Settings and counts, without which a figure says nothing."""


class Target(msgspec.Struct, frozen=True):
    """A bound on the value, and perhaps one on the ratio to the peer."""

    direction: Literal["at most", "at least"]
    bound: float
    ratio: float | None = None

    def __str__(self) -> str:
        text = f"{'<=' if self.direction == 'at most' else '>='} {self.bound:g}"
        return text if self.ratio is None else f"{text}, >= {self.ratio:g} x peer"

    def met(self, value: float, ratio: float | None) -> bool:
        within = value <= self.bound if self.direction == "at most" else value >= self.bound
        return within and (self.ratio is None or (ratio is not None and ratio >= self.ratio))


class Report:
    """Collects figures, printing each as soon as it is known; `note` says how it was measured."""

    def __init__(self) -> None:
        self._rows: list[Figure] = []

    def add(
        self,
        name: str,
        value: float,
        unit: str,
        *,
        target: Target | None = None,
        peer: str | None = None,
        peer_value: float | None = None,
        note: str = "",
    ) -> None:
        ratio = compare(value, peer_value, target)
        figure = Figure(
            name=name,
            value=round(value, 3),
            unit=unit,
            peer=peer if peer_value is not None else None,
            peer_value=None if peer_value is None else round(peer_value, 3),
            ratio=None if ratio is None else round(ratio, 2),
            target=None if target is None else str(target),
            met=None if target is None else target.met(value, ratio),
            how=note,
        )
        self._rows.append(figure)
        print(msgspec.json.encode(figure).decode(), flush=True)

    def print_table(self) -> None:
        table = Table("figure", "value", "peer", "ratio", "target", "met", "how")
        for figure in self._rows:
            table.add_row(
                figure.name,
                f"{figure.value:g} {figure.unit}",
                "" if figure.peer_value is None else f"{figure.peer} {figure.peer_value:g}",
                "" if figure.ratio is None else f"{figure.ratio:g} x",
                figure.target or "",
                {True: "yes", False: "NO", None: ""}[figure.met],
                figure.how,
            )
        Console(file=sys.stderr, width=None if sys.stderr.isatty() else 160).print(table)


def compare(value: float, peer_value: float | None, target: Target | None) -> float | None:
    """How many times better than the peer."""
    if not peer_value or not value:
        return None
    smaller_is_better = target is not None and target.direction == "at most"
    return peer_value / value if smaller_is_better else value / peer_value
