"""An edge on a host of its own, and web servers in sandboxes."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.providers.network.conftest import HOST, World, network, port
from tests.providers.network.conftest import fabric as fabric
from tests.providers.network.conftest import world as world

from skep.model.edge import AppEndpoints, EdgeEndpoint, EdgeServer
from skep.model.errors import NotFound
from skep.model.host import NetworkConfig, PortConfig
from skep.model.ids import AppId, EndpointId, PortId, TenantId, new_id
from skep.providers.local import edge as edges
from skep.providers.local.edge import HaproxyEdge
from skep.providers.local.edge.text import Entrance
from skep.providers.local.network import LocalFabric

HTTP, HTTPS = 80, 443
APP, TENANT = AppId(new_id()), TenantId(new_id())


class Site:
    """A host with an edge, and replicas that answer with their names."""

    def __init__(self, world: World, fabric: LocalFabric) -> None:
        self.world = world
        self.fabric = fabric
        self.net = network()
        self.certificates: dict[str, bytes] = {}
        self.entrance = Entrance(http=HTTP, https=HTTPS)
        self.edge = self.make()
        self.generation = 0
        self._stack = AsyncExitStack()
        self._last = 4
        self._servers: dict[PortId, asyncio.Server] = {}

    def make(self) -> HaproxyEdge:
        return HaproxyEdge(
            instance=self.world.instance,
            data=self.world.data,
            ways=self.fabric.ways,
            entrance=self.entrance,
            certify=self.certify,
            enter=("nsenter", f"--net={self.world.host}"),
        )

    async def certify(self, digest: str) -> bytes:
        if digest not in self.certificates:
            raise NotFound("No such certificate.")
        return self.certificates[digest]

    async def replica(self, name: str, net: NetworkConfig | None = None) -> PortConfig:
        """A web server that answers with its name."""
        made = await self.plugged(net)
        await self.serve(made, name)
        return made

    async def plugged(self, net: NetworkConfig | None = None) -> PortConfig:
        """A replica that does nothing."""
        self._last += 1
        net = net or self.net
        await self.fabric.ensure_network(net)
        made = port(net, self._last)
        await self.fabric.plug(made)
        return made

    async def serve(self, made: PortConfig, name: str) -> asyncio.Server:
        where = self.fabric.sandbox(made.replica)
        listener = await self.world.socket(where, socket.SOCK_STREAM, ("0.0.0.0", 8080))
        server = await asyncio.start_server(lambda r, w: answer(r, w, name), sock=listener)
        self._stack.callback(server.close)
        self._servers[made.id] = server
        return server

    async def stop(self, made: PortConfig) -> None:
        """Nobody listens there any more."""
        self._servers[made.id].close()

    async def tell(
        self, *endpoints: EdgeEndpoint, app: AppId = APP, tenant: TenantId = TENANT
    ) -> AppEndpoints:
        self.generation += 1
        told = AppEndpoints(app=app, tenant=tenant, generation=self.generation, endpoints=endpoints)
        await self.edge.set_endpoints(told)
        return told

    async def get(self, host: str, path: str = "/", *words: str, port: int = HTTP) -> str:
        """The status and the body, as a client outside sees them."""
        scheme = "https" if port == HTTPS else "http"
        said = await self.client(
            *("curl", "-sk", "-m", "5", "-w", " %{http_code}", "--connect-to", f"::{HOST}:", *words),
            f"{scheme}://{host}:{port}{path}",
        )
        body, _, status = said.rpartition(" ")
        return f"{status} {body}".strip()

    async def reached(self, way: tuple[IPv4Address, int]) -> str:
        """The status and the body, as HAProxy would see them."""
        process = await asyncio.create_subprocess_exec(
            *("nsenter", f"--net={self.world.host}", "curl", "-s", "-m", "5", "-w", " %{http_code}"),
            f"http://{way[0]}:{way[1]}/",
            stdout=asyncio.subprocess.PIPE,
        )
        body, _, status = (await process.communicate())[0].decode().rpartition(" ")
        return f"{status} {body}".strip()

    async def client(self, *command: str) -> str:
        """What a program outside says."""
        process = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self.world.client.name, *command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return (await process.communicate())[0].decode()

    async def restart(self) -> None:
        """Another agent takes over."""
        await self.leave()
        self.edge = self.make()
        await self.edge.__aenter__()

    async def leave(self) -> None:
        await self.edge.__aexit__(None, None, None)

    async def close(self) -> None:
        await self._stack.aclose()
        await edges.teardown(self.world.instance, self.world.data, purge=True)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
    """HTTP/1.1 with keep-alive; `/headers` answers with them, `/echo` repeats what is said."""
    try:
        while line := await reader.readline():
            path = line.decode().split(" ")[1]
            heads = []
            while (head := await reader.readline()).strip():
                heads.append(head.decode().strip())
            if path.endswith("/echo"):
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n")
                writer.write(b"Connection: Upgrade\r\n")
                writer.write(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")  # RFC 6455, 1.3
                while said := await reader.read(1000):
                    writer.write(said)
                return
            body = ("\n".join(heads) if path.endswith("/headers") else name).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def certificate(name: str) -> bytes:
    """Self-signed, with its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM) + private


def endpoint(
    host: str, *ports: PortConfig, path: str = "/", revision: int = 1, **more: object
) -> EdgeEndpoint:
    servers = tuple(
        EdgeServer(
            replica=f"web-{number}",
            revision=revision,
            network=one.network,
            address=one.address,
            port=8080,
        )
        for number, one in enumerate(ports)
    )
    return EdgeEndpoint(id=EndpointId(new_id()), host=host, path=path, servers=servers, **more)  # type: ignore[arg-type]


@pytest.fixture
async def site(world: World, fabric: LocalFabric) -> AsyncIterator[Site]:
    made = Site(world, fabric)
    try:
        async with AsyncExitStack() as stack:
            await made.edge.__aenter__()
            stack.push_async_callback(made.leave)
            yield made
    finally:
        await made.close()


class Load:
    """Clients that ask one after the other, on connections that they keep as long as they may."""

    def __init__(self, world: World, host: str, clients: int = 8) -> None:
        self._world = world
        self._host = host
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._ending = False
        self._clients = clients

    async def __aenter__(self) -> "Load":
        self._tasks = [asyncio.create_task(self._ask()) for _ in range(self._clients)]
        await self.more(20)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending = True
        await asyncio.gather(*self._tasks)

    async def more(self, count: int) -> None:
        """Until so many more were answered."""
        end = len(self.answers) + count
        async with asyncio.timeout(20):
            while len(self.answers) < end:
                await asyncio.sleep(0.01)

    async def _ask(self) -> None:
        while not self._ending:
            client = await self._world.socket(self._world.client, socket.SOCK_STREAM, None)
            await asyncio.get_running_loop().sock_connect(client, (HOST, HTTP))
            reader, writer = await asyncio.open_connection(sock=client)
            try:
                await self._talk(reader, writer)
            except (OSError, EOFError) as error:
                self.failures.append(repr(error))
            finally:
                writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not self._ending:
            writer.write(f"GET / HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length:")[1].split("\r\n")[0])
            body = (await reader.readexactly(length)).decode()
            if head.split(" ")[1] == "200":
                self.answers.append(body)
            else:
                self.failures.append(f"{head.splitlines()[0]} {body}")
            if "connection: close" in head:
                return
