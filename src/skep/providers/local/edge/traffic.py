"""HAProxy's counters by endpoint and revision.  Pure."""

import csv
from collections.abc import Mapping

from skep.model.edge import EndpointTraffic
from skep.model.ids import EndpointId
from skep.providers.local.edge.layout import parse_name


def traffic(stat: str) -> list[EndpointTraffic]:
    """From `show stat`: a server's name says which endpoint and revision it is of."""
    lines = csv.DictReader(stat.lstrip("# ").splitlines())
    sums: dict[tuple[EndpointId, int], list[EndpointTraffic]] = {}
    for row in lines:
        if row["pxname"][:1] == "b" and (named := parse_name(row["svname"])) is not None:
            one = _one(named.endpoint, named.revision, row)
            sums.setdefault((named.endpoint, named.revision), []).append(one)
    return [_sum(parts) for parts in sums.values()]


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


def _sum(parts: list[EndpointTraffic]) -> EndpointTraffic:
    """Times weigh by requests."""
    total = sum(part.requests for part in parts)

    def all_of(name: str) -> int:
        return sum(getattr(part, name) for part in parts)

    def mean(name: str) -> float:
        return sum(getattr(part, name) * part.requests for part in parts) / total if total else 0.0

    return EndpointTraffic(
        endpoint=parts[0].endpoint,
        revision=parts[0].revision,
        requests=total,
        client_errors=all_of("client_errors"),
        server_errors=all_of("server_errors"),
        connection_errors=all_of("connection_errors"),
        retries=all_of("retries"),
        sessions=all_of("sessions"),
        waiting=all_of("waiting"),
        response_time=mean("response_time"),
        queue_time=mean("queue_time"),
    )
