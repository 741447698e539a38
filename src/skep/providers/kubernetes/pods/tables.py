"""Who is connected to a container, as its own `cat` reads the kernel's tables."""

from skep.model.errors import Unsupported
from skep.providers.kubernetes.pods.exec import PodExec
from skep.providers.local.connections import count


async def connections(session: PodExec) -> int:
    """Of a session that prints the tables.  Raises Unsupported: there was no program to print them."""
    try:
        said = b"".join([chunk async for stream, chunk in session.output() if stream == 1])
        code = await session.wait()
    finally:
        await session.close()
    if not said and code:
        raise Unsupported("The image has no `cat` with which connections could be counted.")
    return count(said.decode())
