"""Certificates from authorities that speak ACME (RFC 8555), by the client library of certbot."""

from skep.providers.acme.issuer import AcmeIssuer

__all__ = ["AcmeIssuer"]
