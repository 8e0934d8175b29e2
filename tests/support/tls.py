"""A certificate for 127.0.0.1, made for one test."""

import ssl
import subprocess
from pathlib import Path


class Certificate:
    """A key and a certificate that it signs itself.

    Args:
        directory: Where their files are made.
    """

    def __init__(self, directory: Path) -> None:
        self.certfile = directory / "tls.crt"
        self.keyfile = directory / "tls.key"
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "1"),
                *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"),
                *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
                *("-keyout", str(self.keyfile), "-out", str(self.certfile)),
            ],
            check=True,
            capture_output=True,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The service's variables for it."""
        return {
            "CALLBACK_SSL_CERTFILE": str(self.certfile),
            "CALLBACK_SSL_KEYFILE": str(self.keyfile),
        }

    def client_context(self) -> ssl.SSLContext:
        """A client's context that trusts it."""
        return ssl.create_default_context(cafile=str(self.certfile))
