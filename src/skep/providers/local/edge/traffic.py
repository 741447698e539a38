"""HAProxy's counters by endpoint and revision.  Pure."""

import csv
from collections.abc import Iterator, Mapping

from skep.model.edge import EndpointTraffic
from skep.model.ids import EndpointId
from skep.providers.local.edge.layout import parse_name

Key = tuple[EndpointId, int]
"""An endpoint and a revision."""


class Tally:
    """Counts that only grow while the agent lives: what a server that is gone had counted stays counted."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str], EndpointTraffic] = {}
        self._gone: dict[Key, EndpointTraffic] = {}

    def count(self, stat: str) -> list[EndpointTraffic]:
        """From `show stat`: a server's name says which endpoint and revision it is of."""
        now = dict(_servers(stat))
        for server, before in self._last.items():
            if server not in now or now[server].requests < before.requests:
                key = (before.endpoint, before.revision)
                self._gone[key] = _sum([before], self._gone.get(key))
        self._last = now
        by_key: dict[Key, list[EndpointTraffic]] = {}
        for one in now.values():
            by_key.setdefault((one.endpoint, one.revision), []).append(one)
        self._gone = {key: one for key, one in self._gone.items() if key in by_key}
        return [_sum(parts, self._gone.get(key)) for key, parts in by_key.items()]


def _servers(stat: str) -> Iterator[tuple[tuple[str, str], EndpointTraffic]]:
    """By backend and name."""
    for row in csv.DictReader(stat.lstrip("# ").splitlines()):
        if row["pxname"][:1] == "b" and (named := parse_name(row["svname"])) is not None:
            yield (row["pxname"], row["svname"]), _one(named.endpoint, named.revision, row)


def held(said: str) -> list[EndpointTraffic]:
    """From `show held`: who waits for somebody to serve."""
    pairs = [line.split(" ") for line in said.splitlines() if line.count(" ") == 1]
    return [
        EndpointTraffic(endpoint=EndpointId(endpoint), revision=0, waiting=int(number))
        for endpoint, number in pairs
        if number.isdecimal()
    ]


def _one(endpoint: EndpointId, revision: int, row: Mapping[str, str]) -> EndpointTraffic:
    def number(name: str) -> int:
        return int(row[name] or 0)

    return EndpointTraffic(
        endpoint=endpoint,
        revision=revision,
        requests=sum(number(f"hrsp_{kind}") for kind in ("1xx", "2xx", "3xx", "4xx", "5xx", "other"))
        + number("econ"),
        client_errors=number("hrsp_4xx"),
        server_errors=number("hrsp_5xx"),
        connection_errors=number("econ") + number("eresp"),
        retries=number("wretr") + number("wredis"),
        sessions=number("scur"),
        waiting=number("qcur"),
        response_time=float(number("rtime")),
        queue_time=float(number("qtime")),
    )


def _sum(parts: list[EndpointTraffic], gone: EndpointTraffic | None) -> EndpointTraffic:
    """Of what is gone only what was counted; times weigh by requests."""
    counted = [*parts, gone] if gone is not None else parts
    total = sum(part.requests for part in parts)

    def all_of(name: str) -> int:
        return sum(getattr(part, name) for part in counted)

    def mean(name: str) -> float:
        return sum(getattr(part, name) * part.requests for part in parts) / total if total else 0.0

    return EndpointTraffic(
        endpoint=parts[0].endpoint,
        revision=parts[0].revision,
        requests=all_of("requests"),
        client_errors=all_of("client_errors"),
        server_errors=all_of("server_errors"),
        connection_errors=all_of("connection_errors"),
        retries=all_of("retries"),
        sessions=sum(part.sessions for part in parts),
        waiting=sum(part.waiting for part in parts),
        response_time=mean("response_time"),
        queue_time=mean("queue_time"),
    )
