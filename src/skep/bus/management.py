"""The management API of a RabbitMQ broker (its plugin `rabbitmq_management`): who may do what there.

https://www.rabbitmq.com/docs/management#http-api; rights are https://www.rabbitmq.com/docs/access-control.
Passwords are in bodies and in a header, never in a URL.
"""

import ssl
from urllib.parse import quote

import httpx
from msgspec import Struct
from yarl import URL

from skep.bus.queues import CALLS
from skep.model.errors import Unavailable

_PORTS = {"amqp": ("http", 15672), "amqps": ("https", 15671)}


class Rights(Struct, frozen=True, kw_only=True):
    """Regular expressions: names of queues and exchanges, and `keys` that may be sent to `skep.calls`."""

    configure: str
    write: str
    read: str
    keys: str


class Management:
    """`bus`: the URL of the broker, whose user must be an `administrator` there.  `url`: of the API, where it
    is not at the broker's usual port."""

    def __init__(self, bus: str, url: str = "") -> None:
        self._bus = URL(bus)
        scheme, port = _PORTS[self._bus.scheme]
        self._url = url.rstrip("/") or f"{scheme}://{_bracketed(self._bus.host or '')}:{port}"
        self._context = (
            ssl.create_default_context(cafile=self._bus.query.get("cafile"))
            if self._url.startswith("https:")
            else None
        )

    @property
    def user(self) -> str:
        return self._bus.user or ""

    @property
    def vhost(self) -> str:
        """As the AMQP library reads it from the URL."""
        return self._bus.path.removeprefix("/") or "/"

    async def check(self) -> None:
        """Raises Unavailable, saying what is missing, where accounts cannot be managed."""
        whoami = (await self._ask("GET", "whoami")).json()
        if "administrator" not in whoami.get("tags", ()):
            raise Unavailable(
                f"The user {self.user!r} of the bus may not make accounts for hosts. On the broker's "
                f"machine: rabbitmqctl set_user_tags {self.user} administrator"
            )

    async def put_user(self, name: str, password: str, rights: Rights) -> None:
        """The account, which has these rights in our virtual host, and none elsewhere."""
        here = f"{quote(self.vhost, safe='')}/{quote(name, safe='')}"
        may = {"configure": rights.configure, "write": rights.write, "read": rights.read}
        topics = {"exchange": CALLS, "write": rights.keys, "read": "^$"}
        await self._ask("PUT", f"users/{quote(name, safe='')}", {"password": password, "tags": ""})
        await self._ask("PUT", f"topic-permissions/{here}", topics)
        await self._ask("PUT", f"permissions/{here}", may)  # last: without it nobody gets in

    async def delete_user(self, name: str) -> None:
        """It is gone, and its connections with it; absent is success."""
        await self._ask("DELETE", f"users/{quote(name, safe='')}", missing=True)

    async def _ask(
        self, method: str, path: str, body: object = None, *, missing: bool = False
    ) -> httpx.Response:
        try:
            async with httpx.AsyncClient(
                auth=(self.user, self._bus.password or ""),
                verify=self._context or False,
                timeout=10,
                trust_env=False,
            ) as client:
                answer = await client.request(method, f"{self._url}/api/{path}", json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise self._unavailable(str(error) or type(error).__name__) from error
        if answer.status_code == httpx.codes.NOT_FOUND and missing:
            return answer
        if not answer.is_success:
            raise self._unavailable(f"status {answer.status_code}: {answer.text[:200]}")
        return answer

    def _unavailable(self, reason: str) -> Unavailable:
        return Unavailable(
            "Hosts get accounts of their own on the bus from the broker's management API, and that does not "
            f"do it at {self._url}: {reason}. On the broker's machine: rabbitmq-plugins enable "
            f"rabbitmq_management; rabbitmqctl set_user_tags {self.user} administrator. If the API is "
            "elsewhere, say so with 'bus_management'. With 'bus_accounts: shared' all hosts have the account "
            "of 'bus', and each can read what is sent to the others."
        )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
