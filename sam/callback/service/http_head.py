"""The head of a request: how large it may be, and what it says without a wish for an upgrade."""

from itertools import chain

import httptools

from sam.callback.reasons import RefusalReason
from sam.callback.service.http_answers import Refusal
from sam.callback.settings import Settings

Headers = list[tuple[bytes, bytes]]


class HeadLimits:
    """How large the URL and the headers of a request may be, and how many headers.

    Args:
        settings: The limits.

    Attributes:
        max_bytes: Of the URL and all headers; the URL alone may have half of it.
    """

    def __init__(self, settings: Settings) -> None:
        self.max_bytes: int = settings.callback_max_header_bytes
        self._max_headers = settings.callback_max_headers

    def check(self, url: bytes, headers: Headers, received: int) -> None:
        """Refuse what is too large.

        Args:
            url: As much of it as is here.
            headers: Those that are here.
            received: Bytes of the head until now.

        Raises:
            Refusal: 414 or 431.
        """
        if len(url) > self.max_bytes // 2:
            raise Refusal(414, RefusalReason.URL_TOO_LONG, "The URL is too long.")
        if received > self.max_bytes:
            raise Refusal(
                431,
                RefusalReason.HEADERS_TOO_LARGE,
                f"The headers are larger than {self.max_bytes} bytes.",
            )
        if len(headers) > self._max_headers:
            raise Refusal(
                431,
                RefusalReason.TOO_MANY_HEADERS,
                f"There are more than {self._max_headers} headers.",
            )


def size_of(url: bytes, headers: Headers) -> int:
    """Count the bytes of a head, without what HTTP puts between its parts."""
    return len(url) + sum(map(len, chain.from_iterable(headers)))


def without_upgrade(parser: httptools.HttpRequestParser, url: bytes, headers: Headers) -> bytes:
    """Write the head of a request again, as if it had not asked for another protocol."""
    method, version = parser.get_method(), parser.get_http_version().encode()
    lines = (b"%b: %b" % header for header in headers if header[0] != b"upgrade")
    return b"\r\n".join([b"%b %b HTTP/%b" % (method, url, version), *lines, b"", b""])
