"""TLS certificate of the service: its two files, loaded and validated."""

import contextlib
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

# OpenSSL's reasons; the last is what it says of a key of another kind (RSA, EC).
_OF_ANOTHER_KEY = {"KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"}


class CertificateError(ValueError):
    """Unusable file. The message gives the cause and the remedy."""


class CertificateExpiredError(Exception):
    """Certificate that is not valid now, so that no sender accepts it. The message says why."""


def require_certificate(certificate: Path) -> None:
    """Require a file to hold certificates.

    Raises:
        CertificateError: If it does not.
    """
    _require_readable(certificate)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(certificate)
    except ssl.SSLError as error:
        raise CertificateError(f"it holds no certificate in PEM format ({error})") from None


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return the context of a server that speaks TLS 1.2 or 1.3, and nothing older.

    Args:
        certificate: PEM: the service's certificate, then those of the authorities between.
        key: PEM: its private key, not encrypted.

    Raises:
        CertificateError: If the two cannot be used, or not with each other.
    """
    _require_readable(key)
    is_encrypted = False

    def password() -> str:  # without one, OpenSSL would ask at the terminal
        nonlocal is_encrypted
        is_encrypted = True
        return ""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # whatever the system's OpenSSL would take
    try:
        context.load_cert_chain(certificate, key, password)
    except (OSError, ValueError) as error:  # SSLError is an OSError
        if is_encrypted:
            raise CertificateError(
                "the key is encrypted, and the service cannot ask for its password; decrypt "
                "it (openssl pkey -in KEY -out NEW), and let only the service read the new file"
            ) from None
        if getattr(error, "reason", None) in _OF_ANOTHER_KEY:
            raise CertificateError(
                "it is not the key of the first certificate in CALLBACK_SSL_CERTFILE; there the "
                "service's own comes first, then those of the authorities"
            ) from None
        raise CertificateError(
            f"it holds no private key in PEM format, or one that OpenSSL refuses ({error})"
        ) from None
    return context


def expiry(context: ssl.SSLContext, certificate: Path) -> datetime:
    """Return when the certificate of a server's context expires, UTC.

    The standard library reads no certificate but a peer's, once it is trusted: so a client that
    trusts this one shakes hands with it, in memory.

    Raises:
        CertificateExpiredError: If it is not valid now.
    """
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    trusting.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(to_server, to_client, server_side=True)
    client = trusting.wrap_bio(to_client, to_server)
    try:
        for side in (client, server, client):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except ssl.SSLCertVerificationError as error:
        raise CertificateExpiredError(error.verify_message) from None
    expires = cast("str", (client.getpeercert() or {})["notAfter"])
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(expires), UTC)


def _require_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise CertificateError(f"it cannot be read ({error.strerror})") from None
