"""Request body reader, with bounds on size, time and memory."""

import asyncio
from http import HTTPStatus
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Scope

from sam.callback import http_scope
from sam.callback.metrics import RefusalReason
from sam.callback.service.body_budget import UNCOUNTED_BYTES, BodyShare, NoRoomError
from sam.callback.settings import Settings

HEAD_BYTES: Final = 2**16
"""So much is read of a body that is too large, as it may say whose it is."""


class BodyNotReadError(Exception):
    """A body is too large, too slow, broken or one too many. The message is for the sender.

    Attributes:
        http_status: The answer's.
        reason: For the log and the metrics.
        head: The beginning of the body, as far as it was read.
    """

    def __init__(
        self, http_status: HTTPStatus, reason: RefusalReason, detail: str, head: bytes
    ) -> None:
        super().__init__(detail)
        self.http_status = http_status
        self.reason = reason
        self.head = head


class BodyReader:
    """Reads bodies.

    Args:
        settings: The limits.
    """

    def __init__(self, settings: Settings) -> None:
        self._max_bytes: int = settings.callback_max_body_bytes
        self._timeout: float = settings.callback_body_timeout

    async def read(self, request: Request, share: BodyShare) -> bytes:
        """Read the whole body.

        Args:
            request: The request, its body not yet read.
            share: What it may take of the memory for all bodies. Without room nothing more is read:
                for the time that a body may take, and this is none of the sender's.

        Raises:
            BodyNotReadError: If it is too large, too slow or no valid HTTP, or no room was found.
            starlette.requests.ClientDisconnect: If the sender hung up.
        """
        is_here = http_scope.BODY in request.scope  # all of it: no clock need run
        is_too_large = not is_here and _length(request.scope) > self._max_bytes
        max_bytes = min(HEAD_BYTES, self._max_bytes) if is_too_large else self._max_bytes
        chunks: list[bytes] = []
        try:
            if is_here:
                is_whole = await self._collect(request, share, chunks, max_bytes, None)
            else:
                async with asyncio.timeout(self._timeout) as clock:
                    is_whole = await self._collect(request, share, chunks, max_bytes, clock)
        except TimeoutError:
            if not is_too_large:
                raise BodyNotReadError(
                    HTTPStatus.REQUEST_TIMEOUT,
                    RefusalReason.BODY_TOO_SLOW,
                    f"The body took more than {self._timeout:g} seconds.",
                    _head(chunks),
                ) from None
            is_whole = False
        if refusal := request.scope.get(http_scope.BODY):
            raise BodyNotReadError(
                HTTPStatus(refusal.status), refusal.reason, refusal.detail, _head(chunks)
            )
        if not is_whole:
            raise BodyNotReadError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                RefusalReason.BODY_TOO_LARGE,
                f"The body is larger than {self._max_bytes} bytes.",
                _head(chunks),
            )
        return b"".join(chunks)

    async def _collect(
        self,
        request: Request,
        share: BodyShare,
        chunks: list[bytes],
        max_bytes: int,
        clock: asyncio.Timeout | None,
    ) -> bool:
        """Read until the end, or until there is more than so much; say whether it is the end."""
        size = 0
        is_complete = False
        while not is_complete:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk: bytes = message.get("body", b"")
            chunks.append(chunk)
            size += len(chunk)
            if size > max_bytes:
                return False
            if size > UNCOUNTED_BYTES and not share.grow(size):
                await self._wait_for_room(share, size, chunks, clock)
            is_complete = not message.get("more_body", False)
        return True

    async def _wait_for_room(
        self, share: BodyShare, size: int, chunks: list[bytes], clock: asyncio.Timeout | None
    ) -> None:
        loop = asyncio.get_running_loop()
        deadline = clock.when() if clock else None
        left = deadline - loop.time() if deadline else 0
        if clock:
            clock.reschedule(None)
        try:
            async with asyncio.timeout(self._timeout):
                await share.wait_for_room(size)
        except (TimeoutError, NoRoomError):
            raise BodyNotReadError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                RefusalReason.OVERLOADED,
                "Too many large bodies at once. Send it again.",
                _head(chunks),
            ) from None
        if clock:
            clock.reschedule(loop.time() + left)


def _length(scope: Scope) -> int:
    """Return what Content-Length says; 0 if there is none."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            # HTTP allows zeros before it, without limit; Python does not.
            length = value.lstrip(b"0")
            return int(length) if length.isdigit() else 0
    return 0


def _head(chunks: list[bytes]) -> bytes:
    return b"".join(chunks)[:HEAD_BYTES]
