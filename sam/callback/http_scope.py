"""ASGI scope keys by which the server and the app exchange a request's state."""

from typing import Final

from sam.callback.metrics import RefusalReason

ON_AUTHENTICATED: Final = "sam.callback.on_authenticated"
"""To be called when the request has shown a valid key: its connection is then not evicted."""

BODY_END: Final = "sam.callback.body_end"
"""Here as soon as no more of the body comes: None, or a `Refusal` if it is broken."""


class Refusal(Exception):  # noqa: N818 - an answer, not an error
    """Answer to a request that is not valid HTTP, or exceeds a limit. Its text is for the sender.

    Attributes:
        status: HTTP's.
        reason: For the log and the metrics.
        body_start: The beginning of the request's body, as far as it was read.
    """

    def __init__(
        self, status: int, reason: RefusalReason, detail: str, body_start: bytes = b""
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.body_start = body_start
