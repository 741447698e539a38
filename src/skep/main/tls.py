"""TLS of the API: with a certificate of the installation's authority, or the operator's own."""

import asyncio
import ssl
from contextlib import AsyncExitStack
from ipaddress import ip_address
from pathlib import Path
from socket import gethostname
from urllib.parse import urlsplit

import structlog

from skep.configuration import Configuration
from skep.control.hosts.authorities import Authorities
from skep.flow import CommitFailed
from skep.main.background import background
from skep.model.errors import SkepError
from skep.trust.api_contexts import api_context
from skep.trust.authority import Address
from skep.trust.peers import Role

log = structlog.get_logger("skep")

INTERVAL = 60.0
"""Seconds after which a certificate that was renewed is taken up."""


async def tls_of_api(
    stack: AsyncExitStack, settings: Configuration, authorities: Authorities
) -> ssl.SSLContext | None:
    """What the API is served with; None without TLS.  Renewed as long as the stack is open.

    Raises:
        InvalidInput: the operator's files cannot be used.
        Unavailable: this machine cannot issue certificates.
    """
    if not settings.uses_tls:
        return None
    certificate, key = settings.tls_certificate, settings.tls_key
    if certificate is None:
        certificate = await _issued(settings, authorities)
    context = api_context(certificate, key)
    renewal = _keep(context, certificate, key, settings, authorities)
    await stack.enter_async_context(background(renewal, "tls"))
    return context


async def _issued(settings: Configuration, authorities: Authorities) -> Path:
    """A file with a certificate of ours; the authority's is put where commands on this machine find it."""
    directory = settings.data / "identity" / "api"
    names, addresses = names_of_api(settings)
    await authorities.identity(directory, Role.SERVE, gethostname(), dns=names, addresses=addresses)
    public = settings.etc / "authority.pem"
    certificates = (await authorities.show()).certificates
    if not public.exists() or public.read_text() != certificates:
        public.parent.mkdir(parents=True, exist_ok=True)
        public.write_text(certificates)
    return directory / "identity.pem"


def names_of_api(settings: Configuration) -> tuple[list[str], list[Address]]:
    """Under what the API may be reached: names, and addresses."""
    candidates = {"localhost", "127.0.0.1", "::1", gethostname(), settings.public_host, settings.address[0]}
    candidates |= {urlsplit(settings.url).hostname or "localhost", *settings.tls_names}
    names, addresses = [], []
    for one in sorted(candidates):
        try:
            addresses.append(ip_address(one))
        except ValueError:
            names.append(one)
    return names, [one for one in addresses if not one.is_unspecified]


async def _keep(
    context: ssl.SSLContext,
    certificate: Path,
    key: Path | None,
    settings: Configuration,
    authorities: Authorities,
) -> None:
    """New connections get the certificate that is there; what cannot be renewed is said and tried again."""
    seen = _age(certificate)
    while True:
        await asyncio.sleep(INTERVAL)
        try:
            if settings.tls_certificate is None:
                await _issued(settings, authorities)
            if _age(certificate) != seen:
                context.load_cert_chain(certificate, key)
                seen = _age(certificate)
                log.info("tls.renewed", certificate=str(certificate))
        except (SkepError, CommitFailed, OSError, ssl.SSLError) as error:
            log.warning("tls.not-renewed", certificate=str(certificate), reason=str(error))


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns
