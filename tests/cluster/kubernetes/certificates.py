"""The authority of a test cluster, whom it certifies, and their kubeconfigs."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_VALID = timedelta(days=365)
_CLOCKS_DIFFER = timedelta(hours=1)


class Authority:
    """In a folder, made there when it is first asked for.  What was certified before is not made anew."""

    def __init__(self, folder: Path, api: str) -> None:
        self.folder = folder
        self._api = api
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if not self.certificate.exists():
            key = _new_key(folder / "authority.key")
            name = _name("skep test cluster", ())
            self.certificate.write_bytes(_pem(_signed(name, name, key, key, _authority_extensions())))
        if not (folder / "accounts.key").exists():
            key = _new_key(folder / "accounts.key")
            (folder / "accounts.pub").write_bytes(_public(key))

    @property
    def certificate(self) -> Path:
        return self.folder / "authority.crt"

    @property
    def key(self) -> Path:
        return self.folder / "authority.key"

    def certify(
        self, file: str, name: str, groups: Sequence[str] = (), addresses: Sequence[str | IPv4Address] = ()
    ) -> tuple[Path, Path]:
        """Files with certificate and key of a user called `name`, or of a server at these addresses."""
        certificate, key_file = self.folder / f"{file}.crt", self.folder / f"{file}.key"
        if not certificate.exists():
            key = _new_key(key_file)
            issuer = x509.load_pem_x509_certificate(self.certificate.read_bytes()).subject
            signer = _load(self.key)
            extensions = _leaf_extensions(addresses)
            certificate.write_bytes(_pem(_signed(_name(name, groups), issuer, key, signer, extensions)))
        return certificate, key_file

    def kubeconfig(self, file: str, name: str, groups: Sequence[str] = ()) -> bytes:
        """Of that user; JSON is YAML, too."""
        certificate, key = self.certify(file, name, groups)
        cluster = {"server": self._api, "certificate-authority-data": _base64(self.certificate)}
        user = {"client-certificate-data": _base64(certificate), "client-key-data": _base64(key)}
        return msgspec.json.format(
            msgspec.json.encode(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "skep-test", "cluster": cluster}],
                    "users": [{"name": name, "user": user}],
                    "contexts": [{"name": "skep-test", "context": {"cluster": "skep-test", "user": name}}],
                    "current-context": "skep-test",
                }
            )
        )


def _new_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(ec.SECP256R1())
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            # What client-go and the API server read for keys of elliptic curves.
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    return key


def _load(path: Path) -> ec.EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _name(common: str, groups: Sequence[str]) -> x509.Name:
    organisations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organisations, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCKS_DIFFER)
        .not_valid_after(now + _VALID)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(signer, hashes.SHA256())


def _authority_extensions() -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.BasicConstraints(ca=True, path_length=None), True), (_usage(signs=True), True)]


def _leaf_extensions(addresses: Sequence[str | IPv4Address]) -> list[tuple[x509.ExtensionType, bool]]:
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs=False), True),
        (purposes, False),
    ]
    if addresses:
        names = [x509.DNSName(a) if isinstance(a, str) else x509.IPAddress(a) for a in addresses]
        extensions.append((x509.SubjectAlternativeName(names), False))
    return extensions


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _public(key: ec.EllipticCurvePrivateKey) -> bytes:
    kind = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, kind)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
