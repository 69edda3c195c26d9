"""Find the file with the certificate authorities that all clients of S3 trust; they trust no others."""

import os
import ssl
from collections.abc import Iterator
from pathlib import Path

from worker.config.settings import SettingsError

# The bundles of common systems, in the order in which obstore's TLS library looks for them.
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


def find_ca_bundle(of_boto3: str | None) -> str | None:
    """Return the file of boto3, of ``SSL_CERT_FILE``, or of the system, in this order, or None if none exists.

    Args:
        of_boto3: the file in ``AWS_CA_BUNDLE``, or in ``ca_bundle`` of the profile.

    Raises:
        SettingsError: the configured file cannot be used.
    """
    for path, source in _configured_bundles(of_boto3):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=path)
        except OSError as error:
            why = (error.strerror if not isinstance(error, ssl.SSLError) else None) or "it holds no certificates"
            raise SettingsError((f"{source}: {path}: {why}; use a PEM file with the authorities",)) from None
        return path
    return next((path for path in _SYSTEM_BUNDLES if Path(path).is_file()), None)


def _configured_bundles(of_boto3: str | None) -> Iterator[tuple[str, str]]:
    if of_boto3:
        yield of_boto3, "AWS_CA_BUNDLE" if os.environ.get("AWS_CA_BUNDLE") else "ca_bundle in ~/.aws/config"
    if path := os.environ.get("SSL_CERT_FILE"):
        yield path, "SSL_CERT_FILE"
