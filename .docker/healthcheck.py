"""The image's HEALTHCHECK: exit status 0 if /health answers 200.

It reads the container's environment and needs the standard library alone: it is started every
few seconds, and reading all settings would take longer than the question.
"""

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection

TIMEOUT_SECONDS = 2
LOOPBACK_OF = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - it binds nothing


def main() -> int:
    """Ask once, as the service was told to listen."""
    host = os.environ.get("CALLBACK_HOST", "").split(",")[0].strip()
    host = LOOPBACK_OF.get(host, host)
    port = int(os.environ.get("CALLBACK_PORT") or 8000)
    connection = HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    if os.environ.get("CALLBACK_SSL_CERTFILE"):
        # The certificate is for the service's public name, and this is the service itself.
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection = HTTPSConnection(host, port, timeout=TIMEOUT_SECONDS, context=context)
    try:
        connection.request("GET", "/health")
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        print(f"no answer from {host}:{port}: {error}")
        return 1
    print(f"/health: {status}")
    return 0 if status == 200 else 1  # noqa: PLR2004 - HTTP's own number


if __name__ == "__main__":
    sys.exit(main())
