"""What control said of endpoints, one file per app in DATA/edge, replaced whole.

A damaged file is as good as none: control says it again.
"""

import asyncio
import re
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
import structlog

from skep.model.edge import AppEndpoints
from skep.model.errors import InvalidInput
from skep.model.host import PeersInForce, in_force, must_be_news
from skep.model.ids import AppId

log = structlog.get_logger()

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class Records:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.apps: dict[AppId, AppEndpoints] = {}

    async def load(self) -> None:
        """One without endpoints was kept against older news only, which are past."""
        found = await asyncio.to_thread(self._read_all)
        self.apps = {one.app: one for one in found if one.endpoints}

    def must_be_news(self, told: AppEndpoints) -> None:
        """Raises Stale: something younger is known.  InvalidInput: its id is none."""
        if not _ID.fullmatch(told.app):
            raise InvalidInput(f"{told.app[:100]!r} is not an id.")
        before = self.apps.get(told.app)
        must_be_news(f"the endpoints of app {told.app}", told, before)

    async def save(self, told: AppEndpoints) -> None:
        path, content = self._path(told.app), msgspec.json.encode(told, enc_hook=str)
        await asyncio.to_thread(_replace if told.endpoints else _remove, path, content)
        self.apps[told.app] = told

    def in_force(self) -> dict[AppId, PeersInForce]:
        return in_force(self.apps)

    def _path(self, app: AppId) -> Path:
        return self._directory / f"app-{app}.json"

    def _read_all(self) -> list[AppEndpoints]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = [_read(path) for path in sorted(self._directory.glob("app-*.json"))]
        return [one for one in found if one is not None]


def _read(path: Path) -> AppEndpoints | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=AppEndpoints, dec_hook=_address)
    except msgspec.DecodeError as error:
        log.warning("edge.record_damaged", path=str(path), error=str(error))
        path.unlink()
        return None


def _address(kind: type[IPv4Address], text: str) -> IPv4Address:
    return kind(text)


def _replace(path: Path, content: bytes) -> None:
    draft = path.with_suffix(".new")
    draft.write_bytes(content)
    draft.rename(path)


def _remove(path: Path, content: bytes) -> None:
    del content
    path.unlink(missing_ok=True)
