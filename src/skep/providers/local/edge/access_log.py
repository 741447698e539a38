"""Who asked for what: lines that HAProxy sends, kept per endpoint in DATA/edge/log, of bounded size.

HAProxy does not wait: what comes faster than it is read here is lost, and so is what comes while no agent
runs.
"""

import asyncio
import os
import re
import socket
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from skep.model.edge import AccessLine
from skep.model.ids import EndpointId
from skep.providers.local.edge.layout import parse_name
from skep.providers.local.edge.place import Place, account

LARGEST = 1024 * 1024
"""Bytes of a file; the one before it is kept, too."""
_AT_ONCE = 512
_REST = 0.05
"""Seconds between two readings: so nobody's requests keep the agent from its work."""
_ID = re.compile(r"[0-9a-z]{1,40}")
_FIELDS = 12


class AccessLog:
    def __init__(self, place: Place, directory: Path) -> None:
        self._place = place
        self._directory = directory

    async def run(self) -> None:
        """Until cancelled."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._listen() as listener:
            while True:
                if lines := _receive(listener):
                    await asyncio.to_thread(self._keep, lines)
                await asyncio.sleep(_REST)

    def read(self, endpoint: EndpointId, tail: int) -> list[AccessLine]:
        """The last ones, oldest first."""
        if not _ID.fullmatch(endpoint):
            return []
        lines: list[str] = []
        for path in (self._old(endpoint), self._file(endpoint)):
            with suppress(FileNotFoundError):
                lines += path.read_text(errors="replace").splitlines()
        found = [parse(line) for line in lines[-tail:]]
        return [one for one in found if one is not None]

    def forget(self, but: Collection[EndpointId]) -> None:
        """Remove what is of others than these."""
        for path in self._directory.glob("*.log*"):
            if path.name.partition(".")[0] not in but:
                path.unlink(missing_ok=True)

    def _listen(self) -> socket.socket:
        self._place.log.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024 * 1024)
        listener.bind(str(self._place.log))
        os.chown(self._place.log, 0, account()[1])
        self._place.log.chmod(0o660)
        return listener

    def _keep(self, lines: list[str]) -> None:
        by_endpoint: dict[str, list[str]] = {}
        for line in lines:
            endpoint = _endpoint(line.split(" ", 2)[1]) if line.count(" ") >= _FIELDS - 1 else ""
            if _ID.fullmatch(endpoint):
                by_endpoint.setdefault(endpoint, []).append(line)
        for endpoint, found in by_endpoint.items():
            self._append(EndpointId(endpoint), "".join(f"{line}\n" for line in found))

    def _append(self, endpoint: EndpointId, text: str) -> None:
        path = self._file(endpoint)
        with path.open("a") as file:
            file.write(text)
            size = file.tell()
        if size > LARGEST:
            path.replace(self._old(endpoint))

    def _file(self, endpoint: EndpointId) -> Path:
        return self._directory / f"{endpoint}.log"

    def _old(self, endpoint: EndpointId) -> Path:
        return self._directory / f"{endpoint}.log.1"


def _receive(listener: socket.socket) -> list[str]:
    found: list[bytes] = []
    with suppress(BlockingIOError):
        while len(found) < _AT_ONCE:
            found += [listener.recv(8192)]
    return [line.decode(errors="replace").strip().replace("\n", " ") for line in found]


def _endpoint(route: str) -> str:
    """The second field of a `Route` as text."""
    return route.split("|", 2)[1] if route.count("|") > 1 else ""


def parse(line: str) -> AccessLine | None:
    """A line as `text.py` has HAProxy write it; None: something else."""
    fields = line.split(" ", _FIELDS - 1)
    if len(fields) < _FIELDS:
        return None
    time, _, client, server, status, took, size, end, method, version, host, path = fields
    named = parse_name(server)
    try:
        return AccessLine(
            time=float(time),
            client=client,
            method=method,
            host=host.strip("-"),
            path=path,
            status=int(status),
            milliseconds=int(took.lstrip("+")),
            size=int(size.lstrip("+")),
            replica=named.replica if named else "",
            revision=named.revision if named else 0,
            version=version,
            end=end,
        )
    except ValueError:
        return None
