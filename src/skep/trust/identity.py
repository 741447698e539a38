"""What a process proves itself with: its key, its certificate, and the authority it believes.

A directory that only its owner may read:

    identity.pem    key and certificate in one file, so that both change in one step
    authority.pem   certificates of the authority

A process whose identity was renewed goes on: the contexts it made take the new one for new connections.
"""

import os
import weakref
from collections.abc import Iterable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from skep.model.errors import InvalidInput, NotFound
from skep.trust.authority import Address, fingerprint, half_life, private_pem
from skep.trust.contexts import Expectation, PeerContext, client_context, server_context
from skep.trust.peers import Peer, peer_of

IDENTITY, AUTHORITY = "identity.pem", "authority.pem"


class Identity:
    """The files of a directory, read; `refresh` reads them again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._contexts: weakref.WeakSet[PeerContext] = weakref.WeakSet()
        self._read()

    @classmethod
    def exists(cls, directory: Path) -> bool:
        return (directory / IDENTITY).exists()

    @classmethod
    def store(
        cls, directory: Path, key: ec.EllipticCurvePrivateKey, certificate: str, authority: str
    ) -> "Identity":
        """Write it, in place of one that is there.

        Raises:
            InvalidInput: the certificate is for another key.
        """
        if _certificate(certificate).public_key() != key.public_key():
            raise InvalidInput("The certificate is for another key.")
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        write_private(directory / AUTHORITY, authority)
        write_private(directory / IDENTITY, private_pem(key) + certificate)
        return cls(directory)

    @staticmethod
    def remove(directory: Path) -> None:
        """Delete the key and its certificate; one that is not there is success."""
        (directory / IDENTITY).unlink(missing_ok=True)

    @property
    def peer(self) -> Peer:
        """Who we are."""
        return peer_of(self._certificate)

    @property
    def certificate(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        """The certificate as it travels with every signature."""
        return self._der

    @property
    def authorities(self) -> list[x509.Certificate]:
        """The same list until the files are read again."""
        return self._authorities

    @property
    def authority_file(self) -> Path:
        return self.directory / AUTHORITY

    @property
    def authority_fingerprint(self) -> str:
        return fingerprint(self.authority_file.read_text())

    @property
    def expires(self) -> float:
        return self._certificate.not_valid_after_utc.timestamp()

    def covers(self, dns: Iterable[str], addresses: Iterable[Address]) -> bool:
        """Whether all these names and addresses are in the certificate."""
        names = self._certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        known = {*names.get_values_for_type(x509.DNSName), *names.get_values_for_type(x509.IPAddress)}
        return {*dns, *addresses} <= known

    @property
    def renewal(self) -> float:
        """From when on a new certificate should be asked for."""
        return half_life(self._certificate.not_valid_before_utc.timestamp(), self.expires)

    def sign(self, data: bytes) -> bytes:
        """Prove to have the key: ECDSA with SHA-256."""
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))

    def renew(self, key: ec.EllipticCurvePrivateKey, certificate: str, authority: str) -> None:
        """Take the new certificate; connections that are open stay."""
        self.store(self.directory, key, certificate, authority)
        self.refresh()

    def refresh(self) -> None:
        """Read the files again, for this process and for the contexts it made."""
        self._read()
        for context in list(self._contexts):
            context.load_verify_locations(self.directory / AUTHORITY)
            context.load_cert_chain(self.directory / IDENTITY)

    def server_context(self, *expected: Expectation) -> PeerContext:
        """For a server that lets in who meets one of the expectations, and nobody else."""
        return self._known(server_context(self.directory / AUTHORITY, self._ours(expected)))

    def client_context(self, *expected: Expectation) -> PeerContext:
        """For a client that talks to who meets one of the expectations, wherever that is."""
        return self._known(client_context(self.directory / AUTHORITY, self._ours(expected)))

    def _ours(self, expected: tuple[Expectation, ...]) -> tuple[Expectation, ...]:
        installation = self.peer.installation
        return tuple(one.of(installation) for one in expected)

    def _known(self, context: PeerContext) -> PeerContext:
        context.load_cert_chain(self.directory / IDENTITY)
        self._contexts.add(context)
        return context

    def _read(self) -> None:
        path = self.directory / IDENTITY
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(
                f"There is no identity in {self.directory}: this process has not joined."
            ) from error
        key = serialization.load_pem_private_key(content, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise InvalidInput(f"{path} has a key of the wrong kind.")
        self._key = key
        self._certificate = x509.load_pem_x509_certificate(content)
        self._der = self._certificate.public_bytes(serialization.Encoding.DER)
        self._authorities = x509.load_pem_x509_certificates(self.authority_file.read_bytes())


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def stored_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key in the file, which is made if it is not there: who asks again asks with the same key."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, private_pem(new_key()))
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput(f"{path} has a key of the wrong kind: remove it.")
    return key


def signing_request(key: ec.EllipticCurvePrivateKey) -> str:
    """A request (PKCS #10, PEM) that proves to have the key.  Names are control's to say."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "skep")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def write_private(path: Path, text: str) -> None:
    """Replace the file in one step; only its owner may read it, and it is on the disk before we go on."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _certificate(text: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(text.encode())
