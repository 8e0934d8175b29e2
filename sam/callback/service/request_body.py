"""Request body reader, with bounds on size, time and memory."""

import asyncio
from typing import Final

from fastapi import Request

from sam.callback import http_scope
from sam.callback.http_scope import Refusal
from sam.callback.metrics import RefusalReason
from sam.callback.service.body_budget import UNCOUNTED_BYTES, BodyShare, NoRoomError
from sam.callback.settings import Settings

HEAD_BYTES: Final = 2**16
"""So much is read of a body that is too large, as it may say whose it is."""


async def read_body(request: Request, share: BodyShare, settings: Settings) -> bytes:
    """Read the whole body of a request.

    Args:
        request: The request, its body not yet read.
        share: What it may take of the memory for all bodies. Without room nothing more is read:
            for the time that a body may take, and this is none of the sender's.
        settings: The limits.

    Raises:
        Refusal: If it is too large, too slow or no valid HTTP, or no room was found.
        starlette.requests.ClientDisconnect: If the sender hung up.
    """
    chunks: list[bytes] = []
    try:
        await _collect(request, share, settings, chunks)
    except Refusal as refusal:
        refusal.head = b"".join(chunks)[:HEAD_BYTES]
        raise
    return b"".join(chunks)


async def _collect(
    request: Request, share: BodyShare, settings: Settings, chunks: list[bytes]
) -> None:
    max_bytes: int = settings.callback_max_body_bytes
    timeout = settings.callback_body_timeout
    is_here = http_scope.BODY in request.scope  # all of it: no clock need run
    is_too_large = not is_here and _length(request) > max_bytes
    size = 0
    try:
        async with asyncio.timeout(None if is_here else timeout) as clock:
            async for chunk in request.stream():
                chunks.append(chunk)
                size += len(chunk)
                if size > (min(HEAD_BYTES, max_bytes) if is_too_large else max_bytes):
                    is_too_large = True
                    break
                if size > UNCOUNTED_BYTES and not share.grow(size):
                    await _wait_for_room(share, size, clock, timeout)
    except NoRoomError:
        detail = "Too many large bodies at once. Send it again."
        raise Refusal(503, RefusalReason.OVERLOADED, detail) from None
    except TimeoutError:
        if not is_too_large:
            detail = f"The body took more than {timeout:g} seconds."
            raise Refusal(408, RefusalReason.BODY_TOO_SLOW, detail) from None
    if refusal := request.scope.get(http_scope.BODY):
        raise refusal
    if is_too_large:
        detail = f"The body is larger than {max_bytes} bytes."
        raise Refusal(413, RefusalReason.BODY_TOO_LARGE, detail)


async def _wait_for_room(
    share: BodyShare, size: int, clock: asyncio.Timeout, timeout: float
) -> None:
    deadline, began = clock.when(), asyncio.get_running_loop().time()
    clock.reschedule(None)
    await share.wait_for_room(size, timeout)
    if deadline is not None:
        clock.reschedule(deadline + asyncio.get_running_loop().time() - began)


def _length(request: Request) -> int:
    """Return what Content-Length says; 0 if there is none."""
    # HTTP allows zeros before it, without limit; Python does not.
    length = request.headers.get("content-length", "").lstrip("0")
    return int(length) if length.isdecimal() else 0
