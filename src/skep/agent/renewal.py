"""A host's certificate is renewed after half of its life, over the API, with the present one as proof."""

import asyncio
import base64
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec
import structlog

from skep.agent.joined import BUS_USER, JoinedHost, write_joined
from skep.agent.joining import refusal
from skep.model.errors import Forbidden, SkepError, Unavailable
from skep.model.views.joining import Belonging, CertificateRenewed
from skep.trust.identity import Identity, new_key, signing_request

log = structlog.get_logger(__name__)

INTERVAL = 600.0
"""Seconds between two looks whether it is time; also between two attempts."""


async def keep_renewed(
    identity: Identity, joined: JoinedHost, now: Callable[[], float], *, interval: float = INTERVAL
) -> None:
    """For ever.  What fails is said and tried again; connections and containers go on meanwhile."""
    while True:
        if now() >= identity.renewal:
            try:
                joined = await renew(identity, joined)
                log.info("certificate.renewed", host=joined.host, expires=identity.expires)
            except Forbidden as error:
                log.error("certificate.refused", host=joined.host, reason=error.message)
            except (SkepError, OSError) as error:
                log.warning("certificate.not-renewed", host=joined.host, reason=str(error))
        await asyncio.sleep(interval)


async def renew(identity: Identity, joined: JoinedHost) -> JoinedHost:
    """Now; answers what the host knows of its installation since.

    Raises:
        Forbidden: the host was removed, or its certificate is not good any more.
        Unavailable: the API does not answer.
    """
    key = new_key()
    answer = await _ask(identity, joined, "renew", signing_request(key))
    renewed = msgspec.json.decode(answer, type=CertificateRenewed)
    identity.renew(key, renewed.certificate, renewed.certificates)
    return _noted(identity.directory, joined, renewed)


async def belongs(identity: Identity, joined: JoinedHost) -> bool:
    """Whether the installation still has this host; it does for all that is known, if it does not say."""
    try:
        answer = await _ask(identity, joined, "belongs", signing_request(new_key()))
        return msgspec.json.decode(answer, type=Belonging).belongs
    except (SkepError, OSError, msgspec.MsgspecError) as error:
        log.info("membership.unknown", host=joined.host, reason=str(error))
        return True


async def _ask(identity: Identity, joined: JoinedHost, what: str, request: str) -> bytes:
    """With the present certificate as proof.

    Raises:
        Forbidden: it is worth nothing.  Unavailable: the API does not answer.
    """
    signature = base64.b64encode(identity.sign(request.encode())).decode()
    body = {"certificate": identity.certificate, "request": request, "signature": signature}
    try:
        async with httpx.AsyncClient(verify=joined.tls(identity), timeout=30, trust_env=False) as client:
            answer = await client.post(
                f"{joined.url}/v1/hosts/{what}", json=body, headers={BUS_USER: joined.bus_user}
            )
    except httpx.HTTPError as error:
        raise Unavailable(f"{joined.url} does not answer: {error}") from error
    if not answer.is_success:
        raise refusal(answer)
    return answer.content


def _noted(directory: Path, joined: JoinedHost, renewed: CertificateRenewed) -> JoinedHost:
    """What the next agent of this host logs in to the bus with."""
    if renewed.bus in ("", joined.bus):
        return joined
    changed = msgspec.structs.replace(joined, bus=renewed.bus, own_account=renewed.own_account)
    write_joined(directory, changed)
    return changed
