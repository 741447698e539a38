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
from skep.model.views import CertificateRenewed
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
    request = signing_request(key)
    signature = base64.b64encode(identity.sign(request.encode())).decode()
    body = {"certificate": identity.certificate, "request": request, "signature": signature}
    try:
        async with httpx.AsyncClient(verify=joined.tls(identity), timeout=30, trust_env=False) as client:
            answer = await client.post(
                f"{joined.url}/v1/hosts/renew", json=body, headers={BUS_USER: joined.bus_user}
            )
    except httpx.HTTPError as error:
        raise Unavailable(f"{joined.url} does not answer: {error}") from error
    if not answer.is_success:
        raise refusal(answer)
    renewed = msgspec.json.decode(answer.content, type=CertificateRenewed)
    identity.renew(key, renewed.certificate, renewed.certificates)
    return _noted(identity.directory, joined, renewed)


def _noted(directory: Path, joined: JoinedHost, renewed: CertificateRenewed) -> JoinedHost:
    """What the next agent of this host logs in to the bus with."""
    if renewed.bus in ("", joined.bus):
        return joined
    changed = msgspec.structs.replace(joined, bus=renewed.bus, own_account=renewed.own_account)
    write_joined(directory, changed)
    return changed
