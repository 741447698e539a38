"""What containers wrote, as kubelet keeps it.

It does not tell stdout from stderr: all of it is stdout.  What a pod wrote that is gone is gone, too.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

import httpx2

from skep.model.errors import NotFound, SkepError
from skep.model.host import LogLine
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.refusals import translated
from skep.providers.kubernetes.pods.templates import CONTAINER

_TIME = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)")
_PATIENT = httpx2.Timeout(10.0, read=None)


async def lines(
    cluster: Cluster,
    namespace: str,
    pod: str,
    *,
    follow: bool = False,
    tail: int | None = None,
    since: str | None = None,
    previous: bool = False,
) -> AsyncGenerator[LogLine, None]:
    """Of one pod, from `since` (RFC 3339) on; with `previous` those of the process before this one.

    Raises:
        NotFound: there is no such pod.  InvalidInput: nothing has run in it.
    """
    asked = {"container": CONTAINER, "timestamps": "true"}
    asked |= {"follow": "true"} if follow else {}
    asked |= {"tailLines": str(tail)} if tail is not None else {}
    asked |= {"sinceTime": _second(since)} if since else {}
    asked |= {"previous": "true"} if previous else {}
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/log"
    try:
        async with cluster.http.stream("GET", path, params=asked, timeout=_PATIENT) as answer:
            if answer.is_error:
                await answer.aread()
                answer.raise_for_status()
            async for text in answer.aiter_lines():
                line = parsed(text)
                if line is not None and (since is None or line.time >= since):
                    yield line
    except httpx2.HTTPError as error:
        raise translated(error, f"read the log of {pod}") from error


async def last(cluster: Cluster, namespace: str, pod: str, count: int) -> list[str]:
    """The last lines, of this process or of the one before; nothing if they cannot be had."""
    for previous in (False, True):
        try:
            async with aclosing(lines(cluster, namespace, pod, tail=count, previous=previous)) as found:
                if kept := [line.text async for line in found]:
                    return kept
        except SkepError as error:
            if isinstance(error, NotFound):
                return []
    return []


def parsed(text: str) -> LogLine | None:
    """None: it is no line, but what kubelet itself has to say of a container that went meanwhile."""
    time, _, rest = text.partition(" ")
    if not _TIME.fullmatch(time):
        return None
    return LogLine(time=time, stream="stdout", text=rest)


def _second(time: str) -> str:
    """Kubernetes takes whole seconds; what comes too early is left out afterwards."""
    whole, point, rest = time.partition(".")
    return whole + rest.lstrip("0123456789") if point else whole
