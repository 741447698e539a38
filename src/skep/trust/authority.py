"""The authority of an installation: it alone decides who is one of its processes.

Keys are EC P-256.  Certificates are short-lived, so that one which leaked dies soon by itself; whoever has
one renews it after half of its life.  Of a request only the key counts: names and role are what control says.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from skep.model.errors import InvalidInput, Unauthenticated
from skep.model.ids import Seconds
from skep.trust.peers import Peer, Role, peer_of, serial_of

LIFETIME = Seconds(30 * 86_400.0)
AUTHORITY_LIFETIME = Seconds(10 * 365 * 86_400.0)
SLACK = Seconds(300.0)
"""A certificate is valid from this long before it is made: clocks differ."""

Address = IPv4Address | IPv6Address


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate as PEM, and what control keeps of it.  Times are seconds since 1970."""

    certificate: str
    peer: Peer
    issued: float
    expires: float


class Authority:
    """A certificate that signs others, with its key."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self._certificate = certificate
        self._key = key
        self.installation = installation_of(certificate)

    @classmethod
    def make(cls, installation: str, now: float) -> "Authority":
        """A new one.  `installation` is its id."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = _subject(f"skep {installation}")
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(now - SLACK))
            .not_valid_after(_moment(now + AUTHORITY_LIFETIME))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_others=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(f"skep://{installation}")]),
                critical=False,
            )
        )
        return cls(builder.sign(key, hashes.SHA256()), key)

    @classmethod
    def load(cls, certificate: str, key: str) -> "Authority":
        """From PEM.

        Raises:
            InvalidInput: they do not belong together, or the certificate may not sign.
        """
        found = _certificate(certificate)
        private = _private_key(key)
        if found.public_key() != private.public_key():
            raise InvalidInput("The key of the authority is not the one of its certificate.")
        return cls(found, private)

    @property
    def certificate(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def key(self) -> str:
        """As PEM, in clear: seal it before it goes anywhere."""
        return private_pem(self._key)

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.certificate)

    def issue(
        self,
        request: str,
        *,
        role: Role,
        name: str,
        now: float,
        addresses: Sequence[Address] = (),
        dns: Sequence[str] = (),
        lifetime: Seconds = LIFETIME,
    ) -> Issued:
        """A certificate for the key of the request, for TLS in both directions.

        Raises:
            InvalidInput: the request is none, or asks for another kind of key.
        """
        public = request_key(request)
        peer = Peer(installation=self.installation, role=role, name=name)
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(peer.uri)]
        names += [x509.DNSName(one) for one in dict.fromkeys([name, *dns])]
        names += [x509.IPAddress(one) for one in dict.fromkeys(addresses)]
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        ends = min(_moment(now + lifetime), self._certificate.not_valid_after_utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_subject(name))
            .issuer_name(self._certificate.subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(_moment(now - SLACK))
            .not_valid_after(ends)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_others=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        return Issued(
            certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(),
            peer=msgspec.structs.replace(peer, serial=serial_of(certificate)),
            issued=now,
            expires=ends.timestamp(),
        )

    def recognise(self, certificate: str, now: float) -> Peer:
        """Whom a certificate of ours names; raises what `verify` does."""
        return self.verify(self.certificate, certificate, now)

    @staticmethod
    def verify(authority: str, certificate: str, now: float) -> Peer:
        """Whom a certificate names that the authority has signed; both are PEM.

        Raises:
            Unauthenticated: it is of another authority, or its time is over.
        """
        found = _certificate(certificate)
        try:
            found.verify_directly_issued_by(_certificate(authority))
        except (InvalidSignature, ValueError, TypeError) as error:
            raise Unauthenticated("The certificate is of another authority.") from error
        if not found.not_valid_before_utc.timestamp() <= now < found.not_valid_after_utc.timestamp():
            raise Unauthenticated(
                f"The certificate is valid from {found.not_valid_before_utc:%F %T} to "
                f"{found.not_valid_after_utc:%F %T} UTC, and now it is {_moment(now):%F %T}."
            )
        return peer_of(found)


def installation_of(certificate: x509.Certificate) -> str:
    """The id in an authority that skep has made; for an operator's own one the begin of its fingerprint.

    Raises:
        InvalidInput: the certificate may not sign others.
    """
    if not _may_sign(certificate):
        raise InvalidInput("The certificate is of no authority: it must have CA:TRUE among its constraints.")
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = x509.SubjectAlternativeName([])
    found = names.get_values_for_type(x509.UniformResourceIdentifier)
    if found and found[0].startswith("skep://"):
        return found[0].removeprefix("skep://")
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()[:20]


def _may_sign(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def fingerprint(certificate: str) -> str:
    """`sha256:` and the SHA-256 of the certificate's DER: what `skep agent join --ca` pins."""
    der = _certificate(certificate).public_bytes(serialization.Encoding.DER)
    return f"sha256:{hashlib.sha256(der).hexdigest()}"


def request_key(request: str) -> ec.EllipticCurvePublicKey:
    """The key of a signing request, whose owner has proved to have it.

    Raises:
        InvalidInput: it is no request, or its key is not EC P-256.
    """
    try:
        found = x509.load_pem_x509_csr(request.encode())
        key, proved = found.public_key(), found.is_signature_valid
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"This is no certificate signing request: {error}") from error
    if not proved or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise InvalidInput("A certificate signing request must be signed by its own key, of kind EC P-256.")
    return key


def key_hash(request: str) -> str:
    """SHA-256 of the request's public key: the same for every request of one key."""
    return hashlib.sha256(public_bytes(request_key(request))).hexdigest()


def public_bytes(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def half_life(issued: float, expires: float) -> float:
    """The moment from which a certificate is renewed."""
    return issued + (expires - issued) / 2


def _certificate(text: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError as error:
        raise InvalidInput(f"This is no certificate: {error}") from error


def _private_key(text: str) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise InvalidInput(f"This is no private key without a password: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInput("The key of an authority must be an elliptic one (EC P-256).")
    return key


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC)


def _usage(*, signs_others: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_others,
        crl_sign=signs_others,
        encipher_only=False,
        decipher_only=False,
    )
