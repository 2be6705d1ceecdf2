"""TLS of outgoing connections."""

import ssl
from pathlib import Path


def verifying(ca_file: Path | None = None) -> ssl.SSLContext:
    """Checks chain and name, by the CAs of the file, else the system's."""
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def opportunistic() -> ssl.SSLContext:
    """Encrypts without knowing to whom (RFC 7435): better than the plain text it may replace."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
