"""Lists and watches of one kind, over HTTP.

Format: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import httpx2
import msgspec
from lightkube import ApiError
from lightkube.core.resource import ApiInfo, GlobalResource, api_info
from lightkube.core.selector import build_selector
from lightkube.models.meta_v1 import Status

from skep.providers.kubernetes.client import refusals

T = TypeVar("T")
Verb = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]

_PAGE = 500
_SILENCE = httpx2.Timeout(10.0, read=150.0)
"""A server tells about once a minute how far it is; one that is silent for longer is asked anew."""
_SHORTEST = 240
"""Seconds after which the server ends a watch at the earliest; others of ours end at other moments."""


@dataclass(frozen=True)
class Told(Generic[T]):
    """One event of a watch; a bookmark has no object."""

    verb: Verb
    version: str
    object: T | None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class Feed(Generic[T]):
    """Everything of a kind with these labels, in one namespace or in all.  Errors are httpx2's."""

    def __init__(
        self,
        client: Any,
        documents: httpx2.AsyncClient,
        kind: type[T],
        labels: Mapping[str, str | None],
        namespace: str | None = None,
    ) -> None:
        self._client = client
        self._documents = documents
        self._kind: Any = kind
        self._labels: dict[str, Any] = dict(labels)
        self._namespace = namespace
        self._info: ApiInfo = api_info(kind)  # type: ignore[arg-type] # lightkube's kinds have it
        self.name: str = self._info.plural

    async def list(self, fields: Mapping[str, Any] | None = None) -> tuple[str, list[T]]:
        """With the version as of which it is so; `fields`: only of these, as lightkube selects by them."""
        more = {"namespace": self._namespace or "*"} if self._has_room() else {}
        found = self._client.list(self._kind, labels=self._labels, fields=fields, chunk_size=_PAGE, **more)
        items = [item async for item in found]
        return found.resourceVersion, items

    async def watch(self, version: str) -> AsyncIterator[Told[T]]:
        """What happens after it, until the server ends the watch.

        Raises:
            ApiError: with 410, the version is too old.
        """
        asked = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(_SHORTEST + random.randrange(_SHORTEST)),  # noqa: S311 - no secret
            "labelSelector": build_selector(self._labels),
        }
        async with self._documents.stream("GET", self._path(), params=asked, timeout=_SILENCE) as answer:
            if answer.is_error:
                await answer.aread()
                raise _error(answer)
            async for line in answer.aiter_lines():
                yield self._decoded(line)

    def _has_room(self) -> bool:
        """Whether the kind lives in namespaces."""
        return not issubclass(self._kind, GlobalResource)

    def _path(self) -> str:
        group, version = self._info.resource.group, self._info.resource.version
        root = f"/apis/{group}/{version}" if group else f"/api/{version}"
        room = f"/namespaces/{self._namespace}" if self._namespace else ""
        return f"{root}{room}/{self._info.plural}"

    def _decoded(self, line: str) -> Told[T]:
        event = msgspec.json.decode(line, type=_Event)
        match event.type:
            case "ADDED" | "MODIFIED" | "DELETED":
                item = self._object(event.object)
                return Told(event.type, item.metadata.resourceVersion, item)
            case "BOOKMARK":
                return Told(
                    "BOOKMARK", msgspec.json.decode(event.object)["metadata"]["resourceVersion"], None
                )
            case _:
                raise _failure(bytes(event.object))

    def _object(self, raw: msgspec.Raw) -> Any:
        """Kinds that lightkube knows are structs, others dictionaries."""
        if issubclass(self._kind, msgspec.Struct):
            return msgspec.json.decode(raw, type=self._kind)
        return self._kind(msgspec.json.decode(raw))


def _error(answer: httpx2.Response) -> httpx2.HTTPStatusError:
    if answer.headers.get("Content-Type", "").startswith("application/json"):
        return ApiError(answer.request, answer)
    return httpx2.HTTPStatusError(answer.reason_phrase, request=answer.request, response=answer)


def _failure(status: bytes) -> ApiError:
    """The error that a watch ends with is an event of it."""
    return ApiError(status=msgspec.json.decode(status, type=Status))


def expired(error: Exception) -> bool:
    """Whether a watch must begin with a new list."""
    return isinstance(error, httpx2.HTTPStatusError) and refusals.status(error) == refusals.GONE
