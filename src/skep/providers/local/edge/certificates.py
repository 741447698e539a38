"""The certificates that HAProxy shows, by the name that was asked for (SNI).

Their keys come from control and are kept in memory only: here, and in files below /run, which lose them with
the machine's power.
"""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from skep.model.errors import SkepError
from skep.providers.local.edge.place import Place
from skep.providers.local.edge.runtime import Runtime

log = structlog.get_logger("skep.edge")


class Certificates:
    def __init__(self, place: Place, certify: Callable[[str], Awaitable[bytes]]) -> None:
        self._place = place
        self._certify = certify
        self._shown: dict[str, str] | None = None

    async def prepare(self, wanted: Mapping[str, str]) -> None:
        """Have the files that a HAProxy which starts will read.  `wanted`: digests by host name."""
        if not self._place.own_certificate.exists():
            self._place.write(self._place.own_certificate, own_certificate())
        for digest in set(wanted.values()):
            await self._fetch(digest)
        self._shown = self.known(wanted)

    def known(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Those that are here."""
        return {host: one for host, one in wanted.items() if self._place.certificate(one).exists()}

    async def show(self, api: Runtime, wanted: Mapping[str, str]) -> None:
        """Let a HAProxy that runs show these, and no others."""
        if self._shown is None:
            self._shown = await self._read(api)
        for host, digest in wanted.items():
            before = self._shown.get(host)
            if before != digest and await self._fetch(digest):
                await self._add(api, digest, host)
                self._shown[host] = digest
                if before is not None:
                    await self._drop(api, before, host)
        for host in self._shown.keys() - wanted.keys():
            await self._drop(api, self._shown.pop(host), host)

    async def _fetch(self, digest: str) -> bool:
        path = self._place.certificate(digest)
        if path.exists():
            return True
        try:
            self._place.write(path, (await self._certify(digest)).decode())
        except SkepError as error:
            log.warning("edge.certificate-lacking", digest=digest[:12], error=error.message)
            return False
        return True

    async def _add(self, api: Runtime, digest: str, host: str) -> None:
        path = self._place.certificate(digest)
        if str(path) not in await api.run("show ssl cert"):
            await api.run(f"new ssl cert {path}")
            lines = [line for line in path.read_text().splitlines() if line.strip()]
            await api.do(f"set ssl cert {path}", lines, says="Transaction created")
            await api.do(f"commit ssl cert {path}", says="Success")
        line = f"{path} {host}"
        await api.do(f"add ssl crt-list {self._place.certificates}", [line], says="Success")

    async def _drop(self, api: Runtime, digest: str, host: str) -> None:
        """Where it is shown for others, too, it stays for them."""
        path = self._place.certificate(digest)
        listed = await api.run(f"show ssl crt-list -n {self._place.certificates}")
        for line in listed.splitlines():
            words = line.split(" ")
            if words[0].startswith(f"{path}:") and words[-1] == host:
                await api.run(f"del ssl crt-list {self._place.certificates} {words[0]}")
        if f"{path}" not in await api.run(f"show ssl crt-list {self._place.certificates}"):
            await api.run(f"del ssl cert {path}")
            path.unlink(missing_ok=True)

    async def _read(self, api: Runtime) -> dict[str, str]:
        """What a HAProxy shows that an earlier agent has started."""
        said = await api.run(f"show ssl crt-list {self._place.certificates}")
        pairs = [line.split(" ") for line in said.splitlines()]
        return {
            words[-1]: words[0].rpartition("/")[2].removesuffix(".pem") for words in pairs if len(words) == 2
        }


def own_certificate() -> str:
    """Of the host itself, with its key; nobody vouches for it."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.DNSName("*.localhost")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return certificate.public_bytes(Encoding.PEM).decode() + private.decode()
