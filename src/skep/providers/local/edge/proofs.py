"""What HAProxy answers certificate authorities that ask whether we have a name (RFC 8555, 8.3)."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from skep.model.edge import EdgeEndpoint
from skep.providers.local.edge.runtime import Runtime
from skep.providers.local.edge.text import PROOFS


def proofs(endpoints: Iterable[EdgeEndpoint]) -> dict[str, str]:
    """By host name and path.  A key authorization begins with the token that it is asked for by."""
    return {f"{one.host}{PROOFS}{one.proof.partition('.')[0]}": one.proof for one in endpoints if one.proof}


async def show(api: Runtime, path: Path, wanted: Mapping[str, str]) -> None:
    """Let a HAProxy that runs answer these, and no others."""
    have = _entries(await api.run(f"show map {path}"))
    for key in have.keys() - wanted.keys():
        await api.do(f"del map {path} {key}")
    for key in wanted.keys() - have.keys():
        await api.do(f"add map {path} {key} {wanted[key]}")


def _entries(said: str) -> dict[str, str]:
    """A line is a number, a key, and a value."""
    found = [line.split(" ") for line in said.splitlines()]
    return {words[1]: words[2] for words in found if len(words) == 3}
